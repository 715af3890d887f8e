//! The envelope of a signed CoRIM: who signed these bytes.
//!
//! draft-ietf-rats-corim-11 §4.2, over COSE_Sign1 of RFC 9052 §4.2 and §4.4; algorithms of RFC 9053 §2.1 and RFC 8230 §2, and the
//! same under the numbers of RFC 9864. Establishes that one of the given keys signed exactly the received protected header and
//! payload. The algorithm comes from the protected header alone and must be the key's own; `kid` is shown, never followed, and the
//! unprotected header decides nothing. It does not look into the payload, and trusts no certificate that the file carries (`x5chain`).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use time::OffsetDateTime;

use super::CorimError;
use super::cbor::{self, Budget, Item, Value, get, need};
use super::validity::Validity;
use crate::bytes::ParseError;
use crate::finding::{Finding, Findings};
use crate::ima::ImaKey;
use crate::ima::keys::{Kind, NotAKey};

/// COSE_Sign1.
const SIGN1: u64 = 18;
/// A CoRIM without a signature.
const UNSIGNED: u64 = 501;
/// What earlier drafts put around a CoRIM, and around a signed one. They say nothing more.
const WRAPPERS: [u64; 2] = [500, 502];
/// The one content type (§4.2.1).
const CONTENT_TYPE: &str = "application/rim+cbor";
/// Header parameters: alg, crit, content type, kid, corim-meta, CWT claims.
const ALG: i64 = 1;
const CRIT: i64 = 2;
const CONTENT: i64 = 3;
const KID: i64 = 4;
const META: i64 = 8;
const CWT: i64 = 15;
/// payload-hash-alg of a hash envelope.
const HASH_ENVELOPE: i64 = 258;
/// What a critical list may name: these are understood.
const UNDERSTOOD: [i64; 5] = [ALG, CONTENT, KID, META, CWT];
/// Longest name of a signer, in bytes.
const AUTHOR_MAX: usize = 256;

/// A key that is trusted to sign reference values, under a name for people.
#[derive(Debug, Clone)]
pub struct Signer {
    name: String,
    key: ImaKey,
}

impl Signer {
    /// From the PEM of a public key or a certificate: P-256, P-384, or RSA of 2048 bits and more.
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn from_pem(name: impl Into<String>, pem: &str) -> Result<Self, NotAKey> {
        Ok(Self { name: name.into(), key: ImaKey::from_pem(pem)? })
    }

    /// From DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn from_spki(name: impl Into<String>, der: &[u8]) -> Result<Self, NotAKey> {
        Ok(Self { name: name.into(), key: ImaKey::from_spki(der).ok_or(NotAKey)? })
    }
}

/// An algorithm of the list, and the one kind of key that fits it.
struct Algorithm {
    name: &'static str,
    kind: Kind,
    verification: &'static dyn VerificationAlgorithm,
}

fn algorithm(number: i64) -> Option<Algorithm> {
    let (name, kind, verification): (_, _, &'static dyn VerificationAlgorithm) = match number {
        -7 | -9 => ("ES256", Kind::P256, &ECDSA_P256_SHA256_FIXED),
        -35 | -51 => ("ES384", Kind::P384, &ECDSA_P384_SHA384_FIXED),
        -37 => ("PS256", Kind::Rsa, &RSA_PSS_2048_8192_SHA256),
        _ => return None,
    };
    Some(Algorithm { name, kind, verification })
}

/// What a verified envelope holds.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) payload: &'a [u8],
    /// The byte of the file where the payload begins.
    pub(super) payload_at: usize,
    /// The name under which the key is trusted.
    pub(super) signer: String,
    /// Who says that they signed.
    pub(super) author: String,
    pub(super) validity: Validity,
}

