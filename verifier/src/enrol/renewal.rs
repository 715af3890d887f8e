//! Renewal of a host's certificate by a quote of its AK, without a person: also after the certificate has expired.
//!
//! The quote shows that the enrolled AK signs now, for this nonce and this request; the certification shows that the TLS key is the TPM's. It
//! says **nothing** about the host's state: a certificate is a name, not trust. Of two machines with one TPM neither is given another name.

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::identity::certify::{CertifiedTlsKey, TlsKeyEvidence, verify_tls_key};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::state::RoundState;
use hostmark_attest::tpm::attest::{AttestType, Attested};
use hostmark_attest::tpm::signed::{Expectation, QUOTE, Signer, verify_attest};
use hostmark_attest::wire::{DOMAIN_QUOTE, Renewal};

use super::enrolled::Enrolled;
use crate::refusal::{Outcome, Refusal};

/// What a renewal quotes. Any PCR would do: its value is not looked at.
#[must_use]
pub fn selection() -> PcrSelection {
    PcrSelection::from_text("sha256:0").unwrap_or_default()
}

/// Judges a renewal. The nonce is not judged here: the store consumes it in the transaction that records the certificate.
///
/// # Errors
/// 422 with every finding of `quote.*`, `renewal.selection`, `tls-key.*`.
pub fn verify(host: &Enrolled, renewal: &Renewal) -> Outcome<CertifiedTlsKey> {
    let qualifying_data = renewal.nonce.bind(DOMAIN_QUOTE, &renewal.csr.0);
    let expectation = Expectation {
        ids: &QUOTE,
        kind: AttestType::Quote,
        signer: Signer::EnrolledAk { public: host.ak().public(), ek_name: host.ek().name() },
        qualifying_data: &qualifying_data,
    };
    let (quote, _) =
        verify_attest(&renewal.quote.attest.0, &renewal.quote.signature.0, &expectation).map_err(Refusal::findings)?;
    let asked = selection();
    let quoted = match &quote.attest().attested {
        Attested::Quote { selection, .. } => Some(selection),
        _ => None,
    };
    if violated("renewal.selection", quoted != Some(&asked)) {
        let finding = Finding::error("renewal.selection", "the quote covers other PCRs than the challenge asked for");
        return Err(Refusal::findings(finding.expected(&asked).into()));
    }
    let evidence = TlsKeyEvidence {
        attest: &renewal.certification.attest.0,
        signature: &renewal.certification.signature.0,
        tls_public: &renewal.tls_public.0,
        csr: &renewal.csr.0,
    };
    verify_tls_key(&evidence, host.ak(), host.ek().name(), &renewal.nonce).map_err(Refusal::findings)
}

/// Refuses a host whose answers came from two states of its TPM.
///
/// # Errors
/// 422 `renewal.clone-suspected`.
pub fn one_machine(kept: Option<&RoundState>) -> Outcome<()> {
    if violated("renewal.clone-suspected", kept.is_some_and(RoundState::clone_suspected)) {
        let finding = Finding::error("renewal.clone-suspected", "two machines answer with this host's TPM");
        let fix = "stop both machines and find out which is the copy; then `hostmark host retire` and enrol the real one with a new TPM state";
        return Err(Refusal::findings(finding.fix(fix).into()));
    }
    Ok(())
}
