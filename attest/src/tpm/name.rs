//! Names and Qualified Names: what a TPM calls an object.
//!
//! TPM 2.0 Library Part 1, 16 (Names), 26.5 (Qualified Name). A Name is the nameAlg's identifier and the hash of the public
//! area. A Qualified Name hashes the chain of Names from the hierarchy down, and is the only thing in a quote that shows in
//! which hierarchy the signing key lives. A Name says nothing about who owns the TPM: that is the EK certificate's part.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::HashAlg;

/// TPM_RH_OWNER.
pub const RH_OWNER: u32 = 0x4000_0001;
/// TPM_RH_ENDORSEMENT.
pub const RH_ENDORSEMENT: u32 = 0x4000_000b;
/// TPM_RH_PLATFORM.
pub const RH_PLATFORM: u32 = 0x4000_000c;

/// Longest Name: an algorithm identifier and a SHA-512 digest.
pub const NAME_MAX: u16 = 66;

/// An object's Name or Qualified Name: TPM_ALG_ID (big endian) and a digest. Empty in no valid evidence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The Name of a marshalled public area (TPMT_PUBLIC or TPMS_NV_PUBLIC). None where the hash cannot be computed (SM3).
    #[must_use]
    pub fn of(alg: HashAlg, public_area: &[u8]) -> Option<Self> {
        Some(Self([alg.to_tpm().to_be_bytes().as_slice(), alg.hash(&[public_area])?.as_bytes()].concat()))
    }

    /// Reads a Name: an algorithm identifier, then a digest of that algorithm's length.
    ///
    /// # Errors
    /// An unknown algorithm or another length.
    pub fn parse(input: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(input);
        let start = reader.clone();
        let id = reader.be16("nameAlg")?;
        let alg = HashAlg::from_tpm(id)
            .ok_or_else(|| start.error(Problem::Unknown { what: "nameAlg", found: u64::from(id) }))?;
        reader.take(alg.size(), "the Name's digest")?;
        reader.finish("the Name")?;
        Ok(Self(input.to_vec()))
    }

    /// The bytes as a TPM marshals them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The Name's hash algorithm.
    #[must_use]
    pub fn alg(&self) -> Option<HashAlg> {
        HashAlg::from_tpm(u16::from_be_bytes(*self.0.first_chunk()?))
    }
}

/// The Qualified Name of the last of `names`, the chain of Names from a primary object down to it:
/// `QN(primary) = alg ‖ H(handle ‖ Name)`, `QN(child) = alg ‖ H(QN(parent) ‖ Name)`, each with the object's own nameAlg.
/// None for an empty chain or where a hash cannot be computed.
#[must_use]
pub fn qualified_name(hierarchy: u32, names: &[&Name]) -> Option<Name> {
    let mut qualified = hierarchy.to_be_bytes().to_vec();
    for name in names {
        let alg = name.alg()?;
        let digest = alg.hash(&[&qualified, name.as_bytes()])?;
        qualified = [alg.to_tpm().to_be_bytes().as_slice(), digest.as_bytes()].concat();
    }
    (!names.is_empty()).then_some(Name(qualified))
}

/// Lower-case hex.
impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Name({self})")
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&hex::decode(text).map_err(D::Error::custom)?).map_err(D::Error::custom)
    }
}
