//! Enrolment's commands: who becomes which host, once.

use std::sync::Arc;
use std::time::Duration;

use hostmark_attest::digest::sha256;
use hostmark_attest::finding::Findings;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::Nonce;
use rcgen::KeyPair;
use rusqlite::params;

use super::testing::{at, store};
use super::*;
use crate::auth::Role;
use crate::ca::{Ca, Issued};
use crate::enrol::class_rank;
use crate::refusal::Outcome;

mod publishing;
mod rounds;

/// EK and AK of two recorded machines.
const MACHINES: [(&[u8], &[u8]); 2] = [
    (
        include_bytes!("../../../attest/testdata/recorded/plain/ek.pub"),
        include_bytes!("../../../attest/testdata/recorded/plain/ak.pub"),
    ),
    (
        include_bytes!("../../../attest/testdata/recorded/systemd/ek.pub"),
        include_bytes!("../../../attest/testdata/recorded/systemd/ak.pub"),
    ),
];

fn public(bytes: &[u8]) -> Public {
    Public::parse_tpm2b(bytes).or_else(|_| Public::parse(bytes)).unwrap()
}

/// The recorded AKs came from tpm2-tools, which sets no noDA: bit 10 of the attributes, which follow type and nameAlg.
fn ak(bytes: &[u8]) -> Public {
    let mut bytes = public(bytes).as_bytes().to_vec();
    bytes[6] |= 0x04;
    Public::parse(&bytes).unwrap()
}

/// An enrolment of machine `ek` with the AK of machine `ak`.
fn enrolment(ek: usize, ak: usize, token: Option<&str>) -> NewEnrolment {
    let (ek, ak) = (public(MACHINES[ek].0), self::ak(MACHINES[ak].1));
    NewEnrolment {
        id: uuid::Uuid::new_v4().to_string(),
        host: uuid::Uuid::new_v4().to_string(),
        ek_id: hex::encode(ek.key().id().unwrap()),
        ek_public: ek.as_bytes().to_vec(),
        ek_certificate: None,
        ek_intermediates: Vec::new(),
        class: "simulated".into(),
        ak_public: ak.as_bytes().to_vec(),
        ak_name: ak.name().as_bytes().to_vec(),
        token_hash: token.map(|token| sha256(&[token.as_bytes()])),
        secret_hash: [1; 32],
        nonce: Nonce([2; 32]),
        life: Duration::from_secs(120),
        findings: Findings::new(),
    }
}

fn assignment(node: &str) -> Assignment {
    Assignment {
        node: node.into(),
        scheduler: "swarm-a".into(),
        label: "internal".parse().unwrap(),
        policy: "server-uki".into(),
    }
}

struct Desk {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
    ca: Ca,
    key: KeyPair,
}

impl Desk {
    fn new() -> Self {
        let (dir, store) = store();
        let ca_key = KeyPair::generate().unwrap();
        let pem = Ca::create(&ca_key, &at(0)).unwrap();
        Self { ca: Ca::load(&pem, ca_key).unwrap(), key: KeyPair::generate().unwrap(), _dir: dir, store }
    }

    fn issue(&self, host: &str) -> Outcome<Issued> {
        Ok(self.ca.client(&self.key, Role::Host, host, Duration::from_secs(3600), &at(0)).unwrap())
    }

    fn begin(&self, ek: usize, ak: usize, token: Option<&str>) -> NewEnrolment {
        let new = enrolment(ek, ak, token);
        self.store.begin_enrolment(&at(0), &new).unwrap();
        new
    }

    fn activate(&self, new: &NewEnrolment, now: i64) -> Outcome<Option<(HostRow, Issued)>> {
        self.store.activate(&at(now), &new.id, b"tls", class_rank, |host| self.issue(host))
    }

    fn token(&self, text: &str, node: &str, bind: impl FnOnce(&mut NewToken)) {
        let mut token = NewToken {
            id: uuid::Uuid::new_v4().to_string(),
            hash: sha256(&[text.as_bytes()]),
            ek_id: None,
            min_class: Some("simulated".into()),
            expires_unix_ms: at(60_000).unix_ms,
            assignment: assignment(node),
        };
        bind(&mut token);
        self.store.create_token(&at(0), "operator:p", &token).unwrap();
    }
}

/// The id that a refused outcome carries, or how it went.
fn told<T>(outcome: &Outcome<Option<T>>) -> &str {
    match outcome {
        Ok(Some(_)) => "approved",
        Ok(None) => "pending",
        Err(refusal) => refusal.id(),
    }
}

