//! Signed files: what `policy` and `refs` share. A file is read, recognised and checked before it is compared, signed or sent.

use std::path::{Path, PathBuf};

use clap::Args;
use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::jws::{Purpose, Signer as _, sign_detached};
use hostmark_attest::label::Levels;
use hostmark_attest::policy::{AppraisalPolicy, POLICY, REFERENCES, References, parse_toml};
use hostmark_attest::pool::Pool;
use serde::Serialize;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::failure::{Failure, one_line};
use super::show::{Mood, Style, facts};
use super::toml_diff::{Change, diff};
use super::{Outcome, input, key};
use crate::api::views::{PublishFile, Published};
use crate::files::write_atomic;

/// `… diff BEFORE AFTER`
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The file before.
    pub(super) before: PathBuf,
    /// The file after.
    pub(super) after: PathBuf,
}

/// `… sign FILE --key KEY`
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The file; it is checked first.
    pub(super) file: PathBuf,
    /// The operator's signing key (hostmark key create).
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
}

/// `… publish FILE [--key KEY]`
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The file; what it holds is named like it.
    pub(super) file: PathBuf,
    /// Sign it now with this key. Without it, FILE.sig is sent.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Pool,
    Admission,
    Appraisal,
    References,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Pool, Self::Admission, Self::Appraisal, Self::References];

    /// The directory below /etc/hostmark.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pool => "pools",
            Self::Admission => "admission",
            Self::Appraisal => "appraisal",
            Self::References => "references",
        }
    }

    /// A key that every file of this kind has, and no file of another.
    const fn mark(self) -> &'static str {
        match self {
            Self::Pool => "lease",
            Self::Admission => "requires_appraisal",
            Self::Appraisal => "pcrs",
            Self::References => "window",
        }
    }
}

/// A policy file, read and valid.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) version: Option<u64>,
    pub(super) text: String,
    pub(super) table: toml::Table,
}

impl Document {
    /// Reads and checks a file with the default levels.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        Self::load_with(path, &Levels::default())
    }

    pub(super) fn load_with(path: &Path, levels: &Levels) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let text = input::read_text(path, "a policy file", input::REFERENCES_MAX)?;
        let table: toml::Table = parse_toml(&shown, &text).map_err(|error| Failure::policy(&shown, &error))?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let kind = kind_of(path, &table).ok_or_else(|| {
            Failure::unusable(format!(
                "{shown}: cannot tell what it is: a pool has `lease`, an admission policy `requires_appraisal`, an \
                 appraisal policy `pcrs`, reference values [[window]]"
            ))
        })?;
        if kind != Kind::References && text.len() > input::POLICY_MAX {
            return Err(Failure::unusable(format!(
                "{shown}: at byte {0}: the file goes on, and a policy has at most {0} bytes",
                input::POLICY_MAX
            )));
        }
        let version = match kind {
            Kind::Pool => Pool::parse(&name, &text, levels).map(|_| None),
            Kind::Admission => AdmissionPolicy::parse(&name, &text).map(|_| None),
            Kind::Appraisal => AppraisalPolicy::parse(&name, &text).map(|policy| Some(policy.version())),
            Kind::References => References::parse(&name, &text).map(|bundle| Some(bundle.version())),
        }
        .map_err(|error| Failure::policy(&shown, &error))?;
        Ok(Self { path: shown, name, kind, version, text, table })
    }

    fn strings(&self, key: &str) -> Vec<String> {
        match self.table.get(key) {
            Some(toml::Value::String(one)) => vec![one.clone()],
            Some(toml::Value::Array(list)) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    }

    /// The names that it uses of other files.
    pub(super) fn needs(&self) -> Vec<(Kind, String)> {
        let (kind, key) = match self.kind {
            Kind::Pool => (Kind::Admission, "admission"),
            Kind::Admission => (Kind::Appraisal, "requires_appraisal"),
            Kind::Appraisal => (Kind::References, "references"),
            Kind::References => return Vec::new(),
        };
        self.strings(key).into_iter().map(|name| (kind, name)).collect()
    }
}

/// By the directory it lies in, else by a key that only its kind has.
fn kind_of(path: &Path, table: &toml::Table) -> Option<Kind> {
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let by_folder = Kind::ALL.into_iter().find(|kind| kind.name() == folder);
    by_folder.or_else(|| Kind::ALL.into_iter().find(|kind| table.contains_key(kind.mark())))
}

