//! A TPMS_ATTEST whose signature, magic, type, qualifyingData and signer have been verified, for any subject.
//!
//! TPM 2.0 Library Part 1, 31 (Attestation); Part 2, 10.12. The checks that a quote, the certification of a TLS key and the
//! certification of a tag have in common are written once, here; each subject brings its own finding [`Ids`].
//! It establishes that this key, in a TPM (if the key is an enrolled AK), attested this structure for this qualifyingData.
//! It does **not** judge the attested part: that is `quote`'s, `identity::certify`'s and `identity::tag`'s.

use super::attest::{Attest, AttestError, AttestType};
use super::key::PublicKey;
use super::name::{Name, RH_ENDORSEMENT, qualified_name};
use super::public::{KeyScheme, Public};
use super::signature::{Signature, describe};
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};

/// The finding ids of one subject.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// The bytes are no TPMS_ATTEST or no TPMT_SIGNATURE.
    pub malformed: &'static str,
    /// The signing key's kind or size is not on the list (A14).
    pub key_size: &'static str,
    /// SHA-1 in the key's scheme or in the signature (A23).
    pub sha1: &'static str,
    /// Scheme and hash do not belong to the key.
    pub algorithm: &'static str,
    /// The signature does not verify (A1b, A4).
    pub signature: &'static str,
    /// The bytes were not produced by a TPM (A1).
    pub magic: &'static str,
    /// Another type of attestation (A20).
    pub kind: &'static str,
    /// Another qualifyingData (A3, A15).
    pub nonce: &'static str,
    /// The signer is not where an enrolled AK lives (A28).
    pub signer: &'static str,
    /// The clock may have shown later values before: information.
    pub clock_safe: &'static str,
}

/// Ids of a quote.
pub const QUOTE: Ids = Ids {
    malformed: "quote.malformed",
    key_size: "quote.key-size",
    sha1: "quote.sha1",
    algorithm: "quote.algorithm",
    signature: "quote.signature",
    magic: "quote.magic",
    kind: "quote.type",
    nonce: "quote.nonce",
    signer: "quote.signer",
    clock_safe: "quote.clock-safe",
};

/// Ids of the certification of a TLS key.
pub const TLS_KEY: Ids = Ids {
    malformed: "tls-key.malformed",
    key_size: "tls-key.signer-key-size",
    sha1: "tls-key.sha1",
    algorithm: "tls-key.algorithm",
    signature: "tls-key.signature",
    magic: "tls-key.magic",
    kind: "tls-key.type",
    nonce: "tls-key.nonce",
    signer: "tls-key.signer",
    clock_safe: "tls-key.clock-safe",
};

/// Ids of the certification of an asset tag's NV index.
pub const TAG: Ids = Ids {
    malformed: "tag.malformed",
    key_size: "tag.signer-key-size",
    sha1: "tag.sha1",
    algorithm: "tag.algorithm",
    signature: "tag.signature",
    magic: "tag.magic",
    kind: "tag.type",
    nonce: "tag.nonce",
    signer: "tag.signer",
    clock_safe: "tag.clock-safe",
};

/// Whose signature is expected.
#[derive(Debug, Clone, Copy)]
pub enum Signer<'a> {
    /// The AK that enrolment activated beside this EK: its scheme and its place in the endorsement hierarchy are checked too.
    EnrolledAk {
        /// The AK's public area.
        public: &'a Public,
        /// The Name of the EK under which it was created.
        ek_name: &'a Name,
    },
    /// A key whose public area or place nobody vouches for (offline tools): the signature alone is checked.
    BareKey {
        /// The key.
        key: &'a PublicKey,
        /// The scheme that it fixes, where its public area is at hand.
        scheme: Option<KeyScheme>,
    },
}

impl Signer<'_> {
    /// The signing key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        match self {
            Self::EnrolledAk { public, .. } => public.key(),
            Self::BareKey { key, .. } => key,
        }
    }

    const fn scheme(&self) -> Option<KeyScheme> {
        match self {
            Self::EnrolledAk { public, .. } => public.scheme(),
            Self::BareKey { scheme, .. } => *scheme,
        }
    }
}

/// What a signed attestation must be.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The subject's finding ids.
    pub ids: &'static Ids,
    /// The type.
    pub kind: AttestType,
    /// Whose signature.
    pub signer: Signer<'a>,
    /// The exact extraData.
    pub qualifying_data: &'a [u8],
}

/// An attestation that passed every check of [`verify_attest`]. Only that function makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenuineAttest {
    attest: Attest,
    hash: HashAlg,
}

impl GenuineAttest {
    /// What the TPM attested.
    #[must_use]
    pub const fn attest(&self) -> &Attest {
        &self.attest
    }

    /// The signing scheme's hash.
    #[must_use]
    pub const fn hash(&self) -> HashAlg {
        self.hash
    }
}

/// Verifies a TPMS_ATTEST and the TPMT_SIGNATURE over exactly these bytes. The findings beside a proof refuse nothing.
///
/// # Errors
/// The findings, of which at least one refuses.
pub fn verify_attest(
    attest: &[u8],
    signature: &[u8],
    expect: &Expectation<'_>,
) -> Result<(GenuineAttest, Findings), Findings> {
    let (genuine, findings) = open(attest, signature, expect)?;
    if findings.acceptable() { Ok((genuine, findings)) } else { Err(findings) }
}

