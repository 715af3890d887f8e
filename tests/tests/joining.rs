//! Enrolment with the real programs: by a pre-registered EK, by a join token, by a person; and who is refused.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use hostmark_tests::hostd::{Hostd, write_secret};
use hostmark_tests::lab::{Lab, ek_id};
use hostmark_tests::swtpm::available;
use hostmark_tests::wait::until;
use hostmark_verifier::api::types::Standing;

#[test]
fn a_host_is_enrolled_by_its_ek_by_a_token_or_by_a_person() {
    if !available("enrolment with the real programs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::without_rules(dir.path(), "").unwrap();

    let one = lab.host("node-1").unwrap();
    lab.enrol(&one).unwrap();

    let two = lab.host("node-2").unwrap();
    let token = lab.token("node-2").unwrap();
    two.provision(Some(&token.token)).unwrap().good().unwrap();

    let three = lab.host("node-3").unwrap();
    let waiting = three.provision(None).unwrap();
    assert_eq!(waiting.code, Some(1), "{waiting}");
    let ek = ek_id(&three).unwrap();
    let pending = lab.hosts().unwrap().into_iter().find(|host| host.ek_id == ek).unwrap();
    assert_eq!((pending.state, pending.class.as_str()), (Standing::Pending, "simulated"));
    lab.approve(&pending.host, "node-3").unwrap();
    three.provision(None).unwrap().good().unwrap();

    // What was acknowledged is still known after kill -9, and each host is who it was.
    lab.verifier.kill();
    lab.verifier.restart().unwrap();
    let hosts = lab.hosts().unwrap();
    assert_eq!(hosts.len(), 3);
    for host in [&one, &two, &three] {
        let known = hosts.iter().find(|known| known.host == host.id().unwrap()).unwrap();
        assert_eq!(known.assignment, Some(Lab::assignment_of(host)));
        assert_eq!(known.state, Standing::Unproven, "an enrolled host has proven nothing yet");
        host.provision(None).unwrap().good().unwrap();
    }
    assert_eq!(lab.hosts().unwrap().len(), 3, "asking again makes no second host");
}

#[test]
fn a_token_that_comes_later_admits_a_host_that_waits() {
    if !available("a join token for a host that waits") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::without_rules(dir.path(), "").unwrap();
    let host = lab.host("node-1").unwrap();
    for _ in 0..2 {
        assert_eq!(host.provision(None).unwrap().code, Some(1), "it waits for a person");
    }
    // A token that does not count ends no waiting.
    let used = lab.token("node-2").unwrap();
    lab.host("node-2").unwrap().provision(Some(&used.token)).unwrap().good().unwrap();
    let refused = host.provision(Some(&used.token)).unwrap();
    assert!(refused.code == Some(1) && refused.stderr.contains("token."), "{refused}");
    let waiting = host.provision(None).unwrap();
    assert!(waiting.code == Some(1) && waiting.stderr.contains("waits for an approver"), "{waiting}");
    let token = lab.token("node-1").unwrap();
    host.provision(Some(&token.token)).unwrap().good().unwrap();
    let hosts = lab.hosts().unwrap();
    let known: Vec<_> = hosts.iter().filter(|one| one.host == host.id().unwrap()).collect();
    assert_eq!((hosts.len(), known.len()), (2, 1), "as one host");
    assert_eq!(known[0].assignment, Some(Lab::assignment_of(&host)));
}

#[test]
fn a_token_serves_one_host_and_nobody_takes_a_name_that_is_given() {
    if !available("join tokens with the real programs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::without_rules(dir.path(), "").unwrap();
    let (one, two) = (lab.host("node-1").unwrap(), lab.host("node-2").unwrap());
    let token = lab.token("node-1").unwrap();
    one.provision(Some(&token.token)).unwrap().good().unwrap();
    let again = two.provision(Some(&token.token)).unwrap();
    assert_eq!(again.code, Some(1), "{again}");
    assert!(again.stderr.contains("token."), "{again}");
    assert!(!format!("{again}{}", lab.verifier.log()).contains(&token.token), "a token is in no log");
    assert_eq!(lab.hosts().unwrap().len(), 1);

    // A name that is given is not given twice, whoever approves.
    two.provision(None).unwrap();
    let ek = ek_id(&two).unwrap();
    let pending = lab.hosts().unwrap().into_iter().find(|host| host.ek_id == ek).unwrap();
    lab.approve(&pending.host, "node-1").unwrap_err();
    lab.approve(&pending.host, "node-2").unwrap();
}

#[test]
fn a_host_gives_nothing_to_a_verifier_whose_ca_is_not_pinned() {
    if !available("CA pins with the real programs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::without_rules(&dir.path().join("a"), "").unwrap();
    let other = Lab::without_rules(&dir.path().join("b"), "").unwrap();
    let host = lab.host("node-1").unwrap();
    let refused = host.hostd("provision", &["--verifier", &other.verifier.url()]).unwrap();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("does not show the CA that is pinned"), "{refused}");
    assert!(other.hosts().unwrap().is_empty());
    lab.enrol(&host).unwrap();
}

#[test]
fn a_machine_provisions_itself_from_one_input_and_the_daemon_waits_for_it() {
    if !available("provisioning by an input") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::without_rules(dir.path(), "").unwrap();
    let mut host = lab.host("node-1").unwrap();
    // A generic image: hostd.toml names no verifier.
    let named = std::fs::read_to_string(host.config()).unwrap();
    let generic: String = named
        .lines()
        .filter(|line| !line.starts_with("verifier") && !line.starts_with("ca_pin"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(host.config(), &generic).unwrap();
    let token = lab.token("node-1").unwrap().token;
    let file = dir.path().join("input.toml");
    let path = file.display().to_string();
    let provision = |host: &Hostd, url: &str, pin: &str| {
        write_secret(&file, &format!("verifier = \"{url}\"\nca_pin = \"{pin}\"\ntoken = \"{token}\"\n")).unwrap();
        host.hostd("provision", &["--input", &path]).unwrap()
    };
    let (url, pin) = (lab.verifier.url(), lab.verifier.ca_pin().to_owned());

    host.run_with(&["--await-provisioning"]).unwrap();
    until("the daemon waits", Duration::from_secs(20), || Ok(host.log().contains("waiting for").then_some(())))
        .unwrap();
    let mut told = Vec::new();

    // hostd.toml and the input must not contradict each other.
    std::fs::write(host.config(), &named).unwrap();
    let other = provision(&host, "https://127.0.0.1:1", &pin);
    assert_eq!(other.code, Some(2), "{other}");
    assert!(other.stderr.contains(&format!("hostd.toml names {url}, the input https://127.0.0.1:1")), "{other}");
    told.push(other);
    std::fs::write(host.config(), &generic).unwrap();

    let first = provision(&host, &url, &pin).good().unwrap();
    assert!(first.stdout.starts_with("provisioned at"), "{first}");
    until("the daemon goes on by itself", Duration::from_secs(20), || {
        Ok((host.status().unwrap_or_default()["verifier"] == url.as_str()).then_some(()))
    })
    .unwrap();
    told.push(first);

    // Again, beside the running daemon and without it, and on the next boot.
    for rebooted in [false, true] {
        let again = provision(&host, &url, &pin).good().unwrap();
        assert!(again.stdout.starts_with("already provisioned at"), "{again}");
        for (url, pin) in [("https://127.0.0.1:1", &pin), (url.as_str(), &"00".repeat(32))] {
            let other = provision(&host, url, pin);
            assert_eq!(other.code, Some(2), "{other}");
            assert!(other.stderr.contains("run `hostd deprovision` first"), "{other}");
            told.push(other);
        }
        told.push(again);
        if !rebooted {
            host.kill();
            host.machine.reboot().unwrap();
        }
    }
    assert!(host.hostd("provision", &[]).unwrap().good().unwrap().stdout.starts_with("already provisioned"));
    assert_eq!(lab.hosts().unwrap().len(), 1);
    let told: String = told.iter().map(ToString::to_string).collect();
    assert!(!format!("{told}{}{}", host.log(), lab.verifier.log()).contains(&token), "a token is in no log");
    for entry in std::fs::read_dir(host.state_dir()).unwrap() {
        let kept = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&kept).contains(&token), "a token is in no kept file");
    }
}
