//! Boot logs of real machines, read in place from the folder named by HOSTMARK_EVIDENCE. Skipped, and said so, without it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use hostmark_attest::boot_log::{BootLog, inspect};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues};
use serde_json::Value;

/// The folder of boot logs, or None when this machine has no evidence.
fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("HOSTMARK_EVIDENCE");
    if root.is_none() {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
    }
    root.map(|root| PathBuf::from(root).join("eventlog"))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// Log, number of events, Secure Boot, whether a kernel command line can be read out of it.
const LOGS: [(&str, usize, &str, bool); 51] = [
    ("HIRS__TpmLog.bin", 56, "off", false),
    ("HIRS__laptop_badOemInstall_oem.1.rimel", 23, "on", false),
    ("HIRS__laptop_default_binary_bios_measurements.bin", 30, "on", false),
    ("acs__tpmbios.log.bin", 39, "unknown", false),
    ("charra__ubuntu-bootguard_binary_bios_measurements.bin", 108, "off", true),
    ("cmc__seitec-edge_binary_bios_measurements.bin", 27, "off", false),
    // One GRUB starts another by chainloader: two load commands.
    ("eve__tcg_log_1.bin", 219, "off", false),
    ("global-trust-authority__gta_binary_bios_measurements.bin", 115, "off", true),
    ("go-attestation__crypto_agile_eventlog.bin", 27, "unknown", false),
    ("go-attestation__ebs_event_missing_eventlog.bin", 38, "off", false),
    ("go-attestation__sb_cert_eventlog.bin", 15, "on", false),
    ("go-attestation__short_no_action_eventlog.bin", 1, "unknown", false),
    ("go-eventlog__linux_tpm12.log.bin", 40, "unknown", false),
    ("go-tpm-tools__arch-linux-workstation.bin", 25, "unknown", false),
    ("go-tpm-tools__cos-85-amd-sev.bin", 46, "on", true),
    ("go-tpm-tools__debian-10.bin", 25, "on", false),
    ("go-tpm-tools__eventlogwithsp800155.bin", 54, "on", true),
    ("go-tpm-tools__gdc-host.bin", 159, "off", true),
    // Its source calls Secure Boot on; the measured variable is 0.
    ("go-tpm-tools__ubuntu-2104-no-dbx.bin", 112, "off", true),
    ("go-tpm-tools__ubuntu-2404-amd-sevsnp.bin", 117, "off", true),
    ("guard-oss__binary_bios_measurements_15.bin", 39, "off", false),
    ("guard-oss__dell-r340_winserver2019.bin", 76, "on", false),
    ("guard-oss__h12ssl.bios_measurements.bin", 114, "off", true),
    ("guard-oss__hp-elitebook830g6_before.bin", 117, "on", true),
    ("guard-oss__hp-elitebook830g6_update.bin", 117, "on", true),
    ("guard-oss__supermicro_winserver2022.bin", 39, "unknown", false),
    ("guard-oss__windows_event_log.bin", 35, "on", false),
    ("guard-oss__x1carbon8-gentoo-uki_invalid-eventlog.bin", 67, "on", false),
    ("guard-oss__x1carbon8-gentoo_failed-1.bin", 53, "on", false),
    ("guard-oss__x1carbon8-gentoo_good-1.bin", 53, "on", false),
    ("guard-oss__x1carbon8_win10.bin", 65, "on", false),
    ("ibmtss__amd635.log.bin", 97, "on", true),
    ("ibmtss__deb1.log.bin", 109, "on", true),
    ("ibmtss__dell1.log.bin", 51, "on", false),
    ("ibmtss__p511.log.bin", 59, "on", false),
    ("ibmtss__sm1.log.bin", 59, "on", true),
    ("ibmtss__ubuntu1.log.bin", 101, "off", true),
    ("intel-secl__uefi_event_log.bin", 116, "off", false),
    ("intel-secl__uefi_event_log_invalid.bin", 116, "off", false),
    ("keylime__binary_bios_measurements-secureboot.bin", 99, "on", true),
    ("keylime__binary_bios_measurements.bin", 121, "off", true),
    ("python3-uefi-eventlog__inspur_inspur.bin", 101, "off", true),
    ("python3-uefi-eventlog__rhcos_rhcos.bin", 75, "on", true),
    ("python3-uefi-eventlog__ubuntu_qemu_css-flex14vm4-bootlog.bin", 106, "on", true),
    ("sbctl__t14_eventlog.bin", 43, "off", false),
    ("tpm2-tools__event-moklisttrusted.bin", 97, "on", true),
    ("tpm2-tools__event-uefi-sha1-log.bin", 17, "unknown", false),
    ("tpm2-tools__event-uefivar.bin", 2, "unknown", false),
    ("tpm2-tools__event.bin", 2, "unknown", false),
    ("tpm2-tools__specid-vendordata.bin", 1, "unknown", false),
    ("trustauthority-client-for-go__binary_bios_measurements20.bin", 136, "off", true),
];

