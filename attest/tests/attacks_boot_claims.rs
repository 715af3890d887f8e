//! Rows B2, B3 and B6 for what a boot log says beside Secure Boot and the command line: key databases, descriptions, quirks.
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

#[path = "common/forge.rs"]
mod forge;

use std::collections::{BTreeMap, BTreeSet};

use forge::{BANK, Ev, Forge, PCRS, quoted};
use hostmark_attest::boot_log::{BootQuirks, Description, EventType};
use hostmark_attest::digest::{Digest, PcrValues, sha256};
use hostmark_attest::finding::Severity;
use proptest::prelude::*;

const NONE: BootQuirks = BootQuirks { exit_boot_services: false, startup_locality: false };
const EXIT: BootQuirks = BootQuirks { exit_boot_services: true, startup_locality: false };
const LOCALITY: BootQuirks = BootQuirks { exit_boot_services: false, startup_locality: true };

/// The ids, and whether the PCR counts as explained.
fn explained(forge: &Forge, values: &PcrValues, pcr: u8, quirks: BootQuirks) -> (Vec<String>, bool) {
    let log = forge.log();
    let (replayed, findings) = log.explain_quoted(BANK, values, [pcr], quirks);
    let told = |id: &str| findings.as_slice().iter().any(|one| one.id == id && one.severity == Severity::Error);
    assert_eq!(told("boot.replay"), !replayed.explained().contains(&pcr));
    (findings.as_slice().iter().map(|one| one.id.clone()).collect(), replayed.explained().contains(&pcr))
}

#[test]
fn b6_a_quirk_excuses_exactly_what_it_names() {
    let honest = Forge::of("plain");
    let actions: Vec<Ev> =
        honest.events.iter().filter(|one| one.data.starts_with(b"Exit Boot Services")).cloned().collect();
    assert_eq!(actions.len(), 2);
    // The machine extended both; the log leaves them out.
    let mut unlogged = honest.clone();
    unlogged.events.retain(|one| !one.data.starts_with(b"Exit Boot Services"));
    let with = |events: &[Ev]| {
        let mut forge = unlogged.clone();
        forge.events.extend_from_slice(events);
        forge.values()
    };
    let (both, replay) = (with(&actions), "boot.replay");
    let told = "boot.exit-boot-services-unlogged";
    let other = Ev { digest: sha256(&[b"x"]), data: b"x".to_vec(), ..actions[0].clone() };
    let swapped = [actions[1].clone(), actions[0].clone()];
    let rows: [(&str, PcrValues, BootQuirks, &[&str]); 7] = [
        ("tolerated", both.clone(), EXIT, &[told]),
        ("not tolerated", both.clone(), NONE, &[replay, told]),
        ("another quirk", both.clone(), LOCALITY, &[replay, told]),
        ("one of the two", with(&actions[..1]), EXIT, &[replay]),
        ("in another order", with(&swapped), EXIT, &[replay]),
        ("and one more", with(&[actions.as_slice(), std::slice::from_ref(&other)].concat()), EXIT, &[replay]),
        ("something else", with(&[other.clone(), other]), EXIT, &[replay]),
    ];
    for (what, values, quirks, expect) in rows {
        let (ids, passed) = explained(&unlogged, &values, 5, quirks);
        assert_eq!((ids, passed), (expect.iter().map(|id| (*id).to_owned()).collect(), expect == [told]), "{what}");
    }
    assert_eq!(explained(&honest, &quoted("plain"), 5, NONE), (vec![], true));

    let told = "boot.startup-locality-missing";
    let from = |first: u8| {
        let mut value = [0; 32];
        value[31] = first;
        let extend = |value: Digest, one: &Ev| value.extend(&Digest::new(BANK, &one.digest).unwrap()).unwrap();
        let events = honest.events.iter().filter(|one| one.pcr == 0 && one.kind != EventType::EV_NO_ACTION);
        PcrValues::from([(0, events.fold(Digest::new(BANK, &value).unwrap(), extend))])
    };
    let rows: [(u8, BootQuirks, &[&str]); 6] = [
        (0, LOCALITY, &[]),
        (3, LOCALITY, &[told]),
        (4, LOCALITY, &[told]),
        (3, NONE, &[replay, told]),
        (1, LOCALITY, &[replay]),
        (2, LOCALITY, &[replay]),
    ];
    for (locality, quirks, expect) in rows {
        let (ids, passed) = explained(&honest, &from(locality), 0, quirks);
        assert_eq!(
            (ids, passed),
            (expect.iter().map(|id| (*id).to_owned()).collect(), !expect.contains(&replay)),
            "{locality}"
        );
    }
}

