//! Seeds of what stands under a seal or a signature, and the key of a run.
//!
//! The key is new in each run: a signature opens the way to what it covers, and decides nothing of what is found there.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use hostmark_attest::appraisal::Judge;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::jws::{self, SoftwareKey};
use hostmark_attest::permit::{PERMIT, PermitClaims};
use hostmark_attest::policy::{AppraisalPolicy, POLICY, References};
use hostmark_attest::result::{HostClaims, ResultClaims, SubmoduleClaims};
use hostmark_attest::tier::{Basis, Submodule, Tier};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{B64, Nonce};
use hostmark_attest::workload::{Confinement, Container, EngineWorkloads, Inventory, Mount, VERSION};
use serde_json::json;

use super::{BOOT_ID, EK, ak};

/// When made tokens begin, and how long they last, in seconds.
const ISSUED: i64 = 1_763_999_990;
const LASTS: i64 = 1_000;

/// The key that signs in this run.
///
/// # Panics
/// When no key can be made.
#[must_use]
#[allow(clippy::expect_used, reason = "without a key nothing under a signature can be fuzzed")]
pub fn signer() -> &'static SoftwareKey {
    static KEY: LazyLock<SoftwareKey> = LazyLock::new(|| {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        SoftwareKey::from_pkcs8(document.expect("a key can be made").as_ref()).expect("it is one of P-256")
    });
    &KEY
}

/// What a permit says.
#[must_use]
pub fn permit_payload() -> Vec<u8> {
    let text = |text: &str| text.to_owned();
    let Ok(label) = "restricted:phi@hospital-a".parse() else { return Vec::new() };
    let permit = PermitClaims {
        host: text("host"),
        node: text("node-1"),
        pool: text("phi-a"),
        label,
        rule: text("phi-strict"),
        aud: text(hostmark_attest::permit::AUDIENCE),
        issued_at: ISSUED,
        not_after: ISSUED + LASTS,
        remaining_ms: 60_000,
        sequence: 1,
    };
    serde_json::to_vec(&permit).unwrap_or_default()
}

/// A permit of this run's key.
#[must_use]
pub fn signed_permit() -> Vec<u8> {
    jws::sign(&PERMIT, &permit_payload(), signer()).unwrap_or_default().into_bytes()
}

/// The signature over [`super::POLICY`].
#[must_use]
pub fn policy_signature() -> Vec<u8> {
    jws::sign_detached(&POLICY, super::POLICY.as_bytes(), signer()).unwrap_or_default().into_bytes()
}

/// What a result says.
#[must_use]
pub fn result_payload() -> Vec<u8> {
    let boot = SubmoduleClaims {
        status: Tier::Affirming,
        vector: BTreeMap::from([("executables".to_owned(), 2)]),
        policy: "fuzz@1".to_owned(),
        basis: BTreeMap::from([("executables".to_owned(), Basis::PcrAnchored)]),
        findings: Vec::new(),
    };
    let host = HostClaims {
        tpm_class: TpmClass::Simulated,
        appraisal: "fuzz".to_owned(),
        appraisal_version: 1,
        sources: vec!["boot-log".to_owned()],
        tag_label: "restricted:phi@hospital-a".parse().ok(),
        tag_location: Some("jp-east/rack-7".to_owned()),
        tag_serial: Some(3),
        boot: None,
    };
    let submods = BTreeMap::from([(Submodule::Boot, boot)]);
    serde_json::to_vec(&ResultClaims::new("host".to_owned(), ISSUED, ISSUED + LASTS, submods, host)).unwrap_or_default()
}

fn kept(host: &str, ak_name: &str) -> serde_json::Value {
    let digest = "07".repeat(32);
    json!({
        "host": host, "ak_name": ak_name, "reset_count": 3, "restart_count": 1, "clock": 1_000, "boot_id": BOOT_ID,
        "ima_entries": 130, "ima_pcr10": digest, "judged_by": "fuzz@1",
        "runtime": {
            "known": 2, "unknown": 1, "violations": 0,
            "findings": [{"id": "ima.unknown-file", "severity": "warning", "message": "unknown", "expected": "a", "found": "b", "fix": "c"}],
            "list": [], "kinds": {"ima.kexec": [1, "/boot/vmlinuz"]},
            "policy": {"measured": true, "others": 1, "first": "/init"},
            "programs": {"listed": [{"path": "/usr/bin/runc", "digest": digest}], "contested": [], "said": []},
        },
        "engine": {"confirmed": ["00aa"], "absent": [], "other": []},
    })
}

/// What is kept of a host between rounds.
#[must_use]
pub fn round_state() -> Vec<u8> {
    serde_json::to_vec(&kept("host", "ak")).unwrap_or_default()
}

