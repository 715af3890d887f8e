//! One round's evidence on the wire: a deterministic CBOR CMW collection.
//!
//! RFC 8949 §4.2.1 (deterministic encoding), RATS Conceptual Message Wrapper (a map from label to `[type, bytes]`).
//! [`Evidence::parse`] establishes framing and limits, and that the bytes are the one deterministic encoding of what was
//! read. It establishes nothing about who wrote them: everything here is untrusted.

use std::collections::BTreeMap;

use minicbor::decode::Error as CborError;
use minicbor::encode::{Error as WriteError, Write};
use minicbor::{Decoder, Encoder};

use crate::digest::{Digest, HashAlg, PcrBanks};
use crate::wire::{Nonce, SignedAttest};

/// Largest evidence body, in bytes: a first round of a busy host (an IMA list of 200,000 entries) fits.
pub const EVIDENCE_MAX: usize = 48 << 20;
/// Longest part of an IMA list that a host sends, in bytes: what a round has room for beside the other parts.
pub const IMA_SENT_MAX: usize = 32 << 20;
/// Largest unanchored part, in bytes: the manifest's and the inventory's limit and room for facts.
pub const UNANCHORED_MAX: usize = 6 << 20;
/// Most facts, and the longest name or value of one, in bytes.
const FACTS_MAX: u64 = 256;
const FACT_TEXT_MAX: usize = 8192;
/// Most names of non-default sources.
const SOURCES_MAX: u64 = 16;
/// Most PCR values: three banks of 24.
const PCRS_MAX: u64 = 72;

/// Why evidence cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Above its limit.
    #[error("the {what} has {found} bytes, the limit is {limit}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not the CBOR that was agreed.
    #[error("at byte {at}: the evidence is not the agreed CBOR ({what})")]
    Malformed {
        /// Offset of the offending item.
        at: usize,
        /// What was being read.
        what: &'static str,
    },
    /// Right content in another encoding: a second encoding of the same evidence is refused.
    #[error("the {what} is not in deterministic CBOR encoding")]
    NotDeterministic {
        /// Which part.
        what: &'static str,
    },
}

/// The certification of the asset tag's NV index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEvidence {
    /// What NV holds: payload and provisioning signature.
    pub nv: Vec<u8>,
    /// TPMS_NV_PUBLIC of the index.
    pub nv_public: Vec<u8>,
    /// TPM2_NV_Certify by the AK.
    pub certification: SignedAttest,
}

/// What no PCR anchors; its exact bytes are bound into the quote's qualifyingData.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanchored {
    /// The challenge's nonce.
    pub nonce: Nonce,
    /// The host's boot id, as it says.
    pub boot_id: String,
    /// hostd's version.
    pub hostd: String,
    /// The engine manifest's canonical bytes; empty when nothing was measured.
    pub manifest: Vec<u8>,
    /// Platform facts by name: reported, never proof.
    pub facts: BTreeMap<String, String>,
    /// Sources of evidence that are not the machine's own (`boot-log`, `root`…): tolerated for simulated hosts only.
    pub sources: Vec<String>,
    /// The asset tag, where one is in NV.
    pub tag: Option<TagEvidence>,
    /// The workload inventory's canonical bytes; empty when nothing was asked. Reported, never proof.
    pub inventory: Vec<u8>,
}

/// The IMA list from one entry on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImaPart {
    /// Index of the first entry that is sent.
    pub from: u64,
    /// The kernel's binary list from there.
    pub list: Vec<u8>,
    /// More than this many bytes are left of it, and none of them is sent: no round can carry them.
    pub left_out: u64,
}

/// One round's evidence, untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The bytes of [`Unanchored`], as they were sent.
    unanchored_bytes: Vec<u8>,
    unanchored: Unanchored,
    /// The quote.
    pub quote: SignedAttest,
    /// PCR values as read beside the quote; they count only if they hash to the quote's digest.
    pub pcrs: PcrBanks,
    /// binary_bios_measurements.
    pub boot_log: Vec<u8>,
    /// The IMA list or the rest of it.
    pub ima: ImaPart,
    /// The host log, one CEL-JSON record a line.
    pub host_log: Vec<u8>,
    /// systemd's log of what it extends; empty where that systemd writes none.
    pub userspace_log: Vec<u8>,
}