#[test]
fn a11_a_join_token_used_a_hundred_times_at_once_wins_once() {
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    // A hundred TPMs: the EK id is what the store tells them apart by.
    let tries: Vec<_> = (0..100u32)
        .map(|n| {
            let mut new = enrolment(0, 0, Some("t"));
            new.ek_id = hex::encode(sha256(&[&n.to_be_bytes()]));
            new.ak_name = sha256(&[&n.to_be_bytes()]).to_vec();
            desk.store.begin_enrolment(&at(0), &new).unwrap();
            new
        })
        .collect();
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = tries.iter().map(|new| scope.spawn(|| told(&desk.activate(new, 1)).to_owned())).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|one| *one == "approved").count(), 1);
    assert_eq!(outcomes.iter().filter(|one| *one == "token.used").count(), 99, "{outcomes:?}");
    assert_eq!(desk.store.hosts().unwrap().len(), 1);
}

#[test]
fn a11_an_activation_used_a_hundred_times_at_once_wins_once() {
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    let new = desk.begin(0, 0, Some("t"));
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..100).map(|_| scope.spawn(|| told(&desk.activate(&new, 1)).to_owned())).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|one| *one == "approved").count(), 1);
    assert_eq!(outcomes.iter().filter(|one| *one == "enrolment.used").count(), 99, "{outcomes:?}");
}

#[test]
fn a11_a_join_token_counts_for_what_it_was_made() {
    type Bind = fn(&mut NewToken);
    let other_tpm: Bind = |token| token.ek_id = Some("00".repeat(32));
    let rows: [(&str, Bind, &str); 5] = [
        ("honest", |_| {}, "approved"),
        ("its own TPM", |token| token.ek_id = Some(enrolment(0, 0, None).ek_id), "approved"),
        ("another TPM", other_tpm, "token.other-tpm"),
        ("expired", |token| token.expires_unix_ms = at(1).unix_ms, "token.expired"),
        ("a better class", |token| token.min_class = Some("virtual".into()), "token.class"),
    ];
    for (name, bind, expect) in rows {
        let desk = Desk::new();
        desk.token("t", "node-1", bind);
        assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("t")), 1)), expect, "{name}");
    }
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("other")), 1)), "token.unknown");
    let id = desk.store.tokens().unwrap()[0].id.clone();
    desk.store.revoke_token(&at(0), "operator:p", &id).unwrap();
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("t")), 1)), "token.revoked");
}

#[test]
fn a13_a_host_is_never_replaced_without_a_person() {
    let desk = Desk::new();
    let new = desk.begin(0, 0, None);
    assert_eq!(told(&desk.activate(&new, 1)), "pending", "nobody approved it beforehand");
    assert_eq!(told(&desk.store.collect(&at(2), &new.id, |host, _| desk.issue(host))), "pending");
    desk.store.approve(&at(2), "operator:a", &new.host, &assignment("node-1")).unwrap();
    let (host, first) = desk.store.collect(&at(3), &new.id, |host, _| desk.issue(host)).unwrap().unwrap();
    let before = desk.store.enrolled(&host.id).unwrap();

    // The same TPM and AK: itself again, and the old certificate no longer counts.
    let (same, _) = desk.activate(&desk.begin(0, 0, None), 4).unwrap().unwrap();
    assert_eq!(same.id, host.id);
    assert!(desk.store.certificate(&first.serial).unwrap().unwrap().revoked);

    // The same TPM with another AK; another TPM with this AK; another TPM, pre-registered for the host's node.
    let clone = desk.begin(0, 1, None);
    assert_eq!(told(&desk.activate(&clone, 5)), "pending");
    assert_eq!(told(&desk.activate(&desk.begin(1, 0, None), 5)), "enrolment.ak-taken");
    let takeover = enrolment(1, 1, None);
    let registered = Preregistration { ek_id: takeover.ek_id.clone(), assignment: assignment("node-1") };
    desk.store.preregister(&at(5), "operator:p", &[registered]).unwrap();
    desk.store.begin_enrolment(&at(5), &takeover).unwrap();
    assert_eq!(told(&desk.activate(&takeover, 6)), "pending");
    let after = desk.store.enrolled(&host.id).unwrap();
    assert_eq!(before.row().ak_name, after.row().ak_name, "nothing was replaced");
    let refused = desk.store.approve(&at(6), "operator:a", &host.id, &assignment("node-1")).unwrap_err();
    assert_eq!(refused.id(), "enrolment.rebind", "a plain approval is not enough");

    // A person says so, by name.
    assert_eq!(desk.store.rebind(&at(7), "operator:a", &host.id, None).unwrap_err().id(), "enrolment.ambiguous");
    desk.store.rebind(&at(7), "operator:a", &host.id, Some(&takeover.id)).unwrap();
    let bound = desk.store.enrolled(&host.id).unwrap();
    assert_eq!((bound.row().ek_id.as_str(), bound.row().assignment.node.as_str()), (takeover.ek_id.as_str(), "node-1"));
    assert!(desk.store.collect(&at(8), &takeover.id, |host, _| desk.issue(host)).unwrap().is_some());
    let late = desk.store.collect(&at(8), &new.id, |host, _| desk.issue(host));
    assert_eq!(told(&late), "enrolment.superseded", "the enrolment of the former TPM no longer counts");
    assert_eq!(told(&desk.store.collect(&at(8), &clone.id, |host, _| desk.issue(host))), "enrolment.refused");
}

