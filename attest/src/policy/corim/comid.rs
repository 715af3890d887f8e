//! CoMID tags: which values an environment is expected to show.
//!
//! draft-ietf-rats-corim-11 §5.1 (concise-mid-tag), §5.1.1 (tag identity), §5.1.3 (linked tags), §5.1.4 (triples, environments,
//! measurements), §5.1.5 (reference values triple), §7.7 (digests; algorithms are the IANA registry "Named Information Hash
//! Algorithm"). Reads reference triples into PCR values and file digests. A measurement is taken whole or not at all: digests beside
//! conditions that no evidence here can show would, alone, accept more than their author does.

use std::collections::{BTreeMap, BTreeSet};

use super::cbor::{self, Budget, Item, SHOWN_MAX, Value, get, need, others};
use super::left_out::{LeftOut, Reason};
use crate::bytes::{ParseError, Problem};
use crate::digest::{Digest, HashAlg};
use crate::ima::loaded::POLICY_PATH;
use crate::policy::capture::CAPTURED;
use crate::policy::references::MODEL_MAX;
use crate::replay::BANK;

/// Most environments with reference values in one file.
const ENVIRONMENTS_MAX: usize = 1024;
/// Longest path, in bytes: PATH_MAX of Linux.
const PATH_MAX: usize = 4096;
/// Keys of measured elements whose integrity registers are a TPM's PCRs. Registers of anything else may have the same numbers.
const TPM: [&str; 5] = ["pcr", "pcrs", "tpm", "tpm2", "vtpm"];

/// What an environment's reference values are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Environment {
    /// All of it, in words: two environments with the same words are not told apart.
    pub(super) label: String,
    pub(super) model: Option<String>,
    /// It names a device or a group, not a class alone.
    pub(super) instance: bool,
}

/// One reference triple: all of its values belong together.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Position of its environment.
    pub(super) environment: usize,
    pub(super) pcrs: BTreeMap<u8, Digest>,
    pub(super) files: BTreeMap<String, BTreeSet<Digest>>,
    pub(super) left_out: LeftOut,
}

/// One CoMID tag.
#[derive(Debug)]
pub(super) struct Comid {
    pub(super) id: String,
    /// Tags whose information must be disregarded.
    pub(super) replaces: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) left_out: LeftOut,
}

/// Reads one CoMID, whose map begins at byte `base` of the file. Environments are shared by all tags of the file.
pub(super) fn parse(
    bytes: &[u8],
    base: usize,
    budget: &mut Budget,
    environments: &mut Vec<Environment>,
) -> Result<Comid, ParseError> {
    let whole = cbor::parse(bytes, base, budget, "the CoMID")?;
    let map = whole.map("a CoMID is a map")?;
    let identity = need(map, 1, whole.at, "a CoMID has no identity")?;
    let id = tag_id(need(identity.map("a tag's identity is a map")?, 0, identity.at, "a tag has no id")?)?;
    let mut left_out = LeftOut::default();
    left_out.add(Reason::Extensions, others(map, 0..=4));
    let mut replaces = Vec::new();
    if let Some(links) = get(map, 3) {
        for link in links.array("linked tags are an array")? {
            let map = link.map("a linked tag is a map")?;
            let target = tag_id(need(map, 0, link.at, "a linked tag has no id")?)?;
            match need(map, 1, link.at, "a linked tag has no relation")?.integer() {
                Some(0) => {}
                Some(1) => replaces.push(target),
                _ => return Err(link.error("the relation of a linked tag is neither supplements nor replaces")),
            }
        }
    }
    let triples = need(map, 4, whole.at, "a CoMID has no triples")?;
    let mut records = Vec::new();
    for (kind, list) in triples.map("triples are a map")? {
        let list = list.array("triples of one kind are an array")?;
        let reason = match kind.integer() {
            Some(0) => {
                for one in list {
                    records.push(record(one, environments)?);
                }
                continue;
            }
            Some(1) => Reason::EndorsedValues,
            Some(2) => Reason::IdentityKeys,
            Some(3) => Reason::AttestKeys,
            Some(4 | 5) => Reason::Domains,
            Some(6) => Reason::CoswidTriples,
            Some(8 | 10) => Reason::ConditionalEndorsements,
            _ => Reason::Extensions,
        };
        left_out.add(reason, list.len());
    }
    Ok(Comid { id, replaces, records, left_out })
}

/// A text, or the 16 bytes of a UUID.
pub(super) fn tag_id(item: &Item<'_>) -> Result<String, ParseError> {
    match &item.value {
        Value::Text(text) if !text.is_empty() && text.len() <= SHOWN_MAX => Ok((*text).to_owned()),
        Value::Bytes(bytes, _) if bytes.len() == 16 => Ok(hex::encode(bytes)),
        _ => Err(item.error("an id is neither a text of 1 to 512 bytes nor a UUID of 16 bytes")),
    }
}

