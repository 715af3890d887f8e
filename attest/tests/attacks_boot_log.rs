//! Rows B1–B6 of the attack table, on the parser that judges real hosts. Each row names the exact finding, and the honest twin of
//! the same log passes beside it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking"
)]

use hostmark_attest::boot_log::{BootLog, BootQuirks, EventType, SecureBoot};
use hostmark_attest::bytes::Problem;
use hostmark_attest::digest::{Digest, HashAlg, PcrValues, sha256};
use hostmark_attest::finding::Findings;
use proptest::prelude::*;

#[path = "common/forge.rs"]
mod forge;

use forge::{BANK, Ev, Forge, PCRS, quoted, recorded};

impl Forge {
    fn judge(&self, values: &PcrValues) -> (SecureBoot, Findings) {
        let log = self.log();
        let mut findings = log.compare(BANK, values, PCRS);
        let (claims, seen) = log.claims(BANK);
        findings.append(seen);
        (claims.secure_boot, findings)
    }
}

/// The bytes of a SecureBoot variable with this value.
fn secure_boot_variable(value: u8) -> Vec<u8> {
    let mut forge = Forge::of("plain");
    let at = forge.secure_boot_at();
    let mut data = std::mem::take(&mut forge.events[at].data);
    *data.last_mut().unwrap() = value;
    data
}

#[track_caller]
fn honest(boot: &str, expect: SecureBoot) -> Forge {
    let forge = Forge::of(boot);
    let (secure_boot, findings) = forge.judge(&quoted(boot));
    assert_eq!(secure_boot, expect, "{boot}");
    assert!(
        findings.as_slice().iter().all(|finding| finding.id == "boot.variable-content-only"),
        "{boot}: {findings:?}"
    );
    forge
}

fn ids(findings: &Findings) -> Vec<&str> {
    let ids = findings.as_slice().iter().map(|finding| finding.id.as_str());
    ids.filter(|id| *id != "boot.variable-content-only").collect()
}

#[test]
fn b1_flipped_removed_appended_and_reordered_events_name_the_pcr() {
    let honest = honest("plain", SecureBoot::Off);
    let locality = |value: u8| Ev {
        pcr: 0,
        kind: EventType::EV_NO_ACTION,
        digest: [0; 32],
        data: [b"StartupLocality\0".as_slice(), &[value]].concat(),
    };
    type Edit = Box<dyn Fn(&mut Forge)>;
    let rows: Vec<(&str, u8, Edit)> = vec![
        (
            "a digest's bit flipped",
            7,
            Box::new(|f| {
                let at = f.secure_boot_at();
                f.events[at].digest[31] ^= 1;
            }),
        ),
        (
            "first event removed",
            0,
            Box::new(|f| {
                let at = f.at(0, 0);
                f.events.remove(at);
            }),
        ),
        (
            "last event removed",
            5,
            Box::new(|f| {
                f.events.pop();
            }),
        ),
        (
            "middle event removed",
            4,
            Box::new(|f| {
                let at = f.at(4, 3);
                f.events.remove(at);
            }),
        ),
        ("all events of a PCR removed", 9, Box::new(|f| f.events.retain(|event| event.pcr != 9))),
        ("event appended", 9, Box::new(|f| f.extend(9, EventType::EV_IPL, b"x"))),
        ("event appended to an empty PCR", 14, Box::new(|f| f.extend(14, EventType::EV_IPL, b"x"))),
        (
            "two events of a PCR swapped",
            1,
            Box::new(|f| {
                let (a, b) = (f.at(1, 0), f.at(1, 1));
                f.events.swap(a, b);
            }),
        ),
        (
            "event written twice",
            11,
            Box::new(|f| {
                let at = f.at(11, 2);
                let copy = f.events[at].clone();
                f.events.insert(at, copy);
            }),
        ),
        (
            "event hidden as EV_NO_ACTION",
            7,
            Box::new(|f| {
                let at = f.secure_boot_at();
                f.events[at].kind = EventType::EV_NO_ACTION;
            }),
        ),
        ("another startup locality", 0, Box::new(move |f| f.events.insert(0, locality(3)))),
        (
            "an H-CRTM that was none",
            0,
            Box::new(|f| {
                let at = f.at(0, 0);
                f.events[at].kind = EventType::EV_EFI_HCRTM_EVENT;
            }),
        ),
    ];
    for (what, pcr, edit) in rows {
        let mut forge = honest.clone();
        edit(&mut forge);
        let findings = forge.log().compare(BANK, &quoted("plain"), PCRS);
        assert_eq!(ids(&findings), ["boot.replay"], "{what}");
        let finding = &findings.as_slice()[0];
        assert!(finding.message.contains(&format!("PCR {pcr} ")), "{what}: {finding}");
        assert_eq!(finding.found.as_deref(), Some(quoted("plain")[&pcr].to_string().as_str()), "{what}");
        assert_ne!(finding.found, finding.expected, "{what}");
    }
}

