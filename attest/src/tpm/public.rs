//! TPMT_PUBLIC: the public area of a TPM object, of type RSA or ECC.
//!
//! TPM 2.0 Library Part 2, 12.2.4 (TPMT_PUBLIC), 8.3 (TPMA_OBJECT). It establishes what the object claims to be, and keeps
//! the exact bytes, over which its Name is computed. It does **not** establish that such an object exists in any TPM: an
//! activation (for the AK) or a certification by a resident key shows that.

use std::fmt;

use super::key::{COORDINATE_MAX, Curve, PublicKey, RSA_BYTES_MAX};
use super::name::Name;
use super::{
    ALG_ECC, ALG_ECDAA, ALG_ECDH, ALG_ECDSA, ALG_ECMQV, ALG_ECSCHNORR, ALG_NULL, ALG_OAEP, ALG_RSA, ALG_RSAES,
    ALG_RSAPSS, ALG_RSASSA, ALG_SM2,
};
use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::HashAlg;

/// TPMA_OBJECT. Bits that the specification reserves are kept: the Name covers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectAttributes(pub u32);

impl ObjectAttributes {
    /// The hierarchy of the object cannot change: it cannot be duplicated to another parent's tree.
    pub const FIXED_TPM: Self = Self(1 << 1);
    /// Saved contexts end at a TPM reset.
    pub const ST_CLEAR: Self = Self(1 << 2);
    /// The parent cannot change.
    pub const FIXED_PARENT: Self = Self(1 << 4);
    /// The TPM itself generated the sensitive part.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    /// The user role may be authorized with the object's authValue.
    pub const USER_WITH_AUTH: Self = Self(1 << 6);
    /// The admin role needs the object's policy.
    pub const ADMIN_WITH_POLICY: Self = Self(1 << 7);
    /// Not subject to dictionary-attack lockout.
    pub const NO_DA: Self = Self(1 << 10);
    /// Duplication needs an encrypted wrapper.
    pub const ENCRYPTED_DUPLICATION: Self = Self(1 << 11);
    /// Signs or decrypts only structures of the TPM's own.
    pub const RESTRICTED: Self = Self(1 << 16);
    /// The private part may decrypt.
    pub const DECRYPT: Self = Self(1 << 17);
    /// The private part may sign (or encrypt, when symmetric).
    pub const SIGN: Self = Self(1 << 18);

    const NAMED: [(Self, &'static str); 11] = [
        (Self::FIXED_TPM, "fixedTPM"),
        (Self::ST_CLEAR, "stClear"),
        (Self::FIXED_PARENT, "fixedParent"),
        (Self::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
        (Self::USER_WITH_AUTH, "userWithAuth"),
        (Self::ADMIN_WITH_POLICY, "adminWithPolicy"),
        (Self::NO_DA, "noDA"),
        (Self::ENCRYPTED_DUPLICATION, "encryptedDuplication"),
        (Self::RESTRICTED, "restricted"),
        (Self::DECRYPT, "decrypt"),
        (Self::SIGN, "sign"),
    ];

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The specification's names joined by `|`; unnamed bits in hex.
impl fmt::Display for ObjectAttributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> =
            Self::NAMED.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| (*name).to_owned()).collect();
        let unnamed = Self::NAMED.iter().fold(*self, |left, (bit, _)| left.without(*bit));
        if unnamed.0 != 0 || parts.is_empty() {
            parts.push(format!("{:#x}", unnamed.0));
        }
        out.write_str(&parts.join("|"))
    }
}

impl fmt::Debug for ObjectAttributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ObjectAttributes({self})")
    }
}

/// TPMT_SYM_DEF_OBJECT, where it is not TPM_ALG_NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    /// TPM_ALG_ID of the cipher.
    pub algorithm: u16,
    /// Key size in bits.
    pub bits: u16,
    /// TPM_ALG_ID of the mode.
    pub mode: u16,
}

/// TPMT_RSA_SCHEME or TPMT_ECC_SCHEME, where it is not TPM_ALG_NULL: the key does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyScheme {
    /// TPM_ALG_ID of the scheme.
    pub scheme: u16,
    /// Its hash; None for RSAES, which has none.
    pub hash: Option<HashAlg>,
}

/// The public area of an RSA or ECC object, with the bytes it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct Public {
    raw: Vec<u8>,
    name: Name,
    name_alg: HashAlg,
    attributes: ObjectAttributes,
    auth_policy: Vec<u8>,
    symmetric: Option<Symmetric>,
    scheme: Option<KeyScheme>,
    key: PublicKey,
}

impl Public {
    /// Reads a TPMT_PUBLIC that fills its input.
    ///
    /// # Errors
    /// Another framing; a type other than RSA and ECC; an unknown algorithm identifier; a key whose size is not the one
    /// that the parameters state. Kinds and sizes that are not on the list are read: [`PublicKey::weakness`] names them.
    pub fn parse(input: &[u8]) -> Result<Self, ParseError> {
        Self::read(Reader::new(input), input)
    }

