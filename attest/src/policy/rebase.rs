//! Accepting a shown difference for a while: a firmware or dbx update of one hardware model, under a change's id, until a date.
//!
//! The bundle gets one more window that holds what differs and nothing else, and that must end: an open-ended exception would be a
//! second set of reference values that nobody decided on. Only what the bundle judges already can differ. The values come from a
//! machine's logs, so they prove nothing by themselves: whoever signs the new version vouches for the update.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::references::{RawBundle, RawWindow, Window};
use super::{PolicyError, References, parse_toml};

/// The terms under which a difference is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The hardware model: the bundle's own.
    pub model: String,
    /// The change's id, as the operator's change management knows it.
    pub change: String,
    /// The window opens then; at once where absent.
    pub from: Option<OffsetDateTime>,
    /// The window closes then.
    pub until: OffsetDateTime,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `pcrs.sha256.7`, or a file's path.
    pub what: String,
    /// What the open windows accept; for a file, the digests under its path.
    pub accepted: Vec<String>,
    /// What was captured.
    pub captured: Vec<String>,
}

/// A difference, and the bundle that accepts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebased {
    /// What differs. Empty: there is nothing to accept, and no text.
    pub differences: Vec<Difference>,
    /// The bundle's new text, its version raised by one.
    pub text: Option<String>,
}

/// Why a difference cannot be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebaseError {
    /// One of the bundles, or the result, is unsound.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The bundle is for another model.
    #[error("{name}: is for the model `{found}`, not `{wanted}`: a difference is accepted for one model")]
    Model {
        /// The bundle.
        name: String,
        /// The bundle's model.
        found: String,
        /// The model that was named.
        wanted: String,
    },
    /// The bundle does not say for which model it is.
    #[error("{0}: does not say its hardware model: write `model = \"…\"` into it first")]
    NoModel(String),
    /// No window is open: there is nothing to differ from.
    #[error("{0}: has no window that is open now: nothing can differ from it")]
    NoWindow(String),
    /// The window would never be open.
    #[error("the window would be over before it begins or already: name a later end")]
    Over,
    /// The version cannot rise.
    #[error("{0}: its version is the highest there is")]
    Version(String),
    /// The bundle cannot be written as TOML.
    #[error("the bundle cannot be written as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
}

/// What `captured` (a bundle made from one machine's logs) holds that the open windows of `bundle` do not accept, and the bundle that
/// accepts it under these terms.
///
/// # Errors
/// [`RebaseError`].
pub fn rebase(
    name: &str,
    bundle: &str,
    captured: &str,
    terms: &Terms,
    now: OffsetDateTime,
) -> Result<Rebased, RebaseError> {
    let compiled = References::parse(name, bundle)?;
    let mut raw: RawBundle = parse_toml(&format!("{name}.toml"), bundle)?;
    let new: RawBundle = parse_toml("captured.toml", captured)?;
    match &raw.model {
        None => return Err(RebaseError::NoModel(name.to_owned())),
        Some(found) if *found != terms.model => {
            let (name, wanted) = (name.to_owned(), terms.model.clone());
            return Err(RebaseError::Model { name, found: found.clone(), wanted });
        }
        Some(_) => {}
    }
    if terms.until <= terms.from.unwrap_or(now) || terms.until <= now {
        return Err(RebaseError::Over);
    }
    let open: Vec<usize> = compiled.open_indices(now).collect();
    let windows: Vec<&RawWindow> =
        raw.windows.iter().enumerate().filter(|(at, _)| open.contains(at)).map(|(_, one)| one).collect();
    if windows.is_empty() {
        return Err(RebaseError::NoWindow(name.to_owned()));
    }
    let mut window = RawWindow { change: Some(terms.change.clone()), ..RawWindow::default() };
    let mut differences = Vec::new();
    for one in &new.windows {
        pcrs(one, &windows, &mut window, &mut differences);
        files(one, &windows, &mut window, &mut differences);
    }
    if differences.is_empty() {
        return Ok(Rebased { differences, text: None });
    }
    window.from = terms.from.map(|from| from.format(&Rfc3339).unwrap_or_default());
    window.until = Some(terms.until.format(&Rfc3339).unwrap_or_default());
    raw.version = raw.version.checked_add(1).ok_or_else(|| RebaseError::Version(name.to_owned()))?;
    raw.windows.push(window);
    let text = toml::to_string(&raw)?;
    // What is written must be readable, and the window must be open exactly when it was meant to be.
    let read = References::parse(name, &text)?;
    let opens = terms.from.unwrap_or(now).max(now);
    let counted = |at| read.open(at).filter(|one: &&Window| one.change() == Some(&terms.change)).count();
    if counted(opens) == 0 {
        return Err(RebaseError::Over);
    }
    Ok(Rebased { differences, text: Some(text) })
}

/// PCRs that an open window names, with a value that none accepts.
fn pcrs(captured: &RawWindow, open: &[&RawWindow], into: &mut RawWindow, out: &mut Vec<Difference>) {
    for (bank, values) in &captured.pcrs {
        for (pcr, values) in values {
            let named: Vec<&Vec<String>> = open.iter().filter_map(|window| window.pcrs.get(bank)?.get(pcr)).collect();
            let accepted: BTreeSet<String> =
                named.iter().copied().flatten().map(|hex| hex.to_ascii_lowercase()).collect();
            let new: Vec<String> =
                values.iter().map(|hex| hex.to_ascii_lowercase()).filter(|hex| !accepted.contains(hex)).collect();
            if named.is_empty() || new.is_empty() {
                continue;
            }
            into.pcrs.entry(bank.clone()).or_default().entry(pcr.clone()).or_default().extend(new.clone());
            out.push(Difference {
                what: format!("pcrs.{bank}.{pcr}"),
                accepted: accepted.into_iter().collect(),
                captured: new,
            });
        }
    }
}

