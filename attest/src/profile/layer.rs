//! Files of controls, and the profile that several of them make.
//!
//! `<part>/<level>.toml`. Establishes that ids are unique and say their part, that a level above only adds controls or tightens ones, and one
//! digest for what a profile asks. Does not establish who wrote the files.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::control::Raw as RawControl;
use super::{CONTROLS_MAX, Control, FILE_MAX, Level, Part, ROWS, TEXT_MAX};
use crate::check::violated;
use crate::digest::sha256;
use crate::manifest::FileDigest;
use crate::policy::{PolicyError, at_place, parse_toml};

/// One file: the controls that a level adds to a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its part.
    pub part: Part,
    /// Its level.
    pub level: Level,
    /// Its controls, in the order of the file.
    pub controls: Vec<Control>,
    /// Rows of the catalogue that no control of this part covers, and why.
    pub absent: Vec<Absent>,
}

/// A row of the catalogue that is no control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// The row.
    pub row: u16,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, rename = "control")]
    controls: Vec<toml::Spanned<RawControl>>,
    #[serde(default)]
    absent: Vec<Absent>,
}

impl Layer {
    /// Parses and validates `<part>/<level>.toml`.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or what is invalid.
    pub fn parse(part: Part, level: Level, text: &str) -> Result<Self, PolicyError> {
        let file = format!("profiles/{part}/{level}.toml");
        let invalid = |id, problem: String| Err(PolicyError::Invalid { file: file.clone(), id, problem });
        if violated("profile.size", text.len() > FILE_MAX) {
            return invalid("profile.size", format!("it is larger than {FILE_MAX} bytes"));
        }
        let Raw { controls, absent } = parse_toml(&file, text)?;
        if violated("profile.size", controls.len() > CONTROLS_MAX) {
            return invalid("profile.size", format!("it has more than {CONTROLS_MAX} controls"));
        }
        let whole = |raw: toml::Spanned<RawControl>| {
            let at = raw.span().start;
            Control::try_from(raw.into_inner()).map_err(|problem| at_place(&file, text, at, problem))
        };
        let controls: Vec<Control> = controls.into_iter().map(whole).collect::<Result<_, _>>()?;
        let mut ids = BTreeSet::new();
        for control in &controls {
            if violated("profile.id", control.id.split('.').next() != Some(part.name())) {
                return invalid("profile.id", format!("`{}`: ids of this file begin with `{part}.`", control.id));
            }
            if violated("profile.id", !ids.insert(&control.id)) {
                return invalid("profile.id", format!("`{}` is written twice", control.id));
            }
            if violated("profile.tightens", control.tightens && level == Level::Baseline) {
                return invalid("profile.tightens", format!("`{}`: there is no level below baseline", control.id));
            }
        }
        for one in &absent {
            let said = (1..=ROWS).contains(&one.row) && (1..=TEXT_MAX).contains(&one.reason.len());
            if violated("profile.absent", !said) {
                return invalid("profile.absent", format!("[[absent]] names a row from 1 to {ROWS} and the reason"));
            }
        }
        Ok(Self { part, level, controls, absent })
    }
}

/// What a host should hold: every layer of its parts up to its level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    level: Level,
    parts: BTreeSet<Part>,
    controls: BTreeMap<String, Control>,
    /// What levels below ask for where one above asks for more, the nearest first.
    below: BTreeMap<String, Vec<Control>>,
    absent: Vec<Absent>,
    digest: FileDigest,
}

/// Which rows of the catalogue are controls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Rows that at least one control covers, with those controls' ids.
    pub covered: BTreeMap<u16, Vec<String>>,
    /// Rows that are declared absent, with the reason.
    pub absent: BTreeMap<u16, String>,
    /// Rows that are neither.
    pub forgotten: BTreeSet<u16>,
    /// Rows that are both: one of the two is wrong.
    pub contradicted: BTreeSet<u16>,
}

