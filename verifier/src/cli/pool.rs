//! `hostmark pool`: the pools, who is in them and why, and changing them from files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::policy::parse_toml;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::document::Kind;
use super::explain;
use super::failure::Failure;
use super::show::{Cell, Mood, Style, facts};
use super::{Outcome, failure::one_line, input};
use crate::api::views::{ApplyPools, NamedFile, PoolChanges, PoolSummary, PoolVerdict};

/// `hostmark pool …`
#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// List pools, and how many hosts each admits.
    List,
    /// Show one pool and its hosts.
    Show {
        /// Its name.
        pool: String,
    },
    /// Say whether a pool admits a host, until when, or every condition that is not met. Exit 1 when it does not.
    Explain {
        /// Node name or host id.
        host: String,
        /// The pool.
        pool: String,
    },
    /// Say what `pool apply` would change. Exit 1 when changes are pending.
    Diff {
        /// A directory with pools/ and admission/.
        dir: PathBuf,
    },
    /// Make the verifier's pools and admission policies those of a directory: what it does not name is removed.
    Apply {
        /// A directory with pools/ and admission/.
        dir: PathBuf,
        /// Only say what would change, as `pool diff` does.
        #[arg(long)]
        dry_run: bool,
    },
}

impl PoolCommand {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        match self {
            Self::List => list(&client, style),
            Self::Show { pool } => show(&client, &pool),
            Self::Explain { host, pool } => {
                let verdict: PoolVerdict = client.get(&["v1", "pools", &pool, "hosts", &host])?;
                let text = explain::pool(&verdict, style);
                Ok(Answer::new(&verdict, text)?.refused_if(!verdict.admitted))
            }
            Self::Diff { dir } => apply(&client, &dir, true, style),
            Self::Apply { dir, dry_run } => apply(&client, &dir, dry_run, style),
        }
    }
}

fn list(client: &Client, style: Style) -> Outcome {
    let pools: Vec<PoolSummary> = client.get(&["v1", "pools"])?;
    let rows = pools.iter().map(|one| {
        let mood = if one.admitted.is_empty() { Mood::Careful } else { Mood::Good };
        vec![
            one.pool.as_str().into(),
            one.label.as_str().into(),
            one.mode.as_str().into(),
            lease(one).into(),
            one.admission.as_str().into(),
            Cell::mood(mood, one.admitted.len().to_string()),
            one.refused.len().to_string().into(),
        ]
    });
    let text = if pools.is_empty() {
        "no pools: publish them with hostmark pool apply DIR\n".to_owned()
    } else {
        style.table(&["pool", "label", "mode", "lease", "admission", "admitted", "not admitted"], rows)
    };
    Answer::new(&pools, text)
}

fn lease(pool: &PoolSummary) -> String {
    format!("{} s", pool.lease_ms.div_euclid(1000))
}

fn show(client: &Client, name: &str) -> Outcome {
    let pools: Vec<PoolSummary> = client.get(&["v1", "pools"])?;
    let known: Vec<&str> = pools.iter().map(|one| one.pool.as_str()).collect();
    let pool = pools
        .iter()
        .find(|one| one.pool == name)
        .ok_or_else(|| Failure::unusable(format!("there is no pool `{name}`: the pools are {}", known.join(", "))))?;
    let nodes = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let text = facts([
        ("pool", pool.pool.clone()),
        ("label", pool.label.clone()),
        ("mode", pool.mode.clone()),
        ("lease", lease(pool)),
        ("admission", pool.admission.clone()),
        ("admitted", nodes(&pool.admitted)),
        ("not admitted", nodes(&pool.refused)),
    ]);
    let next = pool.refused.first().map(|node| format!("\nwhy not: hostmark pool explain {node} {name}\n"));
    Answer::new(pool, text + &next.unwrap_or_default())
}

/// The TOML files of one part of a directory.
fn files(dir: &Path, kind: Kind) -> Result<Vec<NamedFile>, Failure> {
    let part = dir.join(kind.name());
    let list = std::fs::read_dir(&part).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let missing = if dir.exists() { &part } else { dir };
            let missing = missing.display();
            Failure::unusable(format!(
                "{missing} is not there: name a directory that holds pools/ and admission/, as configs does"
            ))
        }
        _ => Failure::io(&part, &error),
    })?;
    let mut paths: Vec<PathBuf> = list.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let named = |path: &PathBuf| {
        // Only that it is TOML: the verifier judges it, and knows the levels.
        let toml = input::read_text(path, "a policy file", input::POLICY_MAX)?;
        let shown = path.display().to_string();
        parse_toml::<toml::Table>(&shown, &toml).map_err(|error| Failure::policy(&shown, &error))?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        Ok(NamedFile { name, toml })
    };
    paths.iter().map(named).collect()
}

fn apply(client: &Client, dir: &Path, dry_run: bool, style: Style) -> Outcome {
    let request = ApplyPools { pools: files(dir, Kind::Pool)?, admission: files(dir, Kind::Admission)?, dry_run };
    let changes: PoolChanges = client.post(&["v1", "pools"], &request)?;
    let groups = [
        (Mood::Good, "+", "", &changes.added),
        (Mood::Careful, "~", "", &changes.changed),
        (Mood::Bad, "-", "", &changes.removed),
        (Mood::Good, "+", " enters", &changes.enter),
        (Mood::Bad, "-", " leaves", &changes.leave),
    ];
    let mut text = String::new();
    for (mood, sign, verb, list) in groups {
        for one in list {
            text += &format!("{}{verb}\n", style.paint(mood, &format!("{sign} {}", one_line(one))));
        }
    }
    let any = !text.is_empty();
    let warnings = style.warnings(&changes.warnings);
    text += match (any, changes.applied) {
        (false, _) => "no change\n",
        (true, true) => "applied\n",
        (true, false) => "not applied: hostmark pool apply DIR applies this\n",
    };
    Ok(Answer::new(&changes, text + &warnings)?.refused_if(dry_run && any))
}
