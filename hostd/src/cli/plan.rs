//! `hostd plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hostmark_attest::finding::one_line;
use hostmark_attest::profile::{Heading, Level, Outcome, Part, Profile, ProfileReport, Severity, Status};
use hostmark_hostd::engines::EnginesConfig;
use hostmark_hostd::profile::{Change, DEFAULT_DIRECTORY, Host, Plan, canary, examine_with, load, plan};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::waivers::WaiverOptions;
use super::{Common, Exit, Failure, Output, print};

/// Where profiles are.
#[derive(Debug, clap::Args)]
pub(crate) struct Profiles {
    /// Where the profiles are: PART/LEVEL.toml. Hostmark's own are configs/profiles of its sources.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIRECTORY)]
    pub(crate) profiles: PathBuf,
}

/// Which of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// A level (`hardened`), a part (`docker`) or both (`docker/hardened`); default: every part, `baseline`.
    pub(crate) profile: Option<String>,
    /// Only this part (repeatable).
    #[arg(long, value_name = "PART")]
    part: Vec<Part>,
    /// Up to this level.
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
}

/// Which profile, and of which host.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    #[command(flatten)]
    pub(crate) profiles: Profiles,
    /// Judge this directory as if it were `/`: no running kernel, no running engine.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Start canary containers in the running engines to see what they really let them do, and remove them again.
    #[arg(long, conflicts_with = "root")]
    pub(crate) canary: bool,
}

/// Options of `hostd plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Exit with 1 when a control of this severity or above fails or cannot be judged, else with 0.
    #[arg(long, value_name = "SEVERITY")]
    fail_on: Option<Severity>,
    /// What only a person, a canary or a running host can tell (`manual`) does not count against the exit code.
    #[arg(long)]
    allow_manual: bool,
    /// Also write the report as SARIF 2.1.0 to this file.
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Also write the report as JUnit's XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write the report as a page of HTML to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    waivers: WaiverOptions,
    #[command(flatten)]
    selection: Selection,
}

impl Selection {
    /// The host that is looked at.
    pub(crate) fn host(&self, common: &Common) -> Result<Host, Failure> {
        let config = common.configuration()?.engines;
        let config = match &self.root {
            Some(root) => EnginesConfig { enabled: config.enabled, ..EnginesConfig::of_root(root) },
            None => config,
        };
        if !config.root.is_dir() {
            let problem = format!("{}: not a directory; give --root a root file system", config.root.display());
            return Err(Failure::new(Exit::Usage, problem));
        }
        Ok(Host::new(config))
    }

    /// What a page on it is headed with.
    fn heading(&self) -> Result<Heading, Failure> {
        let subject = match &self.root {
            Some(root) => root.display().to_string(),
            None => nix::unistd::gethostname().map_or_else(
                |error| format!("(a host whose name cannot be read: {error})"),
                |name| name.to_string_lossy().into_owned(),
            ),
        };
        let at = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
        Ok(Heading { subject, at: at.ok_or_else(|| Failure::new(Exit::Partial, "the clock tells no time"))? })
    }

    /// Its profile.
    pub(crate) fn profile(&self, level: Level, parts: &BTreeSet<Part>) -> Result<Profile, Failure> {
        self.profiles.profile(level, parts)
    }
}

impl Profiles {
    /// Reads one.
    pub(crate) fn profile(&self, level: Level, parts: &BTreeSet<Part>) -> Result<Profile, Failure> {
        load(&self.profiles, level, parts).map_err(|error| Failure::new(Exit::Usage, error))
    }
}