/// The key databases that a log proves against these values.
fn databases(forge: &Forge, values: &PcrValues) -> BTreeMap<&'static str, [u8; 32]> {
    forge.log().explain_quoted(BANK, values, PCRS, NONE).0.key_databases()
}

/// Position and content of the one variable of PCR 7 with this name.
fn variable(forge: &Forge, name: &str) -> (usize, Vec<u8>) {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let is = |one: &Ev| {
        one.pcr == 7 && one.data.get(32..32 + name.len()) == Some(&name) && one.data[16] == (name.len() / 2) as u8
    };
    let at = forge.events.iter().position(is).unwrap();
    (at, forge.events[at].data[32 + name.len()..].to_vec())
}

#[test]
fn b2_b3_a_key_database_is_proven_by_the_one_variable_that_the_firmware_measured() {
    let honest = Forge::of("secureboot");
    let values = quoted("secureboot");
    let proven = databases(&honest, &values);
    assert_eq!(proven.keys().copied().collect::<Vec<_>>(), ["KEK", "PK", "db", "dbx"]);
    let (at, content) = variable(&honest, "db");
    assert_eq!(proven["db"], sha256(&[&content]));

    let separator = honest.separator_at(7);
    type Edit<'a> = Box<dyn Fn(&mut Forge) + 'a>;
    // (what, edit, whether the quoted values are those of the edited log, the databases that are still proven)
    let rows: Vec<(&str, Edit<'_>, bool, &[&str])> = vec![
        (
            "another type",
            Box::new(|f| f.events[at].kind = EventType::EV_EFI_VARIABLE_BOOT),
            false,
            &["KEK", "PK", "dbx"],
        ),
        ("other data, the digest kept", Box::new(|f| *f.events[at].data.last_mut().unwrap() ^= 1), false, &[]),
        (
            "other data and digest",
            Box::new(|f| {
                *f.events[at].data.last_mut().unwrap() ^= 1;
                f.events[at].digest = sha256(&[&f.events[at].data]);
            }),
            false,
            &[],
        ),
        ("twice", Box::new(|f| f.events.insert(at, f.events[at].clone())), true, &["KEK", "PK", "dbx"]),
        (
            "after the separator",
            Box::new(|f| {
                let moved = f.events.remove(at);
                f.events.insert(separator, moved);
            }),
            true,
            &["KEK", "PK", "dbx"],
        ),
        (
            "of another vendor",
            Box::new(|f| {
                f.events[at].data[0] ^= 1;
                f.events[at].digest = sha256(&[&f.events[at].data]);
            }),
            true,
            &["KEK", "PK", "dbx"],
        ),
        ("no separator", Box::new(|f| drop(f.events.remove(separator))), true, &[]),
    ];
    for (what, edit, own, expect) in rows {
        let mut forge = honest.clone();
        edit(&mut forge);
        let quoted = if own { forge.values() } else { values.clone() };
        let found = databases(&forge, &quoted);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), expect, "{what}");
        assert!(found.iter().all(|(name, digest)| proven[name] == *digest), "{what}");
    }
}

