//! The asset tag: who provisioned this machine, with which label, for which place.
//!
//! NIST IR 8320A 4 (asset tag and trusted location); TPM 2.0 Library Part 2, 13 (NV), 10.12.8 (TPMS_NV_CERTIFY_INFO).
//!
//! NV holds a big-endian 16-bit length, that many bytes of canonical JSON ([`Tag`]), then a detached JWS over those bytes.
//!
//! Establishes: an operator's offline key signed this label, place and serial for **this EK**, the serial is not older than the last
//! one seen, it is valid now, and the host's TPM has it in the tag's NV index at this moment. The operator's signature is the proof;
//! NV_Certify only shows presence now: the owner may delete and define an index of the same Name at will. Where the machine stands is
//! what the operator says, not what the TPM could know.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::ak::AkPublic;
use super::nv::{NvPublic, TAG_ATTRIBUTES, TAG_INDEX};
use crate::bytes::Reader;
use crate::check::violated;
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};
use crate::jws::{self, KeySet, Purpose, SignError};
use crate::label::Label;
use crate::tpm::attest::{Attest, AttestType, Attested};
use crate::tpm::name::Name;
use crate::tpm::signed::{Expectation, Signer, TAG, open};
use crate::wire::{DOMAIN_TAG, Nonce};

/// Largest content of the tag's index: TPM2_NV_Certify takes at most MAX_NV_BUFFER_SIZE at once, 768 bytes on the smallest TPM known.
pub const NV_MAX: usize = 768;
/// Longest location.
const LOCATION_MAX: usize = 128;
/// TPM_ST_ATTEST_NV_DIGEST.
const ATTEST_NV_DIGEST: AttestType = AttestType::Other(0x801c);

/// What an operator's tag key signs, and the ids of the checks on that signature.
pub const PURPOSE: Purpose = Purpose {
    typ: "hostmark-tag",
    malformed: "tag.provisioning.malformed",
    algorithm: "tag.provisioning.algorithm",
    purpose: "tag.provisioning.type",
    key: "tag.provisioning.key",
    signature: "tag.provisioning.signature",
};

/// What a tag says. Its JSON has one form: these fields in this order, no white space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Name of the EK of the machine that it is for.
    pub ek: Name,
    /// Grows with each tag for this machine.
    pub serial: u64,
    /// The machine's clearance.
    pub label: Label,
    /// Where it stands: parts `[a-z0-9-]+` joined by `/`, from the widest on (`jp-east/rack-7`).
    pub location: String,
    /// First second of validity, since the Unix epoch.
    pub not_before: u64,
    /// Last second of validity.
    pub not_after: u64,
}

/// Why a tag cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// Not a location.
    #[error("a location is [a-z0-9-] parts joined by `/`, at most {LOCATION_MAX} bytes")]
    Location,
    /// It would never be valid.
    #[error("not_after is before not_before")]
    Validity,
    /// Above what every TPM can certify at once.
    #[error("a signed tag has at most {NV_MAX} bytes, this one would have {found}")]
    TooLong {
        /// Bytes it would have.
        found: usize,
    },
    /// The signing key failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Tag {
    /// The bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), TagError> {
        let part = |part: &str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if self.location.len() > LOCATION_MAX || !self.location.split('/').all(part) {
            return Err(TagError::Location);
        }
        if self.not_after < self.not_before {
            return Err(TagError::Validity);
        }
        Ok(())
    }

    /// Signs this tag: the exact contents of its NV index.
    ///
    /// # Errors
    /// [`TagError`].
    pub fn sign(&self, signer: &dyn jws::Signer) -> Result<Vec<u8>, TagError> {
        self.check()?;
        let payload = self.to_bytes();
        let signature = jws::sign_detached(&PURPOSE, &payload, signer)?;
        let found = payload.len().saturating_add(signature.len()).saturating_add(2);
        match u16::try_from(payload.len()) {
            Ok(size) if found <= NV_MAX => Ok([size.to_be_bytes().as_slice(), &payload, signature.as_bytes()].concat()),
            _ => Err(TagError::TooLong { found }),
        }
    }
}