/// Opens a signed CoRIM that one of `signers` signed and whose signature is valid at `at`.
pub(super) fn open<'a>(
    file: &'a [u8],
    signers: &[Signer],
    at: OffsetDateTime,
    budget: &mut Budget,
) -> Result<Opened<'a>, CorimError> {
    let whole = cbor::parse(file, 0, budget, "the signed CoRIM")?;
    let message = WRAPPERS.iter().fold(&whole, |message, tag| message.tagged(*tag).unwrap_or(message));
    if message.tagged(UNSIGNED).is_some() {
        return Err(CorimError::Unsigned);
    }
    let parts = message.tagged(SIGN1).ok_or_else(|| message.error("not a COSE_Sign1 message (CBOR tag 18)"))?;
    let [protected, unprotected, payload, signature] = parts.array("COSE_Sign1 is an array of four")? else {
        return Err(parts.error("COSE_Sign1 is an array of four").into());
    };
    let (protected, protected_at) = protected.bytes("the protected header is a byte string")?;
    let header = cbor::parse(protected, protected_at, budget, "the protected header")?;
    let header = header.map("the protected header is a map")?;
    let unprotected = unprotected.map("the unprotected header is a map")?;
    for (label, _) in unprotected {
        if header.iter().any(|(other, _)| label.is_key(other)) {
            return Err(label.error("a header parameter is protected and unprotected at once").into());
        }
        if label.integer() == Some(CRIT) {
            return Err(label.error("the list of critical parameters is not protected").into());
        }
    }
    if get(header, HASH_ENVELOPE).is_some() {
        return Err(payload
            .error("the payload is a digest (hash envelope): take the CoRIM itself, signed inline")
            .into());
    }
    if payload.is_null() {
        return Err(payload.error("the payload is detached: take the CoRIM with its payload inside").into());
    }
    let (payload, payload_at) = payload.bytes("the payload is a byte string")?;
    let (signature, _) = signature.bytes("the signature is a byte string")?;

    let mut findings = Findings::new();
    critical(header, &mut findings)?;
    let content = get(header, CONTENT);
    let found = content.map_or_else(|| "none".to_owned(), Item::shown);
    let wrong = !content.is_some_and(|item| matches!(item.value, Value::Text(CONTENT_TYPE)));
    if !findings.check("corim.content-type", wrong, || {
        Finding::error("", "the signature is not over a CoRIM").expected(CONTENT_TYPE).found(&found)
    }) {
        return Err(CorimError::Refused(findings));
    }
    let kid = get(header, KID).or_else(|| get(unprotected, KID));
    let message = sig_structure(protected, payload);
    let signer = signed_by(header, kid, signers, &message, signature, findings)?;
    let (author, validity) = author(header, protected_at, budget)?;
    validity.check(at)?;
    Ok(Opened { payload, payload_at, signer, author, validity })
}

/// RFC 9052 §3.1: what is named there must be understood, and be there.
fn critical(header: &[(Item<'_>, Item<'_>)], findings: &mut Findings) -> Result<(), CorimError> {
    let Some(list) = get(header, CRIT) else { return Ok(()) };
    for label in list.array("the list of critical parameters is an array of labels")? {
        if !header.iter().any(|(there, _)| label.is_key(there)) {
            return Err(label.error("a critical header parameter is not in the protected header").into());
        }
        let unknown = label.integer().is_none_or(|label| !UNDERSTOOD.contains(&label));
        if !findings.check("corim.critical", unknown, || {
            Finding::error("", "a critical header parameter is not understood")
                .expected(UNDERSTOOD.map(|label| label.to_string()).join(", "))
                .found(label.shown())
                .fix("ask its author for a file without it: what is critical must not be ignored")
        }) {
            return Err(CorimError::Refused(std::mem::take(findings)));
        }
    }
    Ok(())
}

/// The name of the key that signed.
fn signed_by(
    header: &[(Item<'_>, Item<'_>)],
    kid: Option<&Item<'_>>,
    signers: &[Signer],
    message: &[u8],
    signature: &[u8],
    mut findings: Findings,
) -> Result<String, CorimError> {
    let named = get(header, ALG);
    let known = named.and_then(|alg| algorithm(alg.integer()?));
    let refused = |findings| Err(CorimError::Refused(findings));
    if !findings.check("corim.algorithm", known.is_none(), || {
        Finding::error("", "the protected header names no algorithm that is accepted")
            .expected("ES256 (-7), ES384 (-35) or PS256 (-37)")
            .found(named.map_or_else(|| "none".to_owned(), Item::shown))
            .fix("ask its author to sign with one of these")
    }) {
        return refused(findings);
    }
    let fitting: Vec<(&Signer, &Algorithm)> = signers
        .iter()
        .filter_map(|one| Some((one, known.as_ref()?)))
        .filter(|(one, alg)| one.key.kind() == alg.kind)
        .collect();
    if !findings.check("corim.key", fitting.is_empty(), || {
        Finding::error("", "no trusted key is of the algorithm's kind")
            .expected(known.as_ref().map_or("none", |alg| alg.name))
            .found(signers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "))
            .fix("name the key that its author signs with")
    }) {
        return refused(findings);
    }
    let verifies = |(one, alg): &&(&Signer, &Algorithm)| {
        UnparsedPublicKey::new(alg.verification, one.key.bits()).verify(message, signature).is_ok()
    };
    let by = fitting.iter().find(verifies);
    if !findings.check("corim.signature", by.is_none(), || {
        let hint = kid.map_or_else(|| "no key id".to_owned(), |kid| format!("key id {}", kid.shown()));
        Finding::error("", "none of the trusted keys signed these bytes")
            .expected(fitting.iter().map(|(one, _)| one.name.as_str()).collect::<Vec<_>>().join(", "))
            .found(hint)
            .fix("obtain the file from its author again, and compare the key with the one that they publish")
    }) {
        return refused(findings);
    }
    Ok(by.or(fitting.first()).map_or_else(String::new, |(one, _)| one.name.clone()))
}

/// What is signed (RFC 9052 §4.4), without external data.
fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len().saturating_add(protected.len()).saturating_add(40));
    message.extend(b"\x84\x6aSignature1");
    for part in [protected, &[], payload] {
        byte_string(&mut message, part);
    }
    message
}

