//! MakeCredential: a secret that only the TPM holding both this EK and this object can open.
//!
//! TPM 2.0 Library Part 1, 24 (credential protection), 11.4.10 (KDFa, KDFe), B.10 (RSA secret sharing), C.6 (ECC secret sharing).
//!
//! Establishes, once TPM2_ActivateCredential has returned the secret: the object with this Name is loaded in the TPM that holds the EK's
//! private part. Establishes nothing about the EK (see `ek`) nor about the object's attributes, which are in its Name (see `ak`).
//!
//! Randomness is an argument, with one exception: the padding of RSA OAEP is drawn inside aws-lc.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::{agreement, hmac};

use crate::digest::HashAlg;
use crate::tpm::key::{Curve, PublicKey};

/// Label of the seed's transport, with its terminating zero where the specification counts it (OAEP).
const IDENTITY_OAEP: &[u8] = b"IDENTITY\0";
/// The same label for KDFe, which adds the zero itself.
const IDENTITY: &[u8] = b"IDENTITY";
/// Label of the key that encrypts the secret.
const STORAGE: &[u8] = b"STORAGE";
/// Label of the key that authenticates it.
const INTEGRITY: &[u8] = b"INTEGRITY";
/// Draws for an ephemeral scalar below the curve's order. One fails with probability below 2⁻³² on P-256; eight never do with a working source.
const SCALAR_DRAWS: usize = 8;
/// Longest Name: algorithm id and a SHA-512 digest.
const NAME_MAX: usize = 66;

/// Source of randomness: fills the slice.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Key size of the EK's symmetric protection, AES in CFB mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AesKey {
    /// AES-128.
    Bits128,
    /// AES-256.
    Bits256,
}

/// What MakeCredential needs to know of an EK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionKey {
    /// The public key: RSA-2048 (OAEP with the nameAlg), P-256 or P-384 (one-pass ECDH).
    pub key: PublicKey,
    /// The EK's nameAlg: SHA-256 or SHA-384.
    pub name_alg: HashAlg,
    /// The EK's symmetric parameter.
    pub aes: AesKey,
}

/// The two structures for TPM2_ActivateCredential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT with its size field.
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET with its size field.
    pub encrypted_secret: Vec<u8>,
}

/// Why no credential could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The secret does not fit a TPM2B_DIGEST of the EK's nameAlg, or is empty.
    #[error("the secret has {found} bytes, an EK with this nameAlg carries 1 to {limit}")]
    SecretSize {
        /// Bytes given.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not the Name of an object.
    #[error("an object's Name has at most {NAME_MAX} bytes and is not empty, this one has {found}")]
    NameSize {
        /// Bytes given.
        found: usize,
    },
    /// The nameAlg is not one of the EK templates'.
    #[error("an EK with nameAlg {found} is not supported, only sha256 and sha384")]
    NameAlg {
        /// The algorithm found.
        found: HashAlg,
    },
    /// The EK's public key is not a valid key: an RSA modulus of the wrong size, a point that is not on the curve.
    #[error("the EK's public key is not a valid key of its kind")]
    Key,
    /// The source of randomness gave no usable scalar in several draws.
    #[error("the source of randomness gives no usable scalar")]
    Random,
}

