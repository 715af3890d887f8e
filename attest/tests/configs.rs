//! Every shipped policy, pool, admission and profile file parses and validates.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::label::Levels;
use hostmark_attest::policy::AppraisalPolicy;
use hostmark_attest::pool::Pool;
use hostmark_attest::profile::{Layer, Level, Part, Profile};

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = format!("{}/../configs/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    paths.map(read).collect()
}

#[test]
fn every_shipped_file_loads_and_names_what_exists() {
    let appraisal: BTreeSet<String> = files("appraisal")
        .into_iter()
        .map(|(name, text)| AppraisalPolicy::parse(&name, &text).unwrap().name().to_owned())
        .collect();
    let admission: BTreeSet<String> = files("admission")
        .into_iter()
        .map(|(name, text)| {
            let policy = AdmissionPolicy::parse(&name, &text).unwrap();
            assert!(appraisal.contains(policy.requires_appraisal()), "{name}: {}", policy.requires_appraisal());
            name
        })
        .collect();
    let pools = files("pools");
    assert!(pools.len() >= 3);
    for (name, text) in pools {
        let pool = Pool::parse(&name, &text, &Levels::default()).unwrap();
        assert!(admission.contains(pool.admission()), "{name}: {}", pool.admission());
    }
}

/// Every shipped profile file.
fn layers() -> Vec<Layer> {
    let folder = format!("{}/../configs/profiles", env!("CARGO_MANIFEST_DIR"));
    let mut layers = Vec::new();
    for part in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let part: Part = part.file_name().unwrap().to_str().unwrap().parse().unwrap();
        for (name, text) in files(&format!("profiles/{part}")) {
            let level: Level = name.parse().unwrap();
            layers.push(Layer::parse(part, level, &text).unwrap_or_else(|error| panic!("{error}")));
        }
    }
    layers
}

#[test]
fn every_shipped_profile_loads_and_each_level_holds_the_one_below() {
    let layers = layers();
    let mut below: Option<Profile> = None;
    for level in Level::ALL {
        let profile = Profile::build(level, layers.clone()).unwrap_or_else(|error| panic!("{error}"));
        let coverage = profile.coverage();
        assert!(coverage.contradicted.is_empty(), "{level}: rows {:?} are controls and absent", coverage.contradicted);
        if let Some(below) = &below {
            assert!(below.controls().all(|control| profile.control(&control.id).is_some()), "{level}");
            assert_ne!(below.digest(), profile.digest(), "{level}");
        }
        below = Some(profile);
    }
    let mut parts: Vec<Part> = layers.iter().map(|layer| layer.part).collect();
    parts.sort();
    parts.dedup();
    assert_eq!(parts, Part::ALL);
}

/// Rows of the catalogue whose controls are written: the first ones.
const WRITTEN: u16 = 43;

#[test]
fn every_row_is_controls_or_says_why_it_is_none() {
    let profile = Profile::build(Level::Restricted, layers()).unwrap();
    let coverage = profile.coverage();
    for (row, ids) in &coverage.covered {
        println!("row {row}: {} ({})", ids.len(), ids.join(", "));
    }
    let forgotten: Vec<u16> = coverage.forgotten.iter().copied().filter(|row| *row <= WRITTEN).collect();
    assert!(forgotten.is_empty(), "rows {forgotten:?} are neither controls nor absent");
    println!("rows: {} controls, {} absent", coverage.covered.len(), coverage.absent.len());
}

#[test]
fn every_id_stands_once_or_tightens_and_says_where_it_comes_from() {
    let mut by_id: BTreeMap<String, Vec<(Level, bool)>> = BTreeMap::new();
    for layer in layers() {
        for control in layer.controls {
            let id = control.id;
            // Nobody else asks for it: then it says itself why it is wanted.
            assert!(!control.refs.is_empty() || control.why.is_some(), "{id} has neither refs nor why");
            let known = |one: &String| {
                let mut chars = one.chars();
                matches!(chars.next(), Some('D' | 'K' | 'N' | 'S')) && chars.next().is_some_and(|c| c.is_ascii_digit())
            };
            assert!(control.refs.iter().all(known), "{id}: {:?}", control.refs);
            let lasting = !control.reversible;
            assert!(!lasting || control.why.is_some(), "{id} cannot be undone: why is it wanted?");
            by_id.entry(id).or_default().push((layer.level, control.tightens));
        }
    }
    for (id, mut stands) in by_id {
        stands.sort();
        let levels: BTreeSet<Level> = stands.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels.len(), stands.len(), "{id} stands twice in a level");
        let tightens: Vec<bool> = stands.iter().map(|(_, tightens)| *tightens).collect();
        assert!(tightens.iter().enumerate().all(|(at, tightens)| *tightens == (at > 0)), "{id}: {stands:?}");
    }
}
