//! Whose keys vouched for what was started, and the level that shim enforces: PFP 1.06 section 3.3.4.8 (PCR 7 after its separator),
//! shim's SBAT.md.
//!
//! Root can append to PCR 7 after boot, but neither insert nor remove. So every event after the separator must show its data, or
//! one could be hidden; of several levels the first counts, which shim measures before it starts anything; and an authority that
//! was appended makes the list longer, which no rule can like better. An event that an operator's rule does not know refuses; a separator
//! that some firmware repeats, and the texts of a boot manager, vouch for nothing and are no authority.
//!
//! Not established: that shim ran at all, or one that knows levels. PCR 4 tells which programs ran. Nothing is claimed of MokList,
//! MokListX and MokListTrusted: shim extends PCR 14 with their content, which the log does not hold, and their names are labels.
//! What a fleet's lists are, a reference value of PCR 14 says.

use super::super::BootLog;
use super::super::authentic::UefiVariable;
use super::Known;
use crate::digest::{HashAlg, sha256};
use crate::finding::one_line;

/// SHIM_LOCK_GUID, 605dab50-e046-4300-abb6-3dd810dd8b23, as it stands in memory.
const SHIM_LOCK: [u8; 16] =
    [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];

/// What PCR 7 holds after its separator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities {
    /// SHA-256 of each entry of a key database that vouched for a program, in the order of use. An event that is no variable stands
    /// there with all of its data.
    pub used: Vec<[u8; 32]>,
    /// The first line of the revocation level that shim measured first, as `sbat,1,2021030218`.
    pub sbat_level: Option<String>,
}

impl BootLog {
    /// What PCR 7 holds after its separator, unproven. None where it has no separator, or an event after it does not show its
    /// data. Appraise only [`super::super::ReplayedBootLog::authorities`].
    pub(in crate::boot_log) fn authorities(&self, bank: HashAlg) -> Option<Authorities> {
        let (judged, known) = (self.judged(bank), Known::new(bank));
        let mut events = judged.in_pcr(7);
        let ends = |digest| known.separators.contains(&digest);
        events.find(|one| one.digest.is_some_and(ends))?;
        let mut authorities = Authorities::default();
        for one in events {
            if crate::check::violated("boot.authority-hidden", !judged.is_whole(one)) {
                return None;
            }
            if one
                .digest
                .is_some_and(|digest| known.separators.contains(&digest) || known.boot_actions.contains(&digest))
            {
                continue;
            }
            let Some(variable) = UefiVariable::parse(one.event.data()) else {
                authorities.used.push(sha256(&[one.event.data()]));
                continue;
            };
            if variable.guid == SHIM_LOCK && variable.is_named("SbatLevel") {
                let text = std::str::from_utf8(variable.content).ok();
                let line = text.and_then(|text| text.lines().next()).map(|line| one_line(line.trim_end_matches('\0')));
                authorities.sbat_level = authorities.sbat_level.or(Some(line.unwrap_or_default()));
            } else {
                authorities.used.push(sha256(&[variable.content]));
            }
        }
        Some(authorities)
    }
}