fn record(item: &Item<'_>, environments: &mut Vec<Environment>) -> Result<Record, ParseError> {
    const SHAPE: &str = "a reference triple is an array of an environment and its measurements";
    let [environment, measurements] = item.array(SHAPE)? else { return Err(item.error(SHAPE)) };
    let found = self::environment(environment)?;
    let known = environments.iter().position(|one| *one == found);
    let position = known.unwrap_or(environments.len());
    if known.is_none() {
        if environments.len() >= ENVIRONMENTS_MAX {
            return Err(environment.error("it names more than 1024 environments"));
        }
        environments.push(found);
    }
    let mut record = Record { environment: position, ..Record::default() };
    for one in measurements.array("measurements are an array")? {
        measurement(one, &mut record)?;
    }
    Ok(record)
}

fn environment(item: &Item<'_>) -> Result<Environment, ParseError> {
    let map = item.map("an environment is a map")?;
    if map.is_empty() || others(map, 0..=2) > 0 {
        return Err(item.error("an environment is named by class, instance or group, and by nothing else"));
    }
    let mut words = Vec::new();
    let mut model = None;
    if let Some(class) = get(map, 0) {
        let map = class.map("a class is a map")?;
        if map.is_empty() || others(map, 0..=4) > 0 {
            return Err(class.error("a class is named by id, vendor, model, layer or index, and by nothing else"));
        }
        let vendor = get(map, 1).map(name).transpose()?;
        model = get(map, 2).map(name).transpose()?;
        let names: Vec<&str> = vendor.into_iter().chain(model).collect();
        if !names.is_empty() {
            words.push(names.join(" "));
        }
        for (key, word) in [(3, "layer"), (4, "index"), (0, "class")] {
            words.extend(get(map, key).map(|one| identifier(word, one)).transpose()?);
        }
    }
    for (key, word) in [(1, "instance"), (2, "group")] {
        words.extend(get(map, key).map(|one| identifier(word, one)).transpose()?);
    }
    let instance = get(map, 1).or_else(|| get(map, 2)).is_some();
    Ok(Environment { label: words.join(", "), model: model.map(str::to_owned), instance })
}

/// A vendor or a model, which becomes the bundle's.
fn name<'a>(item: &Item<'a>) -> Result<&'a str, ParseError> {
    let text = item.text("a vendor or model is a text")?;
    if text.is_empty() || text.len() > MODEL_MAX || text.chars().any(char::is_control) {
        return Err(item.error("a vendor or model has 1 to 128 bytes and no control characters"));
    }
    Ok(text)
}

fn identifier(word: &str, item: &Item<'_>) -> Result<String, ParseError> {
    let shown = item.shown();
    if shown.len() >= SHOWN_MAX {
        return Err(item.error("an identifier of an environment is too long to be told from others"));
    }
    Ok(format!("{word} {shown}"))
}

fn measurement(item: &Item<'_>, record: &mut Record) -> Result<(), ParseError> {
    let map = item.map("a measurement is a map")?;
    if others(map, 0..=2) > 0 {
        return Err(item.error("a measurement has a key that the draft does not define"));
    }
    let (key, authorized) = (get(map, 0), get(map, 2).is_some());
    let values_item = need(map, 1, item.at, "a measurement has no values")?;
    let values = values_item.map("a measurement's values are a map")?;
    if values.is_empty() {
        return Err(values_item.error("a measurement has no values"));
    }
    let (digests, registers) = (get(values, 2), get(values, 14));
    if digests.is_none() && registers.is_none() {
        record.left_out.add(Reason::Values, 1);
        return Ok(());
    }
    // A version and a name describe what the digest pins already (0 and 11); everything else narrows what is meant.
    let alone = values.iter().all(|(key, _)| matches!(key.integer(), Some(0 | 2 | 11 | 14)));
    if authorized || !alone {
        record.left_out.add(Reason::Conditions, 1);
        return Ok(());
    }
    if let Some(registers) = registers {
        pcrs(registers, key, record)?;
    }
    if let Some(digests) = digests {
        file(digests, key, get(values, 11), record)?;
    }
    Ok(())
}