#[test]
fn b1_an_event_moved_to_another_pcr_names_both() {
    let mut forge = honest("plain", SecureBoot::Off);
    let at = forge.at(4, 2);
    forge.events[at].pcr = 5;
    let findings = forge.log().compare(BANK, &quoted("plain"), PCRS);
    assert_eq!(ids(&findings), ["boot.replay", "boot.replay"]);
    assert!(findings.as_slice()[0].message.contains("PCR 4 ") && findings.as_slice()[1].message.contains("PCR 5 "));
}

#[test]
fn b2_a_swapped_type_never_yields_a_claim() {
    let off = honest("plain", SecureBoot::Off);
    let on = honest("secureboot", SecureBoot::On);

    // The variable under another type: replay holds, the claim does not.
    for kind in [EventType::EV_IPL, EventType::EV_EFI_ACTION, EventType::EV_EFI_VARIABLE_AUTHORITY, EventType(0x1234)] {
        let mut forge = on.clone();
        let at = forge.secure_boot_at();
        forge.events[at].kind = kind;
        let (secure_boot, findings) = forge.judge(&quoted("secureboot"));
        assert_eq!((secure_boot, ids(&findings)), (SecureBoot::Unknown, vec!["boot.secure-boot-type"]), "{kind}");
    }

    // Root extends a SecureBoot of 1 and a separator after boot, and hides the true ones behind other types.
    let mut forge = off.clone();
    forge.extend(7, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &secure_boot_variable(1));
    forge.extend(7, EventType::EV_SEPARATOR, &[0; 4]);
    let values = forge.values();
    let (secure_boot, findings) = forge.judge(&values);
    assert_eq!((secure_boot, ids(&findings)), (SecureBoot::Off, vec!["boot.separator-repeated"]), "told openly");
    let (variable, separator) = (forge.secure_boot_at(), forge.separator_at(7));
    for (at, data) in [(variable, b"junk".as_slice()), (separator, b"junk")] {
        forge.events[at].kind = EventType::EV_IPL;
        forge.events[at].data = data.to_vec();
    }
    let (secure_boot, findings) = forge.judge(&values);
    assert!(!findings.has("boot.replay"), "the digests are what the TPM holds");
    assert_eq!(secure_boot, SecureBoot::Unknown);
    assert_eq!(
        ids(&findings),
        ["boot.event-type", "boot.separator-repeated", "boot.secure-boot-unauthenticated", "boot.secure-boot-absent"]
    );

    // The same where the firmware wrote no separator: all of PCR 7 is in reach of root.
    let mut forge = off.clone();
    let separator = forge.separator_at(7);
    forge.events.remove(separator);
    let variable = forge.secure_boot_at();
    forge.events.remove(variable);
    forge.extend(7, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &secure_boot_variable(1));
    let (secure_boot, findings) = forge.judge(&forge.values());
    assert_eq!(secure_boot, SecureBoot::Unknown);
    assert_eq!(ids(&findings), ["boot.separator-missing", "boot.secure-boot-unseparated"]);

    // A SecureBoot of 1 in another PCR says nothing.
    let mut forge = off.clone();
    forge.extend(4, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &secure_boot_variable(1));
    assert_eq!(forge.judge(&forge.values()).0, SecureBoot::Off);
}

