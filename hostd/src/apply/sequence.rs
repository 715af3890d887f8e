//! The sequence of one apply: observe, plan, preflight, snapshot, write, activate, observe again, wait to be confirmed.
//!
//! Establishes the order, and that whatever fails after the first write undoes all of it before the call returns.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::time::{Duration, Instant};

use hostmark_attest::digest::sha256;
use hostmark_attest::profile::{Activate, Control, Effect, Outcome, Part, Profile, Prove, Status, judge};
use serde::Serialize;

use super::activate::{Activation, Activator, Outcome as Activated, interrupted};
use super::changes::{Drafts, docker_file};
use super::consent::{Choice, choose};
use super::journal::{Begun, Changed, Held, Journal, Step};
use super::snapshot::{Item, Place};
use super::{Applier, ApplyError, Consent, Moment, Receipt, at, dead_man, preflight};
use crate::profile::root::Root;
use crate::profile::{Host, examine, observe, plan};

/// Longest until a daemon that was told shows what it made of it.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What would be done.
#[derive(Debug, Clone, Serialize)]
pub struct Intended {
    /// Controls that are changed.
    pub controls: Vec<Changed>,
    /// Files and settings that are written.
    pub items: Vec<Item>,
    /// What makes it hold; what is left to somebody says so.
    pub activation: Vec<Activation>,
    /// Running containers that a restart would stop.
    pub interrupts: BTreeSet<String>,
    /// Controls that failed and are left as they are.
    pub left: Vec<LeftOut>,
}

/// A control that is left as it is.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOut {
    /// Its id.
    pub control: String,
    /// Why, and how to have it changed.
    pub reason: String,
}

/// What came of an apply.
#[derive(Debug, Clone)]
pub enum Applied {
    /// There was nothing to write.
    Unchanged(Box<Intended>),
    /// It is done and waits to be confirmed.
    Pending(Box<Receipt>, Box<Intended>),
    /// It failed, and everything is as before.
    RolledBack(Box<Receipt>),
}

/// A plan with the bytes of it.
struct Prepared {
    host: Host,
    chosen: Vec<(Control, Changed)>,
    drafts: Drafts,
    left: Vec<LeftOut>,
    steps: BTreeMap<Part, BTreeSet<Activate>>,
}

