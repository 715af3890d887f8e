//! Boot logs of real machines, read in place from the folder named by HOSTMARK_EVIDENCE. Skipped, and said so, without it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/evidence.rs"]
mod evidence;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hostmark_attest::boot_log::{BootLog, inspect};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues};
use serde_json::Value;

use evidence::read;

fn folder() -> Option<PathBuf> {
    evidence::folder("eventlog", LOGS.len() + NO_LOGS.len())
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
    for (name, at) in NO_LOGS {
        assert_eq!(BootLog::parse(&read(&folder.join(name))).unwrap_err().at, at, "{name}");
    }
}

/// Files that are no log, and the byte where that shows.
const NO_LOGS: [(&str, usize); 1] = [("keylime__binary_bios_measurements-bogus", 32)];

#[test]
fn every_fixture_has_a_row() {
    let Some(folder) = folder() else { return };
    let companion = |name: &str| name.ends_with(".json") || name.ends_with(".yaml");
    let rows = LOGS.iter().map(|row| row.0).chain(NO_LOGS.iter().map(|row| row.0));
    evidence::complete(&folder, rows, companion);
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
/// What is noticed in each log beside boot variables that are measured without their names, which most firmware does.
#[rustfmt::skip]
const FINDINGS: &[(&str, &[&str])] = &[
    ("eve__tcg_log_1.bin", &["boot.command-line-ambiguous"]),
    ("acs__tpmbios.log.bin", &["boot.secure-boot-absent", "boot.sha1-only"]),
    ("cmc__seitec-edge_binary_bios_measurements.bin", &["boot.sha1-only"]),
    ("go-attestation__crypto_agile_eventlog.bin", &["boot.secure-boot-malformed"]),
    ("go-attestation__ebs_event_missing_eventlog.bin", &["boot.sha1-only"]),
    ("go-attestation__sb_cert_eventlog.bin", &["boot.event-data-unauthenticated", "boot.separator-missing"]),
    ("go-attestation__short_no_action_eventlog.bin", &["boot.secure-boot-absent", "boot.secure-boot-unseparated", "boot.separator-missing", "boot.sha1-only"]),
    ("go-eventlog__linux_tpm12.log.bin", &["boot.event-data-unauthenticated", "boot.secure-boot-unauthenticated", "boot.sha1-only"]),
    ("go-tpm-tools__arch-linux-workstation.bin", &["boot.secure-boot-malformed"]),
    ("go-tpm-tools__cos-85-amd-sev.bin", &["boot.event-data-unauthenticated"]),
    ("go-tpm-tools__debian-10.bin", &["boot.event-data-unauthenticated", "boot.sha1-only"]),
    ("go-tpm-tools__gdc-host.bin", &["boot.event-data-unauthenticated"]),
    ("guard-oss__binary_bios_measurements_15.bin", &["boot.sha1-only"]),
    ("guard-oss__dell-r340_winserver2019.bin", &["boot.event-data-unauthenticated", "boot.pseudo-pcr"]),
    ("guard-oss__supermicro_winserver2022.bin", &["boot.bank-incomplete", "boot.pseudo-pcr", "boot.secure-boot-absent"]),
    ("guard-oss__windows_event_log.bin", &["boot.pseudo-pcr", "boot.sha1-only"]),
    ("guard-oss__x1carbon8_win10.bin", &["boot.bank-incomplete"]),
    ("ibmtss__amd635.log.bin", &["boot.separator-repeated"]),
    ("ibmtss__dell1.log.bin", &["boot.bank-incomplete"]),
    ("ibmtss__p511.log.bin", &["boot.bank-incomplete", "boot.pseudo-pcr"]),
    ("ibmtss__sm1.log.bin", &["boot.event-data-unauthenticated"]),
    ("intel-secl__uefi_event_log.bin", &["boot.log-padded"]),
    ("intel-secl__uefi_event_log_invalid.bin", &["boot.event-data-unauthenticated", "boot.log-padded"]),
    ("tpm2-tools__event-uefi-sha1-log.bin", &["boot.secure-boot-malformed", "boot.sha1-only"]),
    ("tpm2-tools__event-uefivar.bin", &["boot.bank-incomplete", "boot.secure-boot-absent", "boot.secure-boot-unauthenticated", "boot.secure-boot-unseparated", "boot.separator-missing"]),
    ("tpm2-tools__event.bin", &["boot.secure-boot-absent", "boot.secure-boot-unseparated", "boot.separator-missing"]),
    ("tpm2-tools__specid-vendordata.bin", &["boot.secure-boot-absent", "boot.secure-boot-unseparated", "boot.separator-missing", "boot.spec-id-size"]),
];

#[test]
fn each_log_has_its_known_findings() {
    let Some(folder) = folder() else { return };
    for (name, ..) in LOGS {
        let log = BootLog::parse(&read(&folder.join(name))).unwrap();
        let (_, mut findings) = log.claims(log.best_bank().unwrap());
        findings.append(log.findings().clone());
        let ids: BTreeSet<&str> = findings.as_slice().iter().map(|one| one.id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().filter(|id| *id != "boot.variable-content-only").collect();
        let expect = FINDINGS.iter().find(|row| row.0 == name).map_or(&[][..], |row| row.1);
        assert_eq!(ids, expect, "{name}");
    }
}

/// HIRS: the manufacturer's part of a machine's log with one digest altered, that of a table in PCR 1. The part ends before what
/// extends PCR 4 and 7 in the machine.
#[test]
fn an_altered_digest_does_not_explain_its_pcr() {
    let Some(folder) = folder() else { return };
    let parse = |name: &str| BootLog::parse(&read(&folder.join(name))).unwrap();
    let machine = parse("HIRS__laptop_default_binary_bios_measurements.bin");
    let altered = parse("HIRS__laptop_badOemInstall_oem.1.rimel");
    for (bank, expect) in [(HashAlg::Sha1, &[4, 7][..]), (HashAlg::Sha256, &[1, 4, 7])] {
        let quoted = machine.replay_bank(bank);
        let mismatched = |log: &BootLog| -> Vec<u8> {
            (0..8).filter(|index| log.compare(bank, &quoted, [*index]).has("boot.replay")).collect()
        };
        assert!(mismatched(&machine).is_empty());
        assert_eq!(mismatched(&altered), expect, "{bank}");
    }
}

/// What some logs say for people: lines that must be there, as (log, line). `F`: before the PCR's separator.
#[rustfmt::skip]
const SAID: &[(&str, &str)] = &[
    ("HIRS__laptop_default_binary_bios_measurements.bin", "7 F PK [C=US, ST=Texas, L=Round Rock, O=Dell Inc., CN=Dell Inc. Platform Key] 0"),
    ("HIRS__laptop_default_binary_bios_measurements.bin", "7 F dbx [C=US, ST=Washington, L=Redmond, O=Microsoft Corporation, CN=Microsoft Windows PCA 2010] 77"),
    ("HIRS__laptop_default_binary_bios_measurements.bin", "7 - vendor_db [CN=CentOS Secure Boot CA 2, Email=security@centos.org] 0"),
    ("HIRS__laptop_default_binary_bios_measurements.bin", "14 - loaded EV_IPL MokListX"),
    ("acs__tpmbios.log.bin", "2 F loaded EV_EFI_BOOT_SERVICES_DRIVER PciRoot(0x0)/Pci(0x1,0x0)/Pci(0x0,0x0)/Path(4,8,00b2000000000000ff53020000000000)"),
    ("charra__ubuntu-bootguard_binary_bios_measurements.bin", "7 F dbx [] 421"),
    ("charra__ubuntu-bootguard_binary_bios_measurements.bin", "7 - SbatLevel = sbat,1,2021030218"),
    ("cmc__seitec-edge_binary_bios_measurements.bin", "9 - loaded EV_EVENT_TAG linux-load-options: LOADED_IMAGE::LoadOptions"),
    ("go-tpm-tools__arch-linux-workstation.bin", "2 F loaded EV_EFI_BOOT_SERVICES_DRIVER PciRoot(0x0)/Pci(0x1,0x0)/Pci(0x0,0x0)/Offset(0xf250,0x201ff)"),
    ("go-tpm-tools__eventlogwithsp800155.bin", "rim-locator SP800-155 Event3"),
    ("go-tpm-tools__eventlogwithsp800155.bin", "0 F text crtm-version GCE Virtual Firmware v2"),
    ("go-tpm-tools__gdc-host.bin", "7 F text action DMA Protection Disabled"),
    ("go-tpm-tools__ubuntu-2104-no-dbx.bin", "7 F dbx [] 0"),
    ("guard-oss__dell-r340_winserver2019.bin", "13 - text windows test-signing=0"),
    ("guard-oss__dell-r340_winserver2019.bin", "13 - text windows os-kernel-debug=0"),
    ("guard-oss__dell-r340_winserver2019.bin", "13 - text windows module=\\Windows\\system32\\ntoskrnl.exe"),
    ("guard-oss__dell-r340_winserver2019.bin", "pseudo-pcr "),
    ("guard-oss__x1carbon8-gentoo-uki_invalid-eventlog.bin", "11 - loaded EV_IPL .cmdline"),
    ("guard-oss__x1carbon8-gentoo-uki_invalid-eventlog.bin", "9 - loaded EV_EVENT_TAG linux-initrd: Linux initrd"),
    ("keylime__binary_bios_measurements.bin", "startup-locality StartupLocality"),
    ("tpm2-tools__event-moklisttrusted.bin", "14 - loaded EV_IPL MokListTrusted"),
];

#[test]
fn what_a_log_says_for_people() {
    let Some(folder) = folder() else { return };
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (name, ..) in LOGS {
        let log = BootLog::parse(&read(&folder.join(name))).unwrap();
        let said = log.describe(log.best_bank().unwrap());
        let by = |firmware: bool| if firmware { "F" } else { "-" };
        for one in &said.variables {
            let held = match &one.value {
                Some(value) => format!("= {value}"),
                None => format!("[{}] {}", one.certificates.join("; "), one.entries),
            };
            lines.push((name, format!("{} {} {} {held}", one.pcr, by(one.by_firmware), one.name)));
        }
        let loaded = said.loaded.iter();
        lines.extend(loaded.map(|one| {
            (name, format!("{} {} loaded {} {}", one.pcr, by(one.by_firmware), one.logged_type, one.logged_name))
        }));
        lines.extend(
            said.texts
                .iter()
                .map(|one| (name, format!("{} {} text {} {}", one.pcr, by(one.by_firmware), one.kind, one.text))),
        );
        lines.extend(
            said.unhashed.iter().map(|one| (name, format!("{} {}", one.kind, one.signature.trim_end_matches('.')))),
        );
        assert!(!said.dynamic_launch, "{name}");
    }
    let has =
        |name: &str, text: &str| lines.iter().filter(|(log, line)| *log == name && line.starts_with(text)).count();
    for (name, text) in SAID {
        assert!(has(name, text) > 0, "{name} does not say: {text}");
    }
    // sbctl: 7 option-ROM checksums.
    assert_eq!(has("sbctl__t14_eventlog.bin", "2 F loaded EV_EFI_BOOT_SERVICES_DRIVER"), 7);
    let gpt = lines.iter().filter(|(_, line)| line.starts_with("5 - text gpt disk ")).count();
    assert_eq!(gpt, 44);
}