/// A variable as an event holds it.
fn variable_data(guid: [u8; 16], name: &str, content: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = |bytes: usize| (bytes as u64).to_le_bytes();
    [&guid[..], &length(name.len() / 2), &length(content.len()), &name, content].concat()
}

#[test]
fn b2_b3_what_vouched_for_programs_shows_itself_and_the_first_level_counts() {
    const SHIM_LOCK: [u8; 16] =
        [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];
    const KIND: EventType = EventType::EV_EFI_VARIABLE_AUTHORITY;
    let mut honest = Forge::of("secureboot");
    let seen = |forge: &Forge| {
        let found = forge.log().explain_quoted(BANK, &forge.values(), PCRS, NONE).0.authorities()?;
        Some((found.used.len(), found.sbat_level))
    };
    // Secure Boot of the recorded machine: one certificate of db vouched for one program, and no shim.
    assert_eq!(seen(&honest), Some((1, None)));
    let level = |date: &str| variable_data(SHIM_LOCK, "SbatLevel", format!("sbat,1,{date}\nshim,2\n").as_bytes());
    let (old, new) = (level("2021030218"), level("2024010900"));
    honest.extend(7, KIND, &old);
    let told = |level: &str| Some((1, Some(level.to_owned())));
    assert_eq!(seen(&honest), told("sbat,1,2021030218"));
    // Other values than the quoted ones: nothing is claimed.
    assert_eq!(honest.log().explain_quoted(BANK, &quoted("secureboot"), PCRS, NONE).0.authorities(), None);

    let separator = honest.separator_at(7);
    type Row<'a> = (&'a str, Box<dyn Fn(&mut Forge) + 'a>, Option<(usize, Option<String>)>);
    let rows: Vec<Row<'_>> = vec![
        ("root appends a newer level", Box::new(|f| f.extend(7, KIND, &new)), told("sbat,1,2021030218")),
        (
            "and hides the first one behind other data",
            Box::new(|f| {
                *f.events.last_mut().unwrap().data.last_mut().unwrap() ^= 1;
                f.extend(7, KIND, &new);
            }),
            None,
        ),
        (
            "or behind another type",
            Box::new(|f| {
                f.events.last_mut().unwrap().kind = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
                f.extend(7, KIND, &new);
            }),
            told("sbat,1,2021030218"),
        ),
        (
            "a level of another vendor is an authority",
            Box::new(|f| f.extend(7, KIND, &variable_data([0; 16], "SbatLevel", b"sbat,1,2024010900"))),
            Some((2, Some("sbat,1,2021030218".to_owned()))),
        ),
        (
            "what is no variable is an authority too",
            Box::new(|f| f.extend(7, KIND, b"padded")),
            Some((2, Some("sbat,1,2021030218".to_owned()))),
        ),
        (
            "and a separator of an error",
            Box::new(|f| f.extend(7, EventType::EV_SEPARATOR, &[1, 0, 0, 0])),
            Some((2, Some("sbat,1,2021030218".to_owned()))),
        ),
        (
            "honest twin: a firmware that repeats its separator, and a boot manager's text, vouch for nothing",
            Box::new(|f| {
                f.extend(7, EventType::EV_SEPARATOR, &[0; 4]);
                f.extend(7, EventType::EV_EFI_ACTION, b"Calling EFI Application from Boot Option");
            }),
            told("sbat,1,2021030218"),
        ),
        (
            "a level before the separator is none",
            Box::new(|f| {
                let moved = f.events.pop().unwrap();
                f.events.insert(separator, moved);
            }),
            Some((1, None)),
        ),
        ("no separator", Box::new(|f| drop(f.events.remove(separator))), None),
    ];
    for (what, edit, expect) in rows {
        let mut forge = honest.clone();
        edit(&mut forge);
        assert_eq!(seen(&forge), expect, "{what}");
    }
}

