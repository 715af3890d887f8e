//! Two machines with one TPM: a virtual TPM whose state was copied, told by answers that do not follow one another.
//!
//! TPM 2.0 Library Part 1, 36.2–36.4: within one reset a TPM's clock only rises, and with it stays the boot. An answer that fell
//! behind, or that is of another boot of the same reset, is refused by itself ([`crate::counters`], `host-log.boot-changed`) and may be
//! a state that was restored. Once the line that it fell behind **goes on**, two states of one TPM answer in turn: then nothing tells
//! which is the machine, and none is believed until a person has looked. So too where a copy is reset before each of its answers: an
//! answer of an earlier reset goes on although a round was accepted since it was refused first.
//!
//! Not told apart from a copy: a state that was restored and ran on past the old clock without a reset, and a running state of an earlier
//! reset that was put back twice and ran longer, with an accepted round in between. Not seen at all: a copy that never attests, or one that attests only
//! after a reset of its own while the other is silent for good.

use crate::check::violated;
use crate::counters::Counters;
use crate::finding::{Finding, Findings, Severity};
use crate::state::{RoundState, Strayed};

/// The finding. Whoever sees it in a refusal keeps the state that came with it.
pub const CLONE_SUSPECTED: &str = "counters.clone-suspected";

/// Judges an answer that the AK gave, by what is kept of the ones before. None: nothing speaks against it.
///
/// `fell`: the findings that refuse it, for an answer behind the kept one.
pub(crate) fn judge(kept: &RoundState, now: Counters, boot_id: &str, fell: Option<Findings>) -> Option<Turn> {
    let same_reset = now.reset_count == kept.counters().reset_count;
    let kept_boot = kept.boot_id().is_empty() || kept.boot_id() == boot_id;
    let in_turn = kept.strayed().is_some_and(|stray| {
        // A fallen answer is of the kept line only where a boot id says so; then it is the stray one that was ahead.
        let ahead = fell.is_none() || (!kept.boot_id().is_empty() && stray.boot_id != boot_id);
        !stray.passed && same_reset && kept_boot && ahead
    });
    // Of an earlier reset: a state of the kept reset that is put back again falls behind again, and its machine was not running meanwhile.
    let goes_on = kept.strayed().is_some_and(|stray| {
        let after = now.reset_count == stray.counters.reset_count && now.clock > stray.counters.clock;
        fell.is_some() && stray.passed && stray.earlier_reset && stray.boot_id == boot_id && after
    });
    let suspected = kept.clone_suspected() || in_turn || violated("counters.stray-goes-on", goes_on);
    if violated("counters.clone-suspected", suspected) {
        let mut findings = fell.unwrap_or_default();
        findings.push(finding(kept, now, boot_id));
        return Some(Turn { findings, state: (!kept.clone_suspected()).then(|| kept.suspected()) });
    }
    let findings = fell?;
    let earlier_reset = now.reset_count < kept.counters().reset_count;
    let new = kept.strayed().is_none_or(|stray| stray.boot_id != boot_id || (earlier_reset && !stray.earlier_reset));
    let stray = Strayed { earlier_reset, ..Strayed::new(now, boot_id) };
    Some(Turn { findings, state: new.then(|| kept.after_stray(stray)) })
}

/// What a refused answer leaves.
pub(crate) struct Turn {
    pub(crate) findings: Findings,
    /// What is to be kept instead; None where nothing changed.
    pub(crate) state: Option<RoundState>,
}

/// Whether the findings refuse nothing but a counter: everything else of the answer was verified before.
pub(crate) fn fell(findings: &Findings) -> bool {
    let mut errors = findings.as_slice().iter().filter(|one| one.severity == Severity::Error).peekable();
    errors.peek().is_some() && errors.all(|one| one.id.starts_with("counters."))
}