#[test]
fn b2_a_program_cannot_be_hidden_behind_another_type() {
    let forge = honest("plain", SecureBoot::Off);
    let programs = |forge: &Forge| {
        let (claims, _) = forge.log().claims(BANK);
        claims.boot_applications.unwrap().into_iter().map(|entry| entry.digest).collect::<Vec<_>>()
    };
    let expect = programs(&forge);
    assert_eq!(expect.len(), 2);
    for at in 0..forge.events.len() {
        for kind in [EventType::EV_SEPARATOR, EventType::EV_EFI_ACTION, EventType::EV_IPL, EventType::EV_POST_CODE] {
            let mut forge = forge.clone();
            forge.events[at].kind = kind;
            assert_eq!(programs(&forge), expect, "event {at} as {kind}");
        }
    }
    // A known action's text is spared by its digest, so a program whose Authenticode input is known is not.
    let mut forge = forge.clone();
    forge.extend(4, EventType::EV_EFI_ACTION, b"the bytes that Authenticode hashes");
    assert_eq!(programs(&forge).len(), 3);
}

/// A log whose PCR 8 holds GRUB's texts: (label, text).
fn grub(texts: &[(&str, &str)]) -> Forge {
    let mut forge = Forge::of("plain");
    for (label, text) in texts {
        let data = format!("{label}{text}\0").into_bytes();
        forge.events.push(Ev { pcr: 8, kind: EventType::EV_IPL, digest: sha256(&[text.as_bytes()]), data });
    }
    forge
}

#[test]
fn b2_a_moved_grub_label_never_yields_a_command_line() {
    const CMD: &str = "grub_cmd: ";
    const KERNEL: &str = "kernel_cmdline: ";
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
    let rows: [Row<'_>; 5] = [
        (
            "honest",
            &[(CMD, "set a=b"), (CMD, "linux /k lockdown=integrity"), (KERNEL, "/k lockdown=integrity")],
            Some("/k lockdown=integrity"),
        ),
        (
            "the true command line under another label, a harmless command under the kernel's",
            &[(KERNEL, "/k lockdown=integrity"), (CMD, "linux /k init=/evil"), (CMD, "/k init=/evil")],
            None,
        ),
        (
            "two kernels loaded",
            &[(CMD, "linux /k good"), (KERNEL, "/k good"), (CMD, "linux /k evil"), (KERNEL, "/k evil")],
            None,
        ),
        ("the load command under the kernel's label", &[(KERNEL, "linux /k evil"), (KERNEL, "/k good")], None),
        ("another program chain-loaded", &[(CMD, "linux /k a"), (KERNEL, "/k a"), (CMD, "chainloader /evil")], None),
    ];
    for (what, texts, expect) in rows {
        let (claims, findings) = grub(texts).log().claims(BANK);
        assert_eq!(claims.command_line.map(|line| line.text).as_deref(), expect, "{what}");
        assert_eq!(findings.has("boot.command-line-ambiguous"), expect.is_none(), "{what}");
    }
    // A text whose digest is of something else may be the command that loaded the kernel.
    let mut forge = grub(rows[0].1);
    forge.extend(8, EventType::EV_IPL, b"grub_cmd: linux /k evil");
    forge.events.last_mut().unwrap().data = b"grub_cmd: echo hello".to_vec();
    let (claims, findings) = forge.log().claims(BANK);
    assert_eq!(claims.command_line, None);
    assert!(findings.has("boot.command-line-ambiguous"));
}

