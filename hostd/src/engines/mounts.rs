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
pub(super) fn points(config: &EnginesConfig) -> BTreeSet<String> {
    let read = |path: &str| crate::state::read(Path::new(path), TABLE_MAX).ok().flatten();
    let table = match config.root_is_default() {
        true => read("/proc/1/mountinfo").or_else(|| read("/proc/self/mountinfo")),
        false => read("/proc/self/mountinfo"),
    };
    let table = String::from_utf8_lossy(&table.unwrap_or_default()).into_owned();
    parse(&table).filter_map(|point| below(config, &point)).collect()
}

/// The measured paths among the mount points.
pub(super) fn over<'p>(points: &BTreeSet<String>, measured: impl Iterator<Item = &'p String>) -> BTreeSet<String> {
    measured.filter(|path| points.contains(*path)).take(TOLD_MAX).cloned().collect()
}

/// The measured paths at which PID 1 has another file than hostd, where hostd lives in another mount namespace.
pub(super) fn seen_otherwise<'p>(config: &EnginesConfig, measured: impl Iterator<Item = &'p String>) -> Vec<String> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    if !config.root_is_default() || namespace("1").is_none_or(|first| Some(first) == namespace("self")) {
        return Vec::new();
    }
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // What cannot be seen is no other file: PID 1's root is closed to a hostd without CAP_SYS_PTRACE.
    let other = |path: &&String| {
        let first = identity(&Path::new("/proc/1/root").join(path.trim_start_matches('/')));
        first.is_some_and(|first| Some(first) != identity(Path::new(path)))
    };
    measured.filter(other).take(TOLD_MAX).cloned().collect()
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
}