#[test]
fn each_log_is_read_as_its_source_says() {
    let Some(folder) = folder() else { return };
    for (name, events, secure_boot, command_line) in LOGS {
        let bytes = read(&folder.join(name));
        let seen = inspect(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(seen.events, events, "{name}");
        assert_eq!(seen.secure_boot.name(), secure_boot, "{name}: {:?}", seen.findings);
        let log = BootLog::parse(&bytes).unwrap();
        let (claims, findings) = log.claims(log.best_bank().unwrap());
        assert_eq!(claims.command_line.is_some(), command_line, "{name}: {:?} {findings:?}", claims.command_line);
        assert!(findings.acceptable() && log.findings().acceptable(), "{name}: odd, not refused");
    }
    let text = read(&folder.join("keylime__binary_bios_measurements-bogus"));
    assert_eq!(BootLog::parse(&text).unwrap_err().at, 32, "34 bytes of text are no log");
}

/// PCRs that the source's TPM held and its log does not explain.
const MISMATCHES: [(&str, HashAlg, &[u8]); 3] = [
    ("go-attestation__ebs_event_missing_eventlog.bin", HashAlg::Sha1, &[5]),
    ("guard-oss__supermicro_winserver2022.bin", HashAlg::Sha1, &[0, 1, 2, 3, 4, 5, 6, 7]),
    ("guard-oss__x1carbon8-gentoo_failed-1.bin", HashAlg::Sha256, &[0]),
];

#[test]
fn each_log_explains_the_values_that_its_tpm_held() {
    let Some(folder) = folder() else { return };
    let mut compared = 0;
    for (name, ..) in LOGS {
        let path = folder.join(format!("{name}.pcrs.json"));
        if !path.exists() {
            continue;
        }
        let log = BootLog::parse(&read(&folder.join(name))).unwrap();
        for (bank, values) in json(&path)["pcrs"].as_object().unwrap() {
            let bank = HashAlg::from_name(bank).unwrap();
            let quoted: PcrValues = values
                .as_object()
                .unwrap()
                .iter()
                .map(|(index, hex)| (index.parse().unwrap(), Digest::from_hex(bank, hex.as_str().unwrap()).unwrap()))
                .collect();
            // What the operating system extends after boot is not the boot log's to explain.
            let replayed = log.replay_bank(bank);
            let indices: Vec<u8> =
                quoted.keys().copied().filter(|index| *index < 8 || replayed.contains_key(index)).collect();
            let expect = MISMATCHES.iter().find(|row| (row.0, row.1) == (name, bank)).map_or(&[][..], |row| row.2);
            for index in indices {
                let findings = log.compare(bank, &quoted, [index]);
                assert_eq!(
                    findings.has("boot.replay"),
                    expect.contains(&index),
                    "{name} {bank} PCR {index}: {findings:?}"
                );
                compared += 1;
            }
            if name.contains("ebs_event_missing") {
                assert!(log.compare(bank, &quoted, [5]).has("boot.exit-boot-services-unlogged"));
            }
        }
    }
    assert!(compared > 150, "{compared} values compared");
}

#[test]
fn a_second_parser_replays_to_the_same_values() {
    let Some(folder) = folder() else { return };
    let other = json(&folder.join("_replayed_pcrs.dev.json"));
    let mut compared = 0;
    for (name, events, ..) in LOGS {
        let other = &other["logs"][format!("eventlog/{name}")];
        assert_eq!(other["events"], events, "{name}");
        let log = BootLog::parse(&read(&folder.join(name))).unwrap();
        for (bank, values) in log.replay() {
            for (index, value) in values {
                if (17..23).contains(&index) {
                    continue; // the other parser starts these at zero
                }
                assert_eq!(
                    other["pcrs"][bank.name()][index.to_string()],
                    value.to_string(),
                    "{name} {bank} PCR {index}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "{compared} values compared");
}
