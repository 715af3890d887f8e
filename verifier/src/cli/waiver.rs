//! `hostmark waiver`: an operator's word that named hosts need not meet named controls until a date.
//!
//! The file and its signature are carried to the hosts beside their profiles; hosts count it, and send it with what it excuses.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::jws::{Signer as _, sign_detached};
use hostmark_attest::profile::{WAIVER, WAIVER_MAX, Waiver};
use serde::Serialize;

use super::answer::Answer;
use super::document::{Sign, signature_path, write_beside};
use super::failure::{Failure, one_line};
use super::show::facts;
use super::{Outcome, input, key};

/// `hostmark waiver …`
#[derive(Debug, Subcommand)]
pub(super) enum WaiverCommand {
    /// Check a waiver and sign it: FILE.sig beside it.
    Sign(Sign),
    /// Check a waiver without signing it.
    Check {
        /// The waiver: controls, hosts, reason, approver, expires.
        file: PathBuf,
    },
}

#[derive(Debug, Serialize)]
struct WaiverView<'a> {
    file: String,
    controls: Vec<&'a str>,
    hosts: Vec<&'a str>,
    told: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

impl WaiverCommand {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Check { file } => shown(&file, &read(&file)?.1, None),
            Self::Sign(Sign { file, key }) => {
                let (text, waiver) = read(&file)?;
                let (signer, _) = key::load(&key)?;
                let token = sign_detached(&WAIVER, text.as_bytes(), &signer)
                    .map_err(|error| Failure::unusable(format!("{}: {error}", key.display())))?;
                let beside = signature_path(&file);
                write_beside(&beside, format!("{token}\n").as_bytes())?;
                shown(&file, &waiver, Some((beside, signer.kid().to_owned())))
            }
        }
    }
}

fn read(file: &Path) -> Result<(String, Waiver), Failure> {
    let text = input::read_text(file, "a waiver", WAIVER_MAX)?;
    let waiver = Waiver::parse(&file.display().to_string(), &text);
    Ok((text, waiver.map_err(|error| Failure::unusable(one_line(&error.to_string())))?))
}

fn shown(file: &Path, waiver: &Waiver, signed: Option<(PathBuf, String)>) -> Outcome {
    let list = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("waiver", file.display().to_string()),
        ("excuses", list(waiver.controls())),
        ("on", list(waiver.hosts())),
        ("because", waiver.told()),
    ];
    let (signature_file, kid) = signed.unzip();
    rows.extend(signature_file.as_ref().map(|path| ("signature", path.display().to_string())));
    rows.extend(kid.as_ref().map(|kid| ("signed by", kid.clone())));
    let mut text = facts(rows);
    if signature_file.is_some() {
        text += "\nCarry both files to these hosts, into /etc/hostmark/waivers/, and your public key into /etc/hostmark/trust/signers/.\n";
    }
    let view = WaiverView {
        file: file.display().to_string(),
        controls: waiver.controls().iter().map(String::as_str).collect(),
        hosts: waiver.hosts().iter().map(String::as_str).collect(),
        told: waiver.told(),
        signature_file,
        kid,
    };
    Answer::new(&view, text)
}
