//! Public keys: an RSA modulus or a point on a curve, to and from SubjectPublicKeyInfo.
//!
//! RFC 8017 A.1.1, RFC 5480, RFC 5280 4.1.2.7. It establishes which key is meant and whether its kind and size are on the
//! list ([`PublicKey::weakness`]); whether a point lies on its curve is aws-lc-rs's part, at the signature.

use std::fmt;

use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};
use x509_parser::public_key::{PublicKey as X509Key, RSAPublicKey};

use crate::bytes::{ParseError, Problem};

/// Largest RSA modulus that is read at all, in bytes: 16384 bits, so that a finding can still name the size.
pub const RSA_BYTES_MAX: u16 = 2048;
/// Largest coordinate that is read at all, in bytes: P-521's and BN-638's fit.
pub const COORDINATE_MAX: u16 = 128;

/// An elliptic curve by TPM_ECC_CURVE (TCG Algorithm Registry 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Curve {
    /// TPM_ECC_NIST_P256.
    P256,
    /// TPM_ECC_NIST_P384.
    P384,
    /// Any other curve: it can be named, never used.
    Other(u16),
}

impl Curve {
    /// By TPM_ECC_CURVE.
    #[must_use]
    pub const fn from_tpm(id: u16) -> Self {
        match id {
            0x0003 => Self::P256,
            0x0004 => Self::P384,
            other => Self::Other(other),
        }
    }

    /// The TPM_ECC_CURVE.
    #[must_use]
    pub const fn to_tpm(self) -> u16 {
        match self {
            Self::P256 => 0x0003,
            Self::P384 => 0x0004,
            Self::Other(id) => id,
        }
    }

    /// Length of a coordinate in bytes, where it is known.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::P256 => Some(32),
            Self::P384 => Some(48),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => out.write_str("P-256"),
            Self::P384 => out.write_str("P-384"),
            Self::Other(0x0001) => out.write_str("P-192"),
            Self::Other(0x0002) => out.write_str("P-224"),
            Self::Other(0x0005) => out.write_str("P-521"),
            Self::Other(0x0010) => out.write_str("BN-256"),
            Self::Other(0x0011) => out.write_str("BN-638"),
            Self::Other(0x0020) => out.write_str("SM2-P256"),
            Self::Other(id) => write!(out, "curve {id:#06x}"),
        }
    }
}

/// A public key. Two values are equal exactly when they are the same key.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicKey {
    /// An RSA key.
    Rsa {
        /// The modulus, big endian, without leading zeros.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: u32,
    },
    /// A point on a curve.
    Ec {
        /// The curve.
        curve: Curve,
        /// X, big endian, padded to the field's size where that is known.
        x: Vec<u8>,
        /// Y, likewise.
        y: Vec<u8>,
    },
}

impl PublicKey {
    /// An RSA key; leading zeros of the modulus are dropped, and the exponent 0 means 65537, as in TPMS_RSA_PARMS.
    #[must_use]
    pub fn rsa(modulus: &[u8], exponent: u32) -> Self {
        let exponent = if exponent == 0 { 65537 } else { exponent };
        Self::Rsa { modulus: without_leading_zeros(modulus).to_vec(), exponent }
    }

    /// A point. A TPM may leave leading zeros away or add some: coordinates are brought to the field's size.
    /// None when one is too long for the field.
    #[must_use]
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Option<Self> {
        match curve.size() {
            Some(size) => Some(Self::Ec { curve, x: padded(x, size)?, y: padded(y, size)? }),
            None => Some(Self::Ec { curve, x: x.to_vec(), y: y.to_vec() }),
        }
    }

    /// The key's size in bits, where it is known.
    #[must_use]
    pub fn bits(&self) -> Option<usize> {
        match self {
            Self::Rsa { modulus, .. } => {
                let unused = modulus.first().map_or(0, |first| first.leading_zeros());
                modulus.len().checked_mul(8)?.checked_sub(usize::try_from(unused).ok()?)
            }
            Self::Ec { curve, .. } => curve.size()?.checked_mul(8),
        }
    }

    /// Why this key's kind or size is not on the list (RSA 2048, 3072, 4096 with an odd exponent from 65537 on; P-256,
    /// P-384), or None when it is. Asked before any signature work: a huge or a tiny key must never reach the mathematics.
    #[must_use]
    pub fn weakness(&self) -> Option<String> {
        match self {
            Self::Rsa { exponent, .. } => match self.bits() {
                Some(2048 | 3072 | 4096) if *exponent >= 65537 && exponent & 1 == 1 => None,
                Some(2048 | 3072 | 4096) => Some(format!("RSA with the public exponent {exponent}")),
                bits => Some(format!("RSA-{}", bits.unwrap_or_default())),
            },
            Self::Ec { curve: Curve::P256 | Curve::P384, .. } => None,
            Self::Ec { curve, .. } => Some(curve.to_string()),
        }
    }

