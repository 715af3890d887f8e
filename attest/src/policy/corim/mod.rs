//! Signed CoRIMs: another maker's reference values, under that maker's signature.
//!
//! draft-ietf-rats-corim-11 ("Concise Reference Integrity Manifest", July 2026): §4.1 (corim-map), §4.2 (signed CoRIM), §5 (CoMID),
//! §7 (common types). Establishes that a key which the operator named signed these values and that they are valid at the given time;
//! the operator who signs the bundle that is made from them vouches for the rest. The period becomes the window's.
//!
//! It does not carry over what a bundle cannot say: each such thing is counted and told ([`Imported::findings`]). What would accept
//! more than the author does is refused: a profile that is not understood (§4.1 demands it), values of several environments at once,
//! and alternatives of several PCRs, which a window could not keep apart. Files are taken together: each digest is one that the author
//! names for its path, whichever triple it stands in. An unsigned CoRIM is never read. The class of an
//! environment becomes the bundle's model, for people; no host is told apart by it.

mod cbor;
mod comid;
mod cose;
mod left_out;
mod validity;

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

pub use cose::Signer;

use super::import::{ImportError, Imported, finish};
use super::references::RawWindow;
use crate::bytes::ParseError;
use crate::digest::Digest;
use crate::finding::{Finding, Findings};
use crate::replay::BANK;
use cbor::{Budget, Item, Value, get, need, others};
use comid::{Comid, Environment, Record};
use left_out::{LeftOut, Reason};
use validity::{Validity, written};

/// An unsigned corim-map, as the payload.
const CORIM: u64 = 501;
/// CoMID tags.
const COMID: u64 = 506;
/// Most environments that a message lists.
const LISTED_MAX: usize = 16;

/// Why a CoRIM gives no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorimError {
    /// Not a signed CoRIM, or one that the draft does not allow.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// A CoRIM without a signature.
    #[error(
        "an unsigned CoRIM: reference values are taken over under their author's signature only (COSE_Sign1, CBOR tag 18)"
    )]
    Unsigned,
    /// A check refuses it.
    #[error("{}", .0.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Findings),
    /// Which environment is meant is not clear.
    #[error("{}", which(.listed, *.all))]
    Environment {
        /// Some of those that it has values for.
        listed: Vec<String>,
        /// How many there are.
        all: usize,
    },
    /// Nothing in it has a meaning here; what was left out says why.
    #[error("it holds no reference value that has a meaning here{}", reasons(.0))]
    Empty(Findings),
    /// No bundle can be made.
    #[error(transparent)]
    Import(#[from] ImportError),
}

