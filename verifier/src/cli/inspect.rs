//! `hostmark inspect`: what a file of evidence says. Nothing is proven here: there is no quote.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::bytes::ParseError;
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::finding::{Finding, Findings, one_line};
use hostmark_attest::host_log::{Event, HostLog};
use hostmark_attest::{boot_log, cel, ima};
use serde::Serialize;

use super::answer::Answer;
use super::failure::Failure;
use super::inspect_identity::{self, EkCert, PlatformCert};
use super::show::{Style, facts};
use super::{Outcome, input};

/// `hostmark inspect …`
#[derive(Debug, Subcommand)]
pub(super) enum Inspect {
    /// The firmware's log (binary_bios_measurements): events, replayed PCRs, Secure Boot. -v lists every event.
    BootLog {
        /// The log; `-` is standard input.
        file: PathBuf,
    },
    /// IMA's list (binary_runtime_measurements or ascii_runtime_measurements). -v lists the first 10,000 entries.
    Ima {
        /// The list; `-` is standard input.
        file: PathBuf,
    },
    /// A Canonical Event Log (JSON, CBOR or TLV): a host log, systemd's tpm2-measure.log, or any other. -v lists every event.
    Cel {
        /// The log; `-` is standard input.
        file: PathBuf,
    },
    /// An EK certificate: which TPM it is for, what is odd in it, and with --trust the class that it gives.
    EkCert(EkCert),
    /// An AK: TPM2B_PUBLIC, TPMT_PUBLIC, a public key, or the certificate of an AK, IAK or IDevID.
    Ak {
        /// The file; `-` is standard input.
        file: PathBuf,
    },
    /// A TCG platform certificate: the machine as its maker delivered it, and the EK certificate that is meant.
    PlatformCert(PlatformCert),
}

impl Inspect {
    pub(super) fn run(self, style: Style) -> Outcome {
        match self {
            Self::BootLog { file } => boot_log(&file, style),
            Self::Ima { file } => ima(&file, style),
            Self::Cel { file } => cel(&file, style),
            Self::EkCert(command) => command.run(style),
            Self::Ak { file } => inspect_identity::ak(&file, style),
            Self::PlatformCert(command) => command.run(style),
        }
    }
}

fn boot_log(file: &Path, style: Style) -> Outcome {
    let bytes = input::read(file, "a boot log", boot_log::LOG_MAX)?;
    let look = if style.verbose { boot_log::list_events } else { boot_log::inspect };
    let seen = look(&bytes).map_err(|error| unreadable("boot-log", file, &bytes, &error))?;
    let mut text = facts([
        ("format", seen.format.to_owned()),
        ("events", seen.events.to_string()),
        ("secure boot", seen.secure_boot.name().to_owned()),
    ]);
    let rows = seen.banks.iter().flat_map(|(bank, values)| {
        values.iter().map(|(index, value)| vec![(*bank).into(), index.to_string().into(), value.clone().into()])
    });
    text += &format!("\n{}", style.table(&["bank", "pcr", "replayed value"], rows));
    if !seen.image.is_empty() {
        let rows = seen.image.iter().map(|one| vec![one.name.into(), one.digest.as_str().into()]);
        text += &format!("\n{}", style.table(&["image section", "digest"], rows));
    }
    if let Some(said) = &seen.description {
        text += &description(style, said);
    }
    if let Some(list) = &seen.event_list {
        let rows = list.iter().map(|event| {
            vec![
                event.index.to_string().into(),
                event.pcr.to_string().into(),
                event.event_type.as_str().into(),
                event.size.to_string().into(),
                event.authenticated.into(),
                event.summary.as_str().into(),
            ]
        });
        text += &format!("\n{}", style.table(&["event", "pcr", "type", "bytes", "data", "summary"], rows));
    }
    text += &findings(style, &seen.findings);
    Answer::new(&seen, text)
}

