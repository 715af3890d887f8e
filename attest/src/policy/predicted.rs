//! Reference values from a prediction: a kernel image is known before any host has booted it.
//!
//! A window of its own is added for each image, so that an update is published before it is rolled out and hosts of the old
//! image stay acceptable until their window ends. Who signs the bundle vouches for the image file.

use std::collections::BTreeMap;

use super::capture::CAPTURED;
use super::references::{RawBundle, RawWindow};
use super::{PolicyError, References, parse_toml};
use crate::predict::Prediction;
use crate::replay::BANK;

/// When the added window is open: RFC 3339 instants, each open-ended where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub from: Option<String>,
    /// Until, exclusive.
    pub until: Option<String>,
}

/// Why a prediction does not become reference values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredictedError {
    /// Nothing is judged by values of this bank.
    #[error("only the {BANK} bank is judged by value")]
    Bank,
    /// The bundle it is to be added to, or the result, is unsound.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The version cannot rise.
    #[error("{0}: its version is the highest there is")]
    Version(String),
    /// The bundle cannot be written as TOML.
    #[error("the bundle cannot be written as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
}

/// The text of a new bundle with one window.
///
/// # Errors
/// [`PredictedError`].
pub fn bundle(prediction: &Prediction, validity: &Validity, version: u64) -> Result<String, PredictedError> {
    sound("references", RawBundle { version, model: None, windows: vec![window(prediction, validity)?] })
}

/// Adds a window to the text of a bundle and raises its version by one. Comments are lost: the bundle is written anew.
///
/// # Errors
/// [`PredictedError`].
pub fn add_to(name: &str, text: &str, prediction: &Prediction, validity: &Validity) -> Result<String, PredictedError> {
    let mut bundle: RawBundle = parse_toml(&format!("{name}.toml"), text)?;
    bundle.version = bundle.version.checked_add(1).ok_or_else(|| PredictedError::Version(name.to_owned()))?;
    bundle.windows.push(window(prediction, validity)?);
    sound(name, bundle)
}

/// The values of PCRs that are judged by value. PCR 11 twice: as the image gives it, and in the wanted phase, for hosts whose
/// policy does not tolerate unlogged phases.
fn window(prediction: &Prediction, validity: &Validity) -> Result<RawWindow, PredictedError> {
    if prediction.bank != BANK {
        return Err(PredictedError::Bank);
    }
    let judged = prediction.pcrs.iter().filter(|(pcr, _)| CAPTURED.contains(pcr));
    let mut values: BTreeMap<String, Vec<String>> =
        judged.map(|(pcr, predicted)| (pcr.to_string(), vec![predicted.value.to_string()])).collect();
    let before = prediction.boot_part.to_string();
    if let Some(image) = values.get_mut("11").filter(|image| !image.contains(&before)) {
        image.insert(0, before);
    }
    let mut window = RawWindow { from: validity.from.clone(), until: validity.until.clone(), ..RawWindow::default() };
    window.pcrs.insert(BANK.name().to_owned(), values);
    Ok(window)
}

/// What is written must be readable: instants, the number of windows and the order of a window's ends are checked there.
fn sound(name: &str, bundle: RawBundle) -> Result<String, PredictedError> {
    let text = toml::to_string(&bundle)?;
    References::parse(name, &text)?;
    Ok(text)
}