    /// Reads a TPM2B_PUBLIC (a 16-bit size before the TPMT_PUBLIC) that fills its input.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_tpm2b(input: &[u8]) -> Result<Self, ParseError> {
        let mut outer = Reader::new(input);
        let size = outer.be16("TPM2B_PUBLIC")?;
        let inner = outer.sub(usize::from(size), "TPM2B_PUBLIC")?;
        outer.finish("TPM2B_PUBLIC")?;
        let raw = inner.rest();
        Self::read(inner, raw)
    }

    fn read(mut reader: Reader<'_>, raw: &[u8]) -> Result<Self, ParseError> {
        let start = reader.clone();
        let kind = reader.be16("type")?;
        if kind != ALG_RSA && kind != ALG_ECC {
            return Err(start.error(Problem::Unknown { what: "type (RSA and ECC are read)", found: u64::from(kind) }));
        }
        let before_alg = reader.clone();
        let name_alg = read_hash(&mut reader, "nameAlg")?;
        let attributes = ObjectAttributes(reader.be32("objectAttributes")?);
        // A policy digest is as long as a hash.
        let auth_policy = reader.tpm2b(64, "authPolicy")?.to_vec();
        let symmetric = read_symmetric(&mut reader)?;
        let scheme = read_scheme(&mut reader)?;
        let key = if kind == ALG_RSA { read_rsa(&mut reader)? } else { read_ecc(&mut reader)? };
        reader.finish("TPMT_PUBLIC")?;
        let name = Name::of(name_alg, raw).ok_or_else(|| {
            before_alg.error(Problem::Unknown { what: "nameAlg (not computable)", found: u64::from(name_alg.to_tpm()) })
        })?;
        Ok(Self { raw: raw.to_vec(), name, name_alg, attributes, auth_policy, symmetric, scheme, key })
    }

    /// The TPMT_PUBLIC, as received.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The object's Name: nameAlg and the hash of [`Self::as_bytes`].
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// nameAlg.
    #[must_use]
    pub const fn name_alg(&self) -> HashAlg {
        self.name_alg
    }

    /// objectAttributes.
    #[must_use]
    pub const fn attributes(&self) -> ObjectAttributes {
        self.attributes
    }

    /// authPolicy; empty when the object has none.
    #[must_use]
    pub fn auth_policy(&self) -> &[u8] {
        &self.auth_policy
    }

    /// The symmetric algorithm of a storage key.
    #[must_use]
    pub const fn symmetric(&self) -> Option<Symmetric> {
        self.symmetric
    }

    /// The one scheme of this key; None when the caller of the TPM chooses.
    #[must_use]
    pub const fn scheme(&self) -> Option<KeyScheme> {
        self.scheme
    }

    /// The public key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Public({}, {}, {})", self.key.kind(), self.attributes, self.name)
    }
}

pub(super) fn read_hash(reader: &mut Reader<'_>, what: &'static str) -> Result<HashAlg, ParseError> {
    let start = reader.clone();
    let id = reader.be16(what)?;
    HashAlg::from_tpm(id).ok_or_else(|| start.error(Problem::Unknown { what, found: u64::from(id) }))
}

/// TPMT_SYM_DEF_OBJECT.
fn read_symmetric(reader: &mut Reader<'_>) -> Result<Option<Symmetric>, ParseError> {
    match reader.be16("symmetric algorithm")? {
        ALG_NULL => Ok(None),
        algorithm => Ok(Some(Symmetric {
            algorithm,
            bits: reader.be16("symmetric keyBits")?,
            mode: reader.be16("symmetric mode")?,
        })),
    }
}

/// TPMT_RSA_SCHEME and TPMT_ECC_SCHEME: the same framing.
fn read_scheme(reader: &mut Reader<'_>) -> Result<Option<KeyScheme>, ParseError> {
    let start = reader.clone();
    let scheme = reader.be16("scheme")?;
    match scheme {
        ALG_NULL => Ok(None),
        ALG_RSAES => Ok(Some(KeyScheme { scheme, hash: None })),
        ALG_RSASSA | ALG_RSAPSS | ALG_OAEP | ALG_ECDSA | ALG_ECDH | ALG_SM2 | ALG_ECSCHNORR | ALG_ECMQV => {
            Ok(Some(KeyScheme { scheme, hash: Some(read_hash(reader, "the scheme's hash")?) }))
        }
        ALG_ECDAA => {
            let hash = Some(read_hash(reader, "the scheme's hash")?);
            reader.be16("ECDAA count")?;
            Ok(Some(KeyScheme { scheme, hash }))
        }
        _ => Err(start.error(Problem::Unknown { what: "scheme", found: u64::from(scheme) })),
    }
}

/// The rest of TPMS_RSA_PARMS, and TPM2B_PUBLIC_KEY_RSA.
fn read_rsa(reader: &mut Reader<'_>) -> Result<PublicKey, ParseError> {
    let bits = reader.be16("keyBits")?;
    let exponent = reader.be32("exponent")?;
    let start = reader.clone();
    let key = PublicKey::rsa(reader.tpm2b(RSA_BYTES_MAX, "the RSA modulus")?, exponent);
    match key.bits() {
        Some(found) if found == usize::from(bits) => Ok(key),
        found => Err(start.error(Problem::Mismatch {
            what: "the modulus' size in bits",
            expected: u64::from(bits),
            found: found.and_then(|found| u64::try_from(found).ok()).unwrap_or_default(),
        })),
    }
}

/// The rest of TPMS_ECC_PARMS, and TPMS_ECC_POINT.
fn read_ecc(reader: &mut Reader<'_>) -> Result<PublicKey, ParseError> {
    let curve = Curve::from_tpm(reader.be16("curveID")?);
    if reader.be16("kdf")? != ALG_NULL {
        read_hash(reader, "the kdf's hash")?;
    }
    let start = reader.clone();
    let x = reader.tpm2b(COORDINATE_MAX, "x")?;
    let y = reader.tpm2b(COORDINATE_MAX, "y")?;
    PublicKey::ec(curve, x, y)
        .ok_or_else(|| start.error(Problem::Malformed { what: "a coordinate is longer than the curve's field" }))
}
