//! Which IMA policy ruled the kernel, and so what a list without an entry means.
//!
//! A list does not say which policy made it. Proven is the shipped policy by two things together: the kernel booted with
//! `ima_policy=tcb`, by the command line that the boot log proves, and so measured whatever root read from the first program on;
//! and the policy's file, with a digest that the references name, was read before anything but PID 1 ran (systemd loads it there,
//! and a kernel takes a policy once unless it was built with CONFIG_IMA_WRITE_POLICY, whose later rules only add).
//!
//! No IMA policy sees kernel code that comes from memory (`init_module`, `kexec_load`) or from a hibernation image. Only a kernel that is
//! locked down refuses it, so that without proven lockdown runtime does not affirm either.
//!
//! Not proven: that the kernel accepted the file. One that refuses it (a rule that it does not know) goes on under `tcb`, lists
//! every file that root reads, and is contraindicated by those. Nor what ran from memory before PID 1 loaded the policy: that is
//! the initrd's, which the boot log proves as a whole. The entry's path is relative to a mount namespace; its digest is the
//! policy's all the same, and nobody has another namespace before PID 1 starts anything, which the order shows.

use crate::digest::Digest;
use crate::finding::{Finding, Findings};
use crate::ima::loaded::is_pid1_or_library;
use crate::kernel_parameters::{Lockdown, boots_with_tcb};
use crate::policy::{ImaPolicy, Window};
use crate::replay::ReplayedLogs;
use crate::state::PolicySeen;

/// Longest path that is kept for a finding.
const SHOWN: usize = 256;

impl PolicySeen {
    /// A known file was measured while no policy had been.
    pub(super) fn before(&mut self, path: &[u8], digest: Option<Digest>, windows: &[&Window]) {
        let expected = is_pid1_or_library(path)
            || digest.is_some_and(|digest| windows.iter().any(|window| window.may_precede_policy(&digest)));
        if !expected {
            if self.others == 0 {
                self.first = String::from_utf8_lossy(path.get(..SHOWN).unwrap_or(path)).into_owned();
            }
            self.others = self.others.saturating_add(1);
        }
    }
}

pub(super) fn report(wanted: ImaPolicy, logs: &ReplayedLogs<'_>, seen: &PolicySeen, findings: &mut Findings) {
    const MEMORY: &str = "what is executed from tmpfs, /dev/shm or memory files may not be in the list";
    let locked = logs.boot().and_then(|boot| boot.lockdown).is_some_and(|lockdown| lockdown != Lockdown::None);
    findings.check("ima.unlocked-kernel", !locked, || {
        Finding::warning("", "kernel code may have been loaded that IMA cannot measure: init_module, kexec_load and a resume from disk take no file")
            .expected("lockdown=integrity on the proven kernel command line: it wants signed modules, and forbids the others")
            .found(logs.boot().and_then(|boot| boot.command_line.as_deref()).unwrap_or("no kernel command line is proven"))
            .fix("boot with lockdown=integrity")
    });
    if wanted == ImaPolicy::Tcb {
        findings.check("ima.coverage-gap", true, || {
            Finding::warning("", format!("the kernel's built-in IMA policy tcb leaves memory out: {MEMORY}"))
                .expected("the IMA policy container-host")
                .found("tcb, by the appraisal policy")
                .fix("install configs/ima/container-host.policy on the hosts, and name it in the appraisal policy")
        });
        return;
    }
    let line = logs.boot().and_then(|boot| boot.command_line.as_deref());
    let from_the_start = line.is_some_and(boots_with_tcb);
    let gap = !from_the_start || !seen.measured;
    let covered = findings.check("ima.coverage-gap", gap, || {
        let found = match (line, from_the_start, seen.measured) {
            (None, _, _) => "no kernel command line is proven",
            (Some(_), false, _) => "the kernel was booted without ima_policy=tcb",
            (Some(_), true, _) => "no file with a digest of ima_policy in the references was read there",
        };
        Finding::warning("", format!("it is not proven that the host runs the IMA policy container-host: {MEMORY}"))
            .expected("ima_policy=tcb on the proven kernel command line, and then /etc/ima/ima-policy in the list")
            .found(found)
            .fix("install configs/ima/container-host.policy as /etc/ima/ima-policy, boot with ima_policy=tcb, and capture references")
    });
    let late = seen.measured && seen.others > 0;
    let in_time = findings.check("ima.policy-late", late, || {
        Finding::warning("", format!("programs ran before the IMA policy was loaded: until then {MEMORY}"))
            .expected("PID 1, libraries and the files of ima_before_policy in the references")
            .found(format!("{} files, first {}", seen.others, seen.first))
            .fix("let systemd load the policy (/etc/ima/ima-policy) and reboot; or capture references from a host that is good this way")
    });
    if covered && in_time {
        findings.push(Finding::info(
            "ima.coverage",
            "the IMA policy container-host is proven; it leaves out programs on overlay file systems, those in containers",
        ));
    }
}