/// With the shortest head, as everything that is signed has.
fn byte_string(out: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len()), u32::try_from(bytes.len())) {
        (Ok(length @ 0..24), _, _) => out.push(0x40 | length),
        (Ok(length), _, _) => out.extend([0x58, length]),
        (_, Ok(length), _) => out.extend([&[0x59], length.to_be_bytes().as_slice()].concat()),
        (_, _, Ok(length)) => out.extend([&[0x5a], length.to_be_bytes().as_slice()].concat()),
        _ => {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            out.extend([&[0x5b], length.to_be_bytes().as_slice()].concat());
        }
    }
    out.extend(bytes);
}

/// corim-meta (§4.2.3), CWT claims (§4.2.2), or both, which then say the same.
fn author(header: &[(Item<'_>, Item<'_>)], at: usize, budget: &mut Budget) -> Result<(String, Validity), ParseError> {
    let (mut author, mut validity) = (None, Validity::default());
    if let Some(meta) = get(header, META) {
        let (bytes, begins) = meta.bytes("corim-meta is a byte string")?;
        let meta = cbor::parse(bytes, begins, budget, "corim-meta")?;
        let map = meta.map("corim-meta is a map")?;
        let signer = need(map, 0, meta.at, "corim-meta names no signer")?;
        author = Some(name(need(signer.map("a signer is a map")?, 0, signer.at, "a signer has no name")?)?);
        if let Some(period) = get(map, 1) {
            validity = validity.and(Validity::of_map(period)?);
        }
    }
    if let Some(claims) = get(header, CWT) {
        let map = claims.map("CWT claims are a map")?;
        let issuer = need(map, 1, claims.at, "CWT claims name no issuer")?;
        let named = name(issuer)?;
        if author.is_some_and(|author| author != named) {
            return Err(issuer.error("corim-meta and CWT claims name two signers"));
        }
        author = Some(named);
        validity = validity.and(Validity::of_claims(get(map, 5), get(map, 4))?);
    }
    let author = author.ok_or_else(|| cbor::malformed(at, "neither corim-meta nor CWT claims name a signer"))?;
    Ok((author.to_owned(), validity))
}

fn name<'a>(item: &Item<'a>) -> Result<&'a str, ParseError> {
    let name = item.text("a signer's name is a text")?;
    if name.len() > AUTHOR_MAX {
        return Err(item.error("a signer's name is longer than 256 bytes"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8152, appendix C.2.1, under its key "11".
    #[test]
    fn what_is_signed_is_what_others_sign() {
        let key = concat!(
            "04bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff",
            "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
        );
        let signature = concat!(
            "8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e",
            "2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36"
        );
        let (key, signature) = (hex::decode(key).unwrap(), hex::decode(signature).unwrap());
        let verifies = |payload: &[u8]| {
            let message = sig_structure(&[0xa1, 0x01, 0x26], payload);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key).verify(&message, &signature).is_ok()
        };
        assert!(verifies(b"This is the content.") && !verifies(b"This is the content,"));
    }

    #[test]
    fn a_byte_string_has_the_shortest_head() {
        let rows: [(usize, &[u8]); 6] = [
            (0, &[0x40]),
            (23, &[0x57]),
            (24, &[0x58, 24]),
            (255, &[0x58, 255]),
            (256, &[0x59, 1, 0]),
            (65536, &[0x5a, 0, 1, 0, 0]),
        ];
        for (length, head) in rows {
            let mut out = Vec::new();
            byte_string(&mut out, &vec![0; length]);
            assert!(out.starts_with(head) && out.len() == length.saturating_add(head.len()), "{length}");
        }
    }
}
