//! Rounds that a verifier keeps: only its own signature makes one, and a replay holds the outcome against the recorded one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::bench::{Host, judge, policy};
use common::systemd_log::Measured;
use common::{SoftwareKey, SoftwareTpm};
use hostmark_attest::appraisal::{Endorsed, Judge};
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::Findings;
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::jws::{self, KeySet, SoftwareKey as SignerKey};
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::result::{RESULT, ResultClaims};
use hostmark_attest::round::{Known, judge_round};
use hostmark_attest::stored_round::{Recorded, Replay, STORED_ROUND, StoredRound, StoredRoundError, keep};
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::Nonce;
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);
const NONCE: Nonce = Nonce([7; 32]);

fn signer() -> SignerKey {
    let key = rcgen::KeyPair::generate().unwrap();
    SignerKey::from_pkcs8(key.serialized_der()).unwrap()
}

/// A host without engines.
fn manifest() -> EngineManifest {
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() }
}

/// The verifier's side of one host.
struct Service {
    ek: Public,
    endorsed: Endorsed,
    tags: KeySet,
    key: SignerKey,
    judge: Judge,
}

impl Service {
    fn new() -> (Self, Host) {
        let manifest = manifest();
        let mut host = Host::boot(&manifest);
        let ek = SoftwareKey::tls().public;
        host.tpm = SoftwareTpm { ek_name: ek.name().clone(), ak: SoftwareKey::ak(), pcrs: host.tpm.pcrs.clone() };
        let endorsed = Endorsed { class: TpmClass::Simulated, findings: Findings::new() };
        let service =
            Self { ek, endorsed, tags: KeySet::new(), key: signer(), judge: judge(&policy(""), &[&manifest]) };
        (service, host)
    }

    fn keys(&self) -> KeySet {
        let mut keys = KeySet::new();
        keys.insert(jws::key_id(self.key.point()), self.key.point());
        keys
    }

    /// Judges a round of the host and keeps it, after `change` of what is recorded.
    fn keep(&self, host: &mut Host, id: &str, change: impl FnOnce(&mut ResultClaims)) -> (Vec<u8>, ResultClaims) {
        let ak = verify_ak(&host.tpm.ak.public).unwrap();
        let body = host.evidence(&self.judge, NONCE).encode();
        let state = host.state.clone();
        let known = Known {
            host: id,
            ek: &self.ek,
            ak: &ak,
            endorsed: &self.endorsed,
            tag_signers: &self.tags,
            tag_serial: None,
            kept: state.as_ref(),
            nonce: NONCE,
            at: NOW,
        };
        let appraisal = judge_round(Evidence::parse(&body).unwrap(), &known, &self.judge).unwrap();
        host.state = Some(appraisal.state().clone());
        let disproven = appraisal.disproven();
        let mut claims = appraisal.into_result(id.to_owned(), NOW.unix_timestamp(), NOW.unix_timestamp() + 60);
        change(&mut claims);
        let result = Some(claims.sign(&self.key).unwrap());
        let recorded = Recorded { disproven, result, findings: Vec::new() };
        (keep(&body, &known, &self.judge, recorded, &self.key).unwrap(), claims)
    }

    fn replay(&self, file: &[u8]) -> Replay {
        StoredRound::verify(file, &self.keys()).unwrap().replay(&self.judge, NOW)
    }
}