/// What stands under the signature of a kept round.
#[must_use]
pub fn stored_round() -> Vec<u8> {
    let area = |tpm2b: &[u8]| Public::parse_tpm2b(tpm2b).map(|public| B64(public.as_bytes().to_vec())).ok();
    let name = Public::parse_tpm2b(&ak())
        .map(|public| public.name().as_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>());
    let meta = json!({
        "host": "host", "ek": area(EK), "ak": area(&ak()), "tpm_class": TpmClass::Simulated, "endorsement": [],
        "tag_signers": {super::KID: B64(super::POINT.to_vec())}, "tag_serial": 2,
        "kept": kept("host", &name.unwrap_or_default()), "nonce": Nonce([5; 32]), "at": ISSUED, "policy": "fuzz",
        "policy_version": 7, "judged_by": "fuzz@1",
        "recorded": {"disproven": true, "result": null, "findings": []},
    });
    [serde_json::to_vec(&meta).unwrap_or_default().as_slice(), b"\n", &super::evidence()].concat()
}

/// The policy and references that judge a kept round again.
#[must_use]
pub fn judge() -> Option<Judge> {
    let names = ["fw-vendor-model", "debian12-uki"];
    let published: Vec<_> =
        names.iter().filter_map(|name| References::parse(name, super::REFERENCES).ok()).map(Arc::new).collect();
    Judge::new(Arc::new(AppraisalPolicy::parse("fuzz", super::POLICY).ok()?), &published).ok()
}

/// One container with something in each of its lists.
#[must_use]
pub fn inventory() -> Vec<u8> {
    let text = |text: &str| text.to_owned();
    let mount = Mount {
        source: text("/var/run/docker.sock"),
        leads_to: Some(text("/run/docker.sock")),
        destination: text("/sock"),
        writable: true,
    };
    let container = Container {
        name: text("web"),
        image: text("sha256:00"),
        state: text("running"),
        restart: text("always"),
        runtime: text("runc"),
        privileged: true,
        host_namespaces: [text("pid")].into(),
        mounts: [mount].into(),
        capabilities: [text("SYS_ADMIN")].into(),
        device_rules: [text("b 8:* rwm")].into(),
        system_paths: true,
        confinement: Some(Confinement {
            capabilities: [text("ALL")].into(),
            seccomp: text("unconfined"),
            ports: Some([text("0.0.0.0:80")].into()),
            restarts: Some(-1),
            ..Confinement::default()
        }),
    };
    let docker =
        EngineWorkloads { containers: BTreeMap::from([(text("0a"), container)]), ..EngineWorkloads::default() };
    Inventory { version: VERSION, engines: BTreeMap::from([(text("docker"), docker)]) }.to_canonical()
}

#[cfg(test)]
mod tests {
    use hostmark_attest::jws::{KeySet, Signer as _};
    use hostmark_attest::permit::Permit;
    use hostmark_attest::result::{RESULT, VerifiedResult};
    use hostmark_attest::state::{RoundState, SealKey};
    use hostmark_attest::stored_round::{STORED_ROUND, StoredRound};
    use hostmark_attest::workload::Inventory;

    #[test]
    fn made_seeds_reach_what_stands_under_a_seal_or_a_signature() {
        let mut keys = KeySet::new();
        keys.insert(super::signer().kid(), super::signer().point());
        let permit = String::from_utf8(super::signed_permit()).unwrap();
        assert!(Permit::verify(&permit, &keys, super::ISSUED + 1).is_ok());
        let sign = |purpose, payload: &[u8]| super::jws::sign(purpose, payload, super::signer()).unwrap();
        let result = sign(&RESULT, &super::result_payload());
        assert!(VerifiedResult::verify(&result, &keys, "host", super::ISSUED).is_ok());
        let body = super::stored_round();
        let token = super::jws::sign_detached(&STORED_ROUND, &body, super::signer()).unwrap();
        let file = [b"hostmark-evidence-v1 ", token.as_bytes(), b"\n", &body].concat();
        let round = StoredRound::verify(&file, &keys).unwrap();
        let replay = round.replay(&super::judge().unwrap(), round.at());
        assert!(replay.findings.has("quote.signature"), "the evidence is judged: {:?}", replay.findings);
        let key = SealKey::new(&[7; 32]);
        let state = super::round_state();
        let sealed = [&key.seal("hostmark-round-state-v1", &[b"host", b"ak", &state])[..], &state].concat();
        assert_eq!(RoundState::open(&sealed, &key, "host", "ak").unwrap().ima().entries, 130);
        assert!(Inventory::parse(&super::inventory()).is_ok());
    }
}
