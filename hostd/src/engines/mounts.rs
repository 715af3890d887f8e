//! Mounts over measured files: a program below a bind mount is not the one that its file system has.
//!
//! proc(5), `/proc/PID/mountinfo`. Establishes which measured paths are mount points of the host's mount namespace (PID 1's: hostd's own unit
//! gives it another one), and whether hostd sees the same files as PID 1.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::config::EnginesConfig;

/// Largest mount table: a host with some thousand containers has some MB.
const TABLE_MAX: u64 = 16 << 20;
/// Mount points that are told.
const TOLD_MAX: usize = 256;

/// The mount points of the host, as paths of the measured root.
///
/// # Errors
/// The table that cannot be read: a mount over an engine's file would not show.
pub(super) fn points(config: &EnginesConfig) -> Result<BTreeSet<String>, &'static str> {
    const FIRST: &str = "/proc/1/mountinfo";
    const OWN: &str = "/proc/self/mountinfo";
    let read = |path: &str| crate::state::read(Path::new(path), TABLE_MAX).ok().flatten();
    let table = match config.root_is_default() {
        // hostd's own table is the host's only where both live in one namespace.
        true => read(FIRST).or_else(|| read(OWN).filter(|_| with_pid1() == Some(true))),
        false => read(OWN),
    };
    let table = table.ok_or(if config.root_is_default() { FIRST } else { OWN })?;
    let table = String::from_utf8_lossy(&table).into_owned();
    Ok(parse(&table).filter_map(|point| below(config, &point)).collect())
}

/// Whether hostd lives in PID 1's mount namespace; None when that cannot be told. A mount has its number in one namespace only, so that equal
/// tables are one.
fn with_pid1() -> Option<bool> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let table = |pid: &str| crate::state::read(Path::new(&format!("/proc/{pid}/mountinfo")), TABLE_MAX).ok().flatten();
    match (namespace("1"), namespace("self")) {
        (Some(first), Some(own)) => Some(first == own),
        _ => table("1").filter(|first| !first.is_empty() && Some(first) == table("self").as_ref()).map(|_| true),
    }
}

/// The measured paths among the mount points.
pub(super) fn over<'p>(points: &BTreeSet<String>, measured: impl Iterator<Item = &'p String>) -> BTreeSet<String> {
    measured.filter(|path| points.contains(*path)).take(TOLD_MAX).cloned().collect()
}

/// The measured paths at which PID 1 has another file than hostd, or none, or one that hostd cannot see, where hostd lives in another mount
/// namespace: with the reason.
pub(super) fn seen_otherwise<'p>(
    config: &EnginesConfig,
    measured: impl Iterator<Item = &'p String>,
) -> Vec<(String, &'static str)> {
    if !config.root_is_default() {
        return Vec::new();
    }
    match with_pid1() {
        Some(true) => return Vec::new(),
        Some(false) => {}
        None => {
            let why = "it cannot be read: whose files hostd sees is not known";
            return vec![("mounts:/proc/1/ns/mnt".to_owned(), why)];
        }
    }
    let differs = |path: &String| {
        otherwise(&Path::new("/proc/1/root").join(path.trim_start_matches('/')), Path::new(path))
            .map(|why| (path.clone(), why))
    };
    measured.filter_map(differs).take(TOLD_MAX).collect()
}

/// Why two paths are not the same file; None when they are, or when there is none.
fn otherwise(first: &Path, own: &Path) -> Option<&'static str> {
    let identity = |path: &Path| match std::fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    match (identity(first), identity(own)) {
        (Ok(first), Ok(own)) if first == own => None,
        (Ok(_), Ok(_)) => Some("the host has another file there than the one that hostd sees"),
        _ => Some("the host's file there cannot be seen"),
    }
}

fn below(config: &EnginesConfig, point: &str) -> Option<String> {
    if config.root_is_default() {
        return Some(point.to_owned());
    }
    let rest = Path::new(point).strip_prefix(&config.root).ok()?;
    Some(format!("/{}", rest.display()))
}

/// The fifth field of each line, with its octal escapes.
fn parse(table: &str) -> impl Iterator<Item = String> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| {
        let mut out = Vec::new();
        let mut rest = field.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let escaped =
                after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
            match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                Some(byte) => {
                    out.push(byte);
                    rest = after.get(3..).unwrap_or_default();
                }
                None => {
                    out.push(*first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e6_a_mount_over_a_measured_file_is_seen() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 8:1 /tmp/evil /usr/sbin/runc rw - ext4 /dev/sda1 rw\n\
                     41 22 0:30 / /mnt/a\\040b rw - tmpfs tmpfs rw\ntorn";
        let points: BTreeSet<String> = parse(table).collect();
        assert_eq!(points, ["/", "/mnt/a b", "/usr/sbin/runc"].map(str::to_owned).into());
        let measured = ["/usr/sbin/runc", "/usr/sbin/dockerd"].map(str::to_owned);
        assert_eq!(over(&points, measured.iter()), ["/usr/sbin/runc".to_owned()].into());
        assert!(over(&points, measured.iter().skip(1)).is_empty(), "the honest twin");
    }

    #[test]
    fn e6_a_file_that_only_hostd_sees_is_not_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("one"), "x").unwrap();
        std::fs::write(at("two"), "x").unwrap();
        std::fs::hard_link(at("one"), at("same")).unwrap();
        let other = Some("the host has another file there than the one that hostd sees");
        for (first, own, expect) in [
            ("one", "same", None),
            ("none", "nothing", None),
            ("one", "two", other),
            ("none", "one", other),
            ("one", "none", other),
            ("one/below", "one", Some("the host's file there cannot be seen")),
        ] {
            assert_eq!(otherwise(&at(first), &at(own)), expect, "{first} {own}");
        }
        assert!(points(&EnginesConfig::of_root(dir.path())).is_ok(), "the honest twin");
    }
}
