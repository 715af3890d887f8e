//! What of a plan is done: what happens by itself, what was consented to, and what of a lower level stands in for what was not.
//!
//! Establishes that nothing gated or one-way happens without being named, and that a host never gets less by asking for more: where nobody
//! consents to a stricter control, the automatic one of the level below is applied.

use std::collections::BTreeSet;

use hostmark_attest::profile::{Control, Fix, Outcome, Profile, Status, judge};

use crate::profile::{Host, observe};

/// What somebody agreed to.
#[derive(Debug, Clone, Default)]
pub struct Consent {
    /// Gated controls, by id.
    pub allow: BTreeSet<String>,
    /// Every gated control of the profile.
    pub gated: bool,
    /// Controls that cannot be undone, by id.
    pub one_way: BTreeSet<String>,
    /// Running containers may be stopped.
    pub interruption: bool,
}

impl Consent {
    /// An id that the profile does not have.
    pub(super) fn unknown<'a>(&'a self, profile: &Profile) -> Option<&'a String> {
        self.allow.iter().chain(&self.one_way).find(|id| profile.control(id).is_none())
    }

    /// Why a control is not changed; None: it may be.
    fn refuses(&self, control: &Control) -> Option<String> {
        let named = self.one_way.contains(&control.id);
        if !control.reversible && !named {
            return Some(format!("it cannot be undone: --allow-one-way {}", control.id));
        }
        let agreed = named || self.gated || self.allow.contains(&control.id);
        (control.fix == Fix::Gated && !agreed).then(|| format!("only when asked for: --allow {}", control.id))
    }
}

/// A control that failed, and what is done about it.
#[derive(Debug)]
pub(super) enum Choice {
    /// It is changed, or what stands in for it.
    Change(Box<Control>, Box<Outcome>),
    /// It is left as it is, for this reason.
    Left(String),
}

/// What is done about a control that failed; None: nothing ever, it is only shown.
pub(super) fn choose(profile: &Profile, host: &Host, outcome: &Outcome, consent: &Consent) -> Option<Choice> {
    let control = profile.control(&outcome.control).filter(|control| control.fix.changes())?;
    let Some(refused) = consent.refuses(control) else {
        return Some(Choice::Change(Box::new(control.clone()), Box::new(outcome.clone())));
    };
    let Some(lower) = profile.below(&control.id).find(|lower| lower.fix.changes() && consent.refuses(lower).is_none())
    else {
        return Some(Choice::Left(refused));
    };
    let outcome = judge(lower, observe(host, lower), None);
    if outcome.status == Status::Fail {
        return Some(Choice::Change(Box::new(lower.clone()), Box::new(outcome)));
    }
    Some(Choice::Left(refused))
}
