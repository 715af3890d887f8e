//! `hostmark policy`: checks, compares and signs appraisal policies, admission policies and pools before they are published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::label::Levels;
use serde::Serialize;

use super::Outcome;
use super::answer::Answer;
use super::connect::Connection;
use super::document::{Diff, Document, Kind, Publish, Sign, compare, publish, sign};
use super::failure::{Exit, Failure, one_line};
use super::show::{Cell, Mood, Style};

/// `hostmark policy …`
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Check files, or whole directories with pools/, admission/, appraisal/ and references/.
    Check {
        /// Files or directories.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Sensitivity levels, lowest first.
        #[arg(long, value_delimiter = ',', value_name = "LEVEL,LEVEL…")]
        levels: Option<Vec<String>>,
    },
    /// Compare two files of one kind. Exit 1 when they differ.
    Diff(Diff),
    /// Sign a file: writes FILE.sig, a detached signature over the file's exact bytes.
    Sign(Sign),
    /// Publish a signed appraisal policy to the verifier.
    Publish(Publish),
}

impl Policy {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        match self {
            Self::Check { paths, levels } => check(&paths, &levels.map_or_else(Levels::default, Levels::new), style),
            Self::Diff(Diff { before, after }) => {
                let (old, new) = (Document::load(&before)?, Document::load(&after)?);
                if old.kind != new.kind {
                    return Err(Failure::unusable(format!(
                        "{} is a file of {} and {} one of {}: compare files of one kind",
                        old.path,
                        old.kind.name(),
                        new.path,
                        new.kind.name()
                    )));
                }
                compare(&old, &new, style)
            }
            Self::Sign(Sign { file, key }) => {
                let document = Document::load(&file)?;
                if document.kind == Kind::References {
                    return Err(Failure::unusable(format!(
                        "{}: holds reference values: sign it with `hostmark refs sign`",
                        document.path
                    )));
                }
                sign(&file, &document, &key)
            }
            Self::Publish(Publish { file, key }) => {
                let document = Document::load(&file)?;
                match document.kind {
                    Kind::Appraisal => publish(connection, &file, &document, key.as_deref()),
                    Kind::References => Err(Failure::unusable(format!(
                        "{}: holds reference values: use `hostmark refs publish`",
                        document.path
                    ))),
                    Kind::Pool | Kind::Admission => Err(Failure::unusable(format!(
                        "{}: pools and admission policies are changed together: use `hostmark pool apply DIR`",
                        document.path
                    ))),
                }
            }
        }
    }
}

/// One row of `policy check`.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    kind: Option<Kind>,
    version: Option<u64>,
    valid: bool,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    valid: bool,
    files: Vec<Checked>,
    /// Names that one of the files uses and none of the others has, where files of that kind were given.
    unresolved: Vec<String>,
}

fn check(paths: &[PathBuf], levels: &Levels, style: Style) -> Outcome {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() { expand(path, &mut files)? } else { files.push(path.clone()) }
    }
    let mut checked = Vec::new();
    let mut good: Vec<Document> = Vec::new();
    for path in &files {
        let file = path.display().to_string();
        match Document::load_with(path, levels) {
            Ok(document) => {
                let (kind, version) = (Some(document.kind), document.version);
                checked.push(Checked { file, kind, version, valid: true, problem: None });
                good.push(document);
            }
            Err(failure) => {
                failure.print(false);
                let problem = Some(failure.message().to_owned());
                checked.push(Checked { file, kind: None, version: None, valid: false, problem });
            }
        }
    }
    let names: BTreeMap<Kind, Vec<&str>> = good.iter().fold(BTreeMap::new(), |mut names, one| {
        names.entry(one.kind).or_insert_with(Vec::new).push(one.name.as_str());
        names
    });
    let mut unresolved = Vec::new();
    for document in &good {
        for (kind, name) in document.needs() {
            if names.get(&kind).is_some_and(|known| !known.contains(&name.as_str())) {
                unresolved.push(format!(
                    "{}: names {}/{name}.toml, which is not among these files",
                    document.path,
                    kind.name()
                ));
            }
        }
    }
    let rows = checked.iter().map(|one| {
        let verdict = if one.valid { Cell::mood(Mood::Good, "valid") } else { Cell::mood(Mood::Bad, "invalid") };
        let version = one.version.map(|version| version.to_string()).unwrap_or_default();
        vec![one.file.as_str().into(), one.kind.map_or("", Kind::name).into(), version.into(), verdict]
    });
    let mut text = style.table(&["file", "kind", "version", ""], rows);
    for line in &unresolved {
        text += &format!("{}  {}\n", style.paint(Mood::Careful, "warning"), one_line(line));
    }
    let valid = checked.iter().all(|one| one.valid);
    let answer = Answer::new(&CheckView { valid, files: checked, unresolved }, text)?;
    Ok(if valid { answer } else { answer.exit(Exit::Unusable) })
}

/// The TOML files of a configuration directory, or of one of its four parts.
fn expand(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let before = files.len();
    let parts: Vec<PathBuf> =
        Kind::ALL.iter().map(|kind| folder.join(kind.name())).filter(|path| path.is_dir()).collect();
    let parts = if parts.is_empty() { vec![folder.to_owned()] } else { parts };
    for part in parts {
        let list = std::fs::read_dir(&part).map_err(|error| Failure::io(&part, &error))?;
        let mut found: Vec<PathBuf> = list.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        found.sort();
        files.append(&mut found);
    }
    if files.len() == before {
        return Err(Failure::unusable(format!("{}: holds no .toml file", folder.display())));
    }
    Ok(())
}