#[test]
fn b2_a_command_line_extended_after_boot_is_not_confirmed() {
    let forge = honest("plain", SecureBoot::Off);
    let given = String::from_utf8(recorded("plain", "cmdline")).unwrap();
    assert!(forge.log().confirm_command_line(BANK, &given).is_some());
    let wanted = "lockdown=confidentiality";
    let units: Vec<u8> = wanted.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut forged = forge.clone();
    forged.extend(9, EventType::EV_EVENT_TAG, &units);
    assert_eq!(
        forged.log().confirm_command_line(BANK, wanted),
        None,
        "only the first event of PCR 9 is the kernel's own"
    );
    assert!(forged.log().confirm_command_line(BANK, &given).is_some());
    // Two texts in PCR 12: which one systemd-stub measured is open.
    let mut forged = forge.clone();
    forged.extend(12, EventType::EV_IPL, &units);
    assert_eq!(forged.log().claims(BANK).0.command_line.unwrap().pcr, 12, "one text is taken");
    forged.extend(12, EventType::EV_IPL, &units);
    let (claims, findings) = forged.log().claims(BANK);
    assert_eq!((claims.command_line, findings.has("boot.command-line-repeated")), (None, true));
}

#[test]
fn b3_changed_data_is_unauthenticated_and_never_a_claim() {
    let off = honest("plain", SecureBoot::Off);
    honest("secureboot", SecureBoot::On);
    let mut forge = off.clone();
    let at = forge.secure_boot_at();
    forge.events[at].data = secure_boot_variable(1);
    let (secure_boot, findings) = forge.judge(&quoted("plain"));
    assert_eq!(secure_boot, SecureBoot::Unknown);
    assert_eq!(ids(&findings), ["boot.event-data-unauthenticated", "boot.secure-boot-unauthenticated"]);

    // Every other event of PCR 7 before the separator may hide the variable just as well.
    for n in 1..5 {
        let mut forge = off.clone();
        let at = forge.at(7, n);
        forge.events[at].data.push(0);
        let (secure_boot, findings) = forge.judge(&quoted("plain"));
        assert_eq!(secure_boot, SecureBoot::Unknown, "event {n} of PCR 7");
        assert!(findings.has("boot.secure-boot-unauthenticated") && !findings.has("boot.replay"));
    }
    // What the digests do hold, but is no answer.
    type Row<'a> = (&'a str, Vec<Vec<u8>>, &'a str);
    let empty = {
        let mut data = secure_boot_variable(0);
        data.pop();
        let length = 24;
        data[length] = 0;
        data
    };
    let rows: [Row<'_>; 4] = [
        ("no variable", vec![], "boot.secure-boot-absent"),
        ("a variable of no bytes", vec![empty], "boot.secure-boot-malformed"),
        ("a value of 2", vec![secure_boot_variable(2)], "boot.secure-boot-malformed"),
        ("off, then on", vec![secure_boot_variable(0), secure_boot_variable(1)], "boot.secure-boot-repeated"),
    ];
    for (what, variables, expect) in rows {
        let mut forge = off.clone();
        let at = forge.secure_boot_at();
        forge.events.remove(at);
        for data in variables.into_iter().rev() {
            let kind = EventType::EV_EFI_VARIABLE_DRIVER_CONFIG;
            forge.events.insert(at, Ev { pcr: 7, kind, digest: sha256(&[&data]), data });
        }
        let (secure_boot, findings) = forge.judge(&forge.values());
        assert_eq!((secure_boot, ids(&findings)), (SecureBoot::Unknown, vec![expect]), "{what}");
    }
}

