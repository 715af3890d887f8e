//! `hostmark refs ima`: reference values for the files of a root file system, read where it was built or unpacked.
//!
//! Establishes the digests that IMA will list for what such a host executes, maps or loads, without ever booting it. Does not
//! establish that the tree is good: whoever signs the bundle says that. Symbolic links are not followed, so nothing outside the
//! tree is read; the tree's own names are what a measured path says on a host that booted it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::policy::capture::capture_files;

use super::answer::Answer;
use super::bundle_file::Place;
use super::failure::Failure;
use super::show::facts;
use super::{Outcome, input};

/// Most files that one bundle names: a large distribution's root has a tenth of that.
const FILES_MAX: usize = 1_000_000;
/// Deepest directory below the root: deeper than any package goes, and no loop without symbolic links comes near.
const DEPTH_MAX: usize = 64;
/// Read at a time.
const CHUNK: usize = 1 << 20;
/// How every ELF file begins (System V ABI, chapter 4): libraries are mapped without an executable bit.
const ELF: &[u8] = b"\x7fELF";
/// What the kernel reads by itself, whatever its mode.
const LOADED: [&str; 4] = ["usr/lib/modules/", "usr/lib/firmware/", "lib/modules/", "lib/firmware/"];
/// The policy that systemd loads: the references name it so that a host can prove which one it runs.
const POLICY: &str = "etc/ima/ima-policy";

/// Names every file below `root` that a kernel with the shipped IMA policy can measure, and those at or below `also`.
pub(super) fn reference_files(root: &Path, also: &[PathBuf], place: &Place<'_>) -> Outcome {
    let also = also.iter().map(|path| relative(path)).collect::<Result<Vec<_>, _>>()?;
    let mut files = Vec::new();
    walk(root, &also, &mut files)?;
    if files.is_empty() {
        return Err(Failure::unusable(format!(
            "{}: holds no program, library or kernel module: name the directory that is `/` on the host",
            root.display()
        )));
    }
    if let Some(path) = also.iter().find(|path| !files.iter().any(|(name, _)| below(name, path))) {
        return Err(Failure::unusable(format!("--also {path}: no such file below {}", root.display())));
    }
    files.sort();
    let version = place.version();
    let text = capture_files(&files, version).map_err(|error| Failure::unusable(error.to_string()))?;
    let text = place.with_model(text)?;
    let count = files.len();
    if text.len() > input::REFERENCES_MAX {
        return Err(Failure::unusable(format!(
            "{count} files make a bundle of {} bytes, and at most {} are published: leave out what no host needs",
            text.len(),
            input::REFERENCES_MAX
        )));
    }
    let answer = serde_json::json!({ "version": version, "files": count, "bundle": text });
    let Some(path) = place.write(&text)? else { return Ok(Answer::new(&answer, text)?.product()) };
    let message = facts([
        ("written", path.display().to_string()),
        ("version", version.to_string()),
        ("files", count.to_string()),
        ("next", format!("review it, then: hostmark refs sign {} --key KEY", path.display())),
    ]);
    Answer::new(&serde_json::json!({ "version": version, "files": count, "written": path }), message)
}

/// `--also` as a name below the root. `..` could name what lies outside.
fn relative(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(|text| text.trim_matches('/'));
    match text {
        Some(text) if !text.is_empty() && !text.split('/').any(|part| matches!(part, "" | "." | "..")) => {
            Ok(text.to_owned())
        }
        _ => Err(Failure::unusable(format!("--also {}: name a path as it is on the host", path.display()))),
    }
}