    /// `RSA-2048`, `P-256`.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Rsa { .. } => format!("RSA-{}", self.bits().unwrap_or_default()),
            Self::Ec { curve, .. } => curve.to_string(),
        }
    }

    /// DER of the SubjectPublicKeyInfo. None for a curve that is not on the list.
    #[must_use]
    pub fn to_spki(&self) -> Option<Vec<u8>> {
        // rsaEncryption with NULL parameters; id-ecPublicKey with the named curve.
        const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
        const P256: &[u8] =
            &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        const P384: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 4, 0, 0x22];
        let algorithm = match self {
            Self::Rsa { .. } => RSA,
            Self::Ec { curve: Curve::P256, .. } => P256,
            Self::Ec { curve: Curve::P384, .. } => P384,
            Self::Ec { .. } => return None,
        };
        let key = [[0].as_slice(), &self.key_bytes()].concat();
        Some(der(0x30, &[der(0x30, algorithm), der(0x03, &key)].concat()))
    }

    /// What a SubjectPublicKeyInfo's BIT STRING holds: RSAPublicKey in DER, or the uncompressed point.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa { modulus, exponent } => {
                der(0x30, &[der_unsigned(modulus), der_unsigned(&exponent.to_be_bytes())].concat())
            }
            Self::Ec { x, y, .. } => [[4].as_slice(), x, y].concat(),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the EK id, and how other places name a key. None as in [`Self::to_spki`].
    #[must_use]
    pub fn id(&self) -> Option<[u8; 32]> {
        Some(crate::digest::sha256(&[&self.to_spki()?]))
    }

    /// Reads the DER of an RSAPublicKey (RFC 8017 A.1.1) that fills its input.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_rsa_public_key(input: &[u8]) -> Result<Self, ParseError> {
        let malformed = |what| ParseError { at: 0, problem: Problem::Malformed { what } };
        match RSAPublicKey::from_der(input) {
            Ok(([], rsa)) => Self::of_rsa(rsa.modulus, rsa.exponent),
            _ => Err(malformed("not an RSAPublicKey in DER")),
        }
    }

    fn of_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, ParseError> {
        let malformed = |what| ParseError { at: 0, problem: Problem::Malformed { what } };
        let exponent = without_leading_zeros(exponent);
        let mut bytes = [0u8; 4];
        let tail = bytes.len().checked_sub(exponent.len()).and_then(|start| bytes.get_mut(start..));
        tail.ok_or_else(|| malformed("the RSA exponent is longer than 32 bits"))?.copy_from_slice(exponent);
        let exponent = u32::from_be_bytes(bytes);
        if exponent == 0 {
            return Err(malformed("the RSA exponent is 0"));
        }
        if modulus.len() > usize::from(RSA_BYTES_MAX).saturating_add(1) {
            return Err(malformed("the RSA modulus is longer than 16384 bits"));
        }
        Ok(Self::rsa(modulus, exponent))
    }

    /// Reads the DER of a SubjectPublicKeyInfo that fills its input. Curves that are not on the list are read as
    /// [`Curve::Other`] where their OID is known, so that a finding can name them.
    ///
    /// # Errors
    /// Anything but such a structure with an RSA or EC key.
    pub fn from_spki(input: &[u8]) -> Result<Self, ParseError> {
        let malformed = |what| ParseError { at: 0, problem: Problem::Malformed { what } };
        let (rest, spki) =
            SubjectPublicKeyInfo::from_der(input).map_err(|_| malformed("not a SubjectPublicKeyInfo in DER"))?;
        if !rest.is_empty() {
            let at = input.len().saturating_sub(rest.len());
            return Err(ParseError {
                at,
                problem: Problem::Trailing { what: "the SubjectPublicKeyInfo", left: rest.len() },
            });
        }
        match spki.parsed().map_err(|_| malformed("the subjectPublicKey is not readable"))? {
            X509Key::RSA(rsa) => Self::of_rsa(rsa.modulus, rsa.exponent),
            X509Key::EC(point) => {
                let oid = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
                let curve = match oid.map(|oid| oid.to_id_string()).as_deref() {
                    Some("1.2.840.10045.3.1.7") => Curve::P256,
                    Some("1.3.132.0.34") => Curve::P384,
                    Some("1.2.840.10045.3.1.1") => Curve::Other(0x0001),
                    Some("1.3.132.0.33") => Curve::Other(0x0002),
                    Some("1.3.132.0.35") => Curve::Other(0x0005),
                    _ => return Err(malformed("the curve is not a named one that a TPM knows")),
                };
                let (form, coordinates) =
                    point.data().split_first().ok_or_else(|| malformed("the EC point is empty"))?;
                if *form != 4 || coordinates.len() & 1 == 1 {
                    return Err(malformed("the EC point is not in the uncompressed form"));
                }
                let half = coordinates.len() / 2;
                let (x, y) = coordinates.split_at_checked(half).unwrap_or_default();
                if curve.size().is_some_and(|size| size != half) || half > usize::from(COORDINATE_MAX) {
                    return Err(malformed("the EC point has another length than its curve"));
                }
                Self::ec(curve, x, y).ok_or_else(|| malformed("the EC point has another length than its curve"))
            }
            _ => Err(malformed("the key is neither RSA nor EC")),
        }
    }
}

