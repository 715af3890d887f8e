//! TPMT_SIGNATURE, and its verification over the bytes as received.
//!
//! TPM 2.0 Library Part 2, 11.3.4. RSASSA, RSAPSS and ECDSA; SHA-1 can be read, so that a finding can name it, and never
//! verifies. It establishes that the holder of a key signed these bytes, nothing about what they mean.
//!
//! RSAPSS: a TPM salts with as many bytes as the digest has (where FIPS 186 is followed) or with as many as fit; aws-lc-rs
//! verifies one stated salt length, so those two are tried, and no other.

use aws_lc_rs::signature as algs;
use aws_lc_rs::signature::{RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm};

use super::key::{COORDINATE_MAX, Curve, PublicKey, RSA_BYTES_MAX, der_ecdsa, padded};
use super::public::{KeyScheme, read_hash};
use super::{ALG_ECDSA, ALG_RSAPSS, ALG_RSASSA};
use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::HashAlg;

/// TPMT_SIGNATURE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The scheme's hash: of the message, and of a quote's PCR values.
    pub hash: HashAlg,
    /// The scheme and its value.
    pub value: SignatureValue,
}

/// TPMU_SIGNATURE, big endian.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureValue {
    /// TPM_ALG_RSASSA: PKCS#1 v1.5.
    RsaSsa(Vec<u8>),
    /// TPM_ALG_RSAPSS.
    RsaPss(Vec<u8>),
    /// TPM_ALG_ECDSA; a TPM pads the two to the field's size or leaves leading zeros away.
    Ecdsa {
        /// r
        r: Vec<u8>,
        /// s
        s: Vec<u8>,
    },
}

/// Why a signature does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The key's kind or size, the scheme and the hash do not go together, or one of them is not on the list.
    #[error("the key, the scheme and the hash do not go together")]
    Unsupported,
    /// The mathematics say no.
    #[error("the signature does not verify")]
    Invalid,
}

impl Signature {
    /// Reads a TPMT_SIGNATURE that fills its input.
    ///
    /// # Errors
    /// Another framing, another scheme, an unknown hash.
    pub fn parse(input: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(input);
        let start = reader.clone();
        let scheme = reader.be16("sigAlg")?;
        if !matches!(scheme, ALG_RSASSA | ALG_RSAPSS | ALG_ECDSA) {
            return Err(start.error(Problem::Unknown { what: "sigAlg", found: u64::from(scheme) }));
        }
        let hash = read_hash(&mut reader, "the signature's hash")?;
        let value = match scheme {
            ALG_RSASSA => SignatureValue::RsaSsa(reader.tpm2b(RSA_BYTES_MAX, "the RSA signature")?.to_vec()),
            ALG_RSAPSS => SignatureValue::RsaPss(reader.tpm2b(RSA_BYTES_MAX, "the RSA signature")?.to_vec()),
            _ => SignatureValue::Ecdsa {
                r: reader.tpm2b(COORDINATE_MAX, "r")?.to_vec(),
                s: reader.tpm2b(COORDINATE_MAX, "s")?.to_vec(),
            },
        };
        reader.finish("TPMT_SIGNATURE")?;
        Ok(Self { hash, value })
    }