/// What a log says of variables, programs and texts; `firmware` is what nobody can have extended after boot.
fn description(style: Style, said: &boot_log::Description) -> String {
    let by = |firmware: bool| if firmware { "yes" } else { "no" };
    let variables = said.variables.iter().map(|one| {
        let mut held: Vec<String> = one.value.iter().chain(&one.certificates).cloned().collect();
        if one.entries > 0 {
            held.push(format!("{} entries", one.entries));
        }
        let name = if one.named { one.name.clone() } else { format!("({})", one.name) };
        vec![
            one.pcr.to_string().into(),
            by(one.by_firmware).into(),
            name.into(),
            one.sha256.as_str().into(),
            held.join("; ").into(),
        ]
    });
    let loaded = said.loaded.iter().map(|one| {
        vec![
            one.pcr.to_string().into(),
            by(one.by_firmware).into(),
            one.digest.as_str().into(),
            one.logged_name.as_str().into(),
        ]
    });
    let texts = said.texts.iter().map(|one| {
        vec![one.pcr.to_string().into(), by(one.by_firmware).into(), one.kind.into(), one.text.as_str().into()]
    });
    let mut text =
        format!("\n{}", style.table(&["pcr", "firmware", "variable", "sha256 of its content", "holds"], variables));
    text += &format!("\n{}", style.table(&["pcr", "firmware", "measured elsewhere", "name, as logged"], loaded));
    text += &format!("\n{}", style.table(&["pcr", "firmware", "kind", "text"], texts));
    text
}

fn ima(file: &Path, style: Style) -> Outcome {
    let bytes = input::read(file, "an IMA list", ima::parse::LIST_MAX)?;
    let look = if style.verbose { ima::list_entries } else { ima::inspect };
    let seen = look(&bytes).map_err(|error| unreadable("ima", file, &bytes, &error))?;
    let templates: Vec<String> = seen.templates.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut text = facts([
        ("entries", seen.entries.to_string()),
        ("templates", templates.join(", ")),
        ("violations", seen.violations.to_string()),
        ("PCR 10 sha1", seen.pcr10.sha1.clone()),
        ("PCR 10 sha256", seen.pcr10.sha256.clone()),
    ]);
    if let Some(list) = &seen.entry_list {
        let rows = list.iter().map(|one| {
            vec![
                one.index.to_string().into(),
                one.pcr.to_string().into(),
                one.template.as_str().into(),
                one.digest.as_str().into(),
                if one.signed { "yes".into() } else { "-".into() },
                one.path.as_str().into(),
            ]
        });
        text += &format!("\n{}", style.table(&["entry", "pcr", "template", "digest", "signature", "path"], rows));
        let listed = u64::try_from(list.len()).unwrap_or(u64::MAX);
        let left = seen.entries.saturating_sub(listed);
        if left > 0 {
            text += &format!("{left} more entries are not listed: the first {} are\n", ima::LISTED_MAX);
        }
    }
    text += &findings(style, &seen.findings);
    Answer::new(&seen, text)
}

/// The JSON of `inspect cel`.
#[derive(Debug, Serialize)]
struct HostLogView {
    format: &'static str,
    events: usize,
    /// The PCR that the records name; absent when there is none.
    pcr: Option<u8>,
    /// That PCR's value when it starts at zero, in hex.
    replayed: Replayed,
    /// The last engine manifest's digest, in hex.
    last_manifest: Option<String>,
    findings: Findings,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_list: Option<Vec<EventView>>,
}

#[derive(Debug, Serialize)]
struct Replayed {
    sha256: String,
}

#[derive(Debug, Serialize)]
struct EventView {
    recnum: usize,
    event: String,
    digest: String,
    detail: String,
}

/// A log of ours is shown as such, and read by the host log's stricter parser; any other by what its records say.
fn cel(file: &Path, style: Style) -> Outcome {
    let bytes = input::read(file, "an event log", cel::LOG_MAX)?;
    let ours = |report: &cel::CelReport| report.content.keys().all(|kind| kind == "hostmark");
    match cel::inspect(&bytes, style.verbose) {
        Ok(report) if !ours(&report) => canonical(&report, style),
        Err(error) if cel::Encoding::detect(&bytes) != cel::Encoding::Json => {
            Err(unreadable("cel", file, &bytes, &error))
        }
        _ => host_log(&bytes, file, style),
    }
}

fn canonical(seen: &cel::CelReport, style: Style) -> Outcome {
    let content: Vec<String> = seen.content.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut text = facts([
        ("format", seen.format.to_owned()),
        ("events", seen.events.to_string()),
        ("content", content.join(", ")),
    ]);
    let rows = seen.banks.iter().flat_map(|(bank, values)| {
        values.iter().map(|(pcr, value)| vec![(*bank).into(), pcr.to_string().into(), value.as_str().into()])
    });
    text += &format!("\n{}", style.table(&["bank", "pcr", "replayed from zero"], rows));
    if let Some(list) = &seen.event_list {
        let rows = list.iter().map(|one| {
            let number = one.recnum.map_or_else(|| "-".to_owned(), |number| number.to_string());
            vec![
                number.into(),
                one.index.as_str().into(),
                one.content.as_str().into(),
                one.authenticated.into(),
                one.detail.as_str().into(),
            ]
        });
        text += &format!("\n{}", style.table(&["record", "index", "content", "data", "detail"], rows));
    }
    text += &findings(style, &seen.findings);
    Answer::new(seen, text)
}

