//! What would change: the difference between what a profile wants and what holds, and what each change needs and may break.
//!
//! Establishes which failed controls can be changed, what for, where, and what must restart. It changes nothing itself.

use std::collections::BTreeSet;

use hostmark_attest::finding::one_line;
use hostmark_attest::profile::{
    Activate, Control, Fix, Observed, Outcome, Predicate, Profile, ProfileReport, Resource, Severity, Stated, Status,
};
use serde::Serialize;

/// What would change.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Changes, those that break nothing first.
    pub changes: Vec<Change>,
    /// Everything that must happen for them to take effect, in this order.
    pub activate: BTreeSet<Activate>,
    /// Controls that failed and that nothing here changes: they are shown, or have to be prevented.
    pub shown: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// The control that wants it.
    pub control: String,
    /// Its title.
    pub title: String,
    /// Its weight.
    pub severity: Severity,
    /// Where others ask for the same.
    pub refs: Vec<String>,
    /// What changes.
    pub resource: String,
    /// What holds now, and who says so.
    pub from: String,
    /// What would hold.
    pub to: String,
    /// Why it is not as wanted, where `from` does not say it all: another source says otherwise, or nobody could be asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What must happen for it to take effect.
    pub activate: BTreeSet<Activate>,
    /// What it may break: 0 nothing known, 1 some workloads, 2 many of them or the host.
    pub blast: u8,
    /// It cannot be undone on the running host, or moves data.
    pub one_way: bool,
    /// It happens only when somebody names it or consents to it.
    pub gated: bool,
    /// Why it matters, and what it may break, in the profile's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What would change for a report on a profile.
#[must_use]
pub fn plan(profile: &Profile, report: &ProfileReport) -> Plan {
    let mut plan = Plan { changes: Vec::new(), activate: BTreeSet::new(), shown: Vec::new() };
    for outcome in report.outcomes.iter().filter(|outcome| outcome.status == Status::Fail) {
        let Some(control) = profile.control(&outcome.control) else { continue };
        if control.fix.changes() {
            plan.activate.extend(&control.activate);
            plan.changes.push(change(control, outcome));
        } else {
            plan.shown.push(control.id.clone());
        }
    }
    plan.changes.sort_by(|one, other| (one.blast, &one.control).cmp(&(other.blast, &other.control)));
    plan
}

fn change(control: &Control, outcome: &Outcome) -> Change {
    let from = match (&outcome.effective, outcome.others.first()) {
        (Some(stated), _) | (None, Some(stated)) => {
            format!("{} ({})", control.offending(&stated.value), stated.source)
        }
        (None, None) => Observed::Absent.to_string(),
    };
    // A rule's own words are its resource already.
    let from = match &control.resource {
        Resource::Audit(rule) => from.strip_prefix(&format!("{rule}: ")).map_or(from.clone(), str::to_owned),
        _ => from,
    };
    // Nobody could be asked, and a file alone says it: that is `from`.
    let alone = outcome.others.first().filter(|_| outcome.effective.is_none());
    let reason = alone.and_then(|stated| outcome.reason.strip_prefix(&format!("{}; ", one_line(&stated.to_string()))));
    let reason = reason.unwrap_or(&outcome.reason).to_owned();
    let said = |stated: &Stated| one_line(&format!("{} says {}", stated.source, control.offending(&stated.value)));
    let said = outcome.effective.as_ref().is_some_and(|stated| said(stated) == outcome.reason);
    Change {
        control: control.id.clone(),
        title: control.title.clone(),
        severity: control.severity,
        refs: control.refs.clone(),
        resource: control.resource.to_string(),
        from,
        to: target(control),
        reason: if said { String::new() } else { reason },
        activate: control.activate.clone(),
        blast: control.blast,
        one_way: !control.reversible,
        gated: control.fix == Fix::Gated,
        why: control.why.clone(),
    }
}

/// What would hold, in words.
fn target(control: &Control) -> String {
    match (control.value_to_write(), &control.want.is, &control.resource) {
        (Some(value), ..) => value.to_string(),
        (None, Predicate::Absent | Predicate::Empty, Resource::Module { .. }) => "blocked".to_owned(),
        (None, Predicate::Absent | Predicate::Empty, _) => "removed".to_owned(),
        (None, ..) => control.want.to_string(),
    }
}
