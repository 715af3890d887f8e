//! `hostmark refs`: reference values, captured from a machine that is known to be good or predicted from a kernel image,
//! compared, and signed.
//!
//! A capture proves nothing by itself: a person reviews it and signs it. No host is judged by a capture of its own evidence.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::boot_log::{self, BootLog};
use hostmark_attest::cel::userspace::{LOG_MAX as USERSPACE_MAX, UserspaceLog};
use hostmark_attest::digest::HashAlg;
use hostmark_attest::ima::{ImaLog, parse::LIST_MAX as IMA_MAX};
use hostmark_attest::manifest::{BYTES_MAX as MANIFEST_MAX, EngineManifest};
use hostmark_attest::policy::References;
use hostmark_attest::policy::capture::{Capture, capture};

use super::answer::Answer;
use super::bundle_file::{BundleFile, Place};
use super::connect::Connection;
use super::document::{Diff, Document, Kind, Publish, Sign, compare, differences, publish, sign};
use super::failure::Failure;
use super::predict::Predict;
use super::refs_change::Rebase;
use super::refs_import::Import;
use super::show::{Style, facts};
use super::toml_diff::diff;
use super::tree::reference_files;
use super::{Outcome, input};

/// `hostmark refs …`
#[derive(Debug, Subcommand)]
pub(super) enum Refs {
    /// Make reference values from the logs of a machine that is known to be good.
    #[command(group(clap::ArgGroup::new("source").required(true).multiple(true)))]
    Capture {
        /// Its boot log (binary_bios_measurements).
        #[arg(long, value_name = "FILE", group = "source")]
        boot_log: Option<PathBuf>,
        /// Its systemd's log of the same boot (/run/log/systemd/tpm2-measure.log): names PCR 15, the identity of this one machine.
        #[arg(long, value_name = "FILE", requires = "boot_log")]
        userspace_log: Option<PathBuf>,
        /// Its IMA list.
        #[arg(long, value_name = "FILE", group = "source")]
        ima: Option<PathBuf>,
        /// An engine manifest (hostd measure); each one is an acceptable state.
        #[arg(long, value_name = "FILE", group = "source")]
        manifest: Vec<PathBuf>,
        /// The hardware model that the bundle is for.
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// Show what differs from this bundle, which the capture would replace; exit 1 when anything does. Its version plus one and
        /// its model are taken where none is given.
        #[arg(long, value_name = "BUNDLE")]
        review: Option<PathBuf>,
        #[command(flatten)]
        file: BundleFile,
    },
    /// Accept what differs on one hardware model after an update, under a change's id, until a date. Shows the difference;
    /// --accept adds it to the bundle.
    Rebase(Box<Rebase>),
    /// Make a bundle from another project's reference values: a Keylime runtime policy, or a CoRIM that a named key signed.
    Import(Box<Import>),
    /// Make reference values for the programs, libraries and modules of a host's root file system, read from a directory.
    Ima {
        /// The directory that is `/` on the host.
        root: PathBuf,
        /// Name this file, or every file below this directory, whatever it is (a path as it is on the host).
        #[arg(long, value_name = "PATH")]
        also: Vec<PathBuf>,
        #[command(flatten)]
        file: BundleFile,
    },
    /// Compute what PCRs a unified kernel image will give, without booting it.
    Predict(Box<Predict>),
    /// Compare two bundles. Exit 1 when they differ.
    Diff(Diff),
    /// Sign a bundle: writes FILE.sig, a detached signature over the file's exact bytes.
    Sign(Sign),
    /// Publish a signed bundle to the verifier.
    Publish(Publish),
}

impl Refs {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        match self {
            Self::Capture { boot_log, userspace_log, ima, manifest, model, review, file } => {
                let review = review.as_deref().map(load).transpose()?;
                let place = file.look(review.as_ref())?;
                let mut sources = Sources::read(boot_log.as_deref(), ima.as_deref(), &manifest)?;
                if let Some(path) = userspace_log.as_deref() {
                    sources.add_userspace_log(path)?;
                }
                sources.capture(&place, model, review.as_ref(), style)
            }
            Self::Rebase(command) => command.run(style),
            Self::Import(command) => command.run(style),
            Self::Ima { root, also, file } => reference_files(&root, &also, &file.look(None)?),
            Self::Predict(predict) => predict.run(style),
            Self::Diff(Diff { before, after }) => compare(&load(&before)?, &load(&after)?, style),
            Self::Sign(Sign { file, key }) => sign(&file, &load(&file)?, &key),
            Self::Publish(Publish { file, key }) => publish(connection, &file, &load(&file)?, key.as_deref()),
        }
    }
}