fn refused(outcome: Result<StoredRound, StoredRoundError>) -> Vec<String> {
    match outcome.expect_err("accepted") {
        StoredRoundError::Refused(findings) => findings.into_vec().into_iter().map(|one| one.id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn d9_a_kept_round_is_its_verifiers_own() {
    let (service, mut host) = Service::new();
    let (file, claims) = service.keep(&mut host, "host-1", |_| {});
    let replay = service.replay(&file);
    assert_eq!((replay.claims, replay.findings.as_slice().len()), (Some(claims), 0));

    let mut others = KeySet::new();
    let other = signer();
    others.insert(jws::key_id(other.point()), other.point());
    assert_eq!(refused(StoredRound::verify(&file, &others)), ["evidence.key"]);
    // The verifier's key signed these bytes, but as something else.
    let line = file.iter().position(|byte| *byte == b'\n').unwrap();
    let wrapped = |token: &str| [b"hostmark-evidence-v1 ", token.as_bytes(), &file[line..]].concat();
    let result = jws::sign_detached(&RESULT, &file[line + 1..], &service.key).unwrap();
    assert_eq!(refused(StoredRound::verify(&wrapped(&result), &service.keys())), ["evidence.purpose"]);
    let none = "eyJhbGciOiJub25lIiwia2lkIjoieCIsInR5cCI6Imhvc3RtYXJrLWV2aWRlbmNlIn0..";
    assert_eq!(refused(StoredRound::verify(&wrapped(none), &service.keys())), ["evidence.algorithm"]);
    let again = jws::sign_detached(&STORED_ROUND, &file[line + 1..], &service.key).unwrap();
    StoredRound::verify(&wrapped(&again), &service.keys()).unwrap();

    // One changed byte anywhere, or a missing end.
    for at in (0..file.len()).step_by(file.len() / 400) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(StoredRound::verify(&changed, &service.keys()).is_err(), "byte {at}");
        assert!(StoredRound::verify(&file[..at], &service.keys()).is_err(), "{at} bytes");
    }
    let mut evidence = file.clone();
    *evidence.last_mut().unwrap() ^= 1;
    assert_eq!(refused(StoredRound::verify(&evidence, &service.keys())), ["evidence.signature"]);
}

#[test]
fn d9_a_replay_comes_to_the_recorded_result_or_says_what_differs() {
    let (service, mut host) = Service::new();
    // The first round, and one that continues from what was kept.
    for round in 0..3 {
        // Another release's rounds have no log of systemd's: they are what they were.
        if round == 2 {
            host.systemd(&[Measured::phase("sysinit")]);
        }
        let (file, claims) = service.keep(&mut host, "host-1", |_| {});
        let logged = file.windows(13).any(|window| window == b"userspace-log");
        assert_eq!(
            (logged, claims.hostmark.boot.as_ref().unwrap().userspace.len()),
            (round == 2, usize::from(round == 2))
        );
        let replay = service.replay(&file);
        assert!(!replay.findings.has("evidence.replay"), "round {round}: {:?}", replay.findings);
        assert_eq!(replay.claims.unwrap(), claims);
    }
    let ids =
        |replay: &Replay| -> Vec<String> { replay.findings.as_slice().iter().map(|one| one.id.clone()).collect() };

    // Who could sign as the verifier wrote a better result than the evidence gives.
    let (forged, _) = service.keep(&mut host, "host-1", |claims| {
        let engine = claims.submods.get_mut(&Submodule::Boot).unwrap();
        engine.status = if engine.status == Tier::Affirming { Tier::Contraindicated } else { Tier::Affirming };
    });
    let replay = service.replay(&forged);
    assert_eq!(ids(&replay), ["evidence.replay"]);
    let found = replay.findings.as_slice()[0].found.clone().unwrap();
    assert!(found.starts_with("boot: "), "{found}");

    // What was kept of one host is no other's.
    let (mixed, _) = {
        let state = host.state.clone();
        let (file, claims) = service.keep(&mut host, "host-2", |_| {});
        host.state = state;
        (file, claims)
    };
    let replay = service.replay(&mixed);
    assert_eq!(ids(&replay), ["evidence.replay", "state.owner"]);

    // Another policy, and another time.
    let (file, _) = service.keep(&mut host, "host-1", |_| {});
    let stored = StoredRound::verify(&file, &service.keys()).unwrap();
    let other = judge(&policy("").replace("version = 1", "version = 2"), &[&manifest()]);
    let replay = stored.replay(&other, NOW);
    // The round continued from files that the other policy has not judged.
    assert_eq!(ids(&replay), ["evidence.judged-by", "evidence.replay", "ima.judged-before"]);
    let later = stored.replay(&service.judge, NOW + time::Duration::hours(1));
    assert_eq!(ids(&later), ["evidence.time"], "nothing in this policy depends on the hour");
}