    /// The TPMT_SIGNATURE as a TPM marshals it. None when a value is too long for its size field.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = [self.scheme().to_be_bytes(), self.hash.to_tpm().to_be_bytes()].concat();
        let values: &[&Vec<u8>] = match &self.value {
            SignatureValue::RsaSsa(one) | SignatureValue::RsaPss(one) => &[one],
            SignatureValue::Ecdsa { r, s } => &[r, s],
        };
        for value in values {
            out.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
            out.extend_from_slice(value);
        }
        Some(out)
    }

    /// TPM_ALG_ID of the scheme.
    #[must_use]
    pub const fn scheme(&self) -> u16 {
        match self.value {
            SignatureValue::RsaSsa(_) => ALG_RSASSA,
            SignatureValue::RsaPss(_) => ALG_RSAPSS,
            SignatureValue::Ecdsa { .. } => ALG_ECDSA,
        }
    }

    /// `RSASSA-sha256`.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(self.scheme(), Some(self.hash))
    }

    /// Whether this scheme and hash can come from `key`, and are the ones that `fixed` allows, where the key fixes one.
    #[must_use]
    pub fn fits(&self, key: &PublicKey, fixed: Option<KeyScheme>) -> bool {
        let kind = match self.value {
            SignatureValue::Ecdsa { .. } => matches!(key, PublicKey::Ec { .. }),
            SignatureValue::RsaSsa(_) | SignatureValue::RsaPss(_) => matches!(key, PublicKey::Rsa { .. }),
        };
        let same = |one: KeyScheme| one.scheme == self.scheme() && one.hash == Some(self.hash);
        kind && self.hash.computable() && fixed.is_none_or(same)
    }

    /// Verifies over the bytes as received.
    ///
    /// # Errors
    /// [`SignatureError`]. SHA-1, SM3, and keys that are [weak](PublicKey::weakness) are [`SignatureError::Unsupported`].
    pub fn verify(&self, key: &PublicKey, message: &[u8]) -> Result<(), SignatureError> {
        use SignatureError::{Invalid, Unsupported};
        if key.weakness().is_some() {
            return Err(Unsupported);
        }
        let public = key.key_bytes();
        let check = |algorithm: &'static dyn VerificationAlgorithm, signature: &[u8]| {
            UnparsedPublicKey::new(algorithm, &public).verify(message, signature).map_err(|_| Invalid)
        };
        match (&self.value, key) {
            (SignatureValue::Ecdsa { r, s }, PublicKey::Ec { curve, .. }) => {
                let (size, algorithm): (usize, &'static dyn VerificationAlgorithm) = match (curve, self.hash) {
                    (Curve::P256, HashAlg::Sha256) => (32, &algs::ECDSA_P256_SHA256_ASN1),
                    (Curve::P256, HashAlg::Sha384) => (32, &algs::ECDSA_P256_SHA384_ASN1),
                    (Curve::P256, HashAlg::Sha512) => (32, &algs::ECDSA_P256_SHA512_ASN1),
                    (Curve::P384, HashAlg::Sha256) => (48, &algs::ECDSA_P384_SHA256_ASN1),
                    (Curve::P384, HashAlg::Sha384) => (48, &algs::ECDSA_P384_SHA384_ASN1),
                    (Curve::P384, HashAlg::Sha512) => (48, &algs::ECDSA_P384_SHA512_ASN1),
                    _ => return Err(Unsupported),
                };
                let (r, s) = (padded(r, size).ok_or(Invalid)?, padded(s, size).ok_or(Invalid)?);
                check(algorithm, &der_ecdsa(&r, &s))
            }
            (SignatureValue::RsaSsa(signature), PublicKey::Rsa { modulus, .. }) => {
                let algorithm: &'static dyn VerificationAlgorithm = match self.hash {
                    HashAlg::Sha256 => &algs::RSA_PKCS1_2048_8192_SHA256,
                    HashAlg::Sha384 => &algs::RSA_PKCS1_2048_8192_SHA384,
                    HashAlg::Sha512 => &algs::RSA_PKCS1_2048_8192_SHA512,
                    _ => return Err(Unsupported),
                };
                check(algorithm, &padded(signature, modulus.len()).ok_or(Invalid)?)
            }
            (SignatureValue::RsaPss(signature), PublicKey::Rsa { modulus, .. }) => {
                let (digest, most): (&'static dyn VerificationAlgorithm, &'static dyn VerificationAlgorithm) =
                    match self.hash {
                        HashAlg::Sha256 => (&algs::RSA_PSS_2048_8192_SHA256, &PSS_SHA256_MAX),
                        HashAlg::Sha384 => (&algs::RSA_PSS_2048_8192_SHA384, &PSS_SHA384_MAX),
                        HashAlg::Sha512 => (&algs::RSA_PSS_2048_8192_SHA512, &PSS_SHA512_MAX),
                        _ => return Err(Unsupported),
                    };
                let signature = padded(signature, modulus.len()).ok_or(Invalid)?;
                check(digest, &signature).or_else(|_| check(most, &signature))
            }
            _ => Err(Unsupported),
        }
    }
}

