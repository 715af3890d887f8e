//! When the IMA policy was loaded, as far as the list shows it.
//!
//! systemd `src/core/ima-setup.c`: PID 1 loads [`POLICY_PATH`] before it reads its own configuration or starts anything. A kernel
//! that boots with the built-in policy `tcb` measures that file as it is read, so that its entry stands in the list before
//! anything that a unit did. Nothing else in a list says which policy rules the kernel.

/// Where systemd looks for the IMA policy.
pub const POLICY_PATH: &[u8] = b"/etc/ima/ima-policy";

/// PID 1 and what the dynamic loader reads on its way to `main`.
const PID1: [&[u8]; 7] = [
    b"/init",
    b"/sbin/init",
    b"/usr/sbin/init",
    b"/lib/systemd/systemd",
    b"/usr/lib/systemd/systemd",
    b"/etc/ld.so.cache",
    b"/etc/ld.so.preload",
];
/// Directories of libraries.
const LIBRARIES: [&[u8]; 4] = [b"/lib/", b"/lib64/", b"/usr/lib/", b"/usr/lib64/"];

/// Whether a path is one that PID 1 itself uses before it loads the policy. A path is no proof of content: this only narrows what
/// may stand before the policy's entry among files whose digests are known. Whatever keeps PID 1 from loading the policy first
/// lets it read unit files, and those are at no such path.
#[must_use]
pub fn is_pid1_or_library(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let shared = name.ends_with(b".so") || name.windows(4).any(|four| four == b".so.");
    PID1.contains(&path) || (shared && LIBRARIES.iter().any(|directory| path.starts_with(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pid1_uses_before_it_loads_the_policy() {
        for (path, expect) in [
            ("/usr/lib/systemd/systemd", true),
            ("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", true),
            ("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", true),
            ("/etc/ld.so.cache", true),
            ("/usr/lib/systemd/system/default.target", false),
            ("/usr/lib/systemd/system-generators/systemd-fstab-generator", false),
            ("/etc/systemd/system.conf", false),
            ("/usr/bin/cat", false),
            ("/tmp/x.so", false),
            ("usr/lib/x.so", false),
            ("/usr/lib/x.so/cat", false),
            ("", false),
        ] {
            assert_eq!(is_pid1_or_library(path.as_bytes()), expect, "{path}");
        }
    }
}