fn finding(kept: &RoundState, now: Counters, boot_id: &str) -> Finding {
    let told = |counters: Counters, boot_id: &str| {
        format!("resetCount {}, clock {} ms, boot {boot_id}", counters.reset_count, counters.clock)
    };
    let before = kept.strayed().map_or_else(String::new, |stray| told(stray.counters, &stray.boot_id));
    Finding::error(
        CLONE_SUSPECTED,
        "two states of this TPM answer in turn: it was copied, and two machines are this host",
    )
    .expected(format!("one line of answers, after {}", told(kept.counters(), kept.boot_id())))
    .found(format!("{before}, then {}", told(now, boot_id)))
    .fix(
        "stop both machines and find out which is the copy (a virtual TPM's state is a file of its hypervisor); then \
             `hostmark host retire` and enrol the real one again with a new TPM state",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ima::ImaPosition;
    use crate::state::{EngineSeen, RuntimeSeen};

    fn counters(reset_count: u32, clock: u64) -> Counters {
        Counters { reset_count, restart_count: 0, clock }
    }

    fn kept(boot_id: &str) -> RoundState {
        let (ima, seen) = (ImaPosition::default(), RuntimeSeen::default());
        RoundState::new("h", "ak", counters(5, 100), boot_id, &ima, "p", seen, EngineSeen::default())
    }

    /// What an answer comes to, and what is kept after it.
    fn answer(state: &RoundState, now: Counters, boot_id: &str) -> (Vec<String>, RoundState) {
        let (_, findings) = crate::counters::compare(&state.counters(), &now);
        let fallen = (!findings.acceptable()).then_some(findings);
        match judge(state, now, boot_id, fallen) {
            None => {
                let (ima, seen) = (ImaPosition::default(), RuntimeSeen::default());
                let next = RoundState::new("h", "ak", now, boot_id, &ima, "p", seen, EngineSeen::default());
                (Vec::new(), next.following(Some(state)))
            }
            Some(turn) => {
                let ids = turn.findings.into_vec().into_iter().map(|one| one.id).collect();
                (ids, turn.state.unwrap_or_else(|| state.clone()))
            }
        }
    }

    #[test]
    fn a24_answers_in_turn_are_two_machines_and_a_restored_one_is_not() {
        const FELL: &str = "counters.clock-fell";
        const RESET_FELL: &str = "counters.reset-fell";
        type Step = (u32, u64, &'static str, &'static [&'static str]);
        let rows: [(&str, &[Step]); 11] = [
            ("honest twin", &[(5, 110, "x", &[]), (5, 120, "x", &[]), (6, 5, "y", &[])]),
            ("restored, and it stays behind", &[(5, 50, "x", &[FELL]), (5, 60, "x", &[FELL]), (5, 70, "x", &[FELL])]),
            ("restored, and booted again", &[(5, 50, "x", &[FELL]), (6, 5, "y", &[])]),
            (
                "a copy of the running machine",
                &[(5, 50, "x", &[FELL]), (5, 101, "x", &[CLONE_SUSPECTED]), (5, 51, "x", &[FELL, CLONE_SUSPECTED])],
            ),
            (
                "a copy that was booted before",
                &[(4, 50, "w", &["counters.reset-fell"]), (5, 101, "x", &[CLONE_SUSPECTED])],
            ),
            (
                "no boot brings the belief back",
                &[(5, 50, "x", &[FELL]), (5, 101, "x", &[CLONE_SUSPECTED]), (9, 1, "z", &[CLONE_SUSPECTED])],
            ),
            ("another boot of one reset is another check's", &[(5, 110, "y", &[])]),
            (
                "a copy that is reset before each of its answers",
                &[
                    (6, 5, "y", &[]),
                    (5, 101, "x", &[RESET_FELL]),
                    (5, 110, "x", &[RESET_FELL]),
                    (7, 5, "z", &[]),
                    (5, 130, "x", &[RESET_FELL, CLONE_SUSPECTED]),
                    (8, 5, "v", &[CLONE_SUSPECTED]),
                ],
            ),
            (
                "the same, begun within one reset",
                &[
                    (5, 50, "x", &[FELL]),
                    (6, 5, "y", &[]),
                    (5, 110, "x", &[RESET_FELL]),
                    (7, 5, "z", &[]),
                    (5, 130, "x", &[RESET_FELL, CLONE_SUSPECTED]),
                ],
            ),
            (
                "honest twin: an earlier boot put back, then booted until it is ahead",
                &[
                    (6, 5, "y", &[]),
                    (5, 101, "x", &[RESET_FELL]),
                    (5, 120, "x", &[RESET_FELL]),
                    (6, 4, "w", &[FELL]),
                    (7, 5, "z", &[]),
                    (7, 15, "z", &[]),
                    (8, 5, "v", &[]),
                ],
            ),
            (
                "honest twin: the same running state put back twice",
                &[
                    (5, 50, "x", &[FELL]),
                    (6, 5, "y", &[]),
                    (6, 15, "y", &[]),
                    (5, 70, "x", &[RESET_FELL]),
                    (7, 5, "z", &[]),
                ],
            ),
        ];
        for (what, steps) in rows {
            let mut state = kept("x");
            for (reset, clock, boot, expect) in steps {
                let (ids, next) = answer(&state, counters(*reset, *clock), boot);
                assert_eq!(ids, *expect, "{what}: {reset} {clock} {boot}");
                state = next;
            }
        }
        // Without a host log the clock alone tells.
        let (_, state) = answer(&kept(""), counters(5, 50), "");
        assert_eq!(answer(&state, counters(5, 101), "").0, [CLONE_SUSPECTED]);
        // The stray one was ahead: it is the kept boot that goes on.
        let ahead = Strayed::new(counters(5, 130), "y");
        let state = kept("x").after_stray(ahead);
        assert_eq!(answer(&state, counters(5, 90), "x").0, [FELL, CLONE_SUSPECTED]);
        assert_eq!(answer(&state, counters(5, 140), "y").0, Vec::<String>::new());
    }
}