/// Files that no open window knows, where one names files at all.
fn files(captured: &RawWindow, open: &[&RawWindow], into: &mut RawWindow, out: &mut Vec<Difference>) {
    if open.iter().all(|window| window.ima.is_empty()) {
        return;
    }
    let known: BTreeSet<String> = open
        .iter()
        .flat_map(|window| window.ima.values().flatten())
        .map(|digest| digest.to_ascii_lowercase())
        .collect();
    let lists: BTreeMap<&String, Vec<String>> = captured
        .ima
        .iter()
        .map(|(path, digests)| {
            let new = digests.iter().map(|one| one.to_ascii_lowercase()).filter(|one| !known.contains(one));
            (path, new.collect())
        })
        .collect();
    for (path, new) in lists.into_iter().filter(|(_, new)| !new.is_empty()) {
        let accepted = open.iter().filter_map(|window| window.ima.get(path)).flatten().cloned().collect();
        into.ima.entry(path.clone()).or_default().extend(new.clone());
        out.push(Difference { what: path.clone(), accepted, captured: new });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::HashAlg;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    fn terms() -> Terms {
        let (from, until) = (None, datetime!(2026-12-24 0:00 UTC));
        Terms { model: "R340".to_owned(), change: "CHG-7".to_owned(), from, until }
    }

    fn hex(byte: &str) -> String {
        byte.repeat(32)
    }

    fn bundle() -> String {
        format!(
            "version = 4\nmodel = \"R340\"\n[[window]]\n[window.pcrs.sha256]\n0 = [\"{}\"]\n7 = [\"{}\"]\n[window.ima]\n\"/usr/bin/a\" = [\"sha256:{}\"]\n",
            hex("aa"),
            hex("bb"),
            hex("01")
        )
    }

    fn captured() -> String {
        format!(
            "version = 1\n[[window]]\n[window.pcrs.sha256]\n0 = [\"{}\"]\n4 = [\"{}\"]\n7 = [\"{}\"]\n[window.ima]\n\"/usr/bin/a\" = [\"sha256:{}\"]\n\"/usr/bin/b\" = [\"sha256:{}\"]\n",
            hex("cc"),
            hex("dd"),
            hex("BB"),
            hex("02"),
            hex("01")
        )
    }

    #[test]
    fn what_differs_is_accepted_until_the_date_and_no_longer() {
        let rebased = rebase("r340", &bundle(), &captured(), &terms(), NOW).unwrap();
        // PCR 4 is not judged by this bundle, PCR 7 is the same, and b's content is known as a's.
        let told: Vec<_> = rebased.differences.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(told, ["pcrs.sha256.0", "/usr/bin/a"]);
        assert_eq!(rebased.differences[0].accepted, [hex("aa")]);
        assert_eq!(rebased.differences[1].captured, [format!("sha256:{}", hex("02"))]);

        let new = References::parse("r340", rebased.text.as_ref().unwrap()).unwrap();
        assert_eq!((new.version(), new.model()), (5, Some("R340")));
        let accepts = |at: OffsetDateTime, byte: &str| {
            let value = crate::digest::Digest::from_hex(HashAlg::Sha256, &hex(byte)).unwrap();
            new.open(at).any(|window| window.pcr(HashAlg::Sha256, 0).is_some_and(|set| set.contains(&value)))
        };
        assert!(accepts(NOW, "aa") && accepts(NOW, "cc"));
        let last = terms().until - time::Duration::SECOND;
        assert!(accepts(last, "cc") && !accepts(terms().until, "cc") && accepts(terms().until, "aa"));
        assert!(new.open(NOW).all(|window| window.pcr(HashAlg::Sha256, 4).is_none()));

        // Once accepted, nothing differs any more.
        let again = rebase("r340", rebased.text.as_ref().unwrap(), &captured(), &terms(), NOW).unwrap();
        assert_eq!(again, Rebased { differences: vec![], text: None });
    }

    #[test]
    fn no_exception_is_without_model_end_and_change() {
        let with = |change: &dyn Fn(&mut Terms)| {
            let mut terms = terms();
            change(&mut terms);
            rebase("r340", &bundle(), &captured(), &terms, NOW).unwrap_err().to_string()
        };
        let rows: [(String, &str); 5] = [
            (with(&|terms| terms.model = "R650".to_owned()), "is for the model `R340`, not `R650`"),
            (with(&|terms| terms.until = NOW), "already"),
            (with(&|terms| terms.from = Some(terms.until)), "before it begins"),
            (with(&|terms| terms.change = String::new()), "change"),
            (with(&|terms| terms.change = "CHG 7\n".to_owned()), "change"),
        ];
        for (error, part) in rows {
            assert!(error.contains(part), "{part}: {error}");
        }
        let unnamed = bundle().replace("model = \"R340\"\n", "");
        let error = rebase("r340", &unnamed, &captured(), &terms(), NOW).unwrap_err();
        assert!(matches!(error, RebaseError::NoModel(_)), "{error}");
        let over = bundle().replace("[[window]]\n", "[[window]]\nuntil = \"2026-01-01T00:00:00Z\"\n");
        let error = rebase("r340", &over, &captured(), &terms(), NOW).unwrap_err();
        assert!(matches!(error, RebaseError::NoWindow(_)), "{error}");
        // By hand neither.
        let endless =
            format!("version = 1\n[[window]]\nchange = \"CHG-7\"\n[window.pcrs.sha256]\n0 = [\"{}\"]\n", hex("cc"));
        let error = References::parse("r", &endless).unwrap_err().to_string();
        assert!(error.contains("CHG-7") && error.contains("until"), "{error}");
    }
}