/// Parts in the order of deterministic encoding. The last one is left out where it is empty.
const LABELS: [(&str, &str); 7] = [
    ("ima", "application/vnd.hostmark.ima+cbor;v=1"),
    ("pcrs", "application/vnd.hostmark.pcrs+cbor;v=1"),
    ("quote", "application/vnd.hostmark.quote+cbor;v=1"),
    ("boot-log", "application/vnd.hostmark.boot-log+cbor;v=1"),
    ("host-log", "application/vnd.hostmark.host-log+cbor;v=1"),
    ("unanchored", "application/vnd.hostmark.unanchored+cbor;v=1"),
    ("userspace-log", "application/vnd.hostmark.userspace-log+cbor;v=1"),
];
/// Parts that every round has.
const REQUIRED: u64 = 6;

/// Encoding into a vector cannot fail; the empty result would not decode.
fn encoded(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written<Vec<u8>>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    match write(&mut encoder) {
        Ok(()) => encoder.into_writer(),
        Err(_) => Vec::new(),
    }
}

type Written<W> = Result<(), WriteError<<W as Write>::Error>>;

/// Received bytes that an encoding has not come to yet. It goes on for as long as it writes what stands there.
struct Received<'b>(&'b [u8]);

/// An encoding is not what was received.
#[derive(Debug)]
struct Differs;

impl Write for Received<'_> {
    type Error = Differs;

    fn write_all(&mut self, part: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(part).ok_or(Differs)?;
        Ok(())
    }
}

/// Whether these bytes are what `write` writes, and nothing more.
fn is_encoding<'b>(bytes: &'b [u8], write: impl FnOnce(&mut Encoder<Received<'b>>) -> Written<Received<'b>>) -> bool {
    let mut encoder = Encoder::new(Received(bytes));
    write(&mut encoder).is_ok() && encoder.into_writer().0.is_empty()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Unanchored {
    /// The one deterministic encoding: map keys by length, then by their bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoded(|e| self.write(e))
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        let optional = u64::from(self.tag.is_some()).saturating_add(u64::from(!self.inventory.is_empty()));
        e.map(6_u64.saturating_add(optional))?;
        if let Some(tag) = &self.tag {
            e.str("tag")?.array(4)?.bytes(&tag.nv)?.bytes(&tag.nv_public)?;
            e.bytes(&tag.certification.attest.0)?.bytes(&tag.certification.signature.0)?;
        }
        e.str("facts")?.map(count(self.facts.len()))?;
        let mut facts: Vec<_> = self.facts.iter().collect();
        facts.sort_by_key(|(name, _)| (name.len(), *name));
        for (name, value) in facts {
            e.str(name)?.str(value)?;
        }
        e.str("hostd")?.str(&self.hostd)?;
        e.str("nonce")?.bytes(&self.nonce.0)?;
        e.str("boot-id")?.str(&self.boot_id)?;
        e.str("sources")?.array(count(self.sources.len()))?;
        for source in &self.sources {
            e.str(source)?;
        }
        e.str("manifest")?.bytes(&self.manifest)?;
        if !self.inventory.is_empty() {
            e.str("inventory")?.bytes(&self.inventory)?;
        }
        Ok(())
    }

    fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let bad = |at: usize, what| EvidenceError::Malformed { at, what };
        if bytes.len() > UNANCHORED_MAX {
            return Err(EvidenceError::TooLong { what: "unanchored part", found: bytes.len(), limit: UNANCHORED_MAX });
        }
        let mut d = Decoder::new(bytes);
        let parsed = Self::read(&mut d).map_err(|_| bad(d.position(), "unanchored"))?;
        if !is_encoding(bytes, |e| parsed.write(e)) {
            return Err(EvidenceError::NotDeterministic { what: "unanchored part" });
        }
        Ok(parsed)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let keys = d.map()?.unwrap_or(0);
        let (tag, keys) = match d.probe().str()? {
            "tag" => {
                key(d, "tag")?;
                fixed(d.array()?, 4)?;
                let (nv, nv_public) = (d.bytes()?.to_vec(), d.bytes()?.to_vec());
                (Some(TagEvidence { nv, nv_public, certification: signed(d)? }), keys.saturating_sub(1))
            }
            _ => (None, keys),
        };
        if !matches!(keys, 6 | 7) {
            return Err(CborError::message("keys"));
        }
        key(d, "facts")?;
        let mut facts = BTreeMap::new();
        for _ in 0..bounded(d.map()?, FACTS_MAX)? {
            facts.insert(text(d)?, text(d)?);
        }
        key(d, "hostd")?;
        let hostd = text(d)?;
        key(d, "nonce")?;
        let nonce = d.bytes()?.try_into().map(Nonce).map_err(|_| CborError::message("nonce"))?;
        key(d, "boot-id")?;
        let boot_id = text(d)?;
        key(d, "sources")?;
        let mut sources = Vec::new();
        for _ in 0..bounded(d.array()?, SOURCES_MAX)? {
            sources.push(text(d)?);
        }
        key(d, "manifest")?;
        let manifest = d.bytes()?.to_vec();
        let mut inventory = Vec::new();
        if keys == 7 {
            key(d, "inventory")?;
            inventory = d.bytes()?.to_vec();
        }
        Ok(Self { nonce, boot_id, hostd, manifest, facts, sources, tag, inventory })
    }
}

