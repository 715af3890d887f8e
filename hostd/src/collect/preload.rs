//! Code beside hostd's own in its process: a library that is slipped in speaks in its name.
//!
//! ld.so(8): `LD_PRELOAD`, `LD_AUDIT`, `LD_LIBRARY_PATH`, `/etc/ld.so.preload`; proc(5): `/proc/self/maps`. A library that is there already can
//! hide from all of this; what it cannot hide from is IMA, which measured its mapping. So this is reported, like everything that hostd says.

use std::path::Path;

use crate::engines::unit_environment;
use crate::state;

/// Variables that make the dynamic linker load other code. A search path that led to none is none: what is mapped tells.
const VARIABLES: [&str; 2] = ["LD_AUDIT", "LD_PRELOAD"];
/// The same in a unit, which has no business with a search path either.
const UNIT_VARIABLES: [&str; 3] = ["LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD"];
/// Where the system's libraries are.
const LIBRARIES: [&str; 4] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"];
/// hostd's unit.
const UNIT: &str = "hostmark-hostd.service";
/// More than an environment or a list of mappings of hostd has.
const FILE_MAX: u64 = 4 << 20;

/// What was slipped in, or would be at the next start, and what cannot be read and so may hide it; None when nothing was.
pub(super) fn preloaded(root: &Path) -> Option<String> {
    let mut found = Vec::new();
    let mut text = |path: &Path, told: &str, always_there: bool| {
        let read = state::read(path, FILE_MAX).ok();
        if read.is_none() || (always_there && matches!(read, Some(None))) {
            found.push(format!("{told}: it cannot be read"));
        }
        String::from_utf8_lossy(&read.flatten().unwrap_or_default()).into_owned()
    };
    let environment = text(Path::new("/proc/self/environ"), "/proc/self/environ", true);
    let maps = text(Path::new("/proc/self/maps"), "/proc/self/maps", true);
    let preload = text(&root.join("etc/ld.so.preload"), "/etc/ld.so.preload", false);
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    found.extend(linker_variables(environment.split('\0'), &VARIABLES));
    found.extend(foreign(&maps, &own.to_string_lossy()));
    let preload: Vec<&str> =
        preload.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    if !preload.is_empty() {
        found.push(format!("/etc/ld.so.preload: {}", preload.join(" ")));
    }
    let (unit, unreadable) = unit_environment(root, UNIT);
    found
        .extend(linker_variables(unit.iter().map(String::as_str), &UNIT_VARIABLES).map(|one| format!("{UNIT}: {one}")));
    found.extend(unreadable.into_iter().map(|path| format!("{path}: it cannot be read")));
    found.sort();
    found.dedup();
    (!found.is_empty()).then(|| found.join("; "))
}

fn linker_variables<'e>(assignments: impl Iterator<Item = &'e str>, names: &[&str]) -> impl Iterator<Item = String> {
    assignments.filter_map(|assignment| {
        let (name, value) = assignment.split_once('=')?;
        (names.contains(&name) && !value.is_empty()).then(|| assignment.to_owned())
    })
}

/// Files that are mapped to be executed and are neither the program nor a library of the system.
fn foreign(maps: &str, own: &str) -> Vec<String> {
    let mapped = maps.lines().filter_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let rights = fields.nth(1)?;
        let path = fields.nth(3)?.trim_start();
        (rights.contains('x') && path.starts_with('/')).then_some(path)
    });
    let strange = mapped.filter(|path| *path != own && !LIBRARIES.iter().any(|directory| path.starts_with(directory)));
    strange.map(|path| format!("maps {path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e14_what_is_loaded_beside_hostd_is_named() {
        let maps = "55d0-55d1 r-xp 00000000 08:01 12 /usr/bin/hostd\n7f00-7f01 r-xp 00000000 08:01 13   /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 rw-p 00000000 08:01 14 /tmp/data\n7ffd-7ffe r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(foreign(maps, "/usr/bin/hostd"), Vec::<String>::new(), "the honest twin");
        let more = format!("{maps}7f04-7f05 r-xp 00000000 08:01 15 /tmp/x.so\n");
        assert_eq!(foreign(&more, "/usr/bin/hostd"), ["maps /tmp/x.so"]);
        assert_eq!(
            linker_variables(["PATH=/bin", "LD_PRELOAD="].into_iter(), &VARIABLES).count(),
            0,
            "the honest twin"
        );
        assert_eq!(
            linker_variables(["LD_PRELOAD=/tmp/x.so"].into_iter(), &VARIABLES).collect::<Vec<_>>(),
            ["LD_PRELOAD=/tmp/x.so"]
        );

        let dir = tempfile::tempdir().unwrap();
        assert_eq!(preloaded(dir.path()), None, "this test runs without any");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "etc/systemd/system/hostmark-hostd.service.d/x.conf",
            "[Service]\nEnvironment=\"LD_PRELOAD=/tmp/x.so\" A=b\n",
        );
        assert_eq!(preloaded(dir.path()).unwrap(), "hostmark-hostd.service: LD_PRELOAD=/tmp/x.so");
        put("etc/ld.so.preload", "# none\n/tmp/y.so\n");
        assert!(preloaded(dir.path()).unwrap().starts_with("/etc/ld.so.preload: /tmp/y.so; hostmark"));
        // What cannot be read may hold anything.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/ld.so.preload")).unwrap();
        assert_eq!(preloaded(dir.path()).unwrap(), "/etc/ld.so.preload: it cannot be read");
        let dir = tempfile::tempdir().unwrap();
        let drop_in = dir.path().join("etc/systemd/system/hostmark-hostd.service.d/x.conf");
        std::fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
        std::fs::File::create(&drop_in).unwrap().set_len(2 << 20).unwrap();
        let found = preloaded(dir.path()).unwrap();
        assert!(found.ends_with("x.conf: it cannot be read"), "{found}");
        // Nor is one hidden behind many others.
        std::fs::write(
            &drop_in,
            format!("[Service]\n{}Environment=LD_PRELOAD=/tmp/x.so\n", "Environment=A=b\n".repeat(5000)),
        )
        .unwrap();
        assert_eq!(preloaded(dir.path()).unwrap(), "hostmark-hostd.service: it cannot be read");
    }
}
