//! What happened between two measurements and left the content as it was.
//!
//! stat(2): a file that was written, replaced or renamed has another inode or change time, whatever its content is now, and no program can set
//! a change time; a directory has too when an entry comes or goes. Establishes that something was there that nobody read. A change of owner or
//! mode that was undone looks the same, and a change that the file system's clock does not resolve (some milliseconds) is not seen.

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::manifest::EngineManifest;

use super::files::Identity;

/// What was seen of a path beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// A regular file that was hashed.
    File(Identity),
    /// A directory whose entries were measured, with their names.
    Directory(Identity, Vec<String>),
}

/// A measured content that nobody read: path and reason.
pub type Unseen = (String, &'static str);

/// A measurement as far as the next one is compared with it.
#[derive(Debug, Clone)]
pub struct Before {
    /// What was stated.
    pub manifest: EngineManifest,
    /// What was seen beside it.
    pub stamps: BTreeMap<String, Stamp>,
}

/// What passed unread between two measurements, and what could not be read in the second and was not said of the first.
#[must_use]
pub fn unseen(before: Option<&Before>, now: &Before) -> Vec<Unseen> {
    let mut out = BTreeSet::new();
    let known: BTreeSet<_> =
        before.iter().flat_map(|before| before.manifest.engines.values()).flat_map(|one| &one.unreadable).collect();
    for one in now.manifest.engines.values().flat_map(|engine| &engine.unreadable) {
        // A daemon that does not answer is no content.
        if !known.contains(one) && one.what.starts_with('/') {
            out.insert((one.what.clone(), "it could not be read"));
        }
    }
    let Some(before) = before else { return out.into_iter().collect() };
    let state = |manifest: &EngineManifest, path: &str| {
        manifest
            .engines
            .values()
            .find_map(|engine| engine.files().find(|(name, _)| *name == path).map(|(_, state)| state.clone()))
    };
    // Only what has another stamp is looked up: in a quiet round nothing is.
    let differ = now
        .stamps
        .iter()
        .filter_map(|(path, stamp)| Some((path, stamp, before.stamps.get(path)?)).filter(|(_, now, then)| now != then));
    let mut changed_below = BTreeSet::new();
    let mut quiet_directories = Vec::new();
    for (path, stamp, then) in differ {
        match (then, stamp) {
            (Stamp::File(_), Stamp::File(_)) => {
                if state(&before.manifest, path) == state(&now.manifest, path) {
                    out.insert((
                        path.clone(),
                        "it was changed and restored, or replaced by its equal, before it was read",
                    ));
                }
                changed_below.insert(directory(path).to_owned());
            }
            (Stamp::Directory(_, then), Stamp::Directory(_, now)) if then == now => quiet_directories.push(path),
            _ => {}
        }
    }
    for path in quiet_directories {
        // The entry that was replaced says more than its directory.
        if !changed_below.contains(path.as_str()) {
            out.insert((path.clone(), "an entry came and went before it was read"));
        }
    }
    out.into_iter().collect()
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::{DigestCache, EnginesConfig, measure};
    use super::*;

    fn look(root: &Path) -> Before {
        // Longer than the clock of file systems needs to tick.
        std::thread::sleep(Duration::from_millis(20));
        let measured = measure(&EnginesConfig::of_root(root), &mut DigestCache::default());
        Before { manifest: measured.manifest, stamps: measured.stamps }
    }

    #[test]
    fn e5_what_was_changed_and_restored_leaves_a_trace() {
        type Change = fn(&Path);
        let rows: [(&str, Change, &[&str]); 10] = [
            ("honest: nothing", |_| (), &[]),
            ("honest: reading", |root| drop(fs::read(root.join("etc/docker/daemon.json")).unwrap()), &[]),
            (
                "honest: an edit is in the manifest",
                |root| fs::write(root.join("etc/docker/daemon.json"), "{ }").unwrap(),
                &[],
            ),
            ("honest: a new file is too", |root| fs::write(root.join("etc/docker/more.json"), "{}").unwrap(), &[]),
            ("honest: what is no engine's", |root| fs::write(root.join("usr/bin/other"), "x").unwrap(), &[]),
            (
                "honest: an editor's file beside it",
                |root| {
                    fs::write(root.join("etc/docker/daemon.json.new"), "{ }").unwrap();
                    fs::rename(root.join("etc/docker/daemon.json.new"), root.join("etc/docker/daemon.json")).unwrap();
                },
                &[],
            ),
            (
                "edited and restored",
                |root| {
                    fs::write(root.join("etc/docker/daemon.json"), "{\"icc\": true}").unwrap();
                    fs::write(root.join("etc/docker/daemon.json"), "{}").unwrap();
                },
                &["/etc/docker/daemon.json"],
            ),
            (
                "moved away and back",
                |root| {
                    fs::rename(root.join("etc/docker/daemon.json"), root.join("etc/docker/old")).unwrap();
                    fs::write(root.join("etc/docker/daemon.json"), "{\"icc\": true}").unwrap();
                    fs::rename(root.join("etc/docker/old"), root.join("etc/docker/daemon.json")).unwrap();
                },
                &["/etc/docker/daemon.json"],
            ),
            (
                "a drop-in that came and went",
                |root| {
                    let path = root.join("etc/systemd/system/docker.service.d/x.conf");
                    fs::write(&path, "[Service]\n").unwrap();
                    fs::remove_file(path).unwrap();
                },
                &["/etc/systemd/system/docker.service.d"],
            ),
            (
                "too large to read",
                |root| fs::File::create(root.join("etc/docker/daemon.json")).unwrap().set_len(2 << 20).unwrap(),
                &["/etc/docker/daemon.json"],
            ),
        ];
        for (name, change, expect) in rows {
            let dir = tempfile::tempdir().unwrap();
            for directory in ["usr/bin", "etc/docker", "etc/systemd/system/docker.service.d"] {
                fs::create_dir_all(dir.path().join(directory)).unwrap();
            }
            fs::write(dir.path().join("usr/bin/dockerd"), "dockerd").unwrap();
            fs::write(dir.path().join("etc/docker/daemon.json"), "{}").unwrap();
            fs::write(dir.path().join("etc/systemd/system/docker.service.d/a.conf"), "[Service]\n").unwrap();
            let first = look(dir.path());
            assert_eq!(unseen(None, &first), [], "{name}");
            change(dir.path());
            let second = look(dir.path());
            let found: Vec<String> = unseen(Some(&first), &second).into_iter().map(|(path, _)| path).collect();
            assert_eq!(found, expect, "{name}");
            assert_eq!(unseen(Some(&second), &look(dir.path())), [], "{name}: told once");
        }
    }
}