fn key(d: &mut Decoder<'_>, name: &'static str) -> Result<(), CborError> {
    if d.str()? == name { Ok(()) } else { Err(CborError::message(name)) }
}

fn fixed(found: Option<u64>, expected: u64) -> Result<(), CborError> {
    if found == Some(expected) { Ok(()) } else { Err(CborError::message("array length")) }
}

fn bounded(found: Option<u64>, limit: u64) -> Result<u64, CborError> {
    match found {
        Some(n) if n <= limit => Ok(n),
        _ => Err(CborError::message("count")),
    }
}

fn text(d: &mut Decoder<'_>) -> Result<String, CborError> {
    let text = d.str()?;
    if text.len() > FACT_TEXT_MAX { Err(CborError::message("text")) } else { Ok(text.to_owned()) }
}

fn signed(d: &mut Decoder<'_>) -> Result<SignedAttest, CborError> {
    let attest = d.bytes()?.to_vec();
    let signature = d.bytes()?.to_vec();
    Ok(SignedAttest { attest: crate::wire::B64(attest), signature: crate::wire::B64(signature) })
}

impl Evidence {
    /// Puts a round together. `unanchored` is the encoding that the quote's qualifyingData was made from.
    #[must_use]
    pub fn new(unanchored: Unanchored, quote: SignedAttest, pcrs: PcrBanks) -> Self {
        let unanchored_bytes = unanchored.encode();
        let (boot_log, ima, host_log, userspace_log) = Default::default();
        Self { unanchored_bytes, unanchored, quote, pcrs, boot_log, ima, host_log, userspace_log }
    }

    /// What no PCR anchors.
    #[must_use]
    pub const fn unanchored(&self) -> &Unanchored {
        &self.unanchored
    }

    /// The exact bytes that the quote must be bound to.
    #[must_use]
    pub fn unanchored_bytes(&self) -> &[u8] {
        &self.unanchored_bytes
    }

