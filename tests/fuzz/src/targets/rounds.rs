//! What a host sends in a round or at enrolment, TPM structures, and what comes back from where it was kept.
//!
//! Beside "it returns": what has one encoding is encoded again, a seal or a signature never holds over other bytes, and a verified
//! token says what was signed and has not ended.

use hostmark_attest::digest::sha256;
use hostmark_attest::evidence::Evidence;
use hostmark_attest::identity::ak::{self, verify_ak};
use hostmark_attest::identity::certify::{TlsKeyEvidence, verify_tls_key};
use hostmark_attest::identity::class::TrustBundle;
use hostmark_attest::identity::nv::NvPublic;
use hostmark_attest::identity::{ek, tag};
use hostmark_attest::jws::{self, KeySet, Signer as _};
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::permit::{PERMIT, Permit};
use hostmark_attest::policy::{POLICY, REFERENCES, SignedFile};
use hostmark_attest::result::{RESULT, VerifiedResult};
use hostmark_attest::selection::{BankSelection, PcrSelection};
use hostmark_attest::state::{RoundState, SealKey};
use hostmark_attest::stored_round::{STORED_ROUND, StoredRound};
use hostmark_attest::tools::{self, Outcome, QuoteFiles};
use hostmark_attest::tpm::attest::{Attest, Attested};
use hostmark_attest::tpm::name::Name;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signature::Signature;
use hostmark_attest::wire::{EnrolmentRequest, Nonce};
use hostmark_attest::workload::{Inventory, sensitive};
use time::OffsetDateTime;

use crate::made;

pub(super) fn attest(bytes: &[u8]) {
    let _ = Attest::parse(bytes);
}

pub(super) fn name(bytes: &[u8]) {
    if let Ok(name) = Name::parse(bytes) {
        assert_eq!(name.as_bytes(), bytes, "a name has one encoding");
    }
}

pub(super) fn nv_public(bytes: &[u8]) {
    if let Ok(public) = NvPublic::parse(bytes) {
        assert_eq!(public.to_bytes(), bytes, "TPMS_NV_PUBLIC has one encoding");
    }
}

pub(super) fn public(bytes: &[u8]) {
    for public in [Public::parse(bytes), Public::parse_tpm2b(bytes)].into_iter().flatten() {
        assert_eq!(Public::parse(public.as_bytes()).as_ref(), Ok(&public));
        assert_eq!(
            Name::of(public.name_alg(), public.as_bytes()).as_ref(),
            Some(public.name()),
            "its name is its hash"
        );
        let _ = (ak::verify_ak(&public), public.key().to_spki(), public.key().weakness());
        let _ = ek::verify_ek(&public, None, &[], &TrustBundle::new(), OffsetDateTime::UNIX_EPOCH);
    }
}

pub(super) fn signature(bytes: &[u8]) {
    if let (Ok(signature), Ok(key)) = (Signature::parse(bytes), Public::parse_tpm2b(made::AK)) {
        let _ = signature.fits(key.key(), key.scheme());
        assert!(signature.verify(key.key(), b"message").is_err(), "the AK never signed this");
    }
}

/// A quote from files, each of them in turn the host's invention. Only the recorded quote over the recorded values verifies, whatever it
/// is wrapped in.
pub(super) fn quote(bytes: &[u8]) {
    let recorded = QuoteFiles {
        attest: made::QUOTE,
        signature: made::QUOTE_SIGNATURE,
        ak: made::QUOTE_AK,
        pcrs: made::QUOTE_PCRS,
        nonce: made::QUOTE_NONCE,
        select: None,
    };
    let files = [
        QuoteFiles { attest: bytes, ..recorded },
        QuoteFiles { signature: bytes, ..recorded },
        QuoteFiles { ak: bytes, ..recorded },
        QuoteFiles { pcrs: bytes, ..recorded },
        QuoteFiles { nonce: bytes, ..recorded },
    ];
    for (number, files) in files.iter().enumerate() {
        let verified = tools::verify_quote_files(files).is_ok_and(|verdict| verdict.verdict == Outcome::Verified);
        let honest = match number {
            0 => tools::unwrap_attest(bytes) == made::QUOTE,
            2 => {
                tools::read_ak(bytes).ok().map(|file| file.key)
                    == tools::read_ak(made::QUOTE_AK).ok().map(|file| file.key)
            }
            4 => bytes == made::QUOTE_NONCE,
            // Another signature of the same quote (s and n - s), the same values in another form.
            _ => true,
        };
        assert!(!verified || honest, "file {number}");
    }
    let Ok(ak) = tools::read_ak(made::QUOTE_AK) else { return };
    if let Ok(signature) = Signature::parse(bytes) {
        let holds = signature.verify(&ak.key, made::QUOTE).is_ok();
        assert!(!holds || signature.verify(&ak.key, b"another").is_err());
    }
}

