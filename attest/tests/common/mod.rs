//! A TPM in software, for tests: it signs real structures with generated keys, and can be told to lie.
//! The verification under test runs unchanged.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]

pub mod bench;
pub mod policy_entry;
pub mod systemd_log;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use hostmark_attest::digest::{Digest, HashAlg, PcrBanks};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tpm::attest::{AttestType, ClockInfo, TPM_GENERATED_VALUE};
use hostmark_attest::tpm::name::{Name, RH_ENDORSEMENT, qualified_name};
use hostmark_attest::tpm::public::{ObjectAttributes, Public};

/// Attributes of an AK.
pub const AK_ATTRIBUTES: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .with(ObjectAttributes::FIXED_PARENT)
    .with(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .with(ObjectAttributes::USER_WITH_AUTH)
    .with(ObjectAttributes::NO_DA)
    .with(ObjectAttributes::RESTRICTED)
    .with(ObjectAttributes::SIGN);

/// Attributes of a TLS key.
pub const TLS_KEY_ATTRIBUTES: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .with(ObjectAttributes::FIXED_PARENT)
    .with(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .with(ObjectAttributes::USER_WITH_AUTH)
    .with(ObjectAttributes::SIGN);

pub fn be16(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}

/// A 16-bit size and the bytes.
pub fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [be16(bytes.len()).as_slice(), bytes].concat()
}

/// TPMT_PUBLIC of an ECC P-256 signing key. `scheme`: (TPM_ALG_ID, hash), None for TPM_ALG_NULL.
pub fn tpmt_public_p256(
    attributes: ObjectAttributes,
    scheme: Option<(u16, HashAlg)>,
    auth_policy: &[u8],
    x: &[u8],
    y: &[u8],
) -> Vec<u8> {
    let mut out = vec![0x00, 0x23, 0x00, 0x0b];
    out.extend(attributes.0.to_be_bytes());
    out.extend(tpm2b(auth_policy));
    out.extend([0x00, 0x10]); // symmetric: TPM_ALG_NULL
    match scheme {
        None => out.extend([0x00, 0x10]),
        Some((scheme, hash)) => {
            out.extend(scheme.to_be_bytes());
            out.extend(hash.to_tpm().to_be_bytes());
        }
    }
    out.extend([0x00, 0x03, 0x00, 0x10]); // P-256, kdf: TPM_ALG_NULL
    out.extend(tpm2b(x));
    out.extend(tpm2b(y));
    out
}

/// TPMT_PUBLIC of an RSA signing key without a fixed scheme.
pub fn tpmt_public_rsa(attributes: ObjectAttributes, bits: u16, modulus: &[u8]) -> Vec<u8> {
    let mut out = vec![0x00, 0x01, 0x00, 0x0b];
    out.extend(attributes.0.to_be_bytes());
    out.extend([0x00, 0x00, 0x00, 0x10, 0x00, 0x10]);
    out.extend(bits.to_be_bytes());
    out.extend(0u32.to_be_bytes());
    out.extend(tpm2b(modulus));
    out
}

/// A P-256 key with a public area.
pub struct SoftwareKey {
    pub pair: EcdsaKeyPair,
    pub public: Public,
}

impl SoftwareKey {
    pub fn new(attributes: ObjectAttributes, scheme: Option<(u16, HashAlg)>) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let raw = tpmt_public_p256(attributes, scheme, &[], &point[1..33], &point[33..]);
        let public = Public::parse(&raw).unwrap();
        Self { pair, public }
    }

    /// An AK as hostd makes it: restricted, ECDSA with SHA-256.
    pub fn ak() -> Self {
        Self::new(AK_ATTRIBUTES, Some((0x0018, HashAlg::Sha256)))
    }

    /// An unrestricted TLS key.
    pub fn tls() -> Self {
        Self::new(TLS_KEY_ATTRIBUTES, None)
    }

    /// A TPMT_SIGNATURE (ECDSA, SHA-256) over `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signed = self.pair.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signed.as_ref().split_at(32);
        [&[0x00, 0x18, 0x00, 0x0b], tpm2b(r).as_slice(), &tpm2b(s)].concat()
    }
}

/// A TPMS_ATTEST to be marshalled; every field can be a lie.
#[derive(Clone)]
pub struct AttestBuilder {
    pub magic: u32,
    pub kind: AttestType,
    pub qualified_signer: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub clock_info: ClockInfo,
    pub firmware_version: u64,
    /// The marshalled TPMU_ATTEST.
    pub body: Vec<u8>,
}

