//! Templates named by their format string (`ima_template_fmt=`): Linux `ima_template.c`, `ima_template_lib.c`.
//!
//! The name is not hashed, so a host may declare any format for data that was hashed. A format is therefore followed only where it
//! leaves no choice: every field must have its type's form, the first field that looks like a digest must be the one that is
//! declared as the file's, and no field of free form may be as long as a bare legacy digest. Else the entry names no file.

use super::entry::{DigestOf, FileMeasurement, digest_ng, field, name_ng};
use crate::bytes::Reader;

/// Most fields of a format: the kernel's own limit (TEMPLATE_NUM_FIELDS_MAX).
const FIELDS_MAX: usize = 15;

/// Field identifiers of the kernel, and whether their content is free in form.
const FIELDS: [(&str, bool); 16] = [
    ("d", false),
    ("n", false),
    ("d-ng", false),
    ("d-ngv2", false),
    ("n-ng", false),
    ("sig", true),
    ("buf", true),
    ("d-modsig", false),
    ("modsig", true),
    ("evmsig", true),
    ("iuid", false),
    ("igid", false),
    ("imode", false),
    ("xattrnames", true),
    ("xattrlengths", true),
    ("xattrvalues", true),
];

/// The field identifiers of a format string. None when one is unknown or there are too many.
pub(super) fn declared(name: &[u8]) -> Option<Vec<&str>> {
    let ids: Vec<&str> = std::str::from_utf8(name).ok()?.split('|').collect();
    (ids.len() <= FIELDS_MAX && ids.iter().all(|id| is_known(id))).then_some(ids)
}

fn is_known(id: &str) -> bool {
    FIELDS.iter().any(|(known, _)| *known == id)
}

fn is_free(id: &str) -> bool {
    FIELDS.iter().any(|(known, free)| *known == id && *free)
}

/// Reads data by the format that its template's name declares.
pub(super) fn read<'a>(name: &[u8], data: &'a [u8]) -> Option<FileMeasurement<'a>> {
    let ids = declared(name)?;
    let mut reader = Reader::new(data);
    let (mut digest, mut path, mut signature, mut buffer) = (None, None, None, None);
    for id in ids {
        let content = field(&mut reader).ok()?;
        let like_digest = digest_ng(content);
        // Whatever looks like a digest first is the file's: a field that its owner chose must not take its place.
        if like_digest.is_some() && digest.is_none() && !matches!(id, "d-ng" | "d-ngv2") {
            return None;
        }
        if is_free(id) && matches!(content.len(), 16 | 20) {
            return None;
        }
        match id {
            "d" if digest.is_none() => {
                digest = Some(match content.len() {
                    16 => ("md5", DigestOf::Unsaid, content),
                    20 => ("sha1", DigestOf::Unsaid, content),
                    _ => return None,
                });
            }
            "d-ng" | "d-ngv2" if digest.is_none() => {
                let found = like_digest?;
                let fits = (found.1 == DigestOf::Unsaid) == (id == "d-ng");
                digest = Some(fits.then_some(found)?);
            }
            "n" | "n-ng" if path.is_none() => path = Some(name_ng(content)?),
            "sig" if signature.is_none() => {
                let fits = content.first().is_none_or(|kind| (3..=6).contains(kind));
                signature = Some(fits.then_some(content)?);
            }
            "buf" if buffer.is_none() => buffer = Some(content),
            "d-modsig" => (content.is_empty() || like_digest.is_some()).then_some(())?,
            "iuid" | "igid" => (content.len() == 4).then_some(())?,
            "imode" => (content.len() == 2).then_some(())?,
            "modsig" | "evmsig" | "xattrnames" | "xattrlengths" | "xattrvalues" => {}
            // A field twice.
            _ => return None,
        }
    }
    if !reader.is_empty() {
        return None;
    }
    let ((alg, of, digest), path) = (digest?, path?);
    let some = |content: Option<&'a [u8]>| content.filter(|content| !content.is_empty());
    let file = FileMeasurement { alg, digest, of, path, signature: some(signature), buffer: None };
    let Some(content) = some(buffer) else { return Some(file) };
    // A buffer is what the digest is of.
    let hashed = file.file_digest()?.alg().hash(&[content])?;
    (hashed.as_bytes() == digest).then_some(FileMeasurement { buffer: Some(content), ..file })
}