/// Makes a credential that only `ek`'s TPM opens, and only for the object whose Name is `object_name`.
///
/// # Errors
/// [`CredentialError`]. The EK's key is untrusted input and may be refused.
pub fn make_credential(
    ek: &ProtectionKey,
    object_name: &[u8],
    secret: &[u8],
    random: Random<'_>,
) -> Result<Credential, CredentialError> {
    let hmac_alg = hmac_algorithm(ek.name_alg)?;
    let limit = ek.name_alg.size();
    if secret.is_empty() || secret.len() > limit {
        return Err(CredentialError::SecretSize { found: secret.len(), limit });
    }
    if object_name.is_empty() || object_name.len() > NAME_MAX {
        return Err(CredentialError::NameSize { found: object_name.len() });
    }
    let (seed, encrypted_secret) = share_seed(ek, random)?;

    let aes_bits = match ek.aes {
        AesKey::Bits128 => 128,
        AesKey::Bits256 => 256,
    };
    let storage = kdfa(ek.name_alg, &seed, STORAGE, object_name, aes_bits)?;
    let mut enc_identity = Vec::new();
    put_tpm2b(&mut enc_identity, secret);
    cfb(ek.aes, &storage, &mut enc_identity)?;

    let integrity = kdfa(ek.name_alg, &seed, INTEGRITY, &[], digest_bits(ek.name_alg))?;
    let mut outer = hmac::Context::with_key(&hmac::Key::new(hmac_alg, &integrity));
    outer.update(&enc_identity);
    outer.update(object_name);

    let mut id_object = Vec::new();
    put_tpm2b(&mut id_object, outer.sign().as_ref());
    id_object.extend_from_slice(&enc_identity);
    Ok(Credential { id_object: tpm2b(&id_object), encrypted_secret: tpm2b(&encrypted_secret) })
}

/// A fresh seed, and the same seed as only the EK's TPM can read it.
fn share_seed(ek: &ProtectionKey, random: Random<'_>) -> Result<(Vec<u8>, Vec<u8>), CredentialError> {
    match &ek.key {
        PublicKey::Rsa { modulus, exponent } => {
            let mut seed = vec![0u8; ek.name_alg.size()];
            random(&mut seed);
            let encrypted = oaep(ek.name_alg, modulus, *exponent, &seed)?;
            Ok((seed, encrypted))
        }
        PublicKey::Ec { curve: Curve::P256, x, y } => ecdh_seed(&agreement::ECDH_P256, 32, ek.name_alg, x, y, random),
        PublicKey::Ec { curve: Curve::P384, x, y } => ecdh_seed(&agreement::ECDH_P384, 48, ek.name_alg, x, y, random),
        PublicKey::Ec { .. } => Err(CredentialError::Key),
    }
}

fn oaep(alg: HashAlg, modulus: &[u8], exponent: u32, seed: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let algorithm = match alg {
        HashAlg::Sha256 => &OAEP_SHA256_MGF1SHA256,
        HashAlg::Sha384 => &OAEP_SHA384_MGF1SHA384,
        found => return Err(CredentialError::NameAlg { found }),
    };
    if modulus.len() != 256 {
        return Err(CredentialError::Key);
    }
    let bad = |_| CredentialError::Key;
    let exponent = exponent.to_be_bytes();
    let leading_zeros = exponent.iter().take_while(|byte| **byte == 0).count();
    let e = exponent.get(leading_zeros..).unwrap_or_default();
    let key: PublicEncryptingKey = PublicKeyComponents { n: modulus, e }.try_into().map_err(bad)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(bad)?;
    let mut out = vec![0u8; key.ciphertext_size()];
    let used = key.encrypt(algorithm, seed, &mut out, Some(IDENTITY_OAEP)).map_err(bad)?.len();
    out.truncate(used);
    Ok(out)
}

/// Part 1, C.6.4: seed = KDFe(nameAlg, Z, "IDENTITY", x of the ephemeral key, x of the EK, digest bits); the TPM gets the ephemeral
/// point. Coordinates have the field's full length on both sides, as TPMs since revision 1.38 store them.
fn ecdh_seed(
    curve: &'static agreement::Algorithm,
    size: usize,
    alg: HashAlg,
    x: &[u8],
    y: &[u8],
    random: Random<'_>,
) -> Result<(Vec<u8>, Vec<u8>), CredentialError> {
    if x.len() != size || y.len() != size {
        return Err(CredentialError::Key);
    }
    let ephemeral = ephemeral_key(curve, size, random)?;
    let point = ephemeral.compute_public_key().map_err(|_| CredentialError::Key)?;
    let (own_x, own_y) = point
        .as_ref()
        .strip_prefix(&[4])
        .and_then(|coordinates| coordinates.split_at_checked(size))
        .ok_or(CredentialError::Key)?;
    // agree() refuses a point that is not on the curve, and the point at infinity.
    let theirs = agreement::UnparsedPublicKey::new(curve, [&[4], x, y].concat());
    let seed = agreement::agree(&ephemeral, theirs, CredentialError::Key, |z| kdfe(alg, z, IDENTITY, own_x, x))?;
    let mut encrypted = Vec::new();
    put_tpm2b(&mut encrypted, own_x);
    put_tpm2b(&mut encrypted, own_y);
    Ok((seed, encrypted))
}

