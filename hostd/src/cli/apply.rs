//! `hostd apply`, `confirm`, `rollback`, and the process that waits for a confirmation.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use hostmark_attest::finding::one_line;
use hostmark_hostd::apply::{
    ActivationOutcome, Applied, Applier, ApplyError, CONFIRM_MAX, CONFIRM_MIN, Changed, Confirmer, Consent, Intended,
    Item, Moment, Receipt, State, Step, guard,
};
use hostmark_hostd::config::Config;

use super::{Common, Exit, Failure, Output, plan, print};

/// Options of `hostd apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    wanted: plan::Wanted,
    #[command(flatten)]
    selection: plan::Profiles,
    /// Undo everything unless `hostd confirm` is called within this time: 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    confirm_within: Duration,
    /// Change this gated control too (repeatable).
    #[arg(long, value_name = "CONTROL")]
    allow: Vec<String>,
    /// Change every gated control of the profile that can be undone.
    #[arg(long)]
    allow_gated: bool,
    /// Change this control although it cannot be undone (repeatable).
    #[arg(long, value_name = "CONTROL")]
    allow_one_way: Vec<String>,
    /// Restart engines even if that stops running containers.
    #[arg(long)]
    allow_interruption: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Options of `hostd rollback`.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The receipt that `hostd apply` printed.
    receipt: String,
    /// Put files back even if somebody changed them since.
    #[arg(long)]
    overwrite: bool,
}

/// Options of the process that waits.
#[derive(Debug, clap::Args)]
pub(crate) struct GuardArgs {
    receipt: String,
}

/// A number with `s`, `m` or `h`.
fn time(text: &str) -> Result<Duration, String> {
    let unit = |text: &str| match text {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let (number, letter) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or((text, ""));
    let seconds = number.parse::<u64>().ok().zip(unit(letter)).and_then(|(number, unit)| number.checked_mul(unit));
    let within = seconds.map(Duration::from_secs).filter(|time| (CONFIRM_MIN..=CONFIRM_MAX).contains(time));
    within
        .ok_or_else(|| format!("a time from {}s to {}h: 90s, 5m", CONFIRM_MIN.as_secs(), CONFIRM_MAX.as_secs() / 3600))
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let (level, parts) = args.wanted.wanted()?;
    let profile = args.selection.profile(level, &parts)?;
    let consent = Consent {
        allow: args.allow.iter().cloned().collect(),
        gated: args.allow_gated,
        one_way: args.allow_one_way.iter().cloned().collect(),
        interruption: args.allow_interruption,
    };
    let applier = watched(&config, common);
    if args.dry_run {
        let intended = applier.intend(&profile, &consent).map_err(failure)?;
        let pending = !intended.controls.is_empty();
        match common.output {
            Output::Json => print(&serde_json::json!({ "dry_run": true, "plan": intended }).to_string()),
            Output::Table => print(dry(&intended).trim_end()),
        }
        return Ok(if pending { Exit::Refused } else { Exit::Good });
    }
    let applied = applier.with_guard(guard_command(&config, common)).apply(&profile, &consent, args.confirm_within);
    match applied.map_err(failure)? {
        Applied::Unchanged(intended) => {
            match common.output {
                Output::Json => print(&serde_json::json!({ "changed": false, "plan": intended }).to_string()),
                Output::Table => print(format!("{}nothing to change", left(&intended)).trim_end()),
            }
            Ok(Exit::Good)
        }
        Applied::Pending(receipt, intended) => {
            match common.output {
                Output::Json => {
                    print(
                        &serde_json::json!({ "changed": true, "receipt": receipt, "left": intended.left }).to_string(),
                    );
                }
                Output::Table => {
                    let seconds = args.confirm_within.as_secs();
                    print(&format!(
                        "{}{}applied as {id}: `hostd confirm` within {seconds} s keeps it, else it is rolled back",
                        done(&receipt),
                        left(&intended),
                        id = receipt.receipt,
                    ));
                }
            }
            Ok(Exit::Good)
        }
        Applied::RolledBack(receipt) => {
            told(common, &receipt);
            Ok(ended(&receipt, Exit::Refused))
        }
    }
}

pub(crate) fn confirm(common: &Common) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let receipt = watched(&config, common).confirm(&Confirmer::of_this_process()).map_err(failure)?;
    told(common, &receipt);
    Ok(Exit::Good)
}

pub(crate) fn rollback(common: &Common, args: &RollbackArgs) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let receipt = watched(&config, common).rollback(&args.receipt, args.overwrite).map_err(failure)?;
    told(common, &receipt);
    Ok(ended(&receipt, Exit::Good))
}

pub(crate) fn wait(common: &Common, args: &GuardArgs) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    guard(&Applier::new(&config), &args.receipt).map_err(failure)?;
    Ok(Exit::Good)
}

/// The exit code of something that was rolled back: partial where not everything is as before.
fn ended(receipt: &Receipt, good: Exit) -> Exit {
    match &receipt.state {
        State::RolledBack { left, trouble, .. } if left.is_empty() && trouble.is_empty() => good,
        _ => Exit::Partial,
    }
}