/// A tag whose provisioning signature verified. Not yet seen in a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionedTag {
    tag: Tag,
    signer: String,
}

impl ProvisionedTag {
    /// What it says.
    #[must_use]
    pub const fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Id of the operator's key.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }
}

/// Verifies the operator's signature on the contents of a tag's NV index.
///
/// # Errors
/// `tag.payload`, or one of [`PURPOSE`]'s ids.
pub fn verify_provisioning(nv: &[u8], signers: &KeySet) -> Result<ProvisionedTag, Findings> {
    let unreadable = |why: &str| {
        Findings::from(
            Finding::error("tag.payload", format!("the tag cannot be read: {why}"))
                .expected("a 16-bit length, canonical JSON of that length, a detached JWS")
                .fix("write the tag again as `hostmark host tag` made it"),
        )
    };
    if nv.len() > NV_MAX {
        return Err(unreadable("it is too long"));
    }
    let mut reader = Reader::new(nv);
    let payload = reader
        .be16("the tag's length")
        .and_then(|size| reader.take(usize::from(size), "the tag's payload"))
        .map_err(|error| unreadable(&error.to_string()))?;
    let token = std::str::from_utf8(reader.rest()).map_err(|_| unreadable("its signature is no text"))?;
    // The signature first: nothing unsigned is interpreted.
    let signer = jws::verify_detached(&PURPOSE, payload, token, signers)?;
    let tag: Tag = serde_json::from_slice(payload).map_err(|error| unreadable(&error.to_string()))?;
    tag.check().map_err(|error| unreadable(&error.to_string()))?;
    if violated("tag.payload", tag.to_bytes() != payload) {
        return Err(unreadable("its JSON is not in the canonical form"));
    }
    Ok(ProvisionedTag { tag, signer })
}

/// What a host sends for its tag.
#[derive(Debug, Clone, Copy)]
pub struct TagEvidence<'a> {
    /// The contents of the NV index.
    pub nv: &'a [u8],
    /// TPMS_NV_PUBLIC of the index.
    pub nv_public: &'a [u8],
    /// TPMS_ATTEST of TPM2_NV_Certify.
    pub attest: &'a [u8],
    /// TPMT_SIGNATURE of the AK.
    pub signature: &'a [u8],
}

/// A tag that an operator signed for this host's EK and that its TPM holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTag(ProvisionedTag);

impl VerifiedTag {
    /// What it says.
    #[must_use]
    pub const fn tag(&self) -> &Tag {
        self.0.tag()
    }

    /// Id of the operator's key.
    #[must_use]
    pub fn signer(&self) -> &str {
        self.0.signer()
    }
}

/// Verifies a host's tag. `last_serial` is the highest serial that was ever accepted for this host.
///
/// # Errors
/// Every finding: those of [`verify_provisioning`], those of `tpm::signed` with the subject `tag`, and `tag.ek`, `tag.serial`,
/// `tag.validity`, `tag.index`, `tag.offset`, `tag.digest-form`, `tag.contents`.
pub fn verify_tag(
    evidence: &TagEvidence<'_>,
    ak: &AkPublic,
    ek_name: &Name,
    nonce: &Nonce,
    signers: &KeySet,
    last_serial: Option<u64>,
    now: OffsetDateTime,
) -> Result<VerifiedTag, Findings> {
    let mut findings = Findings::new();
    let provisioned = match verify_provisioning(evidence.nv, signers) {
        Ok(provisioned) => {
            check_tag(provisioned.tag(), ek_name, last_serial, now, &mut findings);
            Some(provisioned)
        }
        Err(more) => {
            findings.append(more);
            None
        }
    };
    check_presence(evidence, ak, ek_name, nonce, &mut findings);
    match provisioned {
        Some(provisioned) if findings.acceptable() => Ok(VerifiedTag(provisioned)),
        _ => Err(findings),
    }
}