impl AttestBuilder {
    pub fn new(kind: AttestType, qualified_signer: &[u8], extra_data: &[u8], body: Vec<u8>) -> Self {
        Self {
            magic: TPM_GENERATED_VALUE,
            kind,
            qualified_signer: qualified_signer.to_vec(),
            extra_data: extra_data.to_vec(),
            clock_info: ClockInfo { clock: 123_456, reset_count: 7, restart_count: 0, safe: true },
            firmware_version: 0x0001_0002_0003_0004,
            body,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut out = self.magic.to_be_bytes().to_vec();
        out.extend(self.kind.to_tpm().to_be_bytes());
        out.extend(tpm2b(&self.qualified_signer));
        out.extend(tpm2b(&self.extra_data));
        out.extend(self.clock_info.clock.to_be_bytes());
        out.extend(self.clock_info.reset_count.to_be_bytes());
        out.extend(self.clock_info.restart_count.to_be_bytes());
        out.push(u8::from(self.clock_info.safe));
        out.extend(self.firmware_version.to_be_bytes());
        out.extend(&self.body);
        out
    }
}

/// TPMS_QUOTE_INFO: a selection with 3-byte bitmaps, and the composite of `pcrs` in its order.
pub fn quote_info(selection: &PcrSelection, pcrs: &PcrBanks) -> Vec<u8> {
    let mut out = u32::try_from(selection.banks().len()).unwrap().to_be_bytes().to_vec();
    let mut composite = Vec::new();
    for one in selection.banks() {
        out.extend(one.bank.to_tpm().to_be_bytes());
        out.push(3);
        out.extend(&one.bitmap.to_le_bytes()[..3]);
        for index in one.indices() {
            composite.extend_from_slice(pcrs[&one.bank][&index].as_bytes());
        }
    }
    out.extend(tpm2b(HashAlg::Sha256.hash(&[&composite]).unwrap().as_bytes()));
    out
}

/// TPMS_CERTIFY_INFO.
pub fn certify_info(name: &[u8], qualified_name: &[u8]) -> Vec<u8> {
    [tpm2b(name), tpm2b(qualified_name)].concat()
}

/// TPMS_NV_CERTIFY_INFO.
pub fn nv_info(index_name: &[u8], offset: u16, contents: &[u8]) -> Vec<u8> {
    [tpm2b(index_name), offset.to_be_bytes().to_vec(), tpm2b(contents)].concat()
}

/// A TPM with an EK (by name), an AK below it and 24 PCRs in two banks.
pub struct SoftwareTpm {
    pub ek_name: Name,
    pub ak: SoftwareKey,
    pub pcrs: PcrBanks,
}

impl SoftwareTpm {
    pub fn new() -> Self {
        let ek_name = Name::of(HashAlg::Sha256, SoftwareKey::tls().public.as_bytes()).unwrap();
        let mut pcrs = PcrBanks::new();
        for bank in [HashAlg::Sha1, HashAlg::Sha256] {
            for index in 0..24u8 {
                pcrs.entry(bank).or_default().insert(index, bank.hash(&[bank.name().as_bytes(), &[index]]).unwrap());
            }
        }
        Self { ek_name, ak: SoftwareKey::ak(), pcrs }
    }

    /// The AK's Qualified Name in a hierarchy, below the EK.
    pub fn qualified_signer(&self, hierarchy: u32) -> Vec<u8> {
        qualified_name(hierarchy, &[&self.ek_name, self.ak.public.name()]).unwrap().as_bytes().to_vec()
    }

    /// An unsigned attestation by the AK.
    pub fn attest(&self, kind: AttestType, extra_data: &[u8], body: Vec<u8>) -> AttestBuilder {
        AttestBuilder::new(kind, &self.qualified_signer(RH_ENDORSEMENT), extra_data, body)
    }

    /// An unsigned quote over the TPM's PCRs.
    pub fn quote(&self, selection: &PcrSelection, extra_data: &[u8]) -> AttestBuilder {
        self.attest(AttestType::Quote, extra_data, quote_info(selection, &self.pcrs))
    }

    /// An unsigned TPM2_Certify of `object` under the storage hierarchy's parent `parent`.
    pub fn certify(&self, object: &Public, extra_data: &[u8]) -> AttestBuilder {
        let name = object.name().as_bytes();
        self.attest(AttestType::Certify, extra_data, certify_info(name, name))
    }

    /// An unsigned TPM2_NV_Certify.
    pub fn nv_certify(&self, index_name: &[u8], offset: u16, contents: &[u8], extra_data: &[u8]) -> AttestBuilder {
        self.attest(AttestType::Nv, extra_data, nv_info(index_name, offset, contents))
    }

    /// The values that a selection covers.
    pub fn values(&self, selection: &PcrSelection) -> PcrBanks {
        let mut out = PcrBanks::new();
        for one in selection.banks() {
            for index in one.indices() {
                out.entry(one.bank).or_default().insert(index, self.pcrs[&one.bank][&index]);
            }
        }
        out
    }

    /// Sets a PCR, as only a reset and other measurements could.
    pub fn set(&mut self, bank: HashAlg, index: u8, value: Digest) {
        self.pcrs.entry(bank).or_default().insert(index, value);
    }
}