    /// The one deterministic encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let ima = encoded(|e| write_ima(&self.ima, e));
        let pcrs = encoded(|e| write_pcrs(&self.pcrs, e));
        let quote = encoded(|e| write_quote(&self.quote, e));
        let logs: [&[u8]; 3] = [&self.boot_log, &self.host_log, &self.userspace_log];
        let [boot_log, host_log, userspace_log] = logs;
        let parts = [&ima, &pcrs, &quote, boot_log, host_log, &self.unanchored_bytes, userspace_log];
        encoded(|e| write_parts(&parts, e))
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`EvidenceError`]: too long, not the agreed CBOR, or not its one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > EVIDENCE_MAX {
            return Err(EvidenceError::TooLong { what: "evidence", found: bytes.len(), limit: EVIDENCE_MAX });
        }
        let mut d = Decoder::new(bytes);
        let parts = outer(&mut d).map_err(|_| EvidenceError::Malformed { at: d.position(), what: "collection" })?;
        let [ima, pcrs, quote, boot_log, host_log, unanchored_bytes, userspace_log] = parts;
        let part = |what| move |_: CborError| EvidenceError::Malformed { at: 0, what };
        let evidence = Self {
            unanchored: Unanchored::parse(unanchored_bytes)?,
            unanchored_bytes: unanchored_bytes.to_vec(),
            quote: read_quote(quote).map_err(part("quote"))?,
            pcrs: read_pcrs(pcrs).map_err(part("pcrs"))?,
            boot_log: boot_log.to_vec(),
            ima: read_ima(ima).map_err(part("ima"))?,
            host_log: host_log.to_vec(),
            userspace_log: userspace_log.to_vec(),
        };
        let deterministic = is_encoding(ima, |e| write_ima(&evidence.ima, e))
            && is_encoding(pcrs, |e| write_pcrs(&evidence.pcrs, e))
            && is_encoding(quote, |e| write_quote(&evidence.quote, e))
            && is_encoding(bytes, |e| write_parts(&parts, e));
        if !deterministic {
            return Err(EvidenceError::NotDeterministic { what: "evidence" });
        }
        Ok(evidence)
    }
}

/// The last part is left out where it is empty.
fn write_parts<W: Write>(parts: &[&[u8]; 7], e: &mut Encoder<W>) -> Written<W> {
    let present = if parts.last().is_some_and(|last| last.is_empty()) { REQUIRED } else { count(parts.len()) };
    e.map(present)?;
    for (_, ((label, media), bytes)) in (0..present).zip(LABELS.iter().zip(parts)) {
        e.str(label)?.array(2)?.str(media)?.bytes(bytes)?;
    }
    Ok(())
}

fn write_ima<W: Write>(ima: &ImaPart, e: &mut Encoder<W>) -> Written<W> {
    let long = ima.left_out > 0;
    e.array(2_u64.saturating_add(u64::from(long)))?.u64(ima.from)?.bytes(&ima.list)?;
    if long { e.u64(ima.left_out)?.ok() } else { Ok(()) }
}

fn write_pcrs<W: Write>(pcrs: &PcrBanks, e: &mut Encoder<W>) -> Written<W> {
    e.array(count(pcrs.values().map(BTreeMap::len).sum()))?;
    for (bank, values) in pcrs {
        for (index, value) in values {
            e.array(3)?.u16(bank.to_tpm())?.u8(*index)?.bytes(value.as_bytes())?;
        }
    }
    Ok(())
}

fn write_quote<W: Write>(quote: &SignedAttest, e: &mut Encoder<W>) -> Written<W> {
    e.array(2)?.bytes(&quote.attest.0)?.bytes(&quote.signature.0)?.ok()
}

fn outer<'b>(d: &mut Decoder<'b>) -> Result<[&'b [u8]; 7], CborError> {
    let present = bounded(d.map()?, count(LABELS.len()))?;
    if present < REQUIRED {
        return Err(CborError::message("parts"));
    }
    let mut parts: [&[u8]; 7] = [&[]; 7];
    for (_, ((label, media), part)) in (0..present).zip(LABELS.iter().zip(parts.iter_mut())) {
        key(d, label)?;
        fixed(d.array()?, 2)?;
        key(d, media)?;
        *part = d.bytes()?;
    }
    Ok(parts)
}

