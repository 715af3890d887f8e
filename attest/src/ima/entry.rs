//! One entry of an IMA list: what its template data holds, and what that data hashes to.
//!
//! Linux `ima_template_lib.c`, `ima_calc_field_array_hash_tfm`. The template's **name** is not part of any digest, so
//! the fields are read from the data's own structure, and a name that does not fit them is only reported.

use std::borrow::Cow;

use crate::bytes::{ParseError, Reader};
use crate::digest::{Digest, HashAlg};

/// PCR that IMA extends unless its policy says otherwise (CONFIG_IMA_MEASURE_PCR_IDX).
pub const IMA_PCR: u32 = 10;

/// The legacy `ima` template hashes its name padded to this length (IMA_EVENT_NAME_LEN_MAX + 1).
pub(super) const LEGACY_NAME_LEN: usize = 256;
const LEGACY_PADDING: [u8; LEGACY_NAME_LEN] = [0; LEGACY_NAME_LEN];

/// The template data: what the template digest is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TemplateData<'a> {
    /// The legacy `ima` template: a file digest and a name, without lengths in the digest.
    Legacy {
        /// SHA-1 or MD5 file digest.
        digest: &'a [u8],
        /// Name, at most 255 bytes.
        name: &'a [u8],
    },
    /// Every other template: length-prefixed fields, all of it hashed.
    Fields(&'a [u8]),
}

/// One entry of a list. Nothing in it is proven until [`super::replay_prefix`] yields it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub(super) at: usize,
    pub(super) pcr: u32,
    pub(super) listed: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) data: TemplateData<'a>,
}

/// What the data's own structure shows the template to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shape {
    /// The legacy `ima` template.
    Legacy,
    /// `d-ng|n-ng`.
    Ng,
    /// `d-ng|n-ng|sig`; the signature may be empty.
    Sig,
    /// `d-ng|n-ng|buf`: the digest is that of the third field.
    Buf,
    /// `d-ng|n-ng|sig|d-modsig|modsig`.
    Modsig,
    /// `d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode`.
    EvmSig,
    /// Another format, which the template's name declares and the data fits without a choice.
    Declared,
    /// Not readable as any of these.
    Other,
}

/// What a file digest is the hash of, as `ima-ngv2` and `ima-sigv2` say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DigestOf {
    /// The template does not say: the file's content.
    Unsaid,
    /// The file's content.
    File,
    /// The file's fs-verity descriptor.
    Verity,
}

/// What an entry says about one file (or buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeasurement<'a> {
    /// The file digest's algorithm, as the kernel names it (`sha256`).
    pub alg: &'a str,
    /// The file digest; its length fits `alg` where this crate knows that algorithm.
    pub digest: &'a [u8],
    /// What the digest is of.
    pub of: DigestOf,
    /// The path as the kernel logged it, without its NUL. Current kernels write spaces as underscores.
    pub path: &'a [u8],
    /// The file's signature, when the entry has a non-empty one. It is not verified here.
    pub signature: Option<&'a [u8]>,
    /// The measured buffer (kernel command line, keys, critical data), whose hash is `digest`.
    pub buffer: Option<&'a [u8]>,
}

impl FileMeasurement<'_> {
    /// The file digest with its algorithm, where this crate knows that algorithm.
    #[must_use]
    #[inline]
    pub fn file_digest(&self) -> Option<Digest> {
        Digest::new(file_alg(self.alg)?, self.digest)
    }

    /// The path for display: bytes that are not UTF-8 are replaced. Compare [`FileMeasurement::path`], not this.
    #[must_use]
    pub fn path_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.path)
    }
}

impl<'a> Entry<'a> {
    /// Where the entry starts in the list, in bytes (of the binary form).
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The PCR that the entry says it was extended into. Not hashed.
    #[must_use]
    #[inline]
    pub const fn pcr(&self) -> u32 {
        self.pcr
    }

    /// The template name. Not hashed: a claim of the host.
    #[must_use]
    pub fn template(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }

    /// The template digest as the list has it.
    #[must_use]
    pub const fn listed_digest(&self) -> &'a [u8] {
        self.listed
    }

    /// A violation (the file was open for writing, or changed while measured): the kernel lists a zero digest and extends
    /// 0xff…ff, so nothing in the entry is authenticated.
    #[must_use]
    #[inline]
    pub fn is_violation(&self) -> bool {
        self.listed.iter().all(|byte| *byte == 0)
    }

    /// The template digest, recomputed. None when `alg` cannot be computed.
    #[must_use]
    pub fn template_digest(&self, alg: HashAlg) -> Option<Digest> {
        match self.hashed_parts() {
            [data, [], []] => alg.hash(&[data]),
            parts => alg.hash(&parts),
        }
    }

    /// The hashed template data in parts, for a running hash.
    #[inline]
    pub(super) fn hashed_parts(&self) -> [&'a [u8]; 3] {
        match self.data {
            TemplateData::Legacy { digest, name } => {
                [digest, name, LEGACY_PADDING.get(name.len()..).unwrap_or_default()]
            }
            TemplateData::Fields(fields) => [fields, &[], &[]],
        }
    }

    /// What the entry measured. None for a violation, whose content nothing authenticates, and for data of another form.
    #[must_use]
    #[inline]
    pub fn measurement(&self) -> Option<FileMeasurement<'a>> {
        if self.is_violation() { None } else { self.read().1 }
    }

    /// The path of a violation, for display only: nothing authenticates it, so it must never excuse the entry.
    #[must_use]
    pub fn unauthenticated_path(&self) -> Option<&'a [u8]> {
        match self.data {
            TemplateData::Legacy { name, .. } => Some(name),
            TemplateData::Fields(fields) => {
                let mut reader = Reader::new(fields);
                field(&mut reader).ok()?;
                field(&mut reader).ok().map(|name| name.strip_suffix(&[0]).unwrap_or(name))
            }
        }
    }

    /// The template that the data's own structure shows.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.read().0
    }

    /// True when the template name is one that the data's structure can have. A violation's data says nothing.
    #[must_use]
    pub fn name_fits(&self) -> bool {
        let shape = self.read().0;
        match self.name {
            b"ima" => shape == Shape::Legacy,
            b"ima-ng" | b"d-ng|n-ng" | b"ima-ngv2" | b"d-ngv2|n-ng" => shape == Shape::Ng,
            b"ima-sig" | b"d-ng|n-ng|sig" | b"ima-sigv2" | b"d-ngv2|n-ng|sig" => shape == Shape::Sig,
            b"ima-buf" | b"d-ng|n-ng|buf" => shape == Shape::Buf,
            b"ima-modsig" | b"d-ng|n-ng|sig|d-modsig|modsig" => shape == Shape::Modsig,
            b"evm-sig" | b"d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode" => {
                shape == Shape::EvmSig
            }
            // A template of the kernel's command line (ima_template_fmt) is named by its format string.
            _ => shape == Shape::Declared,
        }
    }

    fn read(&self) -> (Shape, Option<FileMeasurement<'a>>) {
        match self.data {
            TemplateData::Legacy { digest, name } => {
                let alg = if digest.len() == 16 { "md5" } else { "sha1" };
                let file =
                    FileMeasurement { alg, digest, of: DigestOf::Unsaid, path: name, signature: None, buffer: None };
                (Shape::Legacy, Some(file))
            }
            TemplateData::Fields(data) => match read_fields(data) {
                Some(read @ (_, Some(_))) => read,
                // Only data that is none of the kernel's own templates is read by what its name declares.
                _ => match super::template::read(self.name, data) {
                    Some(file) => (Shape::Declared, Some(file)),
                    None => (Shape::Other, None),
                },
            },
        }
    }
}

#[inline]
pub(super) fn field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ParseError> {
    let length = reader.le32("length of a template field")?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX), "template field")
}