/// A certification request, and everything that stands beside it.
pub(super) fn certification(bytes: &[u8]) {
    let (Ok(ak), Ok(ek)) = (Public::parse_tpm2b(&made::ak()), Public::parse_tpm2b(made::EK)) else { return };
    let Ok(verified) = verify_ak(&ak) else { return };
    let evidence = [
        TlsKeyEvidence { tls_public: ak.as_bytes(), attest: made::QUOTE, signature: made::QUOTE_SIGNATURE, csr: bytes },
        TlsKeyEvidence { tls_public: bytes, attest: bytes, signature: bytes, csr: bytes },
    ];
    for evidence in evidence {
        assert!(verify_tls_key(&evidence, &verified, ek.name(), &Nonce([5; 32])).is_err(), "nothing certifies it");
    }
}

pub(super) fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = Evidence::parse(bytes) {
        assert_eq!(evidence.encode(), bytes, "evidence has one encoding");
    }
}

pub(super) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = EngineManifest::parse(bytes) {
        assert_eq!(manifest.to_canonical(), bytes, "a manifest has one encoding");
    }
}

pub(super) fn inventory(bytes: &[u8]) {
    if let Ok(inventory) = Inventory::parse(bytes) {
        assert_eq!(inventory.to_canonical(), bytes, "an inventory has one encoding");
    }
    if let Ok(path) = std::str::from_utf8(bytes) {
        let inside = format!("{}/", path.trim_end_matches('/'));
        assert!(sensitive(path).is_none() || sensitive(&inside).is_some(), "a slash at the end opens no directory");
    }
}

pub(super) fn provisioned_tag(bytes: &[u8]) {
    assert!(tag::verify_provisioning(bytes, &KeySet::new()).is_err(), "nobody may sign tags");
    assert!(tag::verify_provisioning(bytes, &unable()).is_err(), "nothing verifies under this key");
}

pub(super) fn tools_files(bytes: &[u8]) {
    let _ = (tools::read_ak(bytes), tools::unwrap_attest(bytes), tools::read_serialized_pcrs(bytes));
    if let Ok(attest) = Attest::parse(made::QUOTE)
        && let Attested::Quote { selection, .. } = attest.attested
        && let Ok(values) = tools::read_pcr_values(bytes, &selection)
    {
        let quoted = |bank, index| selection.contains(bank, index);
        assert!(values.iter().all(|(bank, values)| values.keys().all(|index| quoted(*bank, *index))));
    }
    if let Some(selection) = std::str::from_utf8(bytes).ok().and_then(PcrSelection::from_text) {
        let all = |bank: &BankSelection| bank.indices().all(|index| selection.contains(bank.bank, index));
        assert!(selection.banks().iter().all(all));
    }
}

pub(super) fn enrolment(bytes: &[u8]) {
    let _ = serde_json::from_slice::<EnrolmentRequest>(bytes);
}

/// Trusts a key under which nothing verifies.
fn unable() -> KeySet {
    let mut keys = KeySet::new();
    keys.insert(made::KID, made::POINT);
    keys
}

/// Trusts the key of this run.
fn trusted() -> KeySet {
    let mut keys = KeySet::new();
    keys.insert(made::signer().kid(), made::signer().point());
    keys
}

