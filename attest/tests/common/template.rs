//! IMA entries of every template, as the kernel writes them: binary, and the ascii twin.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]

use hostmark_attest::digest::HashAlg;

/// A length-prefixed field.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

/// A binary entry of PCR 10 with these fields.
pub fn entry(template: &str, fields: &[&[u8]]) -> Vec<u8> {
    let data: Vec<u8> = fields.iter().flat_map(|one| field(one)).collect();
    let digest = HashAlg::Sha1.hash(&[&data]).unwrap();
    [&10u32.to_le_bytes(), digest.as_bytes(), &field(template.as_bytes()), &field(&data)].concat()
}

/// `d-ng` or `d-ngv2`: `head` is `sha256`, `ima:sha256` or `verity:sha256`.
pub fn digest(head: &str, digest: &[u8]) -> Vec<u8> {
    [head.as_bytes(), b":\0", digest].concat()
}

/// `n-ng`.
pub fn name(path: &str) -> Vec<u8> {
    [path.as_bytes(), b"\0"].concat()
}

/// An `ima-sigv2` entry of this file's content with this signature.
pub fn signed(path: &str, content: &[u8], signature: &[u8]) -> Vec<u8> {
    let hash = HashAlg::Sha256.hash(&[content]).unwrap();
    entry("ima-sigv2", &[&digest("ima:sha256", hash.as_bytes()), &name(path), signature])
}

/// A keyring's entry.
pub fn key(keyring: &str, certificate: &[u8]) -> Vec<u8> {
    let hash = HashAlg::Sha256.hash(&[certificate]).unwrap();
    entry("ima-buf", &[&digest("sha256", hash.as_bytes()), &name(keyring), certificate])
}

/// A line of the ascii list for a binary entry: the words behind the template's name are given.
pub fn line(binary: &[u8], template: &str, words: &str) -> Vec<u8> {
    format!("10 {} {template} {words}\n", hex(&binary[4..24])).into_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
