//! Rounds in the library: from the bytes that came in to the signed result.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair as _, UnparsedPublicKey};
use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge};
use hostmark_attest::digest::sha256;
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::Findings;
use hostmark_attest::identity::ak::{AkPublic, verify_ak};
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::jws::{KeySet, SoftwareKey};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::round::{Known, judge_round};
use hostmark_attest::state::RoundState;
use hostmark_attest::wire::{Challenge, Nonce};
use hostmark_tests::attester::Attester;
use hostmark_tests::lab::{POLICY_NAME, reference_boot, shipped};
use hostmark_tests::operator::capture_references;
use hostmark_tests::pki::Ca;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::ima::named_files;
use crate::measure::{Table, turns};
use crate::memory::idle_hosts;
use crate::pure::der;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

struct Rounds<'a> {
    host: &'a Attester,
    ak: AkPublic,
    judge: Judge,
    signers: KeySet,
    key: SoftwareKey,
    nonce: Nonce,
    endorsed: Endorsed,
}

impl<'a> Rounds<'a> {
    /// `more`: what the references hold beyond a captured boot.
    fn new(host: &'a Attester, more: &str) -> Self {
        let captured = capture_references(&reference_boot().unwrap(), 1).unwrap();
        // The names of the files are the last table that a capture may end with, or not: more files are more lines of it.
        let references = captured.replacen("[window.ima]\n", more, usize::from(!more.is_empty()));
        let references = Arc::new(References::parse(POLICY_NAME, &references).unwrap());
        let policy = AppraisalPolicy::parse(POLICY_NAME, &shipped("appraisal", POLICY_NAME).unwrap()).unwrap();
        Self {
            host,
            ak: verify_ak(&host.tpm.ak.public).unwrap(),
            judge: Judge::new(Arc::new(policy), &[references]).unwrap(),
            signers: KeySet::new(),
            key: SoftwareKey::from_pkcs8(rcgen::KeyPair::generate().unwrap().serialized_der()).unwrap(),
            nonce: Nonce([9; 32]),
            endorsed: Endorsed { class: TpmClass::Simulated, findings: Findings::new() },
        }
    }

    fn evidence(&self, ima_from: u64) -> Evidence {
        let selection = self.judge.policy().selection().clone();
        let reset_count = self.host.clock.reset_count;
        let challenge =
            Challenge { nonce: self.nonce, expires_in_ms: 60_000, selection, ima_from, reset_count, tag: None };
        self.host.sign(self.host.draft(&challenge))
    }

    fn appraise(&self, bytes: &[u8], kept: Option<&RoundState>) -> Appraisal {
        let known = Known {
            host: "host-1",
            ek: &self.host.ek.public,
            ak: &self.ak,
            endorsed: &self.endorsed,
            tag_signers: &self.signers,
            tag_serial: None,
            kept,
            nonce: self.nonce,
            at: NOW,
        };
        judge_round(Evidence::parse(bytes).unwrap(), &known, &self.judge).unwrap()
    }

    fn result(&self, bytes: &[u8], kept: Option<&RoundState>) -> String {
        let appraisal = self.appraise(bytes, kept);
        assert!(!appraisal.disproven());
        let issued = NOW.unix_timestamp();
        appraisal.into_result("host-1".to_owned(), issued, issued + 60).sign(&self.key).unwrap()
    }

    /// A first and a steady round against the least that either can do: one verification, one signature over as many bytes as the
    /// result's, and one SHA-256 of each byte that must be hashed: the unanchored part (which the quote binds), the manifest in it and
    /// the boot log, systemd's log, the IMA list and the host log (which PCRs hold).
    fn figures(&self, table: &mut Table, digests: &str) {
        let first = self.evidence(0);
        let state = self.appraise(&first.encode(), None).state().clone();
        let steady = self.evidence(state.ima().entries);
        for (what, evidence, kept) in [("a steady", &steady, Some(&state)), ("a first", &first, None)] {
            let bytes = evidence.encode();
            let quote = &evidence.quote;
            let (message, signature) = (&quote.attest.0, der(&quote.signature.0));
            let point = self.host.tpm.ak.pair.public_key().as_ref();
            let random = SystemRandom::new();
            let token = self.result(&bytes, kept);
            let manifest = &evidence.unanchored().manifest;
            let logs = [&evidence.boot_log, &evidence.userspace_log, &evidence.ima.list, &evidence.host_log];
            let least = || {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, &signature).unwrap();
                let hashed =
                    (sha256(&[evidence.unanchored_bytes()]), sha256(&[manifest]), logs.map(|log| sha256(&[log])));
                (self.host.tpm.ak.pair.sign(&random, token.as_bytes()).unwrap(), hashed)
            };
            let (figure, floor) = turns(|| self.result(&bytes, kept), least);
            let what =
                format!("{what} round of {} bytes, to the signed result, policy of {digests} digests", bytes.len());
            let floor_is = "one verification, one signature, the hashes of the bytes";
            match kept {
                Some(_) => table.goal(&what, figure, floor_is, floor, 1.5),
                None => table.times(&what, figure, floor_is, floor),
            }
        }
    }
}

/// What an idle host takes.
pub fn memory(table: &mut Table, host: &Attester) {
    let rounds = Rounds::new(host, "");
    let bytes = rounds.evidence(0).encode();
    idle_hosts(table, host, || rounds.appraise(&bytes, None));
}

/// Rounds under a small policy and a large one, and the class of the TPM.
pub fn figures(table: &mut Table, host: &Attester, ca: &Ca) {
    Rounds::new(host, "").figures(table, "some hundred");
    let rounds = Rounds::new(host, &named_files());
    rounds.figures(table, "100,000");

    // The class is derived anew in every round.
    let evidence = rounds.evidence(0);
    let (message, signature) = (&evidence.quote.attest.0, der(&evidence.quote.signature.0));
    let point = host.tpm.ak.pair.public_key().as_ref();
    let mut bundle = TrustBundle::new();
    bundle.add(TpmClass::Simulated, ca.certificate.pem().as_bytes()).unwrap();
    let certificate = host.ek.certificate.as_deref();
    let (figure, floor) = turns(
        || verify_ek(&host.ek.public, certificate, &[], &bundle, NOW).unwrap(),
        || {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, &signature).unwrap();
        },
    );
    table.times("EK certificate to its class, every round", figure, "one verification (P-256)", floor);
}
