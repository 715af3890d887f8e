//! TPMS_NV_PUBLIC, and the one index that Hostmark defines.
//!
//! TPM 2.0 Library Part 2, 13.5 (TPMS_NV_PUBLIC), 13.4 (TPMA_NV). Establishes framing only; an index's Name is the hash of these bytes.

use crate::bytes::{ParseError, Reader};
use crate::digest::HashAlg;

/// The tag's index: in the range that the TCG leaves to the owner (Registry of Reserved TPM 2.0 Handles, 2.2).
pub const TAG_INDEX: u32 = 0x0180_4854;

/// TPMA_NV of the tag's index as TPM2_NV_DefineSpace takes them: OWNERWRITE, OWNERREAD, AUTHREAD, NO_DA; an ordinary index.
pub const TAG_ATTRIBUTES_DEFINED: u32 = (1 << 1) | (1 << 17) | (1 << 18) | (1 << 25);
/// The same after the first write: WRITTEN too.
pub const TAG_ATTRIBUTES: u32 = TAG_ATTRIBUTES_DEFINED | (1 << 29);

/// TPMS_NV_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// nvIndex.
    pub index: u32,
    /// nameAlg.
    pub name_alg: HashAlg,
    /// TPMA_NV.
    pub attributes: u32,
    /// authPolicy; empty when there is none.
    pub auth_policy: Vec<u8>,
    /// dataSize in bytes.
    pub data_size: u16,
}

impl NvPublic {
    /// The tag's index for contents of this size, after the first write.
    #[must_use]
    pub const fn of_tag(data_size: u16) -> Self {
        Self {
            index: TAG_INDEX,
            name_alg: HashAlg::Sha256,
            attributes: TAG_ATTRIBUTES,
            auth_policy: Vec::new(),
            data_size,
        }
    }

    /// Reads a TPMS_NV_PUBLIC that fills its input.
    ///
    /// # Errors
    /// Another framing, an unknown nameAlg.
    pub fn parse(input: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(input);
        let index = reader.be32("nvIndex")?;
        let start = reader.clone();
        let id = reader.be16("nameAlg")?;
        let name_alg = HashAlg::from_tpm(id)
            .ok_or_else(|| start.error(crate::bytes::Problem::Unknown { what: "nameAlg", found: u64::from(id) }))?;
        let attributes = reader.be32("TPMA_NV")?;
        // A policy digest is as long as a hash.
        let auth_policy = reader.tpm2b(64, "authPolicy")?.to_vec();
        let data_size = reader.be16("dataSize")?;
        reader.finish("TPMS_NV_PUBLIC")?;
        Ok(Self { index, name_alg, attributes, auth_policy, data_size })
    }

    /// As a TPM marshals it. The policy is a digest: at most 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.index.to_be_bytes().to_vec();
        out.extend_from_slice(&self.name_alg.to_tpm().to_be_bytes());
        out.extend_from_slice(&self.attributes.to_be_bytes());
        out.extend_from_slice(&u16::try_from(self.auth_policy.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&self.auth_policy);
        out.extend_from_slice(&self.data_size.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_every_cut_is_an_error() {
        let public = NvPublic { auth_policy: vec![7; 32], ..NvPublic::of_tag(300) };
        let bytes = public.to_bytes();
        assert_eq!(NvPublic::parse(&bytes).unwrap(), public);
        for end in 0..bytes.len() {
            assert!(NvPublic::parse(&bytes[..end]).is_err(), "{end}");
        }
        assert!(NvPublic::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}