impl Profile {
    /// Puts layers together; those above `level` are left out. The order of `layers` does not matter.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`]: two layers of one part and level, a control that stands in two levels without tightening, or that loosens.
    pub fn build(level: Level, mut layers: Vec<Layer>) -> Result<Self, PolicyError> {
        layers.retain(|layer| layer.level <= level);
        layers.sort_by_key(|layer| (layer.part, layer.level));
        let parts = layers.iter().map(|layer| layer.part).collect();
        let mut controls: BTreeMap<String, Control> = BTreeMap::new();
        let mut tightened: BTreeMap<String, Vec<Control>> = BTreeMap::new();
        let mut absent = Vec::new();
        let mut seen = BTreeSet::new();
        for layer in layers {
            let file = format!("profiles/{}/{}.toml", layer.part, layer.level);
            let invalid = |id, problem: String| Err(PolicyError::Invalid { file: file.clone(), id, problem });
            if violated("profile.layer", !seen.insert((layer.part, layer.level))) {
                return invalid("profile.layer", "two files for one part and level".to_owned());
            }
            for control in layer.controls {
                let below = controls.get(&control.id);
                if let Some(problem) = stands(&control, below).filter(|_| violated("profile.tightens", true)) {
                    return invalid("profile.tightens", format!("`{}` {problem}", control.id));
                }
                let mut control = control;
                if let Some(below) = below {
                    control.rows.extend(&below.rows);
                }
                if let Some(below) = controls.insert(control.id.clone(), control) {
                    tightened.entry(below.id.clone()).or_default().insert(0, below);
                }
            }
            absent.extend(layer.absent);
            if violated("profile.size", controls.len() > CONTROLS_MAX) {
                return invalid("profile.size", format!("a profile has at most {CONTROLS_MAX} controls"));
            }
        }
        let digest = digest_of(level, &parts, &controls);
        Ok(Self { level, parts, controls, below: tightened, absent, digest })
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The parts that have at least one file.
    #[must_use]
    pub const fn parts(&self) -> &BTreeSet<Part> {
        &self.parts
    }

    /// The controls, by id.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.controls.values()
    }

    /// One control.
    #[must_use]
    pub fn control(&self, id: &str) -> Option<&Control> {
        self.controls.get(id)
    }

    /// What the levels below ask for under the same id, the nearest first: what still holds where nobody consents to more.
    pub fn below(&self, id: &str) -> impl Iterator<Item = &Control> {
        self.below.get(id).into_iter().flatten()
    }

    /// SHA-256 over the canonical JSON of level, parts and controls: comments, order and layering leave it as it is.
    #[must_use]
    pub const fn digest(&self) -> FileDigest {
        self.digest
    }

    /// Which rows of the catalogue are controls, and why others are not.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut covered: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for control in self.controls.values() {
            for row in &control.rows {
                covered.entry(*row).or_default().push(control.id.clone());
            }
        }
        let absent: BTreeMap<u16, String> = self.absent.iter().map(|one| (one.row, one.reason.clone())).collect();
        let forgotten = (1..=ROWS).filter(|row| !covered.contains_key(row) && !absent.contains_key(row)).collect();
        let contradicted = absent.keys().filter(|row| covered.contains_key(row)).copied().collect();
        Coverage { covered, absent, forgotten, contradicted }
    }
}

/// What speaks against a control above another of its id, or above none.
fn stands(control: &Control, below: Option<&Control>) -> Option<String> {
    let Some(below) = below else {
        return control.tightens.then(|| "tightens nothing: no level below has it".to_owned());
    };
    if !control.tightens {
        return Some("is in a level below already: say `tightens = true`, or give it another id".to_owned());
    }
    if control.resource != below.resource {
        return Some("is about another resource than in the level below".to_owned());
    }
    if control.severity < below.severity {
        return Some("weighs less than in the level below".to_owned());
    }
    if control.when != below.when {
        return Some("applies to other hosts than in the level below".to_owned());
    }
    if control.prove.strength() < below.prove.strength() {
        return Some(format!("is proven by {}, which is less than {} in the level below", control.prove, below.prove));
    }
    match control.want.tightens(&below.want, control.resource.is_textual()) {
        Some(false) => Some(format!("loosens `{}` to `{}`", below.want, control.want)),
        None => {
            Some(format!("wants `{}`, which cannot be compared with `{}` in the level below", control.want, below.want))
        }
        Some(true) => None,
    }
}

