//! The TPM's counters between two rounds of one AK.
//!
//! TPM 2.0 Library Part 1, 36.2–36.4 (Clock, resetCount, restartCount). Within one reset the clock only rises, and resets are
//! only counted up until the TPM is cleared, which also ends the AK. So a fallen counter is another TPM's, an older state's or
//! a copy's answer. A risen counter proves no honesty: root may set the clock forward.

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings};
use crate::tpm::attest::ClockInfo;

/// The counters of a genuine quote. They are not a proof by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// TPM resets since the TPM was cleared.
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Milliseconds for which the TPM has been powered.
    pub clock: u64,
}

impl From<ClockInfo> for Counters {
    fn from(info: ClockInfo) -> Self {
        Self { reset_count: info.reset_count, restart_count: info.restart_count, clock: info.clock }
    }
}

/// How this round follows the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Continuity {
    /// The same boot: logs may continue where they ended.
    SameBoot,
    /// The same boot after a sleep: logs continue, and a finding says so.
    Resumed,
    /// Another boot: every log starts at offset 0.
    Rebooted,
}

impl Continuity {
    /// Whether logs must be whole, from offset 0.
    #[must_use]
    pub const fn demands_whole_logs(self) -> bool {
        matches!(self, Self::Rebooted)
    }
}

/// Compares the counters of two quotes of one AK. The findings refuse a counter that fell; then the continuity means nothing,
/// and is given as [`Continuity::Rebooted`], which trusts the least.
#[must_use]
pub fn compare(previous: &Counters, now: &Counters) -> (Continuity, Findings) {
    let mut findings = Findings::new();
    let reset_ok = findings.check("counters.reset-fell", now.reset_count < previous.reset_count, || {
        Finding::error("", "the TPM shows fewer resets than before: a copied, restored or other TPM answers")
            .expected(format!("resetCount {} or more", previous.reset_count))
            .found(format!("resetCount {}", now.reset_count))
            .fix("find out why; if the TPM was replaced or cleared, enrol the host again")
    });
    if !reset_ok || now.reset_count != previous.reset_count {
        return (Continuity::Rebooted, findings);
    }
    let clock_ok = findings.check("counters.clock-fell", now.clock < previous.clock, || {
        Finding::error("", "the TPM's clock fell within one boot: a copied, restored or other TPM answers")
            .expected(format!("clock {} ms or more at resetCount {}", previous.clock, now.reset_count))
            .found(format!("clock {} ms", now.clock))
            .fix("find out why; if the TPM was replaced or cleared, enrol the host again")
    });
    let restart_ok = findings.check("counters.restart-fell", now.restart_count < previous.restart_count, || {
        Finding::error("", "the TPM shows fewer restarts than before within one boot")
            .expected(format!("restartCount {} or more at resetCount {}", previous.restart_count, now.reset_count))
            .found(format!("restartCount {}", now.restart_count))
            .fix("find out why; if the TPM was replaced or cleared, enrol the host again")
    });
    if !clock_ok || !restart_ok {
        return (Continuity::Rebooted, findings);
    }
    let awake = findings.check("counters.resumed", now.restart_count > previous.restart_count, || {
        Finding::info("", "the host slept and resumed since the last round; its PCRs and logs went on")
            .expected(format!("restartCount {}", previous.restart_count))
            .found(format!("restartCount {}", now.restart_count))
    });
    (if awake { Continuity::SameBoot } else { Continuity::Resumed }, findings)
}
