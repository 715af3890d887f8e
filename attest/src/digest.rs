//! Hash algorithms by their TPM names, and digests that know their algorithm.
//!
//! TPM 2.0 Library Part 2, 6.3 (TPM_ALG_ID); TCG Algorithm Registry.

use std::collections::BTreeMap;
use std::fmt;

use sha2::Digest as _;

/// A hash algorithm that a PCR bank, a name or a log may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HashAlg {
    /// TPM_ALG_SHA1.
    Sha1,
    /// TPM_ALG_SHA256.
    Sha256,
    /// TPM_ALG_SHA384.
    Sha384,
    /// TPM_ALG_SHA512.
    Sha512,
    /// TPM_ALG_SM3_256: its digests can be read, not computed.
    Sm3,
}

impl HashAlg {
    /// By TPM_ALG_ID.
    #[must_use]
    pub const fn from_tpm(id: u16) -> Option<Self> {
        match id {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            0x0012 => Some(Self::Sm3),
            _ => None,
        }
    }

    /// The TPM_ALG_ID.
    #[must_use]
    pub const fn to_tpm(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
            Self::Sm3 => 0x0012,
        }
    }

    /// By the lower-case name that policies, the kernel and tpm2-tools use (`sha256`, `sm3_256`).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3].into_iter().find(|alg| alg.name() == name)
    }

    /// The lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3_256",
        }
    }

    /// Digest length in bytes.
    #[must_use]
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Whether this crate can compute it. SM3 is read only.
    #[must_use]
    #[inline]
    pub const fn computable(self) -> bool {
        !matches!(self, Self::Sm3)
    }

    /// Hash of the parts, one after another. None where [`HashAlg::computable`] is false.
    #[must_use]
    #[inline]
    pub fn hash(self, parts: &[&[u8]]) -> Option<Digest> {
        fn run<H: sha2::Digest>(alg: HashAlg, parts: &[&[u8]]) -> Option<Digest> {
            let mut hasher = H::new();
            for part in parts {
                hasher.update(part);
            }
            Digest::new(alg, &hasher.finalize())
        }
        match self {
            Self::Sha1 => run::<sha1::Sha1>(self, parts),
            Self::Sha256 => run::<sha2::Sha256>(self, parts),
            Self::Sha384 => run::<sha2::Sha384>(self, parts),
            Self::Sha512 => run::<sha2::Sha512>(self, parts),
            Self::Sm3 => None,
        }
    }
}

impl fmt::Display for HashAlg {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// SHA-256 of the parts, one after another.
#[must_use]
#[inline]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = sha2::Sha256::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// FIPS 180-4, 5.3.3: what SHA-256 begins with.
const SHA256_INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// FIPS 180-4, 5.1.1: the padding of a message of 512 bits, a block of its own.
const SHA256_PADDING: [u8; 64] = {
    let mut block = [0; 64];
    let [first, .., length, _] = &mut block;
    (*first, *length) = (0x80, 2);
    block
};

/// SHA-256 of two digests: the extend of a PCR. They fill one block, and are hashed without a buffer: a replay is little else.
#[inline]
#[must_use]
pub(crate) fn extend_sha256(value: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    let mut block = [0; 64];
    let (first, second) = block.split_at_mut(32);
    first.copy_from_slice(value);
    second.copy_from_slice(digest);
    let mut state = SHA256_INITIAL;
    sha2::block_api::compress256(&mut state, &[block, SHA256_PADDING]);
    let mut out = [0; 32];
    for (place, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    out
}

/// A digest with its algorithm. Compares equal only when both agree.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct Digest {
    alg: HashAlg,
    /// Zero-padded to the longest digest.
    bytes: [u8; 64],
}

impl Digest {
    /// A digest of `alg`. None when the length is not that algorithm's.
    #[must_use]
    #[inline]
    pub fn new(alg: HashAlg, digest: &[u8]) -> Option<Self> {
        if digest.len() != alg.size() {
            return None;
        }
        let mut bytes = [0u8; 64];
        bytes.get_mut(..digest.len())?.copy_from_slice(digest);
        Some(Self { alg, bytes })
    }