fn failure(error: ApplyError) -> Failure {
    let exit = match &error {
        ApplyError::UnknownControl(_) | ApplyError::Unknown { .. } | ApplyError::OtherRoot { .. } => Exit::Usage,
        ApplyError::Io { .. } => Exit::Partial,
        _ => Exit::Refused,
    };
    Failure::new(exit, error)
}

/// With lines on a terminal while it works.
fn watched<'a>(config: &'a Config, common: &Common) -> Applier<'a> {
    let shows = !common.quiet && std::io::stderr().is_terminal();
    Applier::new(config).with_watch(move |moment| {
        if !shows {
            return;
        }
        match moment {
            Moment::Stage(stage) => eprintln!("{stage} …"),
            Moment::Step(Step::Activating { what }) => eprintln!("  {}: {} …", what.part, what.step.name()),
            Moment::Step(Step::Restored { item }) => eprintln!("  item {item} is as before"),
            _ => {}
        }
    })
}

/// This program with this configuration, as the process that waits.
fn guard_command(config: &Config, common: &Common) -> Vec<String> {
    let Ok(program) = std::env::current_exe() else { return Vec::new() };
    let absolute =
        |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut command = vec![program.display().to_string(), "dead-man".to_owned()];
    if let Some(file) = &common.config {
        command.extend(["--config".to_owned(), absolute(file)]);
    }
    command.extend(["--state-dir".to_owned(), absolute(&config.state_dir)]);
    command
}

fn told(common: &Common, receipt: &Receipt) {
    match common.output {
        Output::Json => print(&serde_json::json!({ "receipt": receipt }).to_string()),
        Output::Table => print(done(receipt).trim_end()),
    }
}

fn dry(intended: &Intended) -> String {
    let mut out = String::new();
    for control in &intended.controls {
        one_control(control, &mut out);
    }
    for item in &intended.items {
        let _ = writeln!(out, "write   {}", item.path());
    }
    for one in &intended.activation {
        let _ = writeln!(out, "then    {}: {}{}", one.part, one.step.name(), note(&one.outcome));
    }
    if !intended.interrupts.is_empty() {
        let names: Vec<&str> = intended.interrupts.iter().map(String::as_str).collect();
        let _ = writeln!(out, "stops   {} (needs --allow-interruption)", names.join(", "));
    }
    out.push_str(&left(intended));
    let _ = writeln!(out, "{} to change", intended.controls.len());
    out
}

fn left(intended: &Intended) -> String {
    let mut out = String::new();
    for one in &intended.left {
        let _ = writeln!(out, "left    {}: {}", one.control, one_line(&one.reason));
    }
    out
}

fn one_control(control: &Changed, out: &mut String) {
    let _ = writeln!(
        out,
        "change  {}\n        {}: {} → {}",
        control.control,
        control.resource,
        one_line(&control.from),
        one_line(&control.to)
    );
}

fn note(outcome: &ActivationOutcome) -> String {
    match outcome {
        ActivationOutcome::Planned => String::new(),
        ActivationOutcome::Done => ": done".to_owned(),
        ActivationOutcome::Left(why) => format!(": {why}"),
        ActivationOutcome::Failed(why) => format!(": failed: {}", one_line(why)),
    }
}

fn done(receipt: &Receipt) -> String {
    let mut out = String::new();
    let (back, last) = match &receipt.state {
        State::RolledBack { why, left, trouble, .. } => {
            let mut last = format!("rolled back {}: {}\n", receipt.receipt, one_line(why));
            for path in left {
                let _ = writeln!(last, "left as somebody else made it: {path} (--overwrite puts it back too)");
            }
            for problem in trouble {
                let _ = writeln!(last, "trouble: {}", one_line(problem));
            }
            (true, last)
        }
        State::Confirmed => {
            let by = receipt.confirmed.as_ref().map(|one| one.by.clone()).unwrap_or_default();
            (false, format!("confirmed {} by {}\n", receipt.receipt, one_line(&by)))
        }
        State::Pending { .. } | State::Unfinished => (false, String::new()),
    };
    for control in &receipt.controls {
        let reason = if control.reason.is_empty() { String::new() } else { format!(": {}", one_line(&control.reason)) };
        let state = if back { "rolled-back" } else { control.held.name() };
        let _ = writeln!(out, "{state:<14}  {} → {}{reason}", control.control, one_line(&control.to));
    }
    let paths: BTreeSet<&str> = receipt.items.iter().map(Item::path).collect();
    for path in paths.into_iter().filter(|_| !back) {
        let _ = writeln!(out, "{:<14}  {path}", "written");
    }
    for one in receipt.activation.iter().filter(|_| !back) {
        let _ = writeln!(out, "{:<14}  {}: {}{}", "activation", one.part, one.step.name(), note(&one.outcome));
    }
    out.push_str(&last);
    out
}