fn digest_of(level: Level, parts: &BTreeSet<Part>, controls: &BTreeMap<String, Control>) -> FileDigest {
    // Text keys and no custom failing serializer: this cannot fail, and the digest of nothing is no profile's.
    FileDigest(sha256(&[&serde_json::to_vec(&("hostmark-profile-v1", level, parts, controls)).unwrap_or_default()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: &str, resource: &str, want: &str, more: &str) -> String {
        format!(
            "[[control]]\nid = '{id}'\ntitle = 't'\nrow = 5\nrefs = []\nrole = 'operator'\nseverity = 'high'\nfix = 'automatic'\nprove = 'kernel'\nresource = {{ sysctl = '{resource}' }}\nwant = {want}\n{more}\n"
        )
    }

    fn layer(level: Level, text: &str) -> Layer {
        Layer::parse(Part::Host, level, text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(result: Result<impl std::fmt::Debug, PolicyError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_not_its_parts_is_refused_with_its_place() {
        for (level, text, expect) in [
            (Level::Baseline, text("docker.a", "a.b", "1", ""), "profile.id"),
            (Level::Baseline, text("host.a", "a.b", "1", "tightens = true"), "profile.tightens"),
            (Level::Baseline, text("host.a", "a.b", "1", "").repeat(2), "written twice"),
            (Level::Baseline, text("host.a", "a.b", "1", "sh = 'x'"), "line 12, column 1: unknown field `sh`"),
            (
                Level::Baseline,
                text("host.b", "a.b", "1", "") + &text("host.a", "a.b", "1", "set = 2"),
                "line 13, column 1: control `host.a`: what `set` writes",
            ),
            (Level::Baseline, text("host.a", "a b", "1", ""), "line 10, column 12: `a b` is no kernel setting's name"),
            (Level::Baseline, "[[controls]]".to_owned(), "line 1, column 3: unknown field `controls`"),
            (Level::Baseline, "[[absent]]\nrow = 128\nreason = 'x'".to_owned(), "profile.absent"),
            (Level::Baseline, "[[absent]]\nrow = 1\nreason = ''".to_owned(), "profile.absent"),
            (Level::Baseline, "[[absent]]\nrow = 0\nreason = 'x'".to_owned(), "profile.absent"),
            (Level::Baseline, " ".repeat(FILE_MAX + 1), "profile.size"),
        ] {
            let told = refused(Layer::parse(Part::Host, level, &text));
            assert!(told.starts_with("profiles/host/baseline.toml: ") && told.contains(expect), "{expect}: {told}");
        }
    }

    #[test]
    fn a_level_adds_or_tightens_and_never_loosens() {
        let below = || layer(Level::Baseline, &text("host.a", "a.b", "{ at_least = 1 }", ""));
        let above =
            |resource: &str, want: &str, more: &str| layer(Level::Hardened, &text("host.a", resource, want, more));
        let build = |layers| Profile::build(Level::Hardened, layers);
        for (upper, expect) in [
            (above("a.b", "{ at_least = 2 }", ""), "tightens = true"),
            (above("a.b", "{ at_least = 0 }", "tightens = true"), "loosens"),
            (above("a.b", "{ none_of = [0] }", "set = 1\ntightens = true"), "loosens"),
            (above("a.b", "'not-empty'", "set = 1\ntightens = true"), "cannot be compared"),
            (above("a.c", "{ at_least = 2 }", "tightens = true"), "another resource"),
            (above("a.b", "{ at_least = 2 }", "tightens = true\nwhen = { swarm = true }"), "applies to other hosts"),
        ] {
            let told = refused(build(vec![below(), upper]));
            assert!(told.contains(expect), "{expect}: {told}");
        }
        assert!(refused(build(vec![above("a.b", "2", "tightens = true")])).contains("tightens nothing"));
        assert!(refused(build(vec![below(), below()])).contains("two files"));
        let good = || vec![above("a.b", "{ at_least = 2 }", "tightens = true"), below()];
        let profile = build(good()).unwrap();
        assert_eq!(profile.control("host.a").unwrap().want.to_string(), "at least 2");
        let base = Profile::build(Level::Baseline, good()).unwrap();
        assert_eq!(base.control("host.a").unwrap().want.to_string(), "at least 1", "levels above are left out");
        let below: Vec<String> = profile.below("host.a").map(|control| control.want.to_string()).collect();
        assert_eq!((below, base.below("host.a").count()), (vec!["at least 1".to_owned()], 0));
        assert_ne!(base.digest(), profile.digest());
        assert_eq!(profile.digest(), build(good().into_iter().rev().collect()).unwrap().digest());
        assert_eq!(profile.coverage().covered[&5], ["host.a"]);
        assert_eq!(profile.coverage().forgotten.len(), 126);
    }
}