fn read_quote(bytes: &[u8]) -> Result<SignedAttest, CborError> {
    let mut d = Decoder::new(bytes);
    fixed(d.array()?, 2)?;
    signed(&mut d)
}

fn read_ima(bytes: &[u8]) -> Result<ImaPart, CborError> {
    let mut d = Decoder::new(bytes);
    let items = bounded(d.array()?, 3)?;
    let (from, list) = (d.u64()?, d.bytes()?.to_vec());
    Ok(ImaPart { from, list, left_out: if items == 3 { d.u64()? } else { 0 } })
}

fn read_pcrs(bytes: &[u8]) -> Result<PcrBanks, CborError> {
    let mut d = Decoder::new(bytes);
    let mut banks = PcrBanks::new();
    for _ in 0..bounded(d.array()?, PCRS_MAX)? {
        fixed(d.array()?, 3)?;
        let bank = HashAlg::from_tpm(d.u16()?).ok_or_else(|| CborError::message("bank"))?;
        let index = d.u8()?;
        let value = Digest::new(bank, d.bytes()?).ok_or_else(|| CborError::message("value"))?;
        banks.entry(bank).or_default().insert(index, value);
    }
    Ok(banks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::B64;

    fn sample(tag: bool, inventory: bool) -> Evidence {
        let signed = || SignedAttest { attest: B64(vec![1; 300]), signature: B64(vec![2; 70]) };
        let unanchored = Unanchored {
            nonce: Nonce([7; 32]),
            boot_id: "b".into(),
            hostd: "0.1.0".into(),
            manifest: b"{}".to_vec(),
            facts: [("lockdown".to_owned(), "integrity".to_owned()), ("lsm".to_owned(), "x".to_owned())].into(),
            sources: vec!["boot-log".into()],
            tag: tag.then(|| TagEvidence { nv: vec![1], nv_public: vec![2], certification: signed() }),
            inventory: if inventory { b"{}".to_vec() } else { Vec::new() },
        };
        let mut pcrs = PcrBanks::new();
        pcrs.entry(HashAlg::Sha256).or_default().insert(4, Digest::zero(HashAlg::Sha256));
        let mut evidence = Evidence::new(unanchored, signed(), pcrs);
        evidence.ima = ImaPart { from: 3, list: vec![0; 40], left_out: if tag { 7 } else { 0 } };
        evidence.boot_log = vec![5; 500];
        if inventory {
            evidence.userspace_log = b"{}".to_vec();
        }
        evidence
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for (tag, inventory) in [(false, false), (true, false), (false, true), (true, true)] {
            let evidence = sample(tag, inventory);
            assert_eq!(Evidence::parse(&evidence.encode()).unwrap(), evidence);
        }
    }

    #[test]
    fn a_second_encoding_is_refused() {
        let bytes = sample(false, false).encode();
        // The map head 0xa6 in a longer form.
        let mut longer = vec![0xb8, 6];
        longer.extend_from_slice(&bytes[1..]);
        assert_eq!(Evidence::parse(&longer), Err(EvidenceError::NotDeterministic { what: "evidence" }));
        let mut trailing = bytes.clone();
        trailing.push(0);
        assert_eq!(Evidence::parse(&trailing), Err(EvidenceError::NotDeterministic { what: "evidence" }));
        // A log that is not there is left out, and not sent empty.
        let mut empty = [&[0xa7], &bytes[1..], &[0x6d], b"userspace-log".as_slice(), &[0x82, 0x78, 47]].concat();
        empty.extend(b"application/vnd.hostmark.userspace-log+cbor;v=1");
        empty.push(0x40);
        assert_eq!(Evidence::parse(&empty), Err(EvidenceError::NotDeterministic { what: "evidence" }));
        let last = empty.len() - 1;
        empty.splice(last.., [0x41, 0x0a]);
        assert_eq!(Evidence::parse(&empty).unwrap().userspace_log, b"\n", "the honest twin");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample(true, true).encode();
        for end in 0..bytes.len() {
            assert!(Evidence::parse(&bytes[..end]).is_err(), "{end}");
        }
    }
}