/// Integrity registers (§5.1.4).
fn pcrs(item: &Item<'_>, key: Option<&Item<'_>>, record: &mut Record) -> Result<(), ParseError> {
    let registers = item.map("integrity registers are a map")?;
    let of_tpm = key.is_none_or(|key| match &key.value {
        Value::Text(text) => TPM.iter().any(|one| text.eq_ignore_ascii_case(one)),
        _ => false,
    });
    for (register, list) in registers {
        let digests = self::digests(list)?;
        record.left_out.add(Reason::UnknownAlgorithm, digests.unknown);
        let Some(pcr) = pcr(register) else {
            record.left_out.add(if of_tpm { Reason::NoPcr } else { Reason::OtherRegisters }, 1);
            continue;
        };
        let value = digests.known.iter().find(|digest| digest.alg() == BANK);
        match value {
            _ if !of_tpm => record.left_out.add(Reason::OtherRegisters, 1),
            _ if !CAPTURED.contains(&pcr) => record.left_out.add(Reason::NotJudged, 1),
            None => record.left_out.add(Reason::OtherBank, 1),
            Some(value) => {
                if record.pcrs.insert(pcr, *value).is_some_and(|before| before != *value) {
                    return Err(register.error("a reference triple has two values for one PCR"));
                }
            }
        }
    }
    Ok(())
}

/// A number, the number as a text, or `pcr7`.
fn pcr(register: &Item<'_>) -> Option<u8> {
    let number = match &register.value {
        Value::Uint(number) => u8::try_from(*number).ok(),
        Value::Text(text) => {
            let digits =
                text.get(..3).filter(|head| head.eq_ignore_ascii_case("pcr")).and(text.get(3..)).unwrap_or(text);
            // No sign, no space: what a person writes otherwise may mean something else.
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    };
    number.filter(|pcr| *pcr < 24)
}

/// Digests of a file, whose path is the measured element's key or name.
fn file(
    item: &Item<'_>,
    key: Option<&Item<'_>>,
    name: Option<&Item<'_>>,
    record: &mut Record,
) -> Result<(), ParseError> {
    let digests = digests(item)?;
    let path = key.into_iter().chain(name).find_map(|one| match &one.value {
        Value::Text(text) if text.starts_with('/') => Some((*text, one)),
        _ => None,
    });
    let Some((path, named)) = path else {
        record.left_out.add(Reason::UnnamedDigests, 1);
        return Ok(());
    };
    if path.len() > PATH_MAX {
        return Err(ParseError {
            at: named.at,
            problem: Problem::OverLimit {
                what: "the length of a path",
                found: u64::try_from(path.len()).unwrap_or(u64::MAX),
                limit: 4096,
            },
        });
    }
    record.left_out.add(Reason::UnknownAlgorithm, digests.unknown);
    if digests.known.is_empty() {
        return Ok(());
    }
    if path.as_bytes() == POLICY_PATH {
        record.left_out.add(Reason::ImaPolicy, 1);
    }
    record.files.entry(path.to_owned()).or_default().extend(digests.known);
    Ok(())
}

/// Digests of one thing, by different algorithms.
struct Digests {
    known: Vec<Digest>,
    unknown: usize,
}

fn digests(item: &Item<'_>) -> Result<Digests, ParseError> {
    let mut known: Vec<Digest> = Vec::new();
    let mut unknown: Vec<&Item<'_>> = Vec::new();
    for one in item.array("digests are an array")? {
        const SHAPE: &str = "a digest is an array of an algorithm and bytes";
        let [alg, value] = one.array(SHAPE)? else { return Err(one.error(SHAPE)) };
        let (value, _) = value.bytes(SHAPE)?;
        let again = match algorithm(alg)? {
            Some(alg) => {
                let digest = Digest::new(alg, value);
                let digest = digest.ok_or_else(|| one.error("a digest has not the length of its algorithm"))?;
                let again = known.iter().any(|other| other.alg() == alg);
                known.push(digest);
                again
            }
            None => {
                let again = unknown.iter().any(|other| alg.is_key(other));
                unknown.push(alg);
                again
            }
        };
        if again {
            return Err(one.error("one thing has two digests of one algorithm"));
        }
    }
    Ok(Digests { known, unknown: unknown.len() })
}

/// The registry's ID or name; None: known to the registry, not to us.
fn algorithm(item: &Item<'_>) -> Result<Option<HashAlg>, ParseError> {
    Ok(match &item.value {
        Value::Uint(1) | Value::Text("sha-256") => Some(HashAlg::Sha256),
        Value::Uint(7) | Value::Text("sha-384") => Some(HashAlg::Sha384),
        Value::Uint(8) | Value::Text("sha-512") => Some(HashAlg::Sha512),
        Value::Uint(_) | Value::Negative(_) | Value::Text(_) => None,
        _ => return Err(item.error("a digest's algorithm is neither a number nor a text")),
    })
}