fn ephemeral_key(
    curve: &'static agreement::Algorithm,
    size: usize,
    random: Random<'_>,
) -> Result<agreement::PrivateKey, CredentialError> {
    for _ in 0..SCALAR_DRAWS {
        let mut scalar = vec![0u8; size];
        random(&mut scalar);
        if let Ok(key) = agreement::PrivateKey::from_private_key(curve, &scalar) {
            return Ok(key);
        }
    }
    Err(CredentialError::Random)
}

/// KDFa with an empty contextV. Every use here needs at most one block, so the counter stays 1.
fn kdfa(alg: HashAlg, key: &[u8], label: &[u8], context_u: &[u8], bits: u32) -> Result<Vec<u8>, CredentialError> {
    let mut block = hmac::Context::with_key(&hmac::Key::new(hmac_algorithm(alg)?, key));
    block.update(&1u32.to_be_bytes());
    block.update(label);
    block.update(&[0]);
    block.update(context_u);
    block.update(&bits.to_be_bytes());
    leading(block.sign().as_ref(), bits)
}

/// KDFe for exactly one digest's length of output.
fn kdfe(alg: HashAlg, z: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let digest = alg
        .hash(&[&1u32.to_be_bytes(), z, label, &[0], party_u, party_v])
        .ok_or(CredentialError::NameAlg { found: alg })?;
    Ok(digest.as_bytes().to_vec())
}

/// The first `bits` bits of one block; bits is a multiple of 8 and never longer than the block.
fn leading(block: &[u8], bits: u32) -> Result<Vec<u8>, CredentialError> {
    let bytes = usize::try_from(bits / 8).map_err(|_| CredentialError::Key)?;
    block.get(..bytes).map(<[u8]>::to_vec).ok_or(CredentialError::Key)
}

fn cfb(aes: AesKey, key: &[u8], in_out: &mut [u8]) -> Result<(), CredentialError> {
    let algorithm = match aes {
        AesKey::Bits128 => &AES_128,
        AesKey::Bits256 => &AES_256,
    };
    let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::cfb128);
    // The zero IV is the specification's: this key is derived for this one message.
    key.and_then(|key| key.less_safe_encrypt(in_out, EncryptionContext::Iv128([0u8; 16].into())))
        .map(|_| ())
        .map_err(|_| CredentialError::Key)
}

const fn hmac_algorithm(alg: HashAlg) -> Result<hmac::Algorithm, CredentialError> {
    match alg {
        HashAlg::Sha256 => Ok(hmac::HMAC_SHA256),
        HashAlg::Sha384 => Ok(hmac::HMAC_SHA384),
        found => Err(CredentialError::NameAlg { found }),
    }
}

const fn digest_bits(alg: HashAlg) -> u32 {
    match alg {
        HashAlg::Sha384 => 384,
        _ => 256,
    }
}

fn tpm2b(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_tpm2b(&mut out, content);
    out
}

