//! The boot aggregate: IMA's first entry, a hash over the boot PCRs.
//!
//! Linux `ima_crypto.c` (`ima_calc_boot_aggregate`): H(PCR 0–9) in the entry's algorithm over that algorithm's bank; SHA-1, and kernels before 5.8, over
//! PCR 0–7. It ties the list to this boot's measurements. It does not establish that those measurements are good.

use super::entry::Entry;
use crate::digest::{Digest, HashAlg, PcrBanks};
use crate::finding::{Finding, Findings};

/// The name of the first entry.
const NAME: &[u8] = b"boot_aggregate";

/// Checks the first entry of a list (of the whole list, not of a delta) against verified PCR values.
///
/// Finding ids: `ima.boot-aggregate` (not the first entry, or another value), `ima.tpm-bypass` (all zero: IMA found no TPM at boot),
/// `ima.boot-aggregate-bank` (the values of its bank are not there: not checked, a warning), `ima.boot-aggregate-0-7` (info: over PCR 0–7 only).
#[must_use]
pub fn check_boot_aggregate(entry: Option<&Entry<'_>>, pcrs: &PcrBanks) -> Findings {
    let mut findings = Findings::new();
    let measured = entry.and_then(Entry::measurement).filter(|file| file.path == NAME && file.buffer.is_none());
    let Some(file) = measured else {
        findings.check("ima.boot-aggregate", true, || {
            let found = entry.map_or_else(String::new, |entry| {
                let path = entry.unauthenticated_path().unwrap_or_default();
                String::from_utf8_lossy(path).into_owned()
            });
            Finding::error("", "the IMA list does not begin with a boot aggregate")
                .expected("boot_aggregate")
                .found(found)
                .fix("send the whole list from entry 0")
        });
        return findings;
    };
    if file.digest.iter().all(|byte| *byte == 0) {
        findings.check("ima.tpm-bypass", true, || {
            Finding::error(
                "",
                "the boot aggregate is all zero: IMA started without the TPM, so the list is not tied to this boot",
            )
            .expected("a hash over PCR 0-9")
            .found(hex::encode(file.digest))
            .fix("build the TPM driver into the kernel, so that IMA finds the TPM at boot")
        });
        return findings;
    }
    let digest = file.file_digest();
    let sha1 = file.alg == HashAlg::Sha1.name();
    let short = digest.and_then(|digest| aggregate(digest.alg(), 7, pcrs));
    let long = digest.filter(|_| !sha1).and_then(|digest| aggregate(digest.alg(), 9, pcrs));
    let over_7 = short.is_some() && short == digest;
    let over_9 = long.is_some() && long == digest;
    let Some(expected) = (if sha1 || over_7 { short } else { long }) else {
        let message = "the boot aggregate was not checked: its bank's PCR values were not quoted";
        let finding = Finding::warning("ima.boot-aggregate-bank", message).found(file.alg);
        findings.push(finding.fix("boot with ima_hash=sha256, or quote PCR 0-9 of that bank too"));
        return findings;
    };
    findings.check("ima.boot-aggregate", !over_9 && !over_7, || {
        Finding::error("", "the boot aggregate is not the hash of the boot PCRs")
            .expected(expected)
            .found(hex::encode(file.digest))
            .fix("the list is of another boot, or was edited: reboot the host")
    });
    if over_7 {
        let message = "the boot aggregate covers PCR 0-7 only (quirk ima-aggregate-0-7: SHA-1, or a kernel before 5.8)";
        findings.push(Finding::info("ima.boot-aggregate-0-7", message).found(file.alg));
    }
    findings
}

/// H(PCR 0 ‖ … ‖ PCR `last`). None when a value is missing.
fn aggregate(bank: HashAlg, last: u8, pcrs: &PcrBanks) -> Option<Digest> {
    let values = pcrs.get(&bank)?;
    let values = (0..=last).map(|index| values.get(&index)).collect::<Option<Vec<_>>>()?;
    let parts: Vec<&[u8]> = values.into_iter().map(Digest::as_bytes).collect();
    bank.hash(&parts)
}