#[test]
fn b3_a_claim_falls_with_the_replay_of_its_pcr() {
    let forge = honest("secureboot", SecureBoot::On);
    let given = String::from_utf8(recorded("secureboot", "cmdline")).unwrap();
    let log = forge.log();
    let (replayed, findings) = log.explain_quoted(BANK, &quoted("secureboot"), PCRS, BootQuirks::default());
    assert!(findings.acceptable() && replayed.explained().len() == PCRS.len());
    let (claims, _) = replayed.claims();
    assert!(claims.secure_boot == SecureBoot::On && claims.boot_applications.is_some() && claims.separators.len() == 8);
    assert!(replayed.confirm_command_line(&given).is_some_and(|line| !line.extendable_later));
    // Another machine's values: PCR 4, 7 and 9 differ, and so nothing is claimed from them.
    let (replayed, findings) = log.explain_quoted(BANK, &quoted("plain"), PCRS, BootQuirks::default());
    assert!(findings.has("boot.replay") && !replayed.explained().contains(&7));
    let (claims, _) = replayed.claims();
    assert_eq!((claims.secure_boot, claims.boot_applications, claims.command_line), (SecureBoot::Unknown, None, None));
    assert_eq!(replayed.confirm_command_line(&given), None);
    // A PCR that was not asked for is not explained either.
    let (replayed, _) = log.explain_quoted(BANK, &quoted("secureboot"), [0, 1], BootQuirks::default());
    assert_eq!(replayed.claims().0.secure_boot, SecureBoot::Unknown);
}

#[test]
fn b4_no_events_and_a_value_or_events_and_none_is_a_mismatch() {
    let forge = honest("plain", SecureBoot::Off);
    let log = forge.log();
    let zero = Digest::zero(BANK);
    let some = Digest::new(BANK, &[7; 32]).unwrap();
    for (index, value) in [(8, some), (14, some), (4, zero), (0, zero), (23, some), (17, zero)] {
        let mut values = quoted("plain");
        values.insert(index, value);
        assert_eq!(ids(&log.compare(BANK, &values, [index])), ["boot.replay"], "PCR {index}");
    }
    // Without events the reset value is right: zeros, or ones for the PCRs of a dynamic launch.
    let mut values = quoted("plain");
    values.insert(17, Digest::ones(BANK));
    assert_eq!(ids(&log.compare(BANK, &values, [8, 14, 17])), [""; 0]);
    // A value that was not quoted is not a match.
    values.remove(&8);
    assert_eq!(ids(&log.compare(BANK, &values, [8])), ["boot.replay"]);
    // A log of another bank explains nothing, not even zeros.
    let sha384: PcrValues = [(8, Digest::zero(HashAlg::Sha384))].into();
    assert_eq!(ids(&log.compare(HashAlg::Sha384, &sha384, [8])), ["boot.bank-missing"]);
    // A header alone explains only an untouched TPM.
    let empty = Forge { events: vec![], ..forge };
    assert_eq!(ids(&empty.log().compare(BANK, &quoted("plain"), [0, 8])), ["boot.replay"]);
}

#[test]
fn b5_truncation_at_every_offset_is_an_error_or_a_mismatch() {
    let bytes = recorded("secureboot", "boot-log.bin");
    let whole = BootLog::parse(&bytes).unwrap();
    let ends: Vec<usize> = whole.events().map(|event| event.at()).collect();
    let values = quoted("secureboot");
    assert_eq!(ids(&whole.compare(BANK, &values, PCRS)), [""; 0]);
    for cut in 0..bytes.len() {
        match BootLog::parse(&bytes[..cut]) {
            Err(error) => assert!(error.at <= cut, "cut at {cut}: {error}"),
            Ok(log) => {
                // Events end there, or so few bytes are left over that they look like padding.
                assert!(ends.contains(&cut) || log.findings().has("boot.log-padded"), "cut at {cut}");
                assert!(log.compare(BANK, &values, PCRS).has("boot.replay"), "cut at {cut}");
            }
        }
    }
}

