//! Enrolment with the real programs: by a pre-registered EK, by a join token, by a person; and who is refused.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_tests::lab::{Lab, ek_id};
use hostmark_tests::swtpm::available;
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