/// Appends a TPM2B. Everything that comes here is far below 64 KiB: secrets, digests, coordinates, one RSA block.
fn put_tpm2b(out: &mut Vec<u8>, content: &[u8]) {
    let size = u16::try_from(content.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Reader;

    /// A source that counts: repeatable, never used outside tests.
    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |out: &mut [u8]| {
            for byte in out {
                next = next.wrapping_add(1);
                *byte = next;
            }
        }
    }

    /// An EK whose private scalar is known, so that the test can open what was made.
    fn own_ek(curve: &'static agreement::Algorithm, size: usize) -> (agreement::PrivateKey, ProtectionKey) {
        let private = agreement::PrivateKey::from_private_key(curve, &vec![7u8; size]).unwrap();
        let point = private.compute_public_key().unwrap();
        let (x, y) = point.as_ref()[1..].split_at(size);
        let (curve, name_alg, aes) = match size {
            32 => (Curve::P256, HashAlg::Sha256, AesKey::Bits128),
            _ => (Curve::P384, HashAlg::Sha384, AesKey::Bits256),
        };
        let key = ProtectionKey { key: PublicKey::ec(curve, x, y).unwrap(), name_alg, aes };
        (private, key)
    }

    #[test]
    fn what_is_made_has_the_tpms_framing() {
        for (curve, size) in [(&agreement::ECDH_P256, 32), (&agreement::ECDH_P384, 48)] {
            let (_, ek) = own_ek(curve, size);
            let made = make_credential(&ek, &[0x0b; 34], b"secret", &mut counting()).unwrap();
            let mut id = Reader::new(&made.id_object);
            let mut inner = Reader::new(id.tpm2b(1024, "id object").unwrap());
            id.finish("id object").unwrap();
            assert_eq!(inner.tpm2b(64, "hmac").unwrap().len(), size);
            assert_eq!(inner.left(), 8, "size field and secret, encrypted");
            let mut secret = Reader::new(&made.encrypted_secret);
            let mut point = Reader::new(secret.tpm2b(1024, "secret").unwrap());
            secret.finish("secret").unwrap();
            assert_eq!(point.tpm2b(66, "x").unwrap().len(), size);
            assert_eq!(point.tpm2b(66, "y").unwrap().len(), size);
            point.finish("point").unwrap();
        }
    }

    #[test]
    fn each_credential_has_its_own_seed() {
        let (_, ek) = own_ek(&agreement::ECDH_P256, 32);
        let mut random = counting();
        let one = make_credential(&ek, &[0x0b; 34], b"secret", &mut random).unwrap();
        let two = make_credential(&ek, &[0x0b; 34], b"secret", &mut random).unwrap();
        assert_ne!(one.encrypted_secret, two.encrypted_secret);
        assert_ne!(one.id_object, two.id_object);
    }

    #[test]
    fn what_cannot_be_made_says_why() {
        let (_, good) = own_ek(&agreement::ECDH_P256, 32);
        let point = |curve| ProtectionKey { key: PublicKey::ec(curve, &[1; 32], &[1; 32]).unwrap(), ..good.clone() };
        let rsa = |bytes| ProtectionKey { key: PublicKey::rsa(&vec![0xff; bytes], 65537), ..good.clone() };
        let sha1 = ProtectionKey { name_alg: HashAlg::Sha1, ..good.clone() };
        let name = [0x0b; 34];
        for (ek, name, secret, expect) in [
            (&good, &name[..], &[1u8; 33][..], CredentialError::SecretSize { found: 33, limit: 32 }),
            (&good, &name, &[], CredentialError::SecretSize { found: 0, limit: 32 }),
            (&good, &[], b"s", CredentialError::NameSize { found: 0 }),
            (&good, &[0; 67], b"s", CredentialError::NameSize { found: 67 }),
            (&point(Curve::P256), &name, b"s", CredentialError::Key),
            (&point(Curve::Other(5)), &name, b"s", CredentialError::Key),
            (&rsa(128), &name, b"s", CredentialError::Key),
            (&rsa(2048), &name, b"s", CredentialError::Key),
            (&sha1, &name, b"s", CredentialError::NameAlg { found: HashAlg::Sha1 }),
        ] {
            assert_eq!(make_credential(ek, name, secret, &mut counting()).unwrap_err(), expect);
        }
        let stuck = make_credential(&good, &name, b"s", &mut |out: &mut [u8]| out.fill(0)).unwrap_err();
        assert_eq!(stuck, CredentialError::Random, "zero is no scalar");
    }
}