static PSS_SHA256_MAX: algs::RsaParameters = algs::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
static PSS_SHA384_MAX: algs::RsaParameters = algs::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max);
static PSS_SHA512_MAX: algs::RsaParameters = algs::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);

/// A signing scheme in words: `ECDSA-sha256`.
#[must_use]
pub fn describe(scheme: u16, hash: Option<HashAlg>) -> String {
    let name = match scheme {
        ALG_RSASSA => "RSASSA",
        ALG_RSAPSS => "RSAPSS",
        ALG_ECDSA => "ECDSA",
        other => return format!("scheme {other:#06x}"),
    };
    hash.map_or_else(|| name.to_owned(), |hash| format!("{name}-{hash}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding};

    use super::*;

    fn rsa_key(pair: &KeyPair) -> PublicKey {
        let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
        PublicKey::rsa(&modulus, 0)
    }

    fn rsa_sign(pair: &KeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), message, &mut out).unwrap();
        out
    }

    #[test]
    fn rsa_signatures_verify_with_either_salt_a_tpm_produces() {
        static PSS_MAX: algs::RsaSignatureEncoding = RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
        static PSS_SHORT: algs::RsaSignatureEncoding = RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Custom(8));
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = rsa_key(&pair);
        type Row = (&'static dyn RsaEncoding, HashAlg, bool, Result<(), SignatureError>);
        let rows: [Row; 5] = [
            (&RSA_PSS_SHA256, HashAlg::Sha256, true, Ok(())),
            (&PSS_MAX, HashAlg::Sha256, true, Ok(())),
            (&PSS_SHORT, HashAlg::Sha256, true, Err(SignatureError::Invalid)),
            (&RSA_PKCS1_SHA384, HashAlg::Sha384, false, Ok(())),
            (&RSA_PKCS1_SHA384, HashAlg::Sha1, false, Err(SignatureError::Unsupported)),
        ];
        for (encoding, hash, pss, want) in rows {
            let value = rsa_sign(&pair, encoding, b"message");
            let value = if pss { SignatureValue::RsaPss(value) } else { SignatureValue::RsaSsa(value) };
            let signature = Signature { hash, value };
            assert_eq!(signature.verify(&key, b"message"), want, "{}", signature.describe());
            assert!(signature.verify(&key, b"another").is_err());
        }
    }

    #[test]
    fn leading_zeros_of_r_and_s_may_be_missing_or_more() {
        let pair = algs::EcdsaKeyPair::generate(&algs::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let key = PublicKey::ec(Curve::P256, &point[1..33], &point[33..]).unwrap();
        let mut seen = 0;
        for message in 0u32..4096 {
            let signed = pair.sign(&SystemRandom::new(), &message.to_be_bytes()).unwrap();
            let (r, s) = signed.as_ref().split_at(32);
            if r[0] != 0 && s[0] != 0 {
                continue;
            }
            seen += 1;
            for (r, s) in [
                (r.to_vec(), s.to_vec()),
                (
                    super::super::key::without_leading_zeros(r).to_vec(),
                    super::super::key::without_leading_zeros(s).to_vec(),
                ),
                ([&[0, 0], r].concat(), [&[0], s].concat()),
            ] {
                let signature = Signature { hash: HashAlg::Sha256, value: SignatureValue::Ecdsa { r, s } };
                assert_eq!(signature.verify(&key, &message.to_be_bytes()), Ok(()));
            }
            if seen == 3 {
                return;
            }
        }
        panic!("4096 signatures without a leading zero");
    }
}