/// Whether `name` (absolute on the host) is `path` or lies below it.
fn below(name: &str, path: &str) -> bool {
    name.strip_prefix('/')
        .and_then(|name| name.strip_prefix(path))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn walk(root: &Path, also: &[String], files: &mut Vec<(String, Digest)>) -> Result<(), Failure> {
    let mut waiting = vec![(root.to_owned(), String::new(), 0usize)];
    while let Some((directory, name, depth)) = waiting.pop() {
        if depth > DEPTH_MAX {
            return Err(Failure::unusable(format!("{}: deeper than {DEPTH_MAX} directories", directory.display())));
        }
        for entry in fs::read_dir(&directory).map_err(|error| Failure::io(&directory, &error))? {
            let entry = entry.map_err(|error| Failure::io(&directory, &error))?;
            let path = entry.path();
            let failed = |error: io::Error| Failure::io(&path, &error);
            let metadata = entry.metadata().map_err(failed)?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            if metadata.is_dir() {
                waiting.push((path, name, depth.saturating_add(1)));
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                let wanted = executable || named(&name, also);
                if let Some(digest) = measure(&path, wanted).map_err(failed)? {
                    files.push((name, digest));
                }
            }
            if files.len() > FILES_MAX {
                return Err(Failure::unusable(format!("{}: more than {FILES_MAX} files to name", root.display())));
            }
        }
    }
    Ok(())
}

/// Whether a file counts whatever it holds.
fn named(name: &str, also: &[String]) -> bool {
    let inside = name.strip_prefix('/').unwrap_or(name);
    inside == POLICY
        || LOADED.iter().any(|prefix| inside.starts_with(prefix))
        || also.iter().any(|path| below(name, path))
}

/// The digest of a file that is wanted or is ELF.
fn measure(path: &Path, wanted: bool) -> io::Result<Option<Digest>> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0u8; CHUNK];
    let mut hash = Context::new(&SHA256);
    let mut first = true;
    loop {
        let read = file.read(&mut buffer)?;
        let part = buffer.get(..read).unwrap_or_default();
        // One read gives a regular file's first bytes whole, unless it is shorter than they are.
        if first && !wanted && !part.starts_with(ELF) {
            return Ok(None);
        }
        first = false;
        if part.is_empty() {
            return Ok(Digest::new(HashAlg::Sha256, hash.finish().as_ref()));
        }
        hash.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &[u8], u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content, mode) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        root
    }

    fn names(root: &Path, also: &[&str]) -> Vec<String> {
        let mut files = Vec::new();
        walk(root, &also.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>(), &mut files).unwrap();
        files.sort();
        files.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn programs_libraries_modules_and_the_policy_are_named_and_nothing_else() {
        let root = tree(&[
            ("usr/bin/tool", b"#!/bin/sh\n", 0o755),
            ("usr/lib/libx.so.1", b"\x7fELF rest", 0o644),
            ("usr/lib/modules/6.1/x.ko", b"module", 0o644),
            ("etc/ima/ima-policy", b"measure\n", 0o644),
            ("etc/docker/daemon.json", b"{}", 0o644),
            ("etc/dockerless", b"{}", 0o644),
            ("usr/share/doc/text", b"text", 0o644),
            ("empty", b"", 0o644),
        ]);
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("usr/bin/link")).unwrap();
        let always = ["/etc/ima/ima-policy", "/usr/bin/tool", "/usr/lib/libx.so.1", "/usr/lib/modules/6.1/x.ko"];
        assert_eq!(names(root.path(), &[]), always);
        let with = names(root.path(), &["etc/docker"]);
        assert_eq!(with.len(), 5, "{with:?}");
        assert!(with.contains(&"/etc/docker/daemon.json".to_owned()), "{with:?}");
    }

    #[test]
    fn a_digest_is_that_of_the_whole_file() {
        let long = [&b"\x7fELF"[..], &vec![7u8; CHUNK * 2 + 5]].concat();
        let root = tree(&[("lib.so", &long, 0o644)]);
        let mut files = Vec::new();
        walk(root.path(), &[], &mut files).unwrap();
        assert_eq!(files, [("/lib.so".to_owned(), HashAlg::Sha256.hash(&[&long]).unwrap())]);
    }

    #[test]
    fn a_name_outside_the_tree_is_refused() {
        for path in ["../etc", "a/../b", "", "/", "a//b"] {
            assert!(relative(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(relative(Path::new("/etc/docker/")).unwrap(), "etc/docker");
    }
}
