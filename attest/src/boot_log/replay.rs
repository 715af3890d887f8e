//! Replay of a boot log into PCR values: PFP 1.06 sections 3.3 (PCR usage) and 10.4.5.3 (StartupLocality), TPM 2.0 Library
//! Part 1, 17.5 and 34 (initial values, H-CRTM).
//!
//! Establishes which PCR values the log explains. Says nothing about what the events mean, nor whether the quoted values are
//! genuine.

use super::{BootLog, PCR_COUNT};
use crate::digest::{Digest, HashAlg, PcrBanks, PcrValues};
use crate::finding::{Finding, Findings};

/// EV_EFI_ACTION strings that some firmware extends into PCR 5 without logging them.
const EXIT_BOOT_SERVICES: [&str; 2] = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];

/// Deviations of the firmware that the caller's policy tolerates; see [`crate::policy::quirks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootQuirks {
    /// `exit-boot-services-unlogged`.
    pub exit_boot_services: bool,
    /// `startup-locality-missing`.
    pub startup_locality: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deviation {
    ExitBootServices,
    StartupLocality,
}

impl BootQuirks {
    const fn tolerate(self, deviation: Deviation) -> bool {
        match deviation {
            Deviation::ExitBootServices => self.exit_boot_services,
            Deviation::StartupLocality => self.startup_locality,
        }
    }
}

/// Locality whose hash sequence is an H-CRTM.
const HCRTM_LOCALITY: u8 = 4;

/// What a PCR holds before its first event.
fn initial(bank: HashAlg, index: u32, locality: u8) -> Digest {
    let mut bytes = [0u8; 64];
    match (index, bytes.get_mut(..bank.size())) {
        (17..=22, _) => return Digest::ones(bank),
        (0, Some([.., last])) => *last = locality,
        _ => {}
    }
    bytes.get(..bank.size()).and_then(|value| Digest::new(bank, value)).unwrap_or_else(|| Digest::zero(bank))
}

/// What a PCR with events began with. A dynamic launch resets PCR 17–22 to zero before it extends them (TPM 2.0 Library Part 1,
/// 34.4), which no software can do; without a launch they keep their reset value, and nothing can be logged there.
fn first(bank: HashAlg, index: u8, locality: u8) -> Digest {
    if matches!(index, 17..=22) { Digest::zero(bank) } else { initial(bank, u32::from(index), locality) }
}

impl BootLog {
    /// The locality that PCR 0 starts with: an H-CRTM sequence comes before TPM2_Startup and decides.
    fn locality(&self) -> u8 {
        if self.hcrtm { HCRTM_LOCALITY } else { self.startup_locality.unwrap_or(0) }
    }

    /// The values of every PCR that has events, for every bank that can be computed.
    #[must_use]
    pub fn replay(&self) -> PcrBanks {
        self.banks().filter(|bank| bank.computable()).map(|bank| (bank, self.replay_bank(bank))).collect()
    }

    /// The values of one bank: a PCR without events is absent, never zero.
    #[must_use]
    pub fn replay_bank(&self, bank: HashAlg) -> PcrValues {
        self.replay_from(bank, self.locality())
    }

    /// As [`BootLog::replay_bank`], with PCR 0 started by this locality.
    pub(crate) fn replay_from(&self, bank: HashAlg, locality: u8) -> PcrValues {
        let mut values = [None::<Digest>; PCR_COUNT as usize];
        for event in self.events() {
            let (Some(index), Some(digest)) = (event.extends(), event.digest(bank)) else { continue };
            if let Some(value) = values.get_mut(usize::from(index)) {
                let before = value.unwrap_or_else(|| first(bank, index, locality));
                *value = before.extend(&digest);
            }
        }
        (0u8..).zip(values).filter_map(|(index, value)| Some((index, value?))).collect()
    }

    /// Compares the replay with quoted values. Every index must be explained: a PCR without events must hold its reset value, a
    /// PCR with events exactly their replay, and an index that was not quoted is a mismatch.
    #[must_use]
    pub fn compare(&self, bank: HashAlg, quoted: &PcrValues, indices: impl IntoIterator<Item = u8>) -> Findings {
        self.explain_quoted(bank, quoted, indices, BootQuirks::default()).1
    }

    /// The replay of the quoted bank; none, and a finding, where the log does not carry it.
    pub(crate) fn replay_for(&self, bank: HashAlg, findings: &mut Findings) -> Option<PcrValues> {
        let carried = bank.computable() && self.banks().any(|known| known == bank);
        findings.check("boot.bank-missing", !carried, || {
            Finding::error("", "the boot log does not carry the quoted bank, so it explains none of its values")
                .expected(bank)
                .found(self.banks().map(HashAlg::name).collect::<Vec<_>>().join(", "))
                .fix("enable this bank in the firmware and reboot")
        });
        carried.then(|| self.replay_bank(bank))
    }

    /// Whether the log explains one quoted value.
    pub(super) fn compare_one(
        &self,
        bank: HashAlg,
        replayed: Option<&PcrValues>,
        quoted: &PcrValues,
        index: u8,
        quirks: BootQuirks,
        findings: &mut Findings,
    ) -> bool {
        let Some(replayed) = replayed else { return false };
        let found = quoted.get(&index);
        let logged = replayed.get(&index).copied();
        let expected = logged.unwrap_or_else(|| initial(bank, u32::from(index), 0));
        let differs = found != Some(&expected);
        let known = found.filter(|_| differs).and_then(|found| self.explain(bank, index, found));
        let tolerated = known.as_ref().is_some_and(|(deviation, _)| quirks.tolerate(*deviation));
        let passed = findings.check("boot.replay", differs && !tolerated, || {
            let what =
                if logged.is_some() { "the boot log does not replay to" } else { "the boot log has no event for" };
            Finding::error("", format!("{what} PCR {index} of the {bank} bank"))
                .expected(expected)
                .found(found.map_or_else(|| "not quoted".to_owned(), Digest::to_string))
                .fix("reboot the host; if it persists, the log is not this boot's or its firmware leaves events out")
        });
        findings.append(known.map(|(_, finding)| vec![finding].into()).unwrap_or_default());
        passed
    }

    /// A known reason for a mismatch. It explains it to a person; only a quirk that the policy names excuses it.
    fn explain(&self, bank: HashAlg, index: u8, found: &Digest) -> Option<(Deviation, Finding)> {
        if index == 0 && self.startup_locality.is_none() && !self.hcrtm {
            let is = |locality: &u8| self.replay_from(bank, *locality).get(&0) == Some(found);
            let locality = [3, HCRTM_LOCALITY].into_iter().find(is)?;
            let finding = Finding::info(
                "boot.startup-locality-missing",
                "PCR 0 replays with a startup locality that the log does not tell (quirk startup-locality-missing)",
            );
            return Some((Deviation::StartupLocality, finding.found(format!("locality {locality}"))));
        }
        if index == 5 {
            let value = *self.replay_bank(bank).get(&5)?;
            let after = |value: Digest, text: &str| value.extend(&bank.hash(&[text.as_bytes()])?);
            let value = EXIT_BOOT_SERVICES.iter().try_fold(value, |value, text| after(value, text))?;
            let finding = Finding::info(
                "boot.exit-boot-services-unlogged",
                "PCR 5 replays with the two Exit Boot Services events, which the log does not hold (quirk exit-boot-services-unlogged)",
            );
            return (value == *found).then_some((Deviation::ExitBootServices, finding));
        }
        None
    }
}