fn load(path: &Path) -> Result<Document, Failure> {
    let document = Document::load(path)?;
    if document.kind == Kind::References {
        return Ok(document);
    }
    Err(Failure::unusable(format!(
        "{}: is a file of {}, not of reference values: use `hostmark policy`",
        document.path,
        document.kind.name()
    )))
}

/// The files of a capture, each parsed once alone so that an error names its file.
#[derive(Debug, Default)]
pub(super) struct Sources {
    boot_log: Vec<u8>,
    userspace_log: Vec<u8>,
    ima: Vec<u8>,
    manifests: Vec<Vec<u8>>,
}

impl Sources {
    pub(super) fn read(boot_log: Option<&Path>, ima: Option<&Path>, manifests: &[PathBuf]) -> Result<Self, Failure> {
        let mut sources = Self::default();
        let shown = |path: &Path| path.display().to_string();
        if let Some(path) = boot_log {
            sources.boot_log = input::read(path, "a boot log", boot_log::LOG_MAX)?;
            let log = BootLog::parse(&sources.boot_log).map_err(|error| Failure::malformed(&shown(path), &error))?;
            if !log.banks().any(|bank| bank == HashAlg::Sha256) {
                return Err(Failure::unusable(format!(
                    "{}: has no SHA-256 bank, and no weaker one proves anything: enable it in the firmware",
                    path.display()
                )));
            }
        }
        if let Some(path) = ima {
            sources.ima = input::read(path, "an IMA list", IMA_MAX)?;
            ImaLog::parse(&sources.ima).map_err(|error| Failure::malformed(&shown(path), &error))?;
        }
        for path in manifests {
            let bytes = input::read(path, "an engine manifest", MANIFEST_MAX)?;
            EngineManifest::parse(&bytes).map_err(|error| Failure::malformed(&shown(path), &error))?;
            sources.manifests.push(bytes);
        }
        Ok(sources)
    }

    fn add_userspace_log(&mut self, path: &Path) -> Result<(), Failure> {
        self.userspace_log = input::read(path, "systemd's log", USERSPACE_MAX)?;
        UserspaceLog::parse(&self.userspace_log)
            .map_err(|error| Failure::malformed(&path.display().to_string(), &error))?;
        Ok(())
    }

    /// The text of a bundle from these sources.
    pub(super) fn text(&self, version: u64) -> Result<String, Failure> {
        let manifests: Vec<&[u8]> = self.manifests.iter().map(Vec::as_slice).collect();
        let from = Capture {
            boot_log: &self.boot_log,
            userspace_log: &self.userspace_log,
            ima: &self.ima,
            manifests: &manifests,
        };
        capture(&from, version).map_err(|error| Failure::unusable(error.to_string()))
    }

    fn capture(&self, place: &Place<'_>, model: Option<String>, review: Option<&Document>, style: Style) -> Outcome {
        let before = |key: &str| review.and_then(|old| old.table.get(key).cloned());
        let captured = self.text(place.version())?;
        let mut bundle: toml::Table = toml::from_str(&captured)
            .map_err(|error| Failure::unusable(format!("the bundle cannot be read back: {error}")))?;
        if let Some(model) = model.map(toml::Value::String).or_else(|| before("model")) {
            bundle.insert("model".to_owned(), model);
        }
        let text = toml::to_string(&bundle).map_err(|error| Failure::unusable(error.to_string()))?;
        let text = place.with_model(text)?;
        References::parse("captured", &text).map_err(|error| Failure::policy("captured", &error))?;
        let written = place.write(&text)?;
        if let Some(old) = review {
            let (mut was, mut is) = (old.table.clone(), bundle.clone());
            was.remove("version");
            is.remove("version");
            let shown = written.map_or_else(|| "captured".to_owned(), |path| path.display().to_string());
            return differences(old, &shown, diff(&was, &is), style);
        }
        let Some(path) = written else {
            return Ok(Answer::new(&bundle, text)?.product());
        };
        let message = facts([
            ("written", path.display().to_string()),
            ("version", place.version().to_string()),
            ("next", format!("review it, then: hostmark refs sign {} --key KEY", path.display())),
        ]);
        Answer::new(&bundle, message)
    }
}
