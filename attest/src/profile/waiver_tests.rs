//! Row E8 of the attack table: a waiver that is ended, for another host, unsigned or not carried excuses nothing.

use time::macros::datetime;

use super::super::export::tests::report;
use super::super::outcome::Outcome;
use super::*;
use crate::jws::{Signer as _, SoftwareKey, sign_detached};
use crate::profile::Severity;

const TEXT: &str = "controls = ['host.b', 'host.c', 'host.z']\nhosts = ['node-7', 'node-8']\nreason = 'until the new release'\napprover = 'A. Person'\nexpires = '2027-01-31T00:00:00Z'\n";

fn key() -> SoftwareKey {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    SoftwareKey::from_pkcs8(document.unwrap().as_ref()).unwrap()
}

fn set(key: &SoftwareKey) -> KeySet {
    let mut keys = KeySet::new();
    keys.insert(key.kid(), key.point());
    keys
}

fn signed(text: &str, key: &SoftwareKey) -> SignedWaiver {
    SignedWaiver { text: text.to_owned(), signature: sign_detached(&WAIVER, text.as_bytes(), key).unwrap() }
}

/// A report with one failure, `host.b`, that carries this waiver.
fn carrying(waiver: SignedWaiver) -> ProfileReport {
    let (_, mut report) = report();
    (report.outcomes[1].status, report.outcomes[1].waiver) = (Status::Fail, None);
    report.counts = Counts::of(&report.outcomes);
    report.waivers = vec![waiver];
    report
}

fn of<'a>(report: &'a ProfileReport, control: &str) -> &'a Outcome {
    report.outcomes.iter().find(|outcome| outcome.control == control).unwrap()
}

#[test]
fn e8_a_waiver_bears_a_failure_of_its_host_until_its_end_and_nothing_else() {
    let (mine, other) = (key(), key());
    let keys = set(&mine);
    let now = datetime!(2027-01-30 23:59:59 UTC);
    let good = || signed(TEXT, &mine);
    let changed = SignedWaiver { text: TEXT.replace("2027", "2037"), ..good() };
    let another = signed(&TEXT.replace("'host.b', ", ""), &mine);
    for (what, waiver, names, at, id) in [
        ("honest", good(), &["5f1c", "node-7"][..], now, None),
        ("at its end", good(), &["node-7"][..], datetime!(2027-01-31 00:00 UTC), Some("waiver.expired")),
        ("another host", good(), &["node-9"][..], now, Some("waiver.host")),
        ("no name", good(), &[][..], now, Some("waiver.host")),
        ("a stranger's key", signed(TEXT, &other), &["node-7"][..], now, Some("waiver.key")),
        ("another text", changed, &["node-7"][..], now, Some("waiver.signature")),
        ("another control", another, &["node-7"][..], now, None),
    ] {
        let (report, findings) = carrying(waiver).waived_by(&keys, names, at);
        let waived = what == "honest";
        let outcome = of(&report, "host.b");
        assert_eq!(outcome.status, if waived { Status::Waived } else { Status::Fail }, "{what}: {outcome:?}");
        assert_eq!((report.counts.waived, report.counts.fail), if waived { (1, 0) } else { (0, 1) }, "{what}");
        assert_eq!(outcome.waiver.is_some(), waived, "{what}");
        assert_eq!(findings.as_slice().first().map(|finding| finding.id.as_str()), id, "{what}: {findings:?}");
        assert_eq!(of(&report, "host.c").status, Status::Error, "no waiver excuses what could not be judged");
        assert!(!outcome.reason.is_empty(), "what fails is still told");
    }
}

#[test]
fn e8_a_report_that_calls_a_failure_waived_must_carry_the_waiver() {
    let mine = key();
    let now = datetime!(2026-11-22 00:00 UTC);
    let (honest, findings) = carrying(signed(TEXT, &mine)).waived_by(&set(&mine), &["node-7"], now);
    assert!(findings.as_slice().is_empty() && of(&honest, "host.b").status == Status::Waived);
    assert!(honest.waiver_of(of(&honest, "host.b")).unwrap().contains("until the new release (A. Person, until 2027"));

    let mut bare = honest;
    bare.waivers.clear();
    let (report, findings) = bare.waived_by(&set(&mine), &["node-7"], now);
    assert_eq!((of(&report, "host.b").status, of(&report, "host.b").waiver), (Status::Fail, None));
    assert!(findings.has("waiver.unmeasured"), "{findings:?}");
    let (profile, _) = super::super::export::tests::report();
    assert!(report.unmet(&profile, Severity::Low).any(|outcome| outcome.control == "host.b"));
}

#[test]
fn a_report_carries_the_waivers_of_its_failures_and_is_read_back() {
    let mine = key();
    let elsewhere = TEXT.replace("'host.b', 'host.c', ", "");
    let both = [signed(TEXT, &mine), signed(&elsewhere, &mine)];
    let read = |signed: &SignedWaiver| (signed.clone(), signed.verify("w.toml", &set(&mine)).unwrap());
    let mut report = carrying(both[0].clone());
    report.waivers.clear();
    report.carry(both.iter().map(read)).unwrap();
    report.carry(both.iter().map(read)).unwrap();
    assert_eq!(report.waivers, [both[0].clone()], "once, and none about other controls");
    let bytes = report.to_canonical();
    assert_eq!(ProfileReport::parse(&bytes).unwrap(), report);

    report.waivers = vec![both[0].clone(); 2];
    assert!(ProfileReport::parse(&report.to_canonical()).is_err(), "doubled");
    let many = (0..=WAIVERS_MAX).map(|count| signed(&format!("{TEXT}# {count}"), &mine));
    let many: Vec<_> = many.map(|signed| read(&signed)).collect();
    assert!(carrying(both[0].clone()).carry(many).unwrap_err().to_string().contains("a report carries 64"));
}

#[test]
fn what_is_no_waiver_is_told() {
    for (text, expect) in [
        (TEXT.replace("hosts = ['node-7', 'node-8']", "hosts = []"), "names 1 to 256 hosts"),
        (TEXT.replace("'node-8'", "'*'"), "`*` in `hosts` is no node name"),
        (TEXT.replace("controls = ['host.b', 'host.c', 'host.z']", "controls = []"), "at least one control"),
        (TEXT.replace("2027-01-31T00:00:00Z", "2027-01-31"), "`expires` is a time like"),
        (TEXT.replace("expires", "ends"), "line 5, column 1: unknown field `ends`"),
        (TEXT.replace("'A. Person'", "' '"), "`reason` and `approver`"),
        (TEXT.to_owned() + &"#".repeat(WAIVER_MAX), "larger than"),
    ] {
        let told = Waiver::parse("w.toml", &text).unwrap_err().to_string();
        assert!(told.starts_with("w.toml: ") && told.contains(expect), "{expect}: {told}");
    }
}
