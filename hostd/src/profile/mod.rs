//! Holding this host, or a directory that looks like one, against a profile.
//!
//! DESIGN law 8 and issue "Hardened host profiles". Establishes for each control what holds and who says so: kernel, engine, arguments, unit,
//! file. It changes nothing. What it says is hostd's word: the verifier treats it as reported.

pub mod canary;
mod host;
mod observe;
mod plan;
pub(crate) mod root;
mod waivers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hostmark_attest::policy::PolicyError;
use hostmark_attest::profile::{Effect, FILE_MAX, Layer, Level, Outcome, Part, Profile, ProfileReport, judge};

pub use host::Host;
pub use observe::observe;
pub use plan::{Change, Plan, plan};
pub use waivers::{SIGNERS, WAIVERS, WaiverError, Waivers};

/// Where profiles are looked for.
pub const DEFAULT_DIRECTORY: &str = "/etc/hostmark/profiles";

/// Why no profile can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file does not say what a profile says.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A level without the one that it stands on.
    #[error(
        "{path} is not there, and a higher level of {part} is: each level holds all that the one below it does; copy it too",
        path = directory.join(part.name()).join("baseline.toml").display()
    )]
    NoBaseline {
        /// Where it was looked for.
        directory: PathBuf,
        /// The part.
        part: Part,
    },
    /// No file for what was asked for.
    #[error("{directory}: no profile there for {parts}; copy Hostmark's configs/profiles there (cp -r configs/profiles /etc/hostmark/), or name another directory with --profiles", directory = directory.display())]
    Nothing {
        /// Where it was looked for.
        directory: PathBuf,
        /// The parts.
        parts: String,
    },
}

/// Reads the profile files of these parts (empty: all) up to a level, `<part>/<level>.toml` below `directory`.
///
/// # Errors
/// A file is unreadable or unsound, or there is none.
pub fn load(directory: &Path, level: Level, parts: &BTreeSet<Part>) -> Result<Profile, LoadError> {
    let wanted = |part: &Part| parts.is_empty() || parts.contains(part);
    let mut layers = Vec::new();
    for part in Part::ALL.into_iter().filter(wanted) {
        for level in Level::ALL.into_iter().filter(|one| *one <= level) {
            let path = directory.join(part.name()).join(format!("{level}.toml"));
            // One byte more than a file may have, so that a longer one is refused and not cut.
            let limit = u64::try_from(FILE_MAX).unwrap_or(u64::MAX).saturating_add(1);
            let read =
                crate::state::read(&path, limit).map_err(|error| LoadError::Read { path: path.clone(), error })?;
            let Some(bytes) = read else { continue };
            let text = String::from_utf8(bytes).map_err(|_| LoadError::Read {
                path: path.clone(),
                error: std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text"),
            })?;
            layers.push(Layer::parse(part, level, &text).map_err(|error| in_directory(directory, error))?);
        }
    }
    let has = |part: Part| layers.iter().any(|layer| layer.part == part);
    let has_baseline = |part: Part| layers.iter().any(|layer| layer.part == part && layer.level == Level::Baseline);
    if let Some(part) = Part::ALL.into_iter().find(|part| has(*part) && !has_baseline(*part)) {
        return Err(LoadError::NoBaseline { directory: directory.to_owned(), part });
    }
    let missing: Vec<&str> = parts.iter().filter(|part| !has(**part)).map(|part| part.name()).collect();
    if layers.is_empty() || !missing.is_empty() {
        let all: Vec<&str> = Part::ALL.into_iter().filter(wanted).map(Part::name).collect();
        let names = if missing.is_empty() { all } else { missing };
        return Err(LoadError::Nothing { directory: directory.to_owned(), parts: names.join(", ") });
    }
    Profile::build(level, layers).map_err(|error| in_directory(directory, error).into())
}

/// The error with the path under which its reader finds the file: profiles name themselves `profiles/<part>/<level>.toml`.
fn in_directory(directory: &Path, mut error: PolicyError) -> PolicyError {
    if let PolicyError::Toml { file, .. } | PolicyError::Invalid { file, .. } = &mut error
        && let Some(rest) = file.strip_prefix("profiles/")
    {
        *file = directory.join(rest).display().to_string();
    }
    error
}

/// Observes every control of a profile. No canary runs: what only one of them shows stays `manual`.
#[must_use]
pub fn examine(host: &Host, profile: &Profile) -> ProfileReport {
    examine_with(host, profile, &BTreeMap::new())
}

/// The same with what canaries showed, by the control's id ([`canary::effects`]).
#[must_use]
pub fn examine_with(host: &Host, profile: &Profile, effects: &BTreeMap<String, Effect>) -> ProfileReport {
    let judged = |control| judge(control, observe(host, control), effects.get(&control.id));
    let outcomes: Vec<Outcome> = profile.controls().map(judged).collect();
    ProfileReport::new(profile, host.is_live(), outcomes)
}

#[cfg(test)]
mod tests;