#[test]
fn a13_only_the_latest_enrolment_of_a_host_collects_a_certificate() {
    let desk = Desk::new();
    let collect = |one: &NewEnrolment, ms| {
        let outcome = desk.store.collect(&at(ms), &one.id, |host, tls| {
            assert_eq!(tls, b"tls");
            desk.issue(host)
        });
        told(&outcome).to_owned()
    };
    desk.token("t", "node-1", |_| {});
    let first = desk.begin(0, 0, Some("t"));
    // Begun before the host was, activated after it.
    let slow = desk.begin(0, 0, None);
    let (host, _) = desk.activate(&first, 1).unwrap().unwrap();
    assert_eq!(collect(&first, 2), "approved", "its answer may have been lost");
    assert_eq!(told(&desk.activate(&slow, 3)), "approved");
    assert_eq!((collect(&first, 4).as_str(), collect(&slow, 4).as_str()), ("enrolment.superseded", "approved"));
    let again = desk.begin(0, 0, None);
    assert_eq!(collect(&slow, 5), "approved", "a challenge alone ends nothing");
    assert_eq!(collect(&again, 5), "enrolment.not-activated", "and gives nothing");
    assert_eq!(told(&desk.activate(&again, 6)), "approved");
    for (one, expect) in
        [(&first, "enrolment.superseded"), (&slow, "enrolment.superseded"), (&again, "approved"), (&again, "approved")]
    {
        assert_eq!(collect(one, 7), expect);
    }
    // What waits for a person ends nothing either; a rebinding does.
    let clone = desk.begin(0, 1, None);
    assert_eq!(told(&desk.activate(&clone, 8)), "pending");
    assert_eq!(collect(&again, 9), "approved");
    desk.store.rebind(&at(10), "operator:a", &host.id, None).unwrap();
    assert_eq!((collect(&again, 11).as_str(), collect(&clone, 11).as_str()), ("enrolment.superseded", "approved"));
    desk.store.retire(&at(12), "operator:a", &host.id).unwrap();
    assert_eq!(
        (collect(&again, 13).as_str(), collect(&clone, 13).as_str()),
        ("enrolment.refused", "enrolment.refused")
    );
}

#[test]
fn a13_what_was_approved_meanwhile_makes_no_second_host() {
    let desk = Desk::new();
    let wait = |ek, ak| {
        let new = desk.begin(ek, ak, None);
        assert_eq!(told(&desk.activate(&new, 1)), "pending");
        new
    };
    let approve = |one: &NewEnrolment, node: &str| {
        let outcome = desk.store.approve(&at(2), "operator:a", &one.host, &assignment(node));
        outcome.map_or_else(|refusal| refusal.id().to_owned(), |()| "approved".to_owned())
    };
    // One AK beside two EKs: nobody had looked yet.
    let (first, moved) = (wait(0, 0), wait(1, 0));
    assert_eq!(approve(&first, "node-1"), "approved", "the honest twin");
    assert_eq!(approve(&moved, "node-2"), "enrolment.ek-taken");
    // Another AK on the first one's TPM waits for a person; meanwhile it is approved as another host's.
    let (clone, other) = (wait(0, 1), wait(1, 1));
    assert_eq!(approve(&other, "node-2"), "approved", "the honest twin");
    let refused = desk.store.rebind(&at(3), "operator:a", &first.host, Some(&clone.id)).unwrap_err();
    assert_eq!(refused.id(), "enrolment.ek-taken");
    assert_eq!(desk.store.hosts().unwrap().len(), 2);
}