/// As [`verify_attest`], but gives the attestation together with findings that may refuse, so that the caller can add its
/// own before it decides. Whatever makes the contents meaningless (signature, magic, type) is an error here already.
pub(crate) fn open(
    attest: &[u8],
    signature: &[u8],
    expect: &Expectation<'_>,
) -> Result<(GenuineAttest, Findings), Findings> {
    let ids = expect.ids;
    let signature = Signature::parse(signature)
        .map_err(|error| Finding::error(ids.malformed, format!("the TPMT_SIGNATURE cannot be read: {error}")))?;
    let key = expect.signer.key();
    let scheme = expect.signer.scheme();
    let mut findings = Findings::new();

    let weakness = key.weakness();
    let strong = findings.check(ids.key_size, weakness.is_some(), || {
        Finding::error("", "the signing key's kind or size is not on the list")
            .expected("RSA-2048, RSA-3072, RSA-4096, P-256 or P-384")
            .found(weakness.unwrap_or_default())
            .fix("create the AK with a listed algorithm (ECC P-256 with ECDSA and SHA-256)")
    });
    if !strong {
        return Err(findings);
    }
    let sha1 = signature.hash == HashAlg::Sha1 || scheme.is_some_and(|one| one.hash == Some(HashAlg::Sha1));
    let modern = findings.check(ids.sha1, sha1, || {
        Finding::error("", "the signing scheme uses SHA-1, which no longer binds what is signed")
            .expected("SHA-256, SHA-384 or SHA-512")
            .found(signature.describe())
            .fix("create the AK with SHA-256 in its scheme")
    });
    let fits = modern
        && findings.check(ids.algorithm, !signature.fits(key, scheme), || {
            let of_key = scheme.map_or_else(String::new, |one| format!(" with {}", describe(one.scheme, one.hash)));
            Finding::error("", "the signature's scheme is not the key's")
                .expected(format!("{}{of_key}", key.kind()))
                .found(signature.describe())
                .fix("sign with the scheme that the key's public area states")
        });
    let signed = fits
        && findings.check(ids.signature, signature.verify(key, attest).is_err(), || {
            Finding::error("", "the signature is not this key's over these bytes")
                .expected(format!("a signature by {key}"))
                .fix("send the attestation and its signature unchanged, made by the enrolled AK")
        });
    if !signed {
        return Err(findings);
    }

    let parsed = Attest::parse(attest);
    let magic = match &parsed {
        Err(AttestError::NotProducedByTpm { magic }) => Some(*magic),
        _ => None,
    };
    let produced = findings.check(ids.magic, magic.is_some(), || {
        Finding::error("", "the signed bytes were not produced by a TPM: the key was made to sign outside data")
            .expected("TPM_GENERATED_VALUE 0xff544347")
            .found(format!("{:#010x}", magic.unwrap_or_default()))
            .fix("treat the host as hostile: something on it uses the AK to imitate the TPM")
    });
    if !produced {
        return Err(findings);
    }
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            findings.push(Finding::error(ids.malformed, format!("the TPMS_ATTEST cannot be read: {error}")));
            return Err(findings);
        }
    };
    let right_kind = findings.check(ids.kind, parsed.kind() != expect.kind, || {
        Finding::error("", "the TPM attested something else")
            .expected(expect.kind)
            .found(parsed.kind())
            .fix("send the attestation that was asked for")
    });
    if !right_kind {
        return Err(findings);
    }
    bind(&parsed, expect, &mut findings);
    Ok((GenuineAttest { attest: parsed, hash: signature.hash }, findings))
}

/// The checks that tie a genuine attestation to this request and this host.
fn bind(attest: &Attest, expect: &Expectation<'_>, findings: &mut Findings) {
    let ids = expect.ids;
    findings.check(ids.nonce, attest.extra_data != expect.qualifying_data, || {
        Finding::error(
            "",
            "the attestation answers another challenge: its extraData is not the expected qualifyingData",
        )
        .expected(hex::encode(expect.qualifying_data))
        .found(hex::encode(&attest.extra_data))
        .fix("attest again with a fresh nonce")
    });
    if let Signer::EnrolledAk { public, ek_name } = expect.signer {
        let want = qualified_name(RH_ENDORSEMENT, &[ek_name, public.name()]);
        let is = want.as_ref().is_some_and(|want| want.as_bytes() == attest.qualified_signer);
        findings.check(ids.signer, !is, || {
            Finding::error("", "the signing key is not the AK below the host's EK in the endorsement hierarchy")
                .expected(want.map_or_else(|| "a computable Qualified Name".to_owned(), |want| want.to_string()))
                .found(hex::encode(&attest.qualified_signer))
                .fix("create the AK below the EK in the endorsement hierarchy and enrol again")
        });
    }
    findings.check(ids.clock_safe, !attest.clock_info.safe, || {
        Finding::info("", "the TPM was not shut down in order: its clock may have shown later values before")
    });
}