#[test]
fn b5_each_length_field_at_its_extremes_is_bounded() {
    let bytes = recorded("plain", "boot-log.bin");
    let log = BootLog::parse(&bytes).unwrap();
    let values = quoted("plain");
    let mut fields: Vec<usize> = vec![28, 32 + 24];
    for event in log.events().skip(1) {
        fields.extend([event.at() + 8, event.at() + 8 + 4 + 2 + 32]);
    }
    for field in fields {
        let was = u32::from_le_bytes(bytes[field..field + 4].try_into().unwrap());
        for value in [0, 1, 2, was + 1, was.wrapping_sub(1), 0x7fff_ffff, u32::MAX] {
            if value == was {
                continue;
            }
            let mut forged = bytes.clone();
            forged[field..field + 4].copy_from_slice(&value.to_le_bytes());
            if let Ok(log) = BootLog::parse(&forged) {
                let explained = log.compare(BANK, &values, PCRS).acceptable();
                assert!(!explained, "byte {field} as {value:#x} still replays");
            }
        }
    }
}

#[test]
fn b5_absurd_sizes_are_refused_where_they_stand() {
    let forge = honest("plain", SecureBoot::Off);
    let start = forge.header.len();
    let event = |tail: &[u8]| [&forge.header[..], &7u32.to_le_bytes(), &4u32.to_le_bytes(), tail].concat();
    let digest = [&1u32.to_le_bytes()[..], &0x000bu16.to_le_bytes(), &[0; 32]].concat();
    let unknown = [&1u32.to_le_bytes()[..], &0x7777u16.to_le_bytes(), &[0; 32]].concat();
    let twice =
        [&2u32.to_le_bytes()[..], &0x000bu16.to_le_bytes(), &[0; 32], &0x000bu16.to_le_bytes(), &[0; 36]].concat();
    let rows: [(&str, Vec<u8>, usize, Problem); 6] = [
        (
            "4 GiB of data",
            event(&[&digest[..], &u32::MAX.to_le_bytes()].concat()),
            start + 50,
            Problem::Truncated { what: "an event's data", need: u32::MAX as usize, left: 0 },
        ),
        (
            "a million digests",
            event(&1_000_000u32.to_le_bytes()),
            start + 8,
            Problem::OverLimit { what: "an event's digest count", found: 1_000_000, limit: 16 },
        ),
        ("no digest", event(&0u32.to_le_bytes()), start + 8, Problem::Malformed { what: "an event has no digest" }),
        (
            "an unknown algorithm",
            event(&unknown),
            start + 12,
            Problem::Unknown { what: "a digest's algorithm", found: 0x7777 },
        ),
        (
            "one algorithm twice",
            event(&twice),
            start + 46,
            Problem::Malformed { what: "an event has two digests of one algorithm" },
        ),
        ("nothing but padding", vec![0; 4096], 0, Problem::Malformed { what: "the boot log holds no event" }),
    ];
    for (what, bytes, at, problem) in rows {
        let error = BootLog::parse(&bytes).unwrap_err();
        assert_eq!((error.at, error.problem), (at, problem), "{what}");
    }
    // More than the limits allow, well framed.
    let one = Forge { header: vec![], events: vec![forge.events[0].clone()] }.bytes();
    let many = [&forge.header[..], &one.repeat(70_000)].concat();
    let problem = BootLog::parse(&many).unwrap_err().problem;
    assert!(matches!(problem, Problem::OverLimit { what: "the number of events", .. }), "{problem}");
    let problem = BootLog::parse(&vec![1; (16 << 20) + 1]).unwrap_err().problem;
    assert!(matches!(problem, Problem::OverLimit { what: "the boot log's length", .. }), "{problem}");
    // An unknown algorithm whose size the header declares is carried, and said.
    let mut header = forge.header.clone();
    header[28] += 4;
    header[56] = 2;
    header.splice(64..64, [0x77, 0x77, 32, 0]);
    let both =
        [&2u32.to_le_bytes()[..], &0x7777u16.to_le_bytes(), &[1; 32], &0x000bu16.to_le_bytes(), &[2; 32], &[0; 4]]
            .concat();
    let log = BootLog::parse(&[&header[..], &7u32.to_le_bytes(), &4u32.to_le_bytes(), &both].concat()).unwrap();
    assert!(log.findings().has("boot.unknown-bank"));
    assert_eq!(log.events().nth(1).unwrap().digest(BANK), Digest::new(BANK, &[2; 32]));
}

