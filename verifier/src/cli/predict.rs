//! `hostmark refs predict`: what PCRs a kernel image will give, and reference values from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hostmark_attest::boot_log::{self, BootLog};
use hostmark_attest::digest::HashAlg;
use hostmark_attest::finding::Findings;
use hostmark_attest::policy::predicted::{PredictedError, Validity, add_to, bundle};
use hostmark_attest::predict::{Conditions, IMAGE_MAX, Phase, Prediction, Uki};
use serde::Serialize;

use super::answer::Answer;
use super::bundle_file::BundleFile;
use super::document::write_beside;
use super::failure::Failure;
use super::show::{Style, facts};
use super::{Outcome, input};

/// `hostmark refs predict …`
#[derive(Debug, Args)]
pub(super) struct Predict {
    /// The unified kernel image, signed or not.
    uki: PathBuf,
    /// The phase in which PCR 11 is wanted.
    #[arg(long, default_value = "ready")]
    phase: PhaseName,
    /// The initrd runs systemd, which marks two phases of its own.
    #[arg(long)]
    systemd_initrd: bool,
    /// Whether Secure Boot is on. Without it: on for a signed image.
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    secure_boot: Option<String>,
    /// Boot options that the firmware tries in vain before this image.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=32))]
    failed_boot_options: u8,
    /// A boot log of a machine of the same kind: Secure Boot and failed boot options are taken from it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secure_boot", "failed_boot_options"])]
    like: Option<PathBuf>,
    /// The PCR bank. Reference values are of sha256.
    #[arg(long, default_value = "sha256")]
    bank: BankName,
    /// Add a window with these PCRs to this bundle and raise its version by one. With -o, a new bundle has one window alone.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "version", "replace"])]
    into: Option<PathBuf>,
    /// The window opens then (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The window closes then (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    file: BundleFile,
}

/// A phase by its word.
#[derive(Debug, Clone, Copy)]
struct PhaseName(Phase);

impl ValueEnum for PhaseName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [PhaseName; 7] = [
            PhaseName(Phase::Boot),
            PhaseName(Phase::EnterInitrd),
            PhaseName(Phase::LeaveInitrd),
            PhaseName(Phase::Sysinit),
            PhaseName(Phase::Ready),
            PhaseName(Phase::Shutdown),
            PhaseName(Phase::Final),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(self.0.name().into())
    }
}

/// A bank that can be computed.
#[derive(Debug, Clone, Copy)]
struct BankName(HashAlg);

impl ValueEnum for BankName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [BankName; 4] =
            [BankName(HashAlg::Sha256), BankName(HashAlg::Sha384), BankName(HashAlg::Sha512), BankName(HashAlg::Sha1)];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(self.0.name().into())
    }
}

/// The JSON of `refs predict`.
#[derive(Debug, Serialize)]
struct View<'a> {
    image: ImageView<'a>,
    bank: &'static str,
    phase: &'static str,
    secure_boot: bool,
    failed_boot_options: u8,
    pcrs: BTreeMap<u8, PcrView>,
    findings: &'a Findings,
    /// The bundle that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a Path>,
}

#[derive(Debug, Serialize)]
struct ImageView<'a> {
    file: &'a Path,
    signed: bool,
    authenticode: String,
    stub: Option<&'a str>,
    kernel: Option<&'a str>,
    os: Option<&'a str>,
    command_line: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct PcrView {
    value: String,
    events: Vec<EventView>,
}

#[derive(Debug, Serialize)]
struct EventView {
    #[serde(rename = "type")]
    event_type: Option<String>,
    what: String,
    digest: String,
}

impl Predict {
    pub(super) fn run(self, style: Style) -> Outcome {
        let shown = self.uki.display().to_string();
        let bytes = input::read(&self.uki, "a kernel image", IMAGE_MAX)?;
        let uki = Uki::parse(&bytes).map_err(|error| Failure::malformed(&shown, &error))?;
        let bank = self.bank.0;
        let conditions = self.conditions(&uki)?;
        let unusable = |error: &dyn std::fmt::Display| Failure::unusable(format!("{shown}: {error}"));
        let prediction = uki.predict(bank, &conditions).map_err(|error| unusable(&error))?;
        let written = self.write(&prediction)?;

        let digest = uki.image().authenticode(bank).map(|digest| digest.to_string()).unwrap_or_default();
        let view = View {
            image: ImageView {
                file: &self.uki,
                signed: uki.image().is_signed(),
                authenticode: digest,
                stub: uki.stub(),
                kernel: uki.kernel_version(),
                os: uki.os_name(),
                command_line: uki.command_line(),
            },
            bank: bank.name(),
            phase: conditions.phase.name(),
            secure_boot: conditions.secure_boot,
            failed_boot_options: conditions.failed_options,
            pcrs: pcrs(&prediction),
            findings: &prediction.findings,
            written,
        };
        let text = view.text(style);
        Answer::new(&view, text)
    }

