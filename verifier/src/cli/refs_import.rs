//! `hostmark refs import`: other projects' reference values become a bundle. What has no meaning here is shown; nothing is signed here.
//!
//! A Keylime runtime policy has no signature: whoever signs the bundle vouches for it alone. A CoRIM is read only under its author's key.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hostmark_attest::finding::Findings;
use hostmark_attest::policy::corim::{CorimError, Signer, VerifiedCorim};
use hostmark_attest::policy::import::{ImportError, Imported, keylime};
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::bundle_file::{BundleFile, Place};
use super::failure::{Failure, one_line};
use super::show::{Style, facts};
use super::{Outcome, input, when};

/// `… import FILE [--signer PUBKEY]… [-o FILE]`
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// What it is. Without it, its first byte tells: JSON is a Keylime runtime policy, CBOR a CoRIM.
    #[arg(long, value_enum, value_name = "FORMAT")]
    from: Option<Format>,
    /// The public key (PEM) or certificate of a CoRIM's author: P-256, P-384 or RSA. A CoRIM of nobody named is refused.
    #[arg(long, value_name = "PUBKEY")]
    signer: Vec<PathBuf>,
    /// A CoRIM must be valid at this time (RFC 3339, or seconds since 1970). Without it, now.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    at: Option<OffsetDateTime>,
    /// Which environment of a CoRIM: all of its words, or its model. Needed where there are several, or where it is one device.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    bundle: BundleFile,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Keylime runtime policy, version 1.
    Keylime,
    /// A signed CoRIM (draft-ietf-rats-corim).
    Corim,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    format: &'static str,
    entries: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    corim: Option<CorimView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a Path>,
    findings: &'a Findings,
    /// The bundle, where it is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<&'a str>,
}

/// Under whose word a CoRIM's values were taken over.
#[derive(Debug, Serialize)]
struct CorimView<'a> {
    id: &'a str,
    /// Who says in it that they signed.
    author: &'a str,
    /// The key that verified it.
    signer: &'a str,
    environment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl Import {
    pub(super) fn run(self, style: Style) -> Outcome {
        let bytes = input::read(&self.file, "a file of reference values", input::REFERENCES_MAX)?;
        let json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(u8::is_ascii);
        let place = self.bundle.look(None)?;
        match self.from.unwrap_or(if json { Format::Keylime } else { Format::Corim }) {
            Format::Keylime => self.keylime(&bytes, &place, style),
            Format::Corim => self.corim(&bytes, &place, style),
        }
    }

    fn keylime(&self, bytes: &[u8], place: &Place<'_>, style: Style) -> Outcome {
        if !self.signer.is_empty() || self.at.is_some() || self.environment.is_some() {
            return Err(Failure::unusable(format!(
                "{}: is a Keylime runtime policy, which has no signature and names no environment: leave out --signer, --at and \
                 --environment, which are for a CoRIM",
                self.file.display()
            )));
        }
        let imported = keylime(bytes, place.version()).map_err(|error| match &error {
            ImportError::Json(json) => input::json_error(&self.file, bytes, json),
            _ => self.unusable(&error),
        })?;
        answer(place, "keylime-runtime-policy", &imported, None, style)
    }

    fn corim(&self, bytes: &[u8], place: &Place<'_>, style: Style) -> Outcome {
        let signers = self.signer.iter().map(|path| signer(path)).collect::<Result<Vec<_>, _>>()?;
        if signers.is_empty() {
            return Err(Failure::unusable(format!(
                "{}: a CoRIM counts under its author's signature only: name their public key with --signer PUBKEY.pem",
                self.file.display()
            )));
        }
        let at = self.at.map_or_else(when::now, Ok)?;
        let verified = VerifiedCorim::verify(bytes, &signers, at).map_err(|error| self.problem(&error))?;
        let (imported, environment) =
            verified.import(self.environment.as_deref(), place.version()).map_err(|error| self.problem(&error))?;
        let (from, until) = verified.period();
        let view = CorimView {
            id: verified.id(),
            author: verified.author(),
            signer: verified.signer(),
            environment: &environment,
            from,
            until,
        };
        answer(place, "corim", &imported, Some(view), style)
    }

    /// Exit 1 where a check refuses the file, 2 where it cannot be used.
    fn problem(&self, error: &CorimError) -> Failure {
        match error {
            CorimError::Refused(findings) => {
                let mut findings = findings.as_slice().iter();
                let first = findings.next().map(ToString::to_string).unwrap_or_default();
                Failure::refused(format!("{}: {first}", self.file.display()), findings.as_slice())
            }
            CorimError::Environment { .. } => {
                let asked = self.environment.as_ref().map_or_else(String::new, |one| format!(" {one}"));
                Failure::unusable(format!(
                    "{}: --environment{asked}: {}",
                    self.file.display(),
                    one_line(&error.to_string())
                ))
            }
            _ => self.unusable(error),
        }
    }

    fn unusable(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::unusable(format!("{}: {}", self.file.display(), one_line(&error.to_string())))
    }
}

fn answer(
    place: &Place<'_>,
    format: &'static str,
    imported: &Imported,
    corim: Option<CorimView<'_>>,
    style: Style,
) -> Outcome {
    let (entries, findings) = (imported.entries, &imported.findings);
    let text = place.with_model(imported.text.clone())?;
    let mut rows = vec![("read", format.to_owned())];
    if let Some(one) = &corim {
        rows.push(("signed by", format!("{} ({})", one_line(one.author), one.signer)));
        rows.push(("environment", one_line(one.environment)));
        rows.extend(one.until.as_ref().map(|until| ("until", until.clone())));
    }
    let Some(path) = place.write(&text)? else {
        // What was left out must not get lost where the bundle itself is the answer: it stands above it, as comments.
        let said = rows.iter().map(|(name, value)| format!("{name}: {value}"));
        let told = findings.as_slice().iter().map(|one| format!("note: {one}"));
        let notes: String = said.chain(told).map(|line| format!("# {}\n", one_line(&line))).collect();
        let view = View { format, entries, corim, written: None, findings, bundle: Some(&text) };
        return Ok(Answer::new(&view, notes + &text)?.product());
    };
    rows.extend([
        ("entries", entries.to_string()),
        ("version", place.version().to_string()),
        ("written", path.display().to_string()),
        ("next", format!("review it, then: hostmark refs sign {} --key KEY", path.display())),
    ]);
    let shown = facts(rows) + &style.findings(findings.as_slice());
    Answer::new(&View { format, entries, corim, written: Some(path), findings, bundle: None }, shown)
}

/// A key of an author, under its file's name.
fn signer(path: &Path) -> Result<Signer, Failure> {
    let pem = input::read_text(path, "a public key", input::SMALL_MAX)?;
    let shown = path.display();
    if pem.contains("PRIVATE KEY-----") {
        return Err(Failure::unusable(format!(
            "{shown}: is a private key: --signer names the author's public key, and nobody but them should have this one"
        )));
    }
    Signer::from_pem(shown.to_string(), &pem).map_err(|error| Failure::unusable(format!("{shown}: at byte 0: {error}")))
}