impl Applier<'_> {
    /// What an apply would do; changes nothing.
    ///
    /// # Errors
    /// [`ApplyError::UnknownControl`].
    pub fn intend(&self, profile: &Profile, consent: &Consent) -> Result<Intended, ApplyError> {
        let prepared = self.prepare(profile, consent)?;
        Ok(self.intended(&prepared))
    }

    /// Applies a profile. When it returns [`Applied::Pending`], [`Applier::confirm`] is awaited for `within`.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing has changed then, but for [`ApplyError::Io`], after which the next call or the dead-man's process undoes the rest.
    pub fn apply(&self, profile: &Profile, consent: &Consent, within: Duration) -> Result<Applied, ApplyError> {
        let _held = self.lock()?;
        self.recover_held()?;
        if let Some(receipt) = self.waiting()? {
            return Err(ApplyError::Waiting { receipt: receipt.receipt });
        }
        self.say(&Moment::Stage("observe"));
        let prepared = self.prepare(profile, consent)?;
        let intended = self.intended(&prepared);
        if prepared.drafts.is_empty() {
            return Ok(Applied::Unchanged(Box::new(intended)));
        }
        self.say(&Moment::Stage("preflight"));
        let problems = preflight::problems(&prepared.host, &prepared.drafts, self.config);
        if !problems.is_empty() {
            return Err(ApplyError::Preflight(problems));
        }
        if !intended.interrupts.is_empty() && !consent.interruption {
            return Err(ApplyError::Interruption { part: Part::Docker.to_string(), containers: intended.interrupts });
        }
        let mut journal = self.begin(profile, &prepared, within)?;
        let root = Root::new(&self.config.engines.root);
        let done = self.carry_out(&mut journal, &prepared, &root, consent, within);
        let failed = match done {
            Ok(None) => {
                let receipt = self.told(&journal)?;
                return Ok(Applied::Pending(Box::new(receipt), Box::new(intended)));
            }
            Ok(Some(why)) => why,
            Err(error) => error.to_string(),
        };
        self.undo(&mut journal, &failed, false)?;
        Ok(Applied::RolledBack(Box::new(self.told(&journal)?)))
    }

    fn told(&self, journal: &Journal) -> Result<Receipt, ApplyError> {
        let told = || ApplyError::io(journal.directory().display().to_string());
        let steps = Journal::read(journal.directory()).map_err(told())?;
        Receipt::of(&steps).ok_or_else(|| told()(std::io::ErrorKind::InvalidData.into()))
    }

    fn prepare(&self, profile: &Profile, consent: &Consent) -> Result<Prepared, ApplyError> {
        if let Some(id) = consent.unknown(profile) {
            return Err(ApplyError::UnknownControl(id.clone()));
        }
        let host = self.host();
        let report = examine(&host, profile);
        let plan = plan(profile, &report);
        let (mut drafts, mut chosen, mut left) = (Drafts::default(), Vec::new(), Vec::new());
        let mut steps: BTreeMap<Part, BTreeSet<Activate>> = BTreeMap::new();
        for outcome in report.outcomes.iter().filter(|outcome| outcome.status == Status::Fail) {
            let (control, outcome) = match choose(profile, &host, outcome, consent) {
                None => continue,
                Some(Choice::Left(reason)) => {
                    left.push(LeftOut { control: outcome.control.clone(), reason });
                    continue;
                }
                Some(Choice::Change(control, outcome)) => (control, outcome),
            };
            if let Err(reason) = drafts.add(&host, &control, &outcome) {
                left.push(LeftOut { control: control.id.clone(), reason: format!("by hand: {reason}") });
                continue;
            }
            let planned = plan.changes.iter().find(|change| change.control == control.id);
            let changed = Changed {
                control: control.id.clone(),
                resource: control.resource.to_string(),
                from: planned.map(|change| change.from.clone()).unwrap_or_default(),
                to: control.value_to_write().map_or_else(|| control.want.to_string(), |value| value.to_string()),
                held: Held::Planned,
                reason: String::new(),
            };
            if let Some(part) = part_of(&control) {
                steps.entry(part).or_default().extend(&control.activate);
            }
            chosen.push((*control, changed));
        }
        Ok(Prepared { host, chosen, drafts, left, steps })
    }

    fn intended(&self, prepared: &Prepared) -> Intended {
        let activator = self.activator(&self.config.state_dir);
        let mut activation = Vec::new();
        let mut interrupts = BTreeSet::new();
        for (part, steps) in &prepared.steps {
            for step in steps {
                let outcome = match step {
                    Activate::EngineRestart => {
                        activator.restarts(*part).map_or_else(Activated::Left, |()| Activated::Planned)
                    }
                    Activate::Sighup | Activate::LoadRules => Activated::Planned,
                    Activate::RecreateContainers | Activate::Reboot => activator.activate(*part, *step),
                };
                if *step == Activate::EngineRestart && outcome == Activated::Planned && !prepared.restores_live() {
                    // What cannot be told counts as one container that stops.
                    interrupts.extend(interrupted(&prepared.host, *part).unwrap_or_else(|why| BTreeSet::from([why])));
                }
                activation.push(Activation { part: *part, step: *step, outcome });
            }
        }
        let controls = prepared.chosen.iter().map(|(_, changed)| changed.clone()).collect();
        Intended { controls, items: prepared.drafts.items(), activation, interrupts, left: prepared.left.clone() }
    }

    pub(super) fn activator<'b>(&'b self, directory: &'b std::path::Path) -> Activator<'b> {
        Activator { engines: &self.config.engines, apply: &self.config.apply, directory }
    }

    /// The journal's first step, and the process that undoes everything if this one dies.
    fn begin(&self, profile: &Profile, prepared: &Prepared, within: Duration) -> Result<Journal, ApplyError> {
        let told = || ApplyError::io(self.home().display().to_string());
        let boot_id = self.config.source.boot_id().map_err(told())?;
        let now = time::OffsetDateTime::now_utc();
        let unique = sha256(&[&now.unix_timestamp_nanos().to_le_bytes(), &std::process::id().to_le_bytes()]);
        let time: String = at().chars().filter(char::is_ascii_alphanumeric).collect();
        let receipt = format!("{time}-{}", hex::encode(unique.get(..3).unwrap_or_default()));
        let mut journal = Journal::create(&self.home().join(&receipt)).map_err(told())?;
        let begun = Begun {
            receipt: receipt.clone(),
            at: at(),
            boot_id,
            root: self.config.engines.root.clone(),
            kernel: self.kernel.clone(),
            level: profile.level(),
            parts: profile.parts().iter().copied().collect(),
            digest: profile.digest(),
            confirm_within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            controls: prepared.chosen.iter().map(|(_, changed)| changed.clone()).collect(),
        };
        self.step(&mut journal, &Step::Begun(begun))?;
        if !self.guard.is_empty() {
            let pid = dead_man::start(&self.guard, &receipt).map_err(ApplyError::io("the dead-man's process"))?;
            self.step(&mut journal, &Step::Guarded { pid })?;
        }
        Ok(journal)
    }

    /// Everything from the snapshot to the wait. None: it waits; else why it has to be undone.
    fn carry_out(
        &self,
        journal: &mut Journal,
        prepared: &Prepared,
        root: &Root,
        consent: &Consent,
        within: Duration,
    ) -> Result<Option<String>, ApplyError> {
        self.say(&Moment::Stage("write"));
        if let Some(why) = self.write(journal, prepared, root)? {
            return Ok(Some(why));
        }
        self.say(&Moment::Stage("activate"));
        let activated = match self.activate(journal, prepared, consent)? {
            Ok(activated) => activated,
            Err(why) => return Ok(Some(why)),
        };
        self.say(&Moment::Stage("observe again"));
        let controls = self.look(prepared, &activated);
        let lost: Vec<String> = controls
            .iter()
            .filter(|one| one.held == Held::NotHeld)
            .map(|one| format!("{} does not hold: {}", one.control, one.reason))
            .collect();
        self.step(journal, &Step::Observed { controls })?;
        if !lost.is_empty() {
            return Ok(Some(lost.join("; ")));
        }
        let told = || ApplyError::io("the clock");
        let deadline_ms =
            dead_man::now_ms().map_err(told())?.saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        let boot_id = self.config.source.boot_id().map_err(told())?;
        self.step(journal, &Step::Pending { deadline_ms, boot_id })?;
        Ok(None)
    }

    /// Snapshot, then each item.
    fn write(&self, journal: &mut Journal, prepared: &Prepared, root: &Root) -> Result<Option<String>, ApplyError> {
        let directory = journal.directory().to_owned();
        let receipt = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kernel = self.kernel_root();
        let place =
            Place { root, kernel: kernel.as_ref(), directory: &directory, receipt: &receipt, bridges: Vec::new() };
        let items = prepared.drafts.items();
        let content = |item: &Item| match item {
            Item::File { path, .. } => prepared.drafts.files.get(path),
            _ => None,
        };
        let kept = || ApplyError::io("the snapshot");
        for (number, item) in items.iter().enumerate() {
            if let Some(draft) = content(item) {
                let before = draft.before.as_ref().map(|(bytes, _)| bytes.as_slice());
                place.keep(number, before, &draft.after).map_err(kept())?;
            }
        }
        let directories = prepared.drafts.directories.clone();
        self.step(journal, &Step::Snapshot { items: items.clone(), directories: directories.clone() })?;
        for one in &directories {
            let made = std::fs::DirBuilder::new().mode(0o755).create(root.real(one));
            if let Err(error) = made.and_then(|()| super::snapshot::sync_parent(&root.real(one))) {
                return Ok(Some(format!("{one}: {error}")));
            }
        }
        for (number, item) in items.iter().enumerate() {
            self.step(journal, &Step::Writing { item: number })?;
            let after = content(item).map(|draft| draft.after.as_slice()).unwrap_or_default();
            if let Err(error) = place.write(number, item, after, &mut |moment| self.say(moment)) {
                return Ok(Some(error.to_string()));
            }
            self.step(journal, &Step::Written { item: number })?;
        }
        Ok(None)
    }

    pub(super) fn kernel_root(&self) -> Option<Root> {
        let own = self.config.engines.root_is_default().then(|| Root::new("/"));
        self.kernel.as_ref().map(Root::new).or(own)
    }

    /// Tells daemons, mildest first. Err: why it has to be undone.
    fn activate(
        &self,
        journal: &mut Journal,
        prepared: &Prepared,
        consent: &Consent,
    ) -> Result<Result<Vec<Activation>, String>, ApplyError> {
        let directory = journal.directory().to_owned();
        let activator = self.activator(&directory);
        let mut done = Vec::new();
        for (part, steps) in &prepared.steps {
            let mut steps = steps.clone();
            if steps.contains(&Activate::EngineRestart) && *part == Part::Docker && prepared.restores_live() {
                // live-restore is taken at once: then containers outlast the restart.
                steps.insert(Activate::Sighup);
            }
            for step in steps {
                if step == Activate::EngineRestart
                    && activator.restarts(*part).is_ok()
                    && !consent.interruption
                    && let Some(why) = self.would_interrupt(*part)
                {
                    return Ok(Err(why));
                }
                let mut what = Activation { part: *part, step, outcome: Activated::Planned };
                self.step(journal, &Step::Activating { what: what.clone() })?;
                what.outcome = activator.activate(*part, step);
                self.step(journal, &Step::Activated { what: what.clone() })?;
                if let Activated::Failed(why) = &what.outcome {
                    return Ok(Err(why.clone()));
                }
                done.push(what);
            }
        }
        Ok(Ok(done))
    }

    /// Containers that a restart would stop now, after what was loaded; a daemon may take a moment for that.
    fn would_interrupt(&self, part: Part) -> Option<String> {
        let end = Instant::now().checked_add(HOLD_MAX);
        loop {
            let stopped = match interrupted(&self.host(), part) {
                Ok(containers) if containers.is_empty() => return None,
                Ok(containers) => containers.into_iter().collect::<Vec<_>>().join(", "),
                Err(why) => why,
            };
            if end.is_none_or(|end| Instant::now() > end) {
                return Some(format!("a restart of {part} would stop running containers: {stopped}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What holds of each change. Daemons that were told are given a moment.
    fn look(&self, prepared: &Prepared, activated: &[Activation]) -> Vec<Changed> {
        let end = Instant::now().checked_add(HOLD_MAX);
        let told = activated.iter().any(|one| one.outcome == Activated::Done);
        loop {
            let host = self.host();
            let controls: Vec<Changed> = prepared.chosen.iter().map(|one| held(&host, one, activated)).collect();
            let lost = controls.iter().any(|one| one.held == Held::NotHeld);
            if !lost || !told || end.is_none_or(|end| Instant::now() > end) {
                return controls;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Prepared {
    /// The new configuration of Docker keeps containers while the daemon restarts.
    fn restores_live(&self) -> bool {
        let file = docker_file(&self.host).ok().and_then(|path| self.host.root.leads_to(&path).or(Some(path)));
        let draft = file.and_then(|path| self.drafts.files.get(&path));
        let value = draft.and_then(|draft| serde_json::from_slice::<serde_json::Value>(&draft.after).ok());
        value.is_some_and(|value| value.get("live-restore") == Some(&serde_json::Value::Bool(true)))
    }
}

/// The part that a control belongs to: the first word of its id.
fn part_of(control: &Control) -> Option<Part> {
    control.id.split('.').next()?.parse().ok()
}

/// What a canary shows of a control after activation: none is started from here yet.
fn effect(_host: &Host, _control: &Control) -> Option<Effect> {
    None
}

/// What became of one change.
fn held(host: &Host, (control, planned): &(Control, Changed), activated: &[Activation]) -> Changed {
    let effect = effect(host, control);
    let outcome = judge(control, observe(host, control), effect.as_ref());
    let left = activated.iter().find_map(|one| {
        let concerns = part_of(control) == Some(one.part)
            && control.activate.contains(&one.step)
            && one.step != Activate::RecreateContainers;
        match &one.outcome {
            Activated::Left(why) if concerns => Some(why.clone()),
            _ => None,
        }
    });
    let (held, reason) = verdict(host, control, &outcome, left);
    Changed { held, reason, ..planned.clone() }
}

fn verdict(host: &Host, control: &Control, outcome: &Outcome, left: Option<String>) -> (Held, String) {
    match outcome.status {
        Status::Pass => (Held::Held, String::new()),
        Status::NotApplicable => (Held::Held, outcome.reason.clone()),
        _ if left.is_some() => (Held::Awaiting, left.unwrap_or_default()),
        // Loaded and as wanted, as far as can be seen without starting a container.
        Status::Manual if outcome.effective.is_some() && matches!(control.prove, Prove::Canary(_)) => {
            (Held::EffectUnseen, outcome.reason.clone())
        }
        _ if !host.is_live() && outcome.status == Status::Manual => (Held::Awaiting, outcome.reason.clone()),
        _ => (Held::NotHeld, outcome.reason.clone()),
    }
}