/// Reads length-prefixed fields. None when the data does not start with a `d-ng` and an `n-ng` field or does not end with a field.
fn read_fields(data: &[u8]) -> Option<(Shape, Option<FileMeasurement<'_>>)> {
    let mut reader = Reader::new(data);
    let (alg, of, digest) = digest_ng(field(&mut reader).ok()?)?;
    let path = name_ng(field(&mut reader).ok()?)?;
    let file = FileMeasurement { alg, digest, of, path, signature: None, buffer: None };
    if reader.is_empty() {
        return Some((Shape::Ng, Some(file)));
    }
    let third = field(&mut reader).ok()?;
    if reader.is_empty() {
        return Some(third_field(file, third));
    }
    let mut further = 0usize;
    while !reader.is_empty() {
        field(&mut reader).ok()?;
        further = further.saturating_add(1);
    }
    // ima-modsig has two further fields; evm-sig has six, and its signature is not over the file's digest.
    match further {
        2 => Some((Shape::Modsig, Some(FileMeasurement { signature: (!third.is_empty()).then_some(third), ..file }))),
        6 => Some((Shape::EvmSig, Some(file))),
        _ => None,
    }
}

/// `ima-sig` and `ima-buf` have the same framing. A signature starts with its type (include/linux/integrity
/// `evm_ima_xattr_type`), a buffer hashes to the entry's digest; a buffer has no path, and may start with any byte.
fn third_field<'a>(file: FileMeasurement<'a>, third: &'a [u8]) -> (Shape, Option<FileMeasurement<'a>>) {
    let is_buffer = || {
        let hash = file_alg(file.alg).and_then(|alg| alg.hash(&[third]));
        hash.is_some_and(|hash| hash.as_bytes() == file.digest)
    };
    match third.first() {
        None => (Shape::Sig, Some(file)),
        // EVM_IMA_XATTR_DIGSIG, EVM_XATTR_PORTABLE_DIGSIG, IMA_VERITY_DIGSIG; and a plain hash (IMA_XATTR_DIGEST_NG).
        Some(3..=6) if file.path.contains(&b'/') || !is_buffer() => {
            (Shape::Sig, Some(FileMeasurement { signature: Some(third), ..file }))
        }
        Some(_) if is_buffer() => (Shape::Buf, Some(FileMeasurement { buffer: Some(third), ..file })),
        Some(_) => (Shape::Other, None),
    }
}

/// `d-ng`: `alg:\0digest`; `d-ngv2`: `type:alg:\0digest`.
pub(super) fn digest_ng(field: &[u8]) -> Option<(&str, DigestOf, &[u8])> {
    // What nearly every entry has.
    for (start, of) in [(b"sha256:\0".as_slice(), DigestOf::Unsaid), (b"ima:sha256:\0", DigestOf::File)] {
        if let Some(digest) = field.strip_prefix(start).filter(|digest| digest.len() == HashAlg::Sha256.size()) {
            return Some(("sha256", of, digest));
        }
    }
    let end = field.iter().position(|byte| *byte == 0)?;
    let head = std::str::from_utf8(field.get(..end)?).ok()?.strip_suffix(':')?;
    let (of, alg) = match head.split_once(':') {
        Some(("ima", alg)) => (DigestOf::File, alg),
        Some(("verity", alg)) => (DigestOf::Verity, alg),
        Some(_) => return None,
        None => (DigestOf::Unsaid, head),
    };
    let known = !alg.is_empty() && alg.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let digest = field.get(end.checked_add(1)?..)?;
    let fits = file_alg(alg).is_none_or(|alg| alg.size() == digest.len());
    (known && fits && !digest.is_empty()).then_some((alg, of, digest))
}

/// `n-ng`: a name that ends with its only NUL.
#[inline]
pub(super) fn name_ng(field: &[u8]) -> Option<&[u8]> {
    let name = field.strip_suffix(&[0])?;
    (!name.is_empty() && !name.contains(&0)).then_some(name)
}

/// The kernel writes `sm3` or `sm3-256`, everything else by the TPM's lower-case name.
fn file_alg(name: &str) -> Option<HashAlg> {
    match name {
        "sha256" => Some(HashAlg::Sha256),
        "sm3" | "sm3-256" => Some(HashAlg::Sm3),
        name => HashAlg::from_name(name),
    }
}