/// The log with a SHA-1 bank beside it, as a firmware of both writes it: of data that the log holds the hash, else any digest.
fn two_banks(events: &[(Ev, [u8; 20])]) -> Vec<u8> {
    let mut out = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    out.extend([0; 20]);
    out.extend(37u32.to_le_bytes());
    out.extend(b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x02\0\0\0\x04\0\x14\0\x0b\0\x20\0\0");
    for (event, sha1) in events {
        out.extend([event.pcr, event.kind.0, 2].map(u32::to_le_bytes).concat());
        out.extend([&[0x04, 0], &sha1[..], &[0x0b, 0], &event.digest].concat());
        out.extend((event.data.len() as u32).to_le_bytes());
        out.extend(&event.data);
    }
    out
}

fn sha1_of(event: &Ev) -> [u8; 20] {
    // Whole, or a boot variable's content behind its GUID, lengths and name.
    let name = event.data.get(16..24).map_or(0, |length| u64::from_le_bytes(length.try_into().unwrap()));
    let content = usize::try_from(name).ok().and_then(|name| event.data.get(name.checked_mul(2)?.checked_add(32)?..));
    let parts = [Some(event.data.as_slice()), content];
    let hashed = parts.into_iter().flatten().find(|part| sha256(&[part]) == event.digest);
    let measured = hashed.unwrap_or(b"what the log does not hold");
    HashAlg::Sha1.hash(&[measured]).unwrap().as_bytes().try_into().unwrap()
}

#[test]
fn b15_a_bank_that_the_firmware_never_extended_proves_nothing() {
    let machine = Forge::of("plain");
    let by_firmware: Vec<(Ev, [u8; 20])> = machine.events.iter().map(|one| (one.clone(), sha1_of(one))).collect();
    let judge = |bytes: &[u8], values: &PcrValues| {
        let log = BootLog::parse(bytes).unwrap();
        let mut findings = log.compare(BANK, values, PCRS);
        let (claims, seen) = log.claims_beside(BANK, &[HashAlg::Sha1]);
        findings.append(seen);
        (claims.secure_boot, findings)
    };
    let (honest, findings) = judge(&two_banks(&by_firmware), &machine.values());
    assert_eq!((honest, ids(&findings)), (SecureBoot::Off, Vec::new()), "the honest twin");

    // Root fills the empty SHA-256 bank with what it likes, separators too: the log replays, and the firmware's own bank tells otherwise.
    let mut forged = machine.clone();
    let at = forged.secure_boot_at();
    let data = secure_boot_variable(1);
    forged.events[at] = Ev { digest: sha256(&[&data]), data, ..forged.events[at].clone() };
    let with_sha1 = |forged: &Forge| -> Vec<(Ev, [u8; 20])> {
        forged.events.iter().cloned().zip(by_firmware.iter().map(|(_, sha1)| *sha1)).collect()
    };
    let (_, findings) = judge(&two_banks(&with_sha1(&forged)), &forged.values());
    assert_eq!(ids(&findings), ["boot.banks-disagree"]);
    assert!(!findings.acceptable(), "{findings:?}");

    // Without the firmware's separators nothing tells where its part ends: every PCR is named, and nothing is claimed.
    let mut bare = forged;
    bare.events.retain(|event| event.kind != EventType::EV_SEPARATOR);
    let (secure_boot, findings) = bare.judge(&bare.values());
    assert_eq!(secure_boot, SecureBoot::Unknown);
    let missing = findings.as_slice().iter().filter(|one| one.id == "boot.separator-missing").count();
    assert_eq!(missing, 8, "{findings:?}");

    // A bank that is empty in the log explains no value that somebody extended.
    let (_, findings) = judge(&two_banks(&[]), &machine.values());
    assert!(findings.has("boot.replay"));
}

#[test]
fn b6_odd_logs_are_visible() {
    let honest = honest("plain", SecureBoot::Off);
    let no_action = |data: &[u8]| Ev { pcr: 0, kind: EventType::EV_NO_ACTION, digest: [0; 32], data: data.to_vec() };
    let locality = no_action(b"StartupLocality\0\x03");
    let last = honest.events.len();
    let spec_id = no_action(&honest.header[32..]);
    let outside = Ev { pcr: 24, ..honest.events[0].clone() };
    let rows: [(&str, usize, Vec<Ev>); 5] = [
        ("boot.spec-id-repeated", 3, vec![spec_id]),
        ("boot.startup-locality-repeated", 0, vec![locality.clone(), locality.clone()]),
        ("boot.startup-locality-late", last, vec![locality.clone()]),
        ("boot.pcr-out-of-range", 2, vec![outside.clone()]),
        ("boot.pseudo-pcr", 2, vec![Ev { pcr: u32::MAX, ..outside }]),
    ];
    for (id, at, events) in rows {
        let mut forge = honest.clone();
        forge.events.splice(at..at, events);
        assert_eq!(ids(forge.log().findings()), [id]);
    }
    assert_eq!(ids(honest.log().findings()), [""; 0]);

    // The locality is part of PCR 0: without its event the log does not replay, and the reason is told.
    let mut forge = honest.clone();
    forge.events.insert(0, locality);
    let values = PcrValues::from([(0, forge.log().replay_bank(BANK)[&0])]);
    assert_eq!(ids(&forge.log().compare(BANK, &values, [0])), [""; 0]);
    assert_eq!(ids(&honest.log().compare(BANK, &values, [0])), ["boot.replay", "boot.startup-locality-missing"]);

    // A separator that tells of an error, and a legacy log that has no other bank.
    let mut forge = honest.clone();
    let at = forge.separator_at(1);
    forge.events[at] = Ev { digest: sha256(&[&[1, 0, 0, 0]]), data: vec![1, 0, 0, 0], ..forge.events[at].clone() };
    let (_, findings) = forge.log().claims(BANK);
    assert_eq!(ids(&findings), ["boot.separator-error", "boot.separator-missing"]);
    let sha1 = [&7u32.to_le_bytes()[..], &4u32.to_le_bytes(), &[9; 20], &4u32.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(ids(BootLog::parse(&sha1).unwrap().findings()), ["boot.sha1-only"]);

    // A bank that an event leaves out, and one that the header does not declare.
    let mut bytes = honest.header.clone();
    bytes.extend(
        [&7u32.to_le_bytes()[..], &4u32.to_le_bytes(), &1u32.to_le_bytes(), &4u16.to_le_bytes(), &[9; 20], &[0; 4]]
            .concat(),
    );
    assert_eq!(ids(BootLog::parse(&bytes).unwrap().findings()), ["boot.bank-incomplete", "boot.bank-undeclared"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is cut or flipped: no panic, and Secure Boot never turns from off to on while the log still replays.
    #[test]
    fn b5_no_flip_turns_secure_boot_on(cut in 0usize..4000, flips in proptest::collection::vec((0usize..3549, 1u8..=255), 0..4)) {
        let mut bytes = recorded("plain", "boot-log.bin");
        for (at, mask) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        bytes.truncate(cut.max(64));
        if let Ok(log) = BootLog::parse(&bytes) {
            let replays = log.compare(BANK, &quoted("plain"), PCRS).acceptable();
            let (claims, _) = log.claims(BANK);
            prop_assert!(!(replays && claims.secure_boot == SecureBoot::On));
        }
    }

    /// Arbitrary bytes are an error or a log, never a panic.
    #[test]
    fn b5_arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(log) = BootLog::parse(&bytes) {
            let _ = log.replay();
        }
    }
}