fn check_tag(tag: &Tag, ek_name: &Name, last_serial: Option<u64>, now: OffsetDateTime, findings: &mut Findings) {
    findings.check("tag.ek", tag.ek != *ek_name, || {
        Finding::error("", "the tag was signed for another machine")
            .expected(ek_name)
            .found(&tag.ek)
            .fix("sign a tag for this machine's EK: `hostmark host tag`")
    });
    let last = last_serial.unwrap_or_default();
    findings.check("tag.serial", tag.serial < last, || {
        Finding::error("", "an older tag than the one seen before")
            .expected(format!("serial {last} or later"))
            .found(tag.serial)
            .fix("write the newest tag again, or sign one with a higher serial")
    });
    let now = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    findings.check("tag.validity", now < tag.not_before || now > tag.not_after, || {
        Finding::error("", "the tag is not valid now")
            .expected(format!("{} to {}, seconds since 1970", tag.not_before, tag.not_after))
            .found(now)
            .fix("sign a new tag with a higher serial")
    });
}

/// The TPM shows these contents in the tag's own index, now.
fn check_presence(evidence: &TagEvidence<'_>, ak: &AkPublic, ek_name: &Name, nonce: &Nonce, findings: &mut Findings) {
    let digest_form = Attest::parse(evidence.attest).is_ok_and(|attest| attest.kind() == ATTEST_NV_DIGEST);
    findings.check("tag.digest-form", digest_form, || {
        Finding::error("", "the TPM certified a digest of the index instead of its contents")
            .expected(AttestType::Nv)
            .found(ATTEST_NV_DIGEST)
            .fix("certify with the size of the contents, not with size and offset 0")
    });
    let qualifying_data = nonce.bind(DOMAIN_TAG, evidence.nv);
    let expectation = Expectation {
        ids: &TAG,
        kind: AttestType::Nv,
        signer: Signer::EnrolledAk { public: ak.public(), ek_name },
        qualifying_data: &qualifying_data,
    };
    let genuine = match open(evidence.attest, evidence.signature, &expectation) {
        Ok((genuine, more)) => {
            findings.append(more);
            genuine
        }
        Err(more) => return findings.append(more),
    };
    let Attested::Nv { index_name, offset, contents } = &genuine.attest().attested else {
        // Unreachable while `tag.type` is checked; refused by its own words if that check is gone.
        return findings.push(Finding::error("tag.contents", "the TPM attested no NV contents"));
    };
    let public = NvPublic::parse(evidence.nv_public).ok();
    let own = public.as_ref().is_some_and(|public| {
        public.index == TAG_INDEX
            && public.name_alg == HashAlg::Sha256
            && public.attributes == TAG_ATTRIBUTES
            && public.auth_policy.is_empty()
            && Name::of(public.name_alg, evidence.nv_public).is_some_and(|name| name.as_bytes() == index_name)
    });
    findings.check("tag.index", !own, || {
        Finding::error(
            "",
            "the certified index is not the tag's index as Hostmark defines it: the owner redefined it or sent another",
        )
        .expected(format!(
            "index {TAG_INDEX:#010x}, attributes {TAG_ATTRIBUTES:#010x}, no policy; its Name as certified"
        ))
        .found(format!("{public:?}; certified {}", hex::encode(index_name)))
        .fix("let hostd define the index and write the tag again")
    });
    let whole = public.as_ref().is_some_and(|public| usize::from(public.data_size) == contents.len());
    findings.check("tag.offset", *offset != 0 || !whole, || {
        Finding::error("", "the TPM certified a part of the index only")
            .expected(format!("offset 0, all of its {} bytes", public.as_ref().map_or(0, |public| public.data_size)))
            .found(format!("offset {offset}, {} bytes", contents.len()))
            .fix("define the index with the tag's exact size and certify all of it")
    });
    findings.check("tag.contents", contents != evidence.nv, || {
        Finding::error("", "the TPM holds other contents than the tag that was sent")
            .expected(hex::encode(evidence.nv))
            .found(hex::encode(contents))
            .fix("send the contents of the index as read")
    });
}