#[test]
fn d14_a_node_name_that_two_schedulers_have_names_no_host() {
    let desk = Desk::new();
    desk.token("one", "node-1", |_| {});
    let (host, _) = desk.activate(&desk.begin(0, 0, Some("one")), 1).unwrap().unwrap();
    let found = |text: &str| desk.store.find_host(text).map_or_else(|refusal| refusal.id().to_owned(), |host| host.id);
    assert_eq!(found("node-1"), host.id, "the honest twin");
    desk.token("two", "node-1", |token| token.assignment.scheduler = "swarm-b".into());
    let (other, _) = desk.activate(&desk.begin(1, 1, Some("two")), 2).unwrap().unwrap();
    assert_eq!(found("node-1"), "host.ambiguous");
    assert_eq!((found(&host.id), found(&other.id)), (host.id.clone(), other.id.clone()));
}

#[test]
fn a22_a_tag_is_held_against_the_ek_that_the_host_has_when_it_is_recorded() {
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    let (host, _) = desk.activate(&desk.begin(0, 0, Some("t")), 1).unwrap().unwrap();
    let (old, new) = (public(MACHINES[0].0), public(MACHINES[1].0));
    let set = |ek: &Public, serial| {
        let outcome = desk.store.set_tag(&at(2), "operator:a", &host.id, b"nv", ek.name(), serial);
        outcome.map_or_else(|refusal| refusal.id().to_owned(), |()| "set".to_owned())
    };
    assert_eq!((set(&new, 1).as_str(), set(&old, 1).as_str()), ("tag.ek", "set"));
    // Its signature was judged, and then the host got another TPM.
    let takeover = enrolment(1, 1, None);
    let registered = Preregistration { ek_id: takeover.ek_id.clone(), assignment: assignment("node-1") };
    desk.store.preregister(&at(3), "operator:p", &[registered]).unwrap();
    desk.store.begin_enrolment(&at(3), &takeover).unwrap();
    assert_eq!(told(&desk.activate(&takeover, 4)), "pending");
    desk.store.rebind(&at(5), "operator:a", &host.id, None).unwrap();
    assert_eq!((set(&old, 2).as_str(), set(&new, 2).as_str()), ("tag.ek", "set"));
}

#[test]
fn d14_a_node_name_belongs_to_one_host() {
    let desk = Desk::new();
    desk.token("one", "node-1", |_| {});
    desk.token("two", "node-1", |_| {});
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("one")), 1)), "approved");
    assert_eq!(told(&desk.activate(&desk.begin(1, 1, Some("two")), 1)), "pending");
    let desk = Desk::new();
    desk.token("one", "node-1", |_| {});
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("one")), 1)), "approved");
    let second = desk.begin(1, 1, None);
    assert_eq!(told(&desk.activate(&second, 1)), "pending");
    let refused = desk.store.approve(&at(2), "operator:a", &second.host, &assignment("node-1")).unwrap_err();
    assert_eq!(refused.id(), "enrolment.node-taken");
    desk.store.approve(&at(2), "operator:a", &second.host, &assignment("node-2")).unwrap();
}

#[test]
fn a10_a_late_activation_is_refused() {
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("t")), 120_000)), "enrolment.deadline");
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("t")), 119_999)), "token.expired");
    assert_eq!(
        told(&desk.activate(&desk.begin(0, 0, Some("t")), 1)),
        "approved",
        "a refused activation spends no token"
    );
}

#[test]
fn a19_a_swapped_row_is_refused() {
    let rows = [
        ("honest", "UPDATE hosts SET maintenance_until_unix_ms = 0", None),
        ("another AK", "UPDATE hosts SET ak_public = ?1, ak_name = ?2", Some("host.sealed")),
        ("another AK public area", "UPDATE hosts SET ak_public = ?1", Some("host.sealed")),
        ("another label", "UPDATE hosts SET label = 'restricted'", Some("host.sealed")),
        ("another node", "UPDATE hosts SET node = 'node-9'", Some("host.sealed")),
        ("another policy", "UPDATE hosts SET policy = 'lax'", Some("host.sealed")),
        ("an older tag may pass again", "UPDATE hosts SET tag_serial = -1", Some("store.row")),
        ("a kept state that there is none of", "UPDATE hosts SET kept_state = 1", Some("host.sealed")),
        ("no seal", "UPDATE hosts SET seal = x''", Some("host.sealed")),
    ];
    for (name, attack, expect) in rows {
        let desk = Desk::new();
        desk.token("t", "node-1", |_| {});
        let (host, _) = desk.activate(&desk.begin(0, 0, Some("t")), 1).unwrap().unwrap();
        let other = ak(MACHINES[1].1);
        desk.store
            .write(&at(2), |tx| {
                if attack.contains("?2") {
                    tx.execute(attack, params![other.as_bytes(), other.name().as_bytes()])?;
                } else if attack.contains("?1") {
                    tx.execute(attack, params![other.as_bytes()])?;
                } else {
                    tx.execute(attack, [])?;
                }
                Ok(())
            })
            .unwrap();
        let outcome = desk.store.enrolled(&host.id);
        assert_eq!(outcome.as_ref().err().map(Refusal::id), expect, "{name}");
        let relabelled = desk.store.set_label(&at(3), "operator:a", &host.id, &"public".parse().unwrap());
        assert_eq!(relabelled.is_ok(), expect.is_none(), "{name}: a command never seals a row that was bad before");
    }
}