    /// All zero bytes: a PCR's value after reset (for PCR 0–15 and 23).
    #[must_use]
    pub const fn zero(alg: HashAlg) -> Self {
        Self { alg, bytes: [0; 64] }
    }

    /// All 0xff bytes: a PCR 17–22 before a dynamic launch, and what IMA extends for a violation.
    #[must_use]
    pub fn ones(alg: HashAlg) -> Self {
        let mut bytes = [0u8; 64];
        if let Some(used) = bytes.get_mut(..alg.size()) {
            used.fill(0xff);
        }
        Self { alg, bytes }
    }

    /// From lower- or upper-case hex of exactly the algorithm's length.
    #[must_use]
    pub fn from_hex(alg: HashAlg, text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, bytes.get_mut(..alg.size())?).ok()?;
        Some(Self { alg, bytes })
    }

    /// The algorithm.
    #[must_use]
    #[inline]
    pub const fn alg(&self) -> HashAlg {
        self.alg
    }

    /// The digest's bytes.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.alg.size()).unwrap_or_default()
    }

    /// The bytes of a SHA-256.
    #[inline]
    pub(crate) fn as_sha256(&self) -> Option<&[u8; 32]> {
        if self.alg == HashAlg::Sha256 { self.bytes.first_chunk() } else { None }
    }

    /// Whether all bytes are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes == [0; 64]
    }

    /// The PCR extend operation: H(self ‖ digest). None when the algorithms differ or cannot be computed.
    #[must_use]
    #[inline]
    pub fn extend(&self, digest: &Self) -> Option<Self> {
        if self.alg != digest.alg {
            return None;
        }
        if let (Some(value), Some(digest)) = (self.as_sha256(), digest.as_sha256()) {
            return Self::new(self.alg, &extend_sha256(value, digest));
        }
        self.alg.hash(&[self.as_bytes(), digest.as_bytes()])
    }
}

/// Two digests that differ do so in their first bytes already, but for those that somebody made to be alike.
impl PartialEq for Digest {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let first = |one: &Self| one.bytes.first_chunk::<8>().copied();
        first(self) == first(other) && self.alg == other.alg && self.bytes == other.bytes
    }
}

/// A digest's first bytes are as good a hash as any of all of them, and sets of digests are looked up for each file of a host. Whoever
/// chooses the digests of a set is the operator who signs it.
impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [first, second, third, fourth, fifth, sixth, seventh, eighth, ..] = self.bytes;
        state.write_u64(u64::from_le_bytes([first, second, third, fourth, fifth, sixth, seventh, eighth]));
    }
}

/// Lower-case hex without the algorithm.
impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 128];
        let text = text.get_mut(..self.alg.size().saturating_mul(2)).unwrap_or_default();
        hex::encode_to_slice(self.as_bytes(), text).map_err(|_| fmt::Error)?;
        out.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
    }
}

/// `sha256:` and lower-case hex.
impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{self}", self.alg)
    }
}

/// The PCR values of one bank, by index.
pub type PcrValues = BTreeMap<u8, Digest>;

/// PCR values by bank.
pub type PcrBanks = BTreeMap<HashAlg, PcrValues>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_equal_in_every_byte_and_their_algorithm() {
        let one = Digest::ones(HashAlg::Sha512);
        for at in 0..64 {
            let mut other = one;
            other.bytes[at] ^= 1;
            assert!(other != one && Digest::new(HashAlg::Sha512, &other.bytes) == Some(other), "byte {at}");
        }
        assert_ne!(Digest::zero(HashAlg::Sha256), Digest::zero(HashAlg::Sm3));
        assert_eq!(one.to_string(), "ff".repeat(64));
    }

    #[test]
    fn an_extend_is_the_hash_of_both() {
        for byte in 0..=u8::MAX {
            let (value, digest) = (sha256(&[&[byte]]), sha256(&[&[byte, byte]]));
            assert_eq!(extend_sha256(&value, &digest), sha256(&[&value, &digest]));
            let [value, digest] = [value, digest].map(|one| Digest::new(HashAlg::Sha256, &one).unwrap());
            assert_eq!(value.extend(&digest), HashAlg::Sha256.hash(&[value.as_bytes(), digest.as_bytes()]));
        }
    }
}