/// Every statement of a description with the PCR that it rests on: what a log says must never grow by an edit.
fn statements(said: &Description) -> BTreeSet<(u8, String)> {
    // Where the name is not hashed it is told so, and states nothing.
    let variables = said.variables.iter().map(|one| match one.named {
        true => (one.pcr, format!("{} {} {:?} {:?}", one.name, one.sha256, one.certificates, one.value)),
        false => (one.pcr, one.sha256.clone()),
    });
    let texts = said.texts.iter().map(|one| (one.pcr, format!("{} {}", one.kind, one.text)));
    let digests = said.loaded.iter().map(|one| (one.pcr, one.digest.clone()));
    variables.chain(texts).chain(digests).collect()
}

#[test]
fn b3_what_is_described_rests_on_recomputed_data() {
    for boot in ["plain", "secureboot", "systemd"] {
        let honest = Forge::of(boot);
        let values = quoted(boot);
        let before = honest.log().explain_quoted(BANK, &values, PCRS, NONE).0.describe();
        assert!(before.variables.iter().any(|one| one.name == "SecureBoot" && one.by_firmware));
        let before = statements(&before);
        for at in 0..honest.events.len() {
            let mut forge = honest.clone();
            let Some(last) = forge.events[at].data.last_mut() else { continue };
            *last ^= 1;
            let after = statements(&forge.log().explain_quoted(BANK, &values, PCRS, NONE).0.describe());
            // An event whose data no longer hashes to its digest may be shown by its digest alone.
            let digests: BTreeSet<String> = honest.events.iter().map(|one| hex(&one.digest)).collect();
            let new: Vec<_> = after.difference(&before).filter(|(_, text)| !digests.contains(text)).collect();
            assert!(new.is_empty(), "{boot}, event {at}: {new:?}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever single byte is flipped or wherever the log is cut: the proven claims are never fuller than the honest log's.
    #[test]
    fn b1_b3_no_flip_or_cut_yields_a_fuller_claim(boot in 0usize..3, at in 0usize..60_000, mask in 1u8..=255, cut in any::<bool>()) {
        let boot = ["plain", "secureboot", "systemd"][boot];
        let honest = Forge::of(boot);
        let values = quoted(boot);
        let mut bytes = honest.bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= mask }
        if let Ok(log) = hostmark_attest::boot_log::BootLog::parse(&bytes) {
            let original = honest.log();
            let (before, _) = original.explain_quoted(BANK, &values, PCRS, EXIT);
            let (after, _) = log.explain_quoted(BANK, &values, PCRS, EXIT);
            prop_assert!(after.explained().is_subset(before.explained()));
            let ((old, _), (new, _)) = (before.claims(), after.claims());
            prop_assert!(new.secure_boot == old.secure_boot || new.secure_boot.name() == "unknown");
            prop_assert!(new.command_line.is_none() || new.command_line == old.command_line);
            prop_assert!(new.crtm_version.is_none() || new.crtm_version == old.crtm_version);
            prop_assert!(new.separators.is_subset(&old.separators));
            let digests = |claims: &hostmark_attest::boot_log::BootClaims| -> Option<Vec<String>> {
                claims.boot_applications.as_ref().map(|list| list.iter().map(|one| one.digest.clone()).collect())
            };
            prop_assert!(digests(&new).is_none() || digests(&new) == digests(&old));
            prop_assert!(new.image.is_empty() || new.image == old.image);
            prop_assert!(after.authorities().is_none() || after.authorities() == before.authorities());
            prop_assert!(after.key_databases().iter().all(|(name, digest)| before.key_databases().get(name) == Some(digest)));
            // A type is not hashed: it selects how a text is shown, not what it is.
            let retyped = !cut && original.events().any(|event| (event.at() + 4..event.at() + 8).contains(&at));
            let told: BTreeSet<String> = honest.events.iter().map(|one| hex(&one.digest)).collect();
            let (old, new) = (statements(&before.describe()), statements(&after.describe()));
            prop_assert!(retyped || new.difference(&old).all(|(_, text)| told.contains(text)), "{:?}", new.difference(&old));
        }
    }
}