/// `P-256 SHA-256(SubjectPublicKeyInfo)` in hex, for messages.
impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.kind())?;
        self.id().map_or(Ok(()), |id| write!(out, " {}", hex::encode(id)))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({self})")
    }
}

/// `bytes` without leading zero bytes.
pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// The big-endian number in exactly `size` bytes; None when it needs more.
pub(crate) fn padded(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let number = without_leading_zeros(number);
    let mut out = vec![0; size.checked_sub(number.len())?];
    out.extend_from_slice(number);
    Some(out)
}

/// One DER element. Contents here are far below 64 KiB.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = contents.len().to_be_bytes();
    let short = without_leading_zeros(&length);
    match (short, u8::try_from(short.len())) {
        ([], _) => out.push(0),
        ([one], _) if *one < 0x80 => out.push(*one),
        (_, Ok(count)) => {
            out.push(0x80 | count);
            out.extend_from_slice(short);
        }
        (_, Err(_)) => {}
    }
    out.extend_from_slice(contents);
    out
}

/// A DER INTEGER from an unsigned big-endian number.
fn der_unsigned(number: &[u8]) -> Vec<u8> {
    let number = without_leading_zeros(number);
    match number.first() {
        None => der(0x02, &[0]),
        Some(first) if *first >= 0x80 => der(0x02, &[[0].as_slice(), number].concat()),
        Some(_) => der(0x02, number),
    }
}

/// An ECDSA signature as DER (RFC 3279 2.2.3), from r and s of any length.
pub(crate) fn der_ecdsa(r: &[u8], s: &[u8]) -> Vec<u8> {
    der(0x30, &[der_unsigned(r), der_unsigned(s)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spki_comes_back_equal() {
        let keys = [
            PublicKey::rsa(&[0xc5; 256], 0),
            PublicKey::rsa(&[0x45; 384], 65537),
            PublicKey::ec(Curve::P256, &[1; 32], &[2; 31]).unwrap(),
            PublicKey::ec(Curve::P384, &[1; 47], &[0xff; 48]).unwrap(),
        ];
        for key in keys {
            let spki = key.to_spki().unwrap();
            assert_eq!(PublicKey::from_spki(&spki).unwrap(), key);
            let error = PublicKey::from_spki(&[spki.as_slice(), &[0]].concat()).unwrap_err();
            assert_eq!(error.problem, Problem::Trailing { what: "the SubjectPublicKeyInfo", left: 1 });
        }
    }

    #[test]
    fn a14_only_listed_kinds_and_sizes_are_not_weak() {
        let rows = [
            (PublicKey::rsa(&[0x80; 128], 0), Some("RSA-1024")),
            (PublicKey::rsa(&[0x80; 2048], 0), Some("RSA-16384")),
            (PublicKey::rsa(&[0x7f; 256], 0), Some("RSA-2047")),
            (PublicKey::rsa(&[0x80; 256], 0), None),
            (PublicKey::rsa(&[0x80; 384], 0), None),
            (PublicKey::rsa(&[0x80; 512], 0), None),
            (PublicKey::rsa(&[0x80; 256], 3), Some("RSA with the public exponent 3")),
            (PublicKey::rsa(&[0x80; 256], 65538), Some("RSA with the public exponent 65538")),
            (PublicKey::ec(Curve::P256, &[1], &[2]).unwrap(), None),
            (PublicKey::ec(Curve::P384, &[1], &[2]).unwrap(), None),
            (PublicKey::ec(Curve::Other(5), &[1], &[2]).unwrap(), Some("P-521")),
            (PublicKey::ec(Curve::Other(0x10), &[1], &[2]).unwrap(), Some("BN-256")),
        ];
        for (key, weakness) in rows {
            assert_eq!(key.weakness().as_deref(), weakness);
        }
    }
}