#[derive(Debug, Serialize)]
struct DiffView<'a> {
    kind: Kind,
    before: &'a str,
    after: &'a str,
    changes: Vec<Change>,
}

/// The answer of `policy diff` and `refs diff`: exit 1 when anything differs.
pub(super) fn compare(before: &Document, after: &Document, style: Style) -> Outcome {
    differences(before, &after.path, diff(&before.table, &after.table), style)
}

/// Shows changes against a file: exit 1 when there are any.
pub(super) fn differences(before: &Document, after: &str, changes: Vec<Change>, style: Style) -> Outcome {
    let mut text = String::new();
    for change in &changes {
        text += &format!("{}\n", one_line(&change.key));
        for (mood, sign, values) in [(Mood::Bad, '-', &change.removed), (Mood::Good, '+', &change.added)] {
            for value in values {
                text += &format!("  {}\n", style.paint(mood, &format!("{sign} {}", one_line(value))));
            }
        }
    }
    text += &match changes.len() {
        0 => "no difference\n".to_owned(),
        1 => "1 key differs\n".to_owned(),
        many => format!("{many} keys differ\n"),
    };
    let pending = !changes.is_empty();
    let view = DiffView { kind: before.kind, before: &before.path, after, changes };
    Ok(Answer::new(&view, text)?.refused_if(pending))
}

#[derive(Debug, Serialize)]
struct SignView<'a> {
    file: &'a str,
    signature_file: PathBuf,
    kid: &'a str,
    typ: &'a str,
}

/// The detached signature over a file's exact bytes, and the key's id.
fn signature(document: &Document, key_file: &Path) -> Result<(String, String), Failure> {
    let (signer, _) = key::load(key_file)?;
    let token = sign_detached(&purpose(document.kind), document.text.as_bytes(), &signer)
        .map_err(|error| Failure::unusable(format!("{}: {error}", key_file.display())))?;
    Ok((token, signer.kid().to_owned()))
}

fn purpose(kind: Kind) -> Purpose {
    if kind == Kind::References { REFERENCES } else { POLICY }
}

/// Sends a checked file with its signature: one that is made now, or the one beside the file.
pub(super) fn publish(connection: &Connection, path: &Path, document: &Document, key_file: Option<&Path>) -> Outcome {
    let signature = match key_file {
        Some(key_file) => signature(document, key_file)?.0,
        None => {
            let beside = signature_path(path);
            if !beside.exists() {
                return Err(Failure::unusable(format!(
                    "{} is not there: sign the file first, or name the signing key with --key",
                    beside.display()
                )));
            }
            input::read_text(&beside, "a signature", input::SMALL_MAX)?.trim().to_owned()
        }
    };
    let file = PublishFile { name: document.name.clone(), toml: document.text.clone(), signature };
    let route = if document.kind == Kind::References { "references" } else { "policies" };
    let done: Published = Client::new(connection)?.post(&["v1", route], &file)?;
    let mut rows = vec![
        ("published", done.name.clone()),
        ("version", done.version.to_string()),
        ("signed by", done.signer.clone()),
    ];
    if !done.waits_for.is_empty() {
        let bundles = done.waits_for.join(", ");
        rows.push(("waits for", format!("references {bundles} (hostmark refs publish): until then it judges nobody")));
    }
    Answer::new(&done, facts(rows))
}

/// Signs a checked file and writes the signature beside it.
pub(super) fn sign(path: &Path, document: &Document, key_file: &Path) -> Outcome {
    let (token, kid) = signature(document, key_file)?;
    let signature_file = signature_path(path);
    write_beside(&signature_file, format!("{token}\n").as_bytes())?;
    let text = facts([
        ("signed", document.path.clone()),
        ("signature", signature_file.display().to_string()),
        ("by key", kid.clone()),
    ]);
    let view = SignView { file: &document.path, signature_file, kid: &kid, typ: purpose(document.kind).typ };
    Answer::new(&view, text)
}

/// `FILE.sig`.
pub(super) fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// Writes a public file whole or not at all.
pub(super) fn write_beside(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    // A bare file name has the empty path as its parent, which nothing can open.
    let path = if path.parent().is_some_and(|parent| parent.as_os_str().is_empty()) {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    };
    write_atomic(&path, 0o644, bytes).map_err(|error| Failure::io(&path, &error))
}