/// Tokens as they arrive. One that verifies says what was signed under this purpose.
pub(super) fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = unable();
    assert!(Permit::verify(text, &keys, 0).is_err() && VerifiedResult::verify(text, &keys, "host", 0).is_err());
    let keys = trusted();
    for purpose in [&PERMIT, &RESULT, &POLICY, &REFERENCES, &STORED_ROUND] {
        if let Ok(payload) = jws::verify(purpose, text, &keys) {
            assert!(*purpose == PERMIT && payload == made::permit_payload(), "signed as {}", purpose.typ);
        }
    }
    for (purpose, file) in [(&POLICY, made::POLICY), (&REFERENCES, made::REFERENCES)] {
        if let Ok(signed) = SignedFile::verify("fuzz", file, text, purpose, &keys) {
            assert!(*purpose == POLICY && signed.signer() == made::signer().kid(), "a signature over a policy is one");
        }
    }
}

/// What a permit or a result holds, under a signature that verifies.
pub(super) fn claims(bytes: &[u8]) {
    const NOW: i64 = 1_764_000_000;
    let keys = trusted();
    if let Ok(token) = jws::sign(&PERMIT, bytes, made::signer())
        && let Ok(permit) = Permit::verify(&token, &keys, NOW)
    {
        let claims = permit.claims();
        assert!(claims.not_after > NOW && !permit.allows(&claims.node, &claims.pool, claims.not_after));
        assert!(!permit.allows("another", &claims.pool, NOW) || claims.node == "another");
    }
    if let Ok(token) = jws::sign(&RESULT, bytes, made::signer())
        && let Ok(result) = VerifiedResult::verify(&token, &keys, "host", NOW)
    {
        assert!(result.host() == "host" && result.issued() <= NOW && result.claims().exp > NOW);
        let _ = result.disproven();
        if let Ok(again) = result.claims().sign(made::signer()) {
            assert_eq!(VerifiedResult::verify(&again, &keys, "host", NOW), Ok(result), "it says what it said");
        }
    }
}

/// What is kept between rounds, under the seal and without.
pub(super) fn round_state(bytes: &[u8]) {
    let key = SealKey::new(&[7; 32]);
    assert!(RoundState::open(bytes, &key, "host", "ak").is_err(), "nothing is kept without the seal");
    let seal = key.seal("hostmark-round-state-v1", &[b"host", b"ak", bytes]);
    let sealed = [seal.as_slice(), bytes].concat();
    let Ok(state) = RoundState::open(&sealed, &key, "host", "ak") else { return };
    let _ = (state.counters(), state.boot_id().len(), state.ima(), state.runtime(), state.engine());
    assert!(
        RoundState::open(&sealed, &key, "other", "ak").is_err()
            && RoundState::open(&sealed, &key, "host", "x").is_err()
    );
    assert!(RoundState::open(&sealed, &SealKey::new(&[8; 32]), "host", "ak").is_err());
    let again = state.seal(&key);
    if let Ok(opened) = RoundState::open(&again, &key, "host", "ak") {
        assert_eq!(opened, state, "sealed again, it is the same");
    }
}

/// A kept round: the input is what stands under the verifier's signature.
pub(super) fn stored_round(bytes: &[u8]) {
    let keys = trusted();
    assert!(StoredRound::verify(bytes, &keys).is_err(), "no kept round without the signature");
    let Ok(token) = jws::sign_detached(&STORED_ROUND, bytes, made::signer()) else { return };
    let file = [b"hostmark-evidence-v1 ", token.as_bytes(), b"\n", bytes].concat();
    assert!(StoredRound::verify(&file, &KeySet::new()).is_err());
    let Ok(round) = StoredRound::verify(&file, &keys) else { return };
    let Some(judge) = made::judge() else { return };
    let replay = round.replay(&judge, round.at());
    assert!(replay.claims.is_some() || !replay.findings.as_slice().is_empty(), "no result without a reason");
    assert_eq!(round.replay(&judge, round.at()).claims, replay.claims, "{:x?}", sha256(&[bytes]));
}
