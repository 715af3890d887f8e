//! `hostd explain CONTROL`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use hostmark_attest::profile::{Control, Level, Outcome, Profile, Status, judge};
use hostmark_hostd::profile::{canary, observe};

use super::plan::Selection;
use super::{Common, Exit, Failure, Output, print};

/// Options of `hostd explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The control's id: `docker.icc`.
    control: String,
    /// As this level asks for it; default: the lowest that has it.
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    #[command(flatten)]
    selection: Selection,
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let (level, profile) = find(args)?;
    let control = profile.control(&args.control).ok_or_else(|| unknown(&args.control, &profile))?;
    let host = args.selection.host(common)?;
    let effects = if args.selection.canary { canary::of_controls(&host, &[control]) } else { BTreeMap::new() };
    let outcome = judge(control, observe(&host, control), effects.get(&control.id));
    match common.output {
        Output::Json => {
            print(&serde_json::json!({ "level": level, "control": control, "outcome": outcome }).to_string());
        }
        Output::Table => print(text(level, control, &outcome).trim_end()),
    }
    Ok(match outcome.status {
        Status::Pass | Status::NotApplicable | Status::Waived => Exit::Good,
        Status::Fail => Exit::Refused,
        Status::Error | Status::Manual => Exit::Partial,
    })
}

/// The lowest level that has the control, or the one asked for.
fn find(args: &Args) -> Result<(Level, Profile), Failure> {
    let all = BTreeSet::new();
    if let Some(level) = args.level {
        return Ok((level, args.selection.profile(level, &all)?));
    }
    let mut last = None;
    for level in Level::ALL {
        // A level that no file is for is no mistake as long as another has the control.
        let Ok(profile) = args.selection.profile(level, &all) else { continue };
        if profile.control(&args.control).is_some() {
            return Ok((level, profile));
        }
        last = Some(profile);
    }
    match last {
        Some(profile) => Err(unknown(&args.control, &profile)),
        // Says what is wrong with the files.
        None => args.selection.profile(Level::Restricted, &all).map(|profile| (Level::Restricted, profile)),
    }
}

fn unknown(id: &str, profile: &Profile) -> Failure {
    let part = id.split('.').next().unwrap_or_default();
    let near: Vec<&str> = profile
        .controls()
        .map(|control| control.id.as_str())
        .filter(|other| other.split('.').next() == Some(part))
        .collect();
    let hint = match near.is_empty() {
        true => {
            format!("ids begin with {}", profile.parts().iter().map(|part| part.name()).collect::<Vec<_>>().join(", "))
        }
        false => format!("there are {}", near.join(", ")),
    };
    Failure::new(Exit::Usage, format!("no control `{}`; {hint}", hostmark_attest::finding::one_line(id)))
}

fn text(level: Level, control: &Control, outcome: &Outcome) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}  [{}, {level}] {}", control.id, control.severity, control.title);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<10}{value}");
        }
    };
    line("why", control.why.as_deref().unwrap_or_default());
    line("refs", &control.refs.join(" "));
    line("resource", &control.resource.to_string());
    line("wanted", &outcome.wanted);
    line("proof", &outcome.proof);
    let steps: Vec<&str> = control.activate.iter().map(|step| step.name()).collect();
    line("needs", &steps.join(", "));
    line("undo", if control.reversible { "" } else { "a change cannot be undone on the running host" });
    for stated in outcome.effective.iter().chain(&outcome.others) {
        line("found", &format!("{}: {}", stated.source, stated.value));
    }
    line("effect", &outcome.effect.as_ref().map(ToString::to_string).unwrap_or_default());
    line("verdict", outcome.status.name());
    line("", &outcome.reason);
    out
}