    fn conditions(&self, uki: &Uki<'_>) -> Result<Conditions, Failure> {
        let conditions = Conditions {
            secure_boot: self.secure_boot.as_deref().map_or(uki.image().is_signed(), |said| said == "on"),
            failed_options: self.failed_boot_options,
            phase: self.phase.0,
            systemd_initrd: self.systemd_initrd,
        };
        if conditions.phase.is_initrds() && !conditions.systemd_initrd {
            return Err(Failure::unusable(format!(
                "--phase {}: only an initrd that runs systemd has it: add --systemd-initrd",
                conditions.phase.name()
            )));
        }
        let Some(path) = &self.like else { return Ok(conditions) };
        let bytes = input::read(path, "a boot log", boot_log::LOG_MAX)?;
        let log = BootLog::parse(&bytes).map_err(|error| Failure::malformed(&path.display().to_string(), &error))?;
        let Some(bank) = log.best_bank() else {
            return Err(Failure::unusable(format!("{}: has no bank that is known here", path.display())));
        };
        Ok(conditions.like(&log, bank))
    }

    fn write(&self, prediction: &Prediction) -> Result<Option<&Path>, Failure> {
        let validity = Validity { from: self.from.clone(), until: self.until.clone() };
        let unusable = |path: &Path, error: PredictedError| Failure::unusable(format!("{}: {error}", path.display()));
        if let Some(path) = &self.into {
            let before = input::read_text(path, "a bundle", input::REFERENCES_MAX)?;
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let text = add_to(name, &before, prediction, &validity).map_err(|error| unusable(path, error))?;
            write_beside(path, text.as_bytes())?;
            return Ok(Some(path));
        }
        let Some(path) = self.file.path() else {
            if validity == Validity::default() {
                return Ok(None);
            }
            return Err(Failure::unusable("--from and --until are a window's: add -o FILE or --into FILE"));
        };
        let place = self.file.look(None)?;
        let text = bundle(prediction, &validity, place.version()).map_err(|error| unusable(path, error))?;
        place.write(&place.with_model(text)?)
    }
}

fn pcrs(prediction: &Prediction) -> BTreeMap<u8, PcrView> {
    let event = |one: &hostmark_attest::predict::PredictedEvent| EventView {
        event_type: one.event_type.map(|kind| kind.to_string()),
        what: one.what.clone(),
        digest: one.digest.to_string(),
    };
    let view = |one: &hostmark_attest::predict::PredictedPcr| PcrView {
        value: one.value.to_string(),
        events: one.events.iter().map(event).collect(),
    };
    prediction.pcrs.iter().map(|(pcr, one)| (*pcr, view(one))).collect()
}

impl View<'_> {
    fn text(&self, style: Style) -> String {
        let said = |text: Option<&str>| text.unwrap_or("not said").to_owned();
        let mut list = vec![
            ("image", self.image.file.display().to_string()),
            ("signed", if self.image.signed { "yes" } else { "no" }.to_owned()),
            ("stub", said(self.image.stub)),
            ("kernel", said(self.image.kernel)),
            ("system", said(self.image.os)),
            ("command line", said(self.image.command_line)),
            ("phase", self.phase.to_owned()),
            ("secure boot", if self.secure_boot { "on" } else { "off" }.to_owned()),
            ("failed options", self.failed_boot_options.to_string()),
        ];
        if let Some(path) = self.written {
            list.push(("written", path.display().to_string()));
            list.push(("next", format!("review it, then: hostmark refs sign {} --key KEY", path.display())));
        }
        let mut text = facts(list);
        let rows = self
            .pcrs
            .iter()
            .map(|(pcr, one)| vec![self.bank.into(), pcr.to_string().into(), one.value.as_str().into()]);
        text += &format!("\n{}", style.table(&["bank", "pcr", "predicted value"], rows));
        let rows = self.pcrs.iter().flat_map(|(pcr, one)| {
            one.events.iter().map(|event| {
                vec![
                    pcr.to_string().into(),
                    event.event_type.as_deref().unwrap_or("(not logged)").into(),
                    event.digest.as_str().into(),
                    event.what.as_str().into(),
                ]
            })
        });
        text += &format!("\n{}", style.table(&["pcr", "type", "digest", "what is measured"], rows));
        if !self.findings.as_slice().is_empty() {
            text += &format!("\n{}", style.findings(self.findings.as_slice()));
        }
        text
    }
}
