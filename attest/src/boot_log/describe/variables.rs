//! UEFI variables that a log holds: UEFI 2.10 section 32.4.1 (EFI_SIGNATURE_LIST), 3.1.3 (EFI_LOAD_OPTION), 32.3 (key databases).
//!
//! Establishes what a variable held that hashes to its digest. A certificate is named by its subject and not verified: which
//! ones a firmware trusts is told by the digest of the whole database.

use serde::Serialize;

use super::super::authentic::UefiVariable;
use super::{device_path, guid};
use crate::bytes::Reader;
use crate::finding::one_line;

/// Most certificates that are named of one variable; what follows is counted.
const NAMED_MAX: usize = 32;

/// EFI_CERT_X509_GUID, a5c059a1-94e4-4aa7-87b5-ab155c2bf072, as it stands in memory.
const CERT_X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];

/// Variables that are lists of keys or of forbidden programs.
const DATABASES: [&str; 9] = ["PK", "KEK", "db", "dbx", "dbr", "dbt", "dbDefault", "MokList", "MokListX"];

/// A variable that a PCR holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VariableClaim {
    /// Position in the log.
    pub event: usize,
    /// The PCR that it rests on.
    pub pcr: u8,
    /// Before the PCR's first separator: nobody can have extended it after boot.
    pub by_firmware: bool,
    /// Its name. Where `named` is false, the log's word.
    pub name: String,
    /// Whether the digest covers the name and not the content alone.
    pub named: bool,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Length of its content.
    pub size: usize,
    /// Subjects of its certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Entries that are no certificates, or certificates beyond the first 32.
    #[serde(skip_serializing_if = "is_zero")]
    pub entries: usize,
    /// The content in words, where it is short: Secure Boot's state, the boot order, a boot option, SbatLevel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What a variable holds, by its name.
pub(super) struct Content {
    pub(super) certificates: Vec<String>,
    pub(super) entries: usize,
    pub(super) value: Option<String>,
}

/// Reads a variable's content. `authority`: one entry of a database instead of a whole one.
pub(super) fn read(variable: &UefiVariable<'_>, name: &str, authority: bool) -> Content {
    let content = variable.content;
    let mut read = Content { certificates: Vec::new(), entries: 0, value: None };
    match name {
        _ if authority && name != "SbatLevel" => {
            // A database's entry begins with its owner, shim's own certificate does not.
            let owned = content.get(16..).and_then(subject);
            read.certificates.extend(owned.or_else(|| subject(content)));
            read.entries = usize::from(read.certificates.is_empty());
        }
        "SecureBoot" | "AuditMode" | "DeployedMode" | "SetupMode" | "MokSBState" => {
            if let [value] = content {
                read.value = Some(value.to_string());
            }
        }
        "SbatLevel" => {
            read.value = std::str::from_utf8(content).ok().map(|text| one_line(text.trim_end_matches(['\0', '\n'])))
        }
        "BootOrder" => read.value = Some(boot_order(content)),
        name if DATABASES.contains(&name) => signature_lists(content, &mut read),
        name if is_boot_option(name) => read.value = load_option(content),
        _ => {}
    }
    read
}

/// `Boot` and four hexadecimal digits.
fn is_boot_option(name: &str) -> bool {
    name.strip_prefix("Boot").is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn boot_order(content: &[u8]) -> String {
    let numbers = content.as_chunks::<2>().0.iter().take(64);
    numbers.map(|number| format!("{:04X}", u16::from_le_bytes(*number))).collect::<Vec<_>>().join(",")
}

/// EFI_LOAD_OPTION: attributes, length of the path list, description, path list.
fn load_option(content: &[u8]) -> Option<String> {
    let mut reader = Reader::new(content);
    reader.le32("attributes").ok()?;
    let length = usize::from(reader.le16("a path list's length").ok()?);
    let rest = reader.rest();
    let description = device_path::utf16(rest);
    let end = description.encode_utf16().count().checked_add(1)?.checked_mul(2)?;
    let path = rest.get(end..)?.get(..length)?;
    Some(one_line(&format!("{description}: {}", device_path::text(path))))
}

/// EFI_SIGNATURE_LIST after another. What is malformed ends the reading and counts as an entry.
fn signature_lists(content: &[u8], read: &mut Content) {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        if signature_list(&mut reader, read).is_none() {
            read.entries = read.entries.saturating_add(1);
            return;
        }
    }
}