fn host_log(bytes: &[u8], file: &Path, style: Style) -> Outcome {
    let log = HostLog::parse(bytes).map_err(|error| unreadable("cel", file, bytes, &error))?;
    let list: Vec<EventView> = log
        .records()
        .iter()
        .enumerate()
        .map(|(recnum, record)| {
            let (event, detail) = match record.event() {
                Event::Boot { boot_id, hostd } => ("boot".to_owned(), format!("boot id {boot_id}, hostd {hostd}")),
                Event::Manifest { sha256 } => ("manifest".to_owned(), hex::encode(sha256)),
                Event::Unknown { kind } => (kind, "unknown to this release".to_owned()),
                _ => (String::new(), String::new()),
            };
            EventView {
                recnum,
                event: one_line(&event),
                digest: hex::encode(record.digest()),
                detail: one_line(&detail),
            }
        })
        .collect();
    let last_manifest = log.records().iter().rev().find_map(|record| match record.event() {
        Event::Manifest { sha256 } => Some(hex::encode(sha256)),
        _ => None,
    });
    let replayed = log.replay(Digest::zero(HashAlg::Sha256)).to_string();
    let mut noted = Findings::new();
    let first = log.records().first().map(hostmark_attest::host_log::Record::event);
    if !matches!(first, Some(Event::Boot { .. })) {
        noted.push(
            Finding::warning("host-log.first-record", "the log does not begin with the event that binds a boot")
                .expected("boot")
                .found(list.first().map_or("no record", |one| one.event.as_str())),
        );
    }
    let text = facts([
        ("format", "cel-json".to_owned()),
        ("events", list.len().to_string()),
        ("PCR", log.pcr().map_or_else(|| "none".to_owned(), |pcr| pcr.to_string())),
        ("from zero", replayed.clone()),
        ("last manifest", last_manifest.clone().unwrap_or_else(|| "none".to_owned())),
    ]);
    let mut text = text;
    if style.verbose {
        let rows = list.iter().map(|one| {
            vec![
                one.recnum.to_string().into(),
                one.event.as_str().into(),
                one.digest.as_str().into(),
                one.detail.as_str().into(),
            ]
        });
        text += &format!("\n{}", style.table(&["record", "event", "digest", "content"], rows));
    }
    text += &findings(style, &noted);
    let view = HostLogView {
        format: "cel-json",
        events: list.len(),
        pcr: log.pcr(),
        replayed: Replayed { sha256: replayed },
        last_manifest,
        findings: noted,
        event_list: style.verbose.then_some(list),
    };
    Answer::new(&view, text)
}

/// A file that is not what it was `taken` for; where it is another kind of log, the command that reads it.
fn unreadable(taken: &str, file: &Path, bytes: &[u8], error: &ParseError) -> Failure {
    let (name, command) = (name(file), "hostmark inspect");
    let hint = match taken {
        "boot-log" => None,
        _ => boot_log::BootLog::parse(bytes).ok().filter(|log| log.events().len() > 0).map(|_| {
            format!("a firmware's log, a machine's or a confidential guest's (CCEL): {command} boot-log {name}")
        }),
    };
    let list = || ima::ImaLog::parse(bytes).ok().filter(|list| taken != "ima" && !list.is_empty());
    let canonical = || cel::CelLog::parse(bytes).ok().filter(|log| taken != "cel" && !log.records().is_empty());
    let hint = hint.or_else(|| list().map(|_| format!("an IMA list: {command} ima {name}")));
    let hint = hint.or_else(|| canonical().map(|_| format!("a canonical event log: {command} cel {name}")));
    match hint {
        Some(hint) => Failure::unusable(format!("{name}: {error}; the file reads as {hint}")),
        None => Failure::malformed(&name, error),
    }
}

fn findings(style: Style, findings: &Findings) -> String {
    if findings.as_slice().is_empty() {
        return String::new();
    }
    format!("\n{}", style.findings(findings.as_slice()))
}

fn name(file: &Path) -> String {
    file.display().to_string()
}
