//! Signatures of files: Linux `security/integrity/digsig.c` (`struct signature_v2_hdr`), `ima_appraise.c` (`struct ima_file_id`).
//!
//! Version 2 signs the file's digest itself; version 3 (fs-verity) signs the hash of (type, algorithm, verity digest), so that a
//! verity digest is never taken for a file's. Establishes that a key signed this digest. Does **not** establish when, nor that the
//! file is the newest of its name: a signed file with a known weakness stays signed. Portable EVM signatures are not over a file's
//! digest, appended (module) signatures are not read: neither is a signature here.

use aws_lc_rs::digest;
use aws_lc_rs::signature::UnparsedPublicKey;

use super::entry::{DigestOf, FileMeasurement};
use super::keys::ImaKey;
use crate::bytes::Reader;
use crate::check::violated;
use crate::digest::{Digest, HashAlg};

/// EVM_IMA_XATTR_DIGSIG.
const IMA_DIGSIG: u8 = 3;
/// IMA_VERITY_DIGSIG.
const VERITY_DIGSIG: u8 = 6;

/// A signature's header and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSignature<'a> {
    kind: u8,
    version: u8,
    hash_algo: u8,
    key_id: [u8; 4],
    value: &'a [u8],
}

impl<'a> FileSignature<'a> {
    /// Reads a `security.ima` value. None when it is no signature of version 2 or 3.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [kind, version, hash_algo] = reader.array("a signature's header").ok()?;
        let key_id = reader.array("a key identifier").ok()?;
        let size = usize::from(reader.be16("a signature's size").ok()?);
        let value = reader.take(size, "a signature").ok()?;
        let known = matches!((kind, version), (IMA_DIGSIG, 2) | (VERITY_DIGSIG, 3));
        (known && reader.is_empty()).then_some(Self { kind, version, hash_algo, key_id, value })
    }

    /// The identifier of the key, in hex, as `evmctl` and the kernel's messages name it.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(self.key_id)
    }

    /// `HASH_ALGO_*` of `include/uapi/linux/hash_info.h`. SHA-1 and what is weaker sign nothing here.
    const fn hash(&self) -> Option<HashAlg> {
        match self.hash_algo {
            4 => Some(HashAlg::Sha256),
            5 => Some(HashAlg::Sha384),
            6 => Some(HashAlg::Sha512),
            _ => None,
        }
    }

    /// What was signed for this file: None when the signature is not for such a digest.
    fn signed(&self, file: &FileMeasurement<'_>) -> Option<Digest> {
        let digest = file.file_digest()?;
        if self.hash() != Some(digest.alg()) {
            return None;
        }
        match (self.kind, file.of) {
            (IMA_DIGSIG, DigestOf::File | DigestOf::Unsaid) => Some(digest),
            (VERITY_DIGSIG, DigestOf::Verity) => {
                digest.alg().hash(&[&[VERITY_DIGSIG, self.hash_algo], digest.as_bytes()])
            }
            _ => None,
        }
    }
}

/// Whether one of `keys` signed this file's digest. `budget` counts verifications down: at zero nothing is signed.
#[must_use]
pub fn is_signed<'k>(file: &FileMeasurement<'_>, keys: impl IntoIterator<Item = &'k ImaKey>, budget: &mut u32) -> bool {
    let Some(signature) = file.signature.and_then(FileSignature::parse) else { return false };
    let Some(signed) = signature.signed(file) else { return false };
    keys.into_iter().filter(|key| key.is_named(signature.key_id)).any(|key| {
        let Some(left) = budget.checked_sub(1) else { return false };
        *budget = left;
        verifies(key, &signed, signature.value)
    })
}

fn verifies(key: &ImaKey, signed: &Digest, signature: &[u8]) -> bool {
    let kind = match signed.alg() {
        HashAlg::Sha256 => &digest::SHA256,
        HashAlg::Sha384 => &digest::SHA384,
        HashAlg::Sha512 => &digest::SHA512,
        _ => return false,
    };
    let (Some(algorithm), Ok(digest)) =
        (key.algorithm(signed.alg()), digest::Digest::import_less_safe(signed.as_bytes(), kind))
    else {
        return false;
    };
    let refused = UnparsedPublicKey::new(algorithm, key.bits()).verify_digest(&digest, signature).is_err();
    !violated("ima.signature", refused)
}