fn signature_list(reader: &mut Reader<'_>, read: &mut Content) -> Option<()> {
    let kind: [u8; 16] = reader.array("a signature type").ok()?;
    let whole = usize::try_from(reader.le32("a list's size").ok()?).ok()?;
    let header = usize::try_from(reader.le32("a header's size").ok()?).ok()?;
    let size = usize::try_from(reader.le32("a signature's size").ok()?).ok()?;
    let mut list = reader.sub(whole.checked_sub(28)?, "a signature list").ok()?;
    list.take(header, "a signature header").ok()?;
    // An entry is its owner and at least one byte.
    if size <= 16 {
        return None;
    }
    while !list.is_empty() {
        let entry = list.take(size, "a signature").ok()?;
        let named =
            (kind == CERT_X509 && read.certificates.len() < NAMED_MAX).then(|| entry.get(16..).and_then(subject));
        match named.flatten() {
            Some(name) => read.certificates.push(name),
            None => read.entries = read.entries.saturating_add(1),
        }
    }
    Some(())
}

/// The subject of a DER certificate that these bytes begin with.
pub(super) fn subject(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(one_line(&certificate.subject().to_string()))
}

/// UEFI_GPT_DATA (PFP 10.2.7): the header's disk GUID and its partitions.
pub(super) fn gpt(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    if reader.take(8, "a GPT signature").ok()? != b"EFI PART" {
        return None;
    }
    reader.take(48, "a GPT header").ok()?;
    let disk = guid::text(reader.array("a disk GUID").ok()?);
    reader.take(20, "a GPT header").ok()?;
    let count = usize::try_from(reader.le64("a number of partitions").ok()?).ok()?;
    let mut names = Vec::new();
    for _ in 0..count.min(NAMED_MAX) {
        let mut entry = reader.sub(128, "a partition").ok()?;
        entry.take(16, "a partition's type").ok()?;
        let unique = guid::text(entry.array("a partition's GUID").ok()?);
        entry.take(24, "a partition's place").ok()?;
        names.push(format!("{unique} {}", device_path::utf16(entry.rest())).trim_end().to_owned());
    }
    Some(one_line(&format!("disk {disk}, {count} partitions: {}", names.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: [u8; 16], entries: &[&[u8]], size: usize) -> Vec<u8> {
        let body: Vec<u8> = entries.iter().flat_map(|entry| [&[0; 16], *entry].concat()).collect();
        let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        [kind.as_slice(), &word(body.len().saturating_add(28)), &word(0), &word(size), &body].concat()
    }

    fn database(content: &[u8]) -> (usize, usize) {
        let variable = UefiVariable { guid: [0; 16], name: &[], content };
        let read = read(&variable, "db", false);
        (read.certificates.len(), read.entries)
    }

    #[test]
    fn a_database_is_counted_whatever_it_holds() {
        let hash = [7u8; 32];
        let key = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let der = key.cert.der().as_ref();
        let certificates = list(CERT_X509, &[der, der], der.len().saturating_add(16));
        let hashes = list([1; 16], &[&hash, &hash, &hash], 48);
        assert_eq!(database(&[certificates.clone(), hashes.clone()].concat()), (2, 3));
        assert_eq!(database(&[]), (0, 0));
        // A certificate in a list of hashes is no certificate; a broken one is an entry.
        assert_eq!(database(&list([1; 16], &[der], der.len().saturating_add(16))), (0, 1));
        assert_eq!(database(&list(CERT_X509, &[&hash], 48)), (0, 1));
        for end in 1..hashes.len() {
            let (certificates, entries) = database(&hashes[..end]);
            assert!(certificates == 0 && entries <= 3, "{end}: {entries}");
        }
        // Sizes that do not fit their list end it.
        assert_eq!(database(&list([1; 16], &[&hash], 47)), (0, 2));
        assert_eq!(database(&list([1; 16], &[&hash], 16)), (0, 1));
    }

    #[test]
    fn boot_options_are_named_by_description_and_path() {
        let text: Vec<u8> = "Linux\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let path = [1, 1, 6, 0, 2, 3, 0x7f, 0xff, 4, 0];
        let option = [&[1, 0, 0, 0, 10, 0], text.as_slice(), &path, b"options"].concat();
        assert_eq!(load_option(&option).as_deref(), Some("Linux: Pci(0x3,0x2)"));
        assert_eq!(load_option(&option[..20]), None);
        assert!(is_boot_option("Boot00A1") && !is_boot_option("BootOrder") && !is_boot_option("Boot001"));
        assert_eq!(boot_order(&[3, 0, 0x0a, 0x10, 9]), "0003,100A");
    }
}