fn which(listed: &[String], all: usize) -> String {
    let names = listed.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
    let more = all.saturating_sub(listed.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("name one environment (all of its words, or its model); there are {names}{more}")
}

fn reasons(findings: &Findings) -> String {
    let told = findings.as_slice().iter().map(|one| format!("; {}", one.message));
    told.collect()
}

/// A CoRIM that a trusted key signed and that was valid at the time of the check: made by [`VerifiedCorim::verify`] alone.
#[derive(Debug)]
pub struct VerifiedCorim {
    id: String,
    signer: String,
    author: String,
    validity: Validity,
    environments: Vec<Environment>,
    records: Vec<Record>,
    left_out: LeftOut,
}

impl VerifiedCorim {
    /// Verifies a file under the keys that are trusted to sign reference values, and reads it.
    ///
    /// # Errors
    /// [`CorimError`].
    pub fn verify(file: &[u8], signers: &[Signer], at: OffsetDateTime) -> Result<Self, CorimError> {
        let mut budget = Budget::new();
        let opened = cose::open(file, signers, at, &mut budget)?;
        let whole = cbor::parse(opened.payload, opened.payload_at, &mut budget, "the CoRIM")?;
        let corim = whole.tagged(CORIM).ok_or_else(|| whole.error("the payload is not a CoRIM (CBOR tag 501)"))?;
        let map = corim.map("a CoRIM is a map")?;
        profile(get(map, 3))?;
        let validity = get(map, 4).map(Validity::of_map).transpose()?.unwrap_or_default();
        validity.check(at)?;
        let id = comid::tag_id(need(map, 0, corim.at, "a CoRIM has no id")?)?;
        let tags = need(map, 1, corim.at, "a CoRIM has no tags")?.array("tags are an array")?;
        let mut left_out = LeftOut::default();
        left_out.add(Reason::Extensions, others(map, 0..=5));
        if let Some(rims) = get(map, 2) {
            left_out.add(Reason::DependentRims, rims.array("dependent manifests are an array")?.len());
        }
        let (mut environments, mut comids) = (Vec::new(), Vec::<Comid>::new());
        let mut ids = BTreeSet::new();
        for tag in tags {
            let Value::Tag(number, content) = &tag.value else {
                return Err(tag.error("a tag of a CoRIM has no CBOR tag").into());
            };
            if *number != COMID {
                left_out.add(Reason::OtherTags, 1);
                continue;
            }
            let (bytes, begins) = content.bytes("a CoMID is a byte string")?;
            let comid = comid::parse(bytes, begins, &mut budget, &mut environments)?;
            if !ids.insert(comid.id.clone()) {
                return Err(tag.error("two tags have one id").into());
            }
            comids.push(comid);
        }
        let records = current(comids, &ids, &mut left_out);
        let (signer, author) = (opened.signer, opened.author);
        let validity = opened.validity.and(validity);
        Ok(Self { id, signer, author, validity, environments, records, left_out })
    }

    /// The CoRIM's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name under which the key that signed it is trusted.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// Who it says has signed it.
    #[must_use]
    pub fn author(&self) -> &str {
        &self.author
    }

    /// When it begins and ends, in RFC 3339; None: open-ended.
    #[must_use]
    pub fn period(&self) -> (Option<String>, Option<String>) {
        let text = |at: Option<OffsetDateTime>| at.map(|at| written(Some(at)));
        (text(self.validity.from), text(self.validity.until))
    }

    /// The words of every environment that it has reference values for.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.used().map(|(_, one)| one.label.as_str())
    }

    /// Those of tags that are not replaced.
    fn used(&self) -> impl Iterator<Item = (usize, &Environment)> {
        let used: BTreeSet<usize> = self.records.iter().map(|one| one.environment).collect();
        self.environments.iter().enumerate().filter(move |(position, _)| used.contains(position))
    }

    /// Makes a bundle of one environment's values. Without a name there must be one, of a class and not of a single device.
    /// Returns the environment's words too.
    ///
    /// # Errors
    /// [`CorimError`]: which environment is meant is not clear, the values cannot be kept apart, or there is none.
    pub fn import(&self, environment: Option<&str>, version: u64) -> Result<(Imported, String), CorimError> {
        if self.records.is_empty() {
            return Err(CorimError::Empty(self.left_out.findings()));
        }
        let (position, chosen) = self.choose(environment)?;
        let mut left_out = self.left_out.clone();
        let mut window = RawWindow::default();
        (window.from, window.until) = self.period();
        let mut values = BTreeMap::<u8, BTreeSet<Digest>>::new();
        for record in &self.records {
            if record.environment != position {
                left_out.add(Reason::OtherEnvironments, 1);
                continue;
            }
            left_out.append(&record.left_out);
            for (pcr, value) in &record.pcrs {
                values.entry(*pcr).or_default().insert(*value);
            }
            for (path, digests) in &record.files {
                window.ima.entry(path.clone()).or_default().extend(digests.iter().map(|one| format!("{one:?}")));
            }
        }
        for list in window.ima.values_mut() {
            list.sort_unstable();
            list.dedup();
        }
        let several: Vec<u8> = values.iter().filter(|(_, set)| set.len() > 1).map(|(pcr, _)| *pcr).collect();
        kept_apart(&several)?;
        left_out.add(Reason::Alternatives, several.len());
        left_out.add(Reason::Instance, usize::from(chosen.instance));
        if !values.is_empty() {
            let text = |set: BTreeSet<Digest>| set.iter().map(ToString::to_string).collect();
            let pcrs = values.into_iter().map(|(pcr, set)| (pcr.to_string(), text(set))).collect();
            window.pcrs.insert(BANK.name().to_owned(), pcrs);
        }
        match finish(window, chosen.model.clone(), version, left_out.findings()) {
            Ok(imported) => Ok((imported, chosen.label.clone())),
            Err(ImportError::Empty) => Err(CorimError::Empty(left_out.findings())),
            Err(error) => Err(error.into()),
        }
    }

    fn choose(&self, wanted: Option<&str>) -> Result<(usize, &Environment), CorimError> {
        let fits = |one: &Environment| match wanted {
            Some(wanted) => one.label == wanted || one.model.as_deref() == Some(wanted),
            None => true,
        };
        let mut fitting = self.used().filter(|(_, one)| fits(one));
        match (fitting.next(), fitting.next()) {
            (Some((position, one)), None) if wanted.is_some() || !one.instance => Ok((position, one)),
            _ => {
                let listed = self.environments().take(LISTED_MAX).map(str::to_owned).collect();
                Err(CorimError::Environment { listed, all: self.environments().count() })
            }
        }
    }
}

/// §4.1: a profile must be understood, or the whole is rejected. None is.
fn profile(item: Option<&Item<'_>>) -> Result<(), CorimError> {
    let mut findings = Findings::new();
    if findings.check("corim.profile", item.is_some(), || {
        Finding::error("", "its profile is not understood, so what it means is not known")
            .expected("a CoRIM without a profile")
            .found(item.map(Item::shown).unwrap_or_default())
            .fix("ask its author for one without a profile, or capture the values from a machine known to be good")
    }) {
        return Ok(());
    }
    Err(CorimError::Refused(findings))
}

/// The records of the tags that no other tag of the file replaces (§5.1.3: what is replaced must be disregarded).
fn current(comids: Vec<Comid>, ids: &BTreeSet<String>, left_out: &mut LeftOut) -> Vec<Record> {
    let replaced: BTreeSet<String> = comids.iter().flat_map(|one| one.replaces.iter().cloned()).collect();
    left_out.add(Reason::ReplacesElsewhere, replaced.difference(ids).count());
    let mut records = Vec::new();
    for comid in comids {
        if replaced.contains(&comid.id) {
            left_out.add(Reason::ReplacedHere, 1);
        } else {
            left_out.append(&comid.left_out);
            records.extend(comid.records);
        }
    }
    records
}

/// Each PCR of a window is judged alone. Where one PCR alone has alternatives, every combination is some triple's; where two have,
/// one's new value would pass with the other's old one.
fn kept_apart(several: &[u8]) -> Result<(), CorimError> {
    let mut findings = Findings::new();
    if findings.check("corim.alternatives", several.len() > 1, || {
        Finding::error("", "several PCRs have alternative values, and a bundle cannot keep them apart")
            .expected("one PCR at most with more than one value")
            .found(several.iter().map(|pcr| format!("PCR {pcr}")).collect::<Vec<_>>().join(", "))
            .fix("ask its author for one file for each version")
    }) {
        return Ok(());
    }
    Err(CorimError::Refused(findings))
}
