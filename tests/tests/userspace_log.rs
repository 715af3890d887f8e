//! A host whose systemd logs what it extends, on a real software TPM and with the real programs: admitted, and refused once the log lies.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_attest::digest::HashAlg;
use hostmark_attest::finding::Severity;
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_tests::forge::systemd_log::{self, Measured};
use hostmark_tests::hostd::Hostd;
use hostmark_tests::lab::{Lab, POLICY_NAME, shipped};
use hostmark_tests::swtpm::available;

const BANK: HashAlg = HashAlg::Sha256;

/// The shipped policy with PCR 15 quoted too, for a host that has to be up.
fn policy() -> String {
    let shipped = shipped("appraisal", POLICY_NAME).unwrap();
    let rule =
        "\n[[rule]]\nid = \"boot.phase\"\nclaim = \"boot_phase\"\nwant = \"ready\"\nelse = \"contraindicated\"\n";
    let toml = shipped.replace("13, 14]", "13, 14, 15]").replace("version = 1\n", "version = 2\n");
    assert!(toml.contains("15]") && toml.contains("version = 2"), "the shipped policy is written otherwise");
    toml + rule
}

/// Ids of the boot's findings that refuse, and its tier.
fn boot(lab: &Lab, node: &str) -> (Vec<String>, Tier) {
    let standing = lab.standing(node).unwrap();
    let boot = &standing.subsystems[&Submodule::Boot];
    let bad = boot.findings.iter().filter(|one| one.severity == Severity::Error);
    (bad.map(|one| one.id.clone()).collect(), boot.tier)
}

/// Puts another log in place; the next rounds refuse the host by this finding, and the honest log brings it back.
fn refused(lab: &Lab, host: &mut Hostd, what: &str, sent: &[Measured], id: &str) {
    let honest = std::fs::read(host.machine.userspace_log()).unwrap();
    std::fs::write(host.machine.userspace_log(), systemd_log::log(sent, &[BANK])).unwrap();
    lab.wait_refused(host).unwrap();
    // Nothing is claimed of a boot whose logs do not replay: the rule wants what is no longer proven.
    assert_eq!(boot(lab, host.name()), (vec![id.to_owned(), "boot.phase".to_owned()], Tier::Contraindicated), "{what}");
    std::fs::write(host.machine.userspace_log(), honest).unwrap();
    lab.wait_admitted(host).unwrap();
}

#[test]
fn b1_b11_a_host_with_systemds_log_is_admitted_until_the_log_lies() {
    if !available("a host whose systemd logs its measurements") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path(), "").unwrap();
    lab.publish_policy(POLICY_NAME, &policy()).unwrap();
    lab.shorten_lease("10s").unwrap();
    let mut host = lab.host("node-1").unwrap();
    let measured = systemd_log::boot();
    host.machine.systemd(&measured).unwrap();
    lab.enrol(&host).unwrap();
    host.run().unwrap();
    lab.wait_admitted(&mut host).unwrap();
    let standing = lab.standing("node-1").unwrap();
    let told = standing.boot.unwrap().userspace;
    assert_eq!(told[&11], ["enter-initrd", "leave-initrd", "sysinit", "ready"]);
    assert_eq!(told[&15].len(), 2, "the volume key's text is nobody's: {told:?}");
    let quirk = |lab: &Lab| {
        let boot = &lab.standing("node-1").unwrap().subsystems[&Submodule::Boot];
        boot.findings.iter().any(|one| one.id == "boot.pcrphase-unlogged")
    };
    assert!(!quirk(&lab), "nothing is guessed beside a log");

    let (mut flipped, mut removed, mut foreign) = (measured.clone(), measured.clone(), measured.clone());
    flipped[3].hashed = b"another machine".to_vec();
    removed.pop();
    foreign.push(Measured::phase("x").of(4));
    for (what, sent, id) in [
        ("a record of PCR 15 flipped", flipped, "userspace-log.replay"),
        ("the last phase removed", removed, "userspace-log.replay"),
        ("a record of the firmware's PCR", foreign, "userspace-log.pcr"),
    ] {
        refused(&lab, &mut host, what, &sent, id);
    }
    host.stop().unwrap();

    // Extended without a record: nothing but a reboot helps.
    host.machine.extend(&[(15, measured[3].digest(BANK))]).unwrap();
    host.run().unwrap();
    lab.wait_refused(&mut host).unwrap();
    assert_eq!(boot(&lab, "node-1").0, ["userspace-log.replay", "boot.phase"]);
    host.reboot().unwrap();
    host.machine.systemd(&measured).unwrap();
    host.run().unwrap();
    lab.wait_admitted(&mut host).unwrap();
    host.stop().unwrap();
}
