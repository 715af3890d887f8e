//! Kinds of entries that mean more than an unknown file: what they are is told by their path, which is a hint.
//!
//! A kind adds to `ima.unknown-file`, it never replaces or softens it. Only two stand alone: a kexec's command line, whose entry
//! the kernel makes itself, and another file in the IMA policy's place.

use crate::check;
use crate::finding::{Finding, Findings, Severity};
use crate::state::Kinds;

/// One kind.
pub(super) struct Kind {
    pub(super) id: &'static str,
    message: &'static str,
    /// Whatever unknown files weigh: this refuses.
    refuses: bool,
    fix: &'static str,
}

impl Kind {
    /// Runs the kind's check.
    pub(super) fn violated(&self, bad: bool) -> bool {
        check::violated(self.id, bad)
    }
}

/// Another content at the policy's path.
pub(super) const POLICY_REPLACED: Kind = Kind {
    id: "ima.policy-replaced",
    message: "another file than the IMA policy of the references was read at the policy's path",
    refuses: false,
    fix: "install the IMA policy that the references name and reboot the host, or publish references for the new policy",
};

/// kexec.
pub(super) const KEXEC: Kind = Kind {
    id: "ima.kexec",
    message: "another kernel was loaded for kexec: after it starts, the boot log says nothing of the kernel that runs",
    refuses: true,
    fix: "reboot the host through its firmware; turn kdump and `systemctl kexec` off, or lock the kernel down",
};

/// Without a command line a kexec leaves no other trace than its image.
const KEXEC_IMAGE: Kind = Kind {
    id: "ima.kexec-image",
    message: "a kernel image was read that no reference names, by its path: it may have been loaded for kexec",
    refuses: false,
    fix: "find out who loaded it, and reboot the host through its firmware",
};
const MEMORY: Kind = Kind {
    id: "ima.memory-execution",
    message: "unknown code was executed or mapped from memory or from a temporary file system, by its path",
    refuses: false,
    fix: "find out who ran it: what it was is gone after a reboot",
};
const MODULE: Kind = Kind {
    id: "ima.unknown-module",
    message: "a kernel module was loaded that no reference names, by its path",
    refuses: false,
    fix: "publish references that name it if it belongs there; else reboot the host and find out who loaded it",
};
const FIRMWARE: Kind = Kind {
    id: "ima.unknown-firmware",
    message: "firmware was loaded into a device that no reference names, by its path",
    refuses: false,
    fix: "publish references that name it if it belongs there; else take the device out of use",
};

/// All of them, in the order in which they are told.
const KINDS: [&Kind; 6] = [&POLICY_REPLACED, &KEXEC, &KEXEC_IMAGE, &MODULE, &FIRMWARE, &MEMORY];

/// Where file systems in memory are mounted. `d_path` gives a memory file a path, IMA its bare name: both are known.
const IN_MEMORY: [&[u8]; 6] = [b"/dev/", b"/run/", b"/tmp/", b"/var/run/", b"memfd:", b"/memfd:"];
const MODULES: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.gz", b".ko.zst"];
const FIRMWARE_DIRECTORIES: [&[u8]; 2] = [b"/lib/firmware/", b"/usr/lib/firmware/"];
const KERNELS: [&[u8]; 3] = [b"vmlinuz", b"vmlinux", b"bzImage"];

/// The kernel measures the next kernel's command line under this name (`ima_kexec_cmdline`), as a buffer. A file whose path is too long is
/// listed by its bare name, which may be this one: it is a file.
pub(super) fn is_kexec_command_line(path: &[u8]) -> bool {
    path == b"kexec-cmdline"
}

/// The kinds of a file that no reference names.
pub(super) fn of_unknown(path: &[u8]) -> impl Iterator<Item = &'static Kind> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let memory = IN_MEMORY.iter().any(|start| path.starts_with(start));
    let module = MODULES.iter().any(|end| name.ends_with(end));
    let firmware = FIRMWARE_DIRECTORIES.iter().any(|start| path.starts_with(start));
    let kernel = KERNELS.iter().any(|start| name.starts_with(start));
    [(&KEXEC_IMAGE, kernel), (&MODULE, module), (&FIRMWARE, firmware), (&MEMORY, memory)]
        .into_iter()
        .filter(|(kind, is)| kind.violated(*is))
        .map(|(kind, _)| kind)
}

/// One finding of each kind, with the first file and how many there are.
pub(super) fn report(kinds: &Kinds, unknown: Severity, findings: &mut Findings) {
    for kind in KINDS {
        let Some((count, first)) = kinds.of(kind.id) else { continue };
        let weight = if kind.refuses { Severity::Error } else { unknown };
        let more = if count > 1 { format!(" (and {} more)", count.saturating_sub(1)) } else { String::new() };
        findings.push(Finding::new(kind.id, weight, kind.message).found(format!("{first}{more}")).fix(kind.fix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_kind_of_an_unknown_file() {
        for (path, expect) in [
            ("/usr/bin/x", &[][..]),
            ("memfd:payload", &["ima.memory-execution"]),
            ("/memfd:payload (deleted)", &["ima.memory-execution"]),
            ("/dev/shm/x", &["ima.memory-execution"]),
            ("/run/x", &["ima.memory-execution"]),
            ("/tmp/x", &["ima.memory-execution"]),
            ("/tmp/evil.ko", &["ima.unknown-module", "ima.memory-execution"]),
            ("/usr/lib/modules/6.1.0/x.ko.zst", &["ima.unknown-module"]),
            ("/usr/lib/firmware/x.bin", &["ima.unknown-firmware"]),
            ("/boot/vmlinuz-6.1.0", &["ima.kexec-image"]),
            ("/home/tmp/x", &[]),
            ("/usr/bin/x.kofi", &[]),
        ] {
            let found: Vec<&str> = of_unknown(path.as_bytes()).map(|kind| kind.id).collect();
            assert_eq!(found, expect, "{path}");
        }
    }
}