#[test]
fn a_retired_host_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.token("t", "node-1", |_| {});
    let new = desk.begin(0, 0, Some("t"));
    let (host, issued) = desk.activate(&new, 1).unwrap().unwrap();
    desk.store.set_label(&at(2), "operator:a", &host.id, &"public".parse().unwrap()).unwrap();
    desk.store.set_maintenance(&at(2), "operator:a", &host.id, at(500).unix_ms).unwrap();
    let ek = public(MACHINES[0].0);
    desk.store.set_tag(&at(2), "operator:a", &host.id, b"nv", ek.name(), 3).unwrap();
    let again = desk.store.set_tag(&at(2), "operator:a", &host.id, b"nv", ek.name(), 3);
    assert_eq!(again.unwrap_err().id(), "tag.serial");
    desk.store.retire(&at(3), "operator:a", &host.id).unwrap();
    assert_eq!(desk.store.enrolled(&host.id).unwrap_err().id(), "host.retired");
    assert!(desk.store.certificate(&issued.serial).unwrap().unwrap().revoked);
    assert_eq!(told(&desk.store.collect(&at(4), &new.id, |host, _| desk.issue(host))), "enrolment.refused");
    // The name and the TPM are free again, for a person to give.
    desk.token("again", "node-1", |_| {});
    assert_eq!(told(&desk.activate(&desk.begin(0, 0, Some("again")), 5)), "approved");
    let actions: Vec<String> =
        desk.store.audit_records(0, 100).unwrap().into_iter().map(|record| record.action).collect();
    assert_eq!(
        actions,
        [
            "token.create",
            "host.approve",
            "host.label",
            "host.maintenance",
            "host.tag",
            "host.retire",
            "token.create",
            "host.approve"
        ]
    );
}

#[test]
fn d22_a_malformed_row_is_refused_alone() {
    let desk = Desk::new();
    for (n, token) in ["one", "two"].into_iter().enumerate() {
        desk.token(token, &format!("node-{n}"), |_| {});
        assert_eq!(told(&desk.activate(&desk.begin(n, n, Some(token)), 1)), "approved");
    }
    desk.store
        .write(&at(2), |tx| {
            Ok(tx.execute("UPDATE hosts SET label = 'Not A Label' WHERE node = 'node-0'", []).map(|_| ())?)
        })
        .unwrap();
    let nodes: Vec<String> = desk.store.hosts().unwrap().into_iter().map(|host| host.assignment.node).collect();
    assert_eq!(nodes, ["node-1"]);
}

#[test]
fn d5_strangers_cannot_fill_the_store() {
    let desk = Desk::new();
    let first = desk.begin(0, 0, None);
    // Strangers without certificate fill their own share only.
    let bare = || NewEnrolment { class: "unverified".into(), ..enrolment(1, 1, None) };
    let begun = (0..1000).take_while(|_| desk.store.begin_enrolment(&at(0), &bare()).is_ok()).count();
    assert_eq!(begun, 500);
    assert_eq!(desk.store.begin_enrolment(&at(0), &bare()).unwrap_err().id(), "enrolment.too-many");
    assert!(desk.store.begin_enrolment(&at(0), &enrolment(1, 1, None)).is_ok());
    let copies = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO enrolments SELECT id || i, state, host || i, rebinds, ek_id, ek_public, ek_certificate, ek_intermediates, class, ak_public,
            ak_name, token_hash, secret_hash, nonce, boot_id, deadline_boot_ms, created_unix_ms, tls_public, findings FROM enrolments, n WHERE class <> 'unverified'";
    desk.store.write(&at(0), |tx| Ok(tx.execute(copies, []).map(|_| ())?)).unwrap();
    assert_eq!(desk.store.begin_enrolment(&at(1), &enrolment(1, 1, None)).unwrap_err().id(), "enrolment.too-many");
    // Those that nobody activates make room by themselves.
    let later = at(120_001);
    desk.store.begin_enrolment(&later, &enrolment(1, 1, None)).unwrap();
    assert_eq!(desk.store.enrolment(&first.id).unwrap_err().id(), "enrolment.unknown");
}
