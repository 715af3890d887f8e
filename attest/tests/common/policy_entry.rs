//! A recorded boot as it would be with `ima_policy=tcb` on its command line and the shipped policy loaded by systemd.
//!
//! Made, not recorded: boots that were recorded before the policy's entry was asked for have their policy from elsewhere. The
//! command line's event in PCR 9 gets the digest of the longer line, the boot aggregate follows it, and then the policy's entry. The
//! quote of such a recording no longer fits; whoever uses this has a TPM of its own to extend.

#![allow(dead_code, reason = "each test binary uses its part")]

use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::ima::ImaLog;

/// The shipped IMA policy.
pub const SHIPPED: &[u8] = include_bytes!("../../../configs/ima/container-host.policy");
/// Where hosts have it.
pub const POLICY_PATH: &str = "/etc/ima/ima-policy";
const PARAMETER: &str = "ima_policy=tcb";

/// Boot log, IMA list and command line of a boot with the policy's entry; unchanged if the boot has it.
pub fn with_policy(boot_log: Vec<u8>, ima: Vec<u8>, command_line: &str) -> (Vec<u8>, Vec<u8>, String) {
    let list = ImaLog::parse(&ima).unwrap();
    let there = |path: &[u8]| path == POLICY_PATH.as_bytes();
    if list.entries().any(|entry| entry.measurement().is_some_and(|file| there(file.path))) {
        return (boot_log, ima, command_line.to_owned());
    }
    let second = list.entries().nth(1).unwrap().at();
    let entry = ima_ng(POLICY_PATH, &sha256(&[SHIPPED]));
    let line = format!("{} {PARAMETER}", command_line.trim_end());
    let boot_log = booted_with(boot_log, &line);
    let aggregate = boot_aggregate(&boot_log);
    (boot_log, [&aggregate, &entry, &ima[second..]].concat(), line)
}

/// The list's first entry for a boot log: the hash of PCR 0 to 9.
pub fn boot_aggregate(boot_log: &[u8]) -> Vec<u8> {
    let replayed = BootLog::parse(boot_log).unwrap().replay_bank(HashAlg::Sha256);
    let value = |pcr: u8| replayed.get(&pcr).copied().unwrap_or_else(|| Digest::zero(HashAlg::Sha256));
    let values: Vec<Digest> = (0..10).map(value).collect();
    let parts: Vec<&[u8]> = values.iter().map(Digest::as_bytes).collect();
    ima_ng("boot_aggregate", &sha256(&parts))
}

/// The boot log with another command line in PCR 9.
pub fn booted_with(boot_log: Vec<u8>, line: &str) -> Vec<u8> {
    let options: Vec<u8> = line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let parsed = BootLog::parse(&boot_log).unwrap();
    let event = parsed.events().find(|event| event.extends() == Some(9)).unwrap();
    let mut changed = boot_log.clone();
    for bank in [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512] {
        let Some(old) = event.digest(bank) else { continue };
        let at = boot_log.windows(old.as_bytes().len()).position(|window| window == old.as_bytes()).unwrap();
        changed[at..at + old.as_bytes().len()].copy_from_slice(bank.hash(&[&options]).unwrap().as_bytes());
    }
    changed
}

/// A binary `ima-ng` entry as the kernel writes it.
pub fn ima_ng(path: &str, digest: &[u8; 32]) -> Vec<u8> {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let data = [field(&[b"sha256:\0".as_slice(), digest].concat()), field(&[path.as_bytes(), b"\0"].concat())].concat();
    let template = HashAlg::Sha1.hash(&[&data]).unwrap();
    [&10u32.to_le_bytes(), template.as_bytes(), &field(b"ima-ng"), &field(&data)].concat()
}

/// A binary `ima-buf` entry as the kernel writes it.
pub fn ima_buf(name: &str, buffer: &[u8]) -> Vec<u8> {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let digest = sha256(&[buffer]);
    let parts = [&[b"sha256:\0".as_slice(), &digest].concat(), &[name.as_bytes(), b"\0"].concat(), buffer];
    let data = parts.map(field).concat();
    let template = HashAlg::Sha1.hash(&[&data]).unwrap();
    [&10u32.to_le_bytes(), template.as_bytes(), &field(b"ima-buf"), &field(&data)].concat()
}

/// The boot with one more event at the end of its log, extended into `pcr`.
pub fn with_event((log, ima, line): (Vec<u8>, Vec<u8>, String), pcr: u32, data: &[u8]) -> (Vec<u8>, Vec<u8>, String) {
    const EV_IPL: u32 = 13;
    let parsed = BootLog::parse(&log).unwrap();
    let event = parsed.events().find(|event| event.extends() == Some(9)).unwrap();
    let banks: Vec<(u16, HashAlg)> =
        [(4, HashAlg::Sha1), (11, HashAlg::Sha256), (12, HashAlg::Sha384), (13, HashAlg::Sha512)]
            .into_iter()
            .filter(|(_, bank)| event.digest(*bank).is_some())
            .collect();
    let mut more = [pcr, EV_IPL, u32::try_from(banks.len()).unwrap()].map(u32::to_le_bytes).concat();
    for (id, bank) in banks {
        more.extend(id.to_le_bytes());
        more.extend(bank.hash(&[data]).unwrap().as_bytes());
    }
    more.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    more.extend(data);
    let log = [log.as_slice(), &more].concat();
    let second = ImaLog::parse(&ima).unwrap().entries().nth(1).unwrap().at();
    let ima = [&boot_aggregate(&log), &ima[second..]].concat();
    (log, ima, line)
}