impl Wanted {
    /// Level and parts; what is named twice must agree.
    pub(crate) fn wanted(&self) -> Result<(Level, BTreeSet<Part>), Failure> {
        let mut parts: BTreeSet<Part> = self.part.iter().copied().collect();
        let mut level = self.level;
        for word in self.profile.iter().flat_map(|named| named.split('/')) {
            if let Ok(named) = word.parse::<Level>() {
                if level.is_some_and(|level| level != named) {
                    return Err(Failure::new(Exit::Usage, format!("two levels: {named} and --level")));
                }
                level = Some(named);
            } else {
                let known =
                    || [Level::ALL.map(Level::name).join(", "), Part::ALL.map(Part::name).join(", ")].join(", ");
                let part = word.parse::<Part>();
                let unknown = |_| {
                    Failure::new(
                        Exit::Usage,
                        format!("`{}` is no level and no part; known: {}", one_line(word), known()),
                    )
                };
                parts.insert(part.map_err(unknown)?);
            }
        }
        Ok((level.unwrap_or(Level::Baseline), parts))
    }
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let (level, parts) = args.wanted.wanted()?;
    let profile = args.selection.profile(level, &parts)?;
    let host = args.selection.host(common)?;
    let effects = if args.selection.canary { canary::effects(&host, &profile) } else { BTreeMap::new() };
    let report = examine_with(&host, &profile, &effects);
    let report = args.waivers.on(common, args.selection.root.as_deref(), report)?;
    let plan = plan(&profile, &report);
    if let Some(path) = &args.sarif {
        write(path, &report.to_sarif(&profile).to_string())?;
    }
    if let Some(path) = &args.junit {
        write(path, &report.to_junit(&profile))?;
    }
    if let Some(path) = &args.html {
        write(path, &report.to_html(&profile, &args.selection.heading()?))?;
    }
    match common.output {
        Output::Json => print(&serde_json::json!({ "report": report, "plan": plan }).to_string()),
        Output::Table => {
            let mut text = table(&profile, &report, &plan, common);
            if !common.quiet {
                let _ = writeln!(
                    text,
                    "profiles: {}; more on a control: hostd explain ID",
                    args.selection.profiles.profiles.display()
                );
            }
            print(text.trim_end());
        }
    }
    let counts = &report.counts;
    let unmet = |least| report.unmet(&profile, least).any(|one| !(args.allow_manual && one.status == Status::Manual));
    Ok(match args.fail_on {
        Some(least) if unmet(least) => Exit::Refused,
        Some(_) => Exit::Good,
        None if counts.fail > 0 => Exit::Refused,
        None if counts.error > 0 || (counts.manual > 0 && !args.allow_manual) => Exit::Partial,
        None => Exit::Good,
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let unwritable = |error| Failure::new(Exit::Usage, format!("{}: {error}", path.display()));
    std::fs::write(path, text).map_err(unwritable)
}

fn table(profile: &Profile, report: &ProfileReport, plan: &Plan, common: &Common) -> String {
    let mut out = String::new();
    for change in &plan.changes {
        one_change(change, &mut out);
    }
    let shown = |status: Status| -> bool {
        match status {
            Status::Fail | Status::Error => true,
            Status::Manual | Status::Waived => !common.quiet,
            Status::Pass | Status::NotApplicable => common.verbose > 0,
        }
    };
    let changing: BTreeSet<&str> = plan.changes.iter().map(|change| change.control.as_str()).collect();
    for outcome in report.outcomes.iter().filter(|one| shown(one.status) && !changing.contains(one.control.as_str())) {
        one_outcome(profile, outcome, &mut out);
        if let Some(told) = report.waiver_of(outcome) {
            let _ = writeln!(out, "{:<14}  {told}", "");
        }
    }
    if common.verbose == 0 && !common.quiet {
        absent(report, &mut out);
    }
    let parts: Vec<&str> = report.parts.iter().map(|part| part.name()).collect();
    let counts = &report.counts;
    let _ = writeln!(
        out,
        "{} ({}): {} pass, {} fail, {} error, {} manual, {} not applicable, {} waived",
        report.level,
        parts.join(", "),
        counts.pass,
        counts.fail,
        counts.error,
        counts.manual,
        counts.not_applicable,
        counts.waived
    );
    if plan.changes.is_empty() {
        let _ = writeln!(out, "nothing to change");
    } else {
        let gated = plan.changes.iter().filter(|change| change.gated).count();
        let steps: Vec<&str> = plan.activate.iter().map(|step| step.name()).collect();
        let needs = if steps.is_empty() { String::new() } else { format!("; then {}", steps.join(", ")) };
        let _ = writeln!(out, "{} to change, {gated} of them only when asked for{needs}", plan.changes.len());
    }
    out
}

/// What keeps several controls from concerning this host, such as an engine that is not installed: each reason once.
fn absent(report: &ProfileReport, out: &mut String) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for one in report.outcomes.iter().filter(|one| one.status == Status::NotApplicable) {
        let count = reasons.entry(&one.reason).or_default();
        *count = count.saturating_add(1);
    }
    let mut shared: Vec<(&str, usize)> = reasons.iter().map(|(why, count)| (*why, *count)).collect();
    shared.retain(|(_, count)| *count > 1);
    shared.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others = reasons.len().saturating_sub(shared.len());
    for (why, count) in shared {
        let _ = writeln!(out, "not-applicable  {count} controls: {why}");
    }
    if others > 0 {
        let _ = writeln!(out, "not-applicable  {others} more, each for a reason of its own: -v");
    }
}

fn one_change(change: &Change, out: &mut String) {
    let _ = writeln!(out, "change  {}  [{}] {}", change.control, change.severity, change.title);
    let _ = writeln!(out, "        {}: {} → {}", change.resource, one_line(&change.from), one_line(&change.to));
    let mut notes: Vec<String> = change.activate.iter().map(|step| step.name().to_owned()).collect();
    match change.blast {
        0 => {}
        1 => notes.push("may break some workloads".to_owned()),
        _ => notes.push("may break many workloads or the host".to_owned()),
    }
    notes.extend(change.one_way.then(|| "cannot be undone".to_owned()));
    notes.extend(change.gated.then(|| "only when asked for".to_owned()));
    notes.extend((!change.refs.is_empty()).then(|| change.refs.join(" ")));
    if !notes.is_empty() {
        let _ = writeln!(out, "        {}", notes.join(" · "));
    }
    if !change.reason.is_empty() {
        let _ = writeln!(out, "        {}", change.reason);
    }
    if let Some(why) = &change.why {
        let _ = writeln!(out, "        {why}");
    }
    out.push('\n');
}

/// One line on the verdict, one on what is wanted where that does not hold, one on why.
pub(super) fn one_outcome(profile: &Profile, outcome: &Outcome, out: &mut String) {
    let control = profile.control(&outcome.control);
    let (severity, title) = control.map_or(("", ""), |control| (control.severity.name(), control.title.as_str()));
    let _ = writeln!(out, "{:<14}  {}  [{severity}] {title}", outcome.status.name(), outcome.control);
    if matches!(outcome.status, Status::Fail | Status::Error) && !outcome.wanted.is_empty() {
        let resource = control.map(|control| control.resource.to_string()).unwrap_or_default();
        let _ = writeln!(out, "{:<14}  wanted {}: {}", "", one_line(&resource), one_line(&outcome.wanted));
    }
    if !outcome.reason.is_empty() {
        let _ = writeln!(out, "{:<14}  {}", "", outcome.reason);
    }
}
