//! Predicted PCRs: against images whose digests are known by construction, and against quotes of booted images.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "common/uki.rs"]
mod uki;

use std::path::Path;

use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::policy::References;
use hostmark_attest::policy::predicted::{PredictedError, Validity, add_to, bundle};
use hostmark_attest::predict::pe::Image;
use hostmark_attest::predict::{Conditions, FAILED_OPTIONS_MAX, Phase, Prediction, Uki};
use time::macros::datetime;

const SHA256: HashAlg = HashAlg::Sha256;
const BOOTED: Conditions =
    Conditions { secure_boot: true, failed_options: 0, phase: Phase::Ready, systemd_initrd: false };

fn hash(parts: &[&[u8]]) -> Digest {
    SHA256.hash(parts).unwrap()
}

/// A PCR that was extended with these digests.
fn extended(digests: &[Digest]) -> Digest {
    digests.iter().fold(Digest::zero(SHA256), |value, digest| value.extend(digest).unwrap())
}

fn predict(image: &[u8], conditions: &Conditions) -> Prediction {
    Uki::parse(image).unwrap().predict(SHA256, conditions).unwrap()
}

fn value(image: &[u8], conditions: &Conditions, pcr: u8) -> Digest {
    predict(image, conditions).pcrs[&pcr].value
}

#[test]
fn authenticode_leaves_out_what_signing_changes_and_nothing_else() {
    let sections: [(&str, &[u8]); 2] = [(".text", b"some code"), (".data", b"some data")];
    // (PE32+, certificate entry, image)
    let rows = [(true, uki::CERTIFICATES), (false, uki::CERTIFICATES - 16)];
    for (plus, entry) in rows {
        let plain = uki::pe_of(plus, &sections, b"");
        let expect = hash(&[&plain[..uki::CHECKSUM], &plain[uki::CHECKSUM + 4..entry], &plain[entry + 8..]]);
        let digest = |image: &[u8]| Image::parse(image).unwrap().authenticode(SHA256).unwrap();
        assert_eq!(digest(&plain), expect);
        let signed = uki::pe_of(plus, &sections, b"certificates!!!!");
        assert!(Image::parse(&signed).unwrap().is_signed() && !Image::parse(&plain).unwrap().is_signed());
        assert_eq!(digest(&signed), expect, "signing changes no digest");
        let mut summed = signed;
        summed[uki::CHECKSUM] ^= 1;
        *summed.last_mut().unwrap() ^= 1;
        assert_eq!(digest(&summed), expect, "nor do checksum and certificates");
        let tail = [plain.as_slice(), b"appended"].concat();
        assert_ne!(digest(&tail), expect, "what follows the last section is hashed");
        for at in (0..plain.len()).filter(|at| !(uki::CHECKSUM..uki::CHECKSUM + 4).contains(at)) {
            let mut other = plain.clone();
            other[at] ^= 0x80;
            let same = Image::parse(&other).is_ok_and(|image| image.authenticode(SHA256) == Some(expect));
            assert!(!same || (entry..entry + 8).contains(&at), "byte {at} is not hashed");
        }
    }
}

#[test]
fn an_image_without_a_certificate_entry_is_hashed_whole() {
    let mut image = uki::pe(&[(".text", b"some code")], b"");
    image[uki::DIRECTORIES] = 4;
    let expect = hash(&[&image[..uki::CHECKSUM], &image[uki::CHECKSUM + 4..]]);
    assert_eq!(Image::parse(&image).unwrap().authenticode(SHA256), Some(expect));
}

#[test]
fn each_pcr_is_made_of_the_events_that_a_boot_logs() {
    let (image, kernel) = (uki::uki(), uki::kernel());
    let text = |text: &str| hash(&[text.as_bytes()]);
    let section = |name: &str, data: &[u8]| [hash(&[name.as_bytes(), &[0]]), hash(&[data])];
    let own = Image::parse(&image).unwrap().authenticode(SHA256).unwrap();
    let calling = text("Calling EFI Application from Boot Option");
    let returning = text("Returning from EFI Application from Boot Option");
    let separator = hash(&[&[0; 4]]);
    let boot_part = [
        section(".linux", &kernel),
        section(".osrel", uki::OSREL),
        section(".cmdline", uki::CMDLINE),
        section(".initrd", uki::INITRD),
    ]
    .concat();
    let wide: Vec<u8> = uki::CMDLINE.iter().chain(&[0]).flat_map(|byte| [*byte, 0]).collect();
    let phases =
        |words: &[&str]| extended(&[boot_part.clone(), words.iter().map(|word| text(word)).collect()].concat());

    let insecure = Conditions { secure_boot: false, failed_options: 1, ..BOOTED };
    let inner = Image::parse(&kernel).unwrap().authenticode(SHA256).unwrap();
    let in_phase = |phase| Conditions { phase, ..BOOTED };
    let with_initrd = Conditions { systemd_initrd: true, ..BOOTED };
    let rows = [
        (BOOTED, 4, extended(&[calling, separator, own])),
        (insecure, 4, extended(&[calling, separator, returning, calling, own, inner])),
        (BOOTED, 9, extended(&[hash(&[&wide]), hash(&[uki::INITRD])])),
        (in_phase(Phase::Boot), 11, phases(&[])),
        (in_phase(Phase::Sysinit), 11, phases(&["sysinit"])),
        (BOOTED, 11, phases(&["sysinit", "ready"])),
        (with_initrd, 11, phases(&["enter-initrd", "leave-initrd", "sysinit", "ready"])),
        (in_phase(Phase::Final), 11, phases(&["sysinit", "ready", "shutdown", "final"])),
        (BOOTED, 12, extended(&[])),
        (BOOTED, 13, extended(&[])),
    ];
    for (conditions, pcr, expect) in rows {
        let prediction = predict(&image, &conditions);
        assert_eq!(prediction.pcrs[&pcr].value, expect, "PCR {pcr}, {conditions:?}");
        let events: Vec<Digest> = prediction.pcrs[&pcr].events.iter().map(|event| event.digest).collect();
        assert_eq!(extended(&events), expect, "the events shown make the value of PCR {pcr}");
        assert_eq!(prediction.boot_part, phases(&[]));
        assert!(prediction.findings.as_slice().is_empty(), "{:?}", prediction.findings);
    }
}

#[test]
fn every_bank_that_can_be_computed_is_predicted() {
    let image = uki::uki();
    let uki = Uki::parse(&image).unwrap();
    for bank in [HashAlg::Sha1, HashAlg::Sha384, HashAlg::Sha512] {
        let prediction = uki.predict(bank, &BOOTED).unwrap();
        assert!(prediction.pcrs.values().all(|one| one.value.alg() == bank));
        assert!(matches!(bundle(&prediction, &Validity::default(), 1), Err(PredictedError::Bank)));
    }
    assert!(uki.predict(HashAlg::Sm3, &BOOTED).is_err());
}

#[test]
fn an_image_says_what_is_in_it() {
    let image = uki::uki();
    let uki = Uki::parse(&image).unwrap();
    assert_eq!(uki.stub(), Some("252.39-1~deb12u2"));
    assert_eq!(uki.kernel_version(), Some("6.1.0-56-cloud-amd64"));
    assert_eq!(uki.os_name(), Some("Made for a test"));
    assert_eq!(uki.command_line(), Some("ro lockdown=integrity"));
}

#[test]
fn changing_any_byte_of_a_measured_section_changes_the_prediction() {
    let image = uki::uki();
    let before = predict(&image, &BOOTED);
    for (name, data) in [(".osrel", uki::OSREL), (".cmdline", uki::CMDLINE), (".initrd", uki::INITRD)] {
        let start = image.windows(data.len()).position(|part| part == data).unwrap();
        for at in start..start + data.len() {
            let mut other = image.clone();
            other[at] ^= 0x01;
            let after = predict(&other, &BOOTED);
            for pcr in [4, 11] {
                assert_ne!(after.pcrs[&pcr].value, before.pcrs[&pcr].value, "{name} byte {at}, PCR {pcr}");
            }
            let changed = after.pcrs.get(&9).map(|pcr| pcr.value) != Some(before.pcrs[&9].value);
            assert_eq!(changed, name != ".osrel", "{name} byte {at}, PCR 9");
        }
    }
    // The kernel's bytes, wherever it still frames.
    let kernel = uki::kernel();
    let start = image.windows(kernel.len()).position(|part| part == kernel).unwrap();
    for at in start..start + kernel.len() {
        let mut other = image.clone();
        other[at] ^= 0x01;
        if let Ok(uki) = Uki::parse(&other) {
            assert_ne!(
                uki.predict(SHA256, &BOOTED).unwrap().pcrs[&11].value,
                before.pcrs[&11].value,
                ".linux byte {at}"
            );
        }
    }
}

#[test]
fn what_cannot_be_predicted_is_left_out_and_said() {
    let kernel = uki::kernel();
    let with = |extra: &[(&'static str, &'static [u8])], without: &str| {
        let mut sections = uki::sections(&kernel);
        sections.retain(|(name, _)| *name != without);
        sections.extend_from_slice(extra);
        predict(&uki::pe(&sections, b""), &BOOTED)
    };
    // (sections added, section left out, findings, PCRs left)
    type Row = (&'static [(&'static str, &'static [u8])], &'static str, &'static [&'static str], &'static [u8]);
    let rows: [Row; 6] = [
        (&[], "", &[], &[4, 9, 11, 12, 13]),
        (&[], ".initrd", &[], &[4, 9, 11, 12, 13]),
        (&[], ".cmdline", &["predict.command-line"], &[4, 11, 13]),
        (&[(".pcrsig", b"{}")], "", &["predict.initrd"], &[4, 11, 12, 13]),
        (&[(".pcrpkey", b"key")], "", &["predict.initrd"], &[4, 11, 12, 13]),
        (&[(".sbat", b"sbat")], ".sdmagic", &["predict.stub"], &[4, 9, 11, 12, 13]),
    ];
    for (extra, without, ids, left) in rows {
        let prediction = with(extra, without);
        let found: Vec<&str> = prediction.findings.as_slice().iter().map(|one| one.id.as_str()).collect();
        assert_eq!(found, ids, "{extra:?} without {without:?}");
        assert_eq!(prediction.pcrs.keys().copied().collect::<Vec<_>>(), left, "{extra:?} without {without:?}");
    }
    // Signatures over PCR 11 are not in it; the key that they are verified with is. Stub 252 measures no .sbat.
    let pcr11 = |extra| with(extra, "").pcrs[&11].value;
    assert_eq!(pcr11(&[(".pcrsig", b"{}")]), pcr11(&[]));
    assert_eq!(pcr11(&[(".sbat", b"sbat")]), pcr11(&[]));
    assert_ne!(pcr11(&[(".pcrpkey", b"key")]), pcr11(&[]));
}

fn put(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn hostile_images_are_refused_at_a_byte() {
    type Edit = fn(&mut Vec<u8>);
    let rows: [(&str, Edit, usize, &str); 17] = [
        ("no DOS signature", |image| image[0] = b'X', 0, "MZ"),
        ("empty", Vec::clear, 0, "the DOS signature needs 2 bytes"),
        ("PE header beyond the end", |image| put(image, 0x3c, u32::MAX), 0x3c, "beyond"),
        ("no PE signature", |image| image[uki::PE] = 0, uki::PE, "no PE signature"),
        ("many sections", |image| put(image, uki::COUNT, 97), uki::COUNT, "the limit is 96"),
        ("sections beyond the headers", |image| image[uki::COUNT] = 96, 0, ""),
        ("another magic", |image| image[uki::OPTIONAL + 1] = 7, uki::OPTIONAL, "magic"),
        ("an optional header that ends early", |image| image[uki::PE + 20] = 60, uki::OPTIONAL + 60, "SizeOfHeaders"),
        ("SizeOfHeaders too small", |image| put(image, uki::HEADERS, 64), 0, "SizeOfHeaders"),
        ("SizeOfHeaders too large", |image| put(image, uki::HEADERS, u32::MAX), 0, "SizeOfHeaders"),
        ("many directories", |image| put(image, uki::DIRECTORIES, 17), uki::DIRECTORIES, "the limit is 16"),
        ("certificates inside", |image| put(image, uki::CERTIFICATES + 4, 8), uki::CERTIFICATES, "certificate table"),
        ("a section beyond the end", |image| put(image, uki::ROWS + 16, u32::MAX), 1024, "a section's data needs"),
        ("a section that begins beyond the end", |image| put(image, uki::ROWS + 20, u32::MAX), uki::ROWS + 20, "needs"),
        ("a section over the headers", |image| put(image, uki::ROWS + 20, 64), uki::ROWS, "overlaps"),
        ("two sections of one place", |image| put(image, uki::ROWS + 60, 1024), uki::ROWS + 40, "overlaps"),
        ("a section longer than its data", |image| put(image, uki::ROWS + 88, 1 << 31), uki::ROWS + 80, "in memory"),
    ];
    assert!(Uki::parse(&uki::uki()).is_ok());
    for (what, edit, at, message) in rows {
        let mut image = uki::uki();
        edit(&mut image);
        let error = Uki::parse(&image).map(|_| ()).expect_err(what);
        assert!(at == 0 || error.at == at, "{what}: {error}, expected at byte {at}");
        assert!(error.to_string().contains(message), "{what}: {error}");
    }
}

#[test]
fn ambiguous_sections_are_refused() {
    let kernel = uki::kernel();
    let rows: [(&str, &str); 4] = [
        (".cmdline", "a measured section stands twice"),
        (".linux", "a measured section stands twice"),
        (".dtbauto", "begins like a measured one"),
        (".splash2", "begins like a measured one"),
    ];
    for (name, message) in rows {
        let mut sections = uki::sections(&kernel);
        sections.push((name, b"x"));
        let error = Uki::parse(&uki::pe(&sections, b"")).map(|_| ()).expect_err(name);
        assert!(error.to_string().contains(message), "{name}: {error}");
    }
    let no_kernel = Uki::parse(&uki::pe(&[(".text", b"x")], b"")).map(|_| ()).unwrap_err();
    assert!(no_kernel.to_string().contains("no .linux section"), "{no_kernel}");
}

#[test]
fn truncated_or_flipped_images_never_panic() {
    let image = uki::pe(&uki::sections(&uki::kernel()), b"certificates!!!!");
    let look = |bytes: &[u8]| Uki::parse(bytes).map(|uki| uki.predict(SHA256, &BOOTED)).is_ok();
    assert!(look(&image));
    for end in 0..image.len() {
        assert!(!look(&image[..end]), "a signed image cut at byte {end} is whole");
    }
    for at in 0..image.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut other = image.clone();
            other[at] ^= flip;
            let _ = look(&other);
        }
    }
}

#[test]
fn a_prediction_becomes_reference_values() {
    let prediction = predict(&uki::uki(), &BOOTED);
    let text = bundle(&prediction, &Validity::default(), 3).unwrap();
    let references = References::parse("host", &text).unwrap();
    let now = datetime!(2026-11-22 12:00 UTC);
    let open = |references: &References| references.open(now).cloned().collect::<Vec<_>>();
    let windows = open(&references);
    assert_eq!((references.version(), windows.len()), (3, 1));
    for pcr in [4, 9, 11, 12] {
        assert!(windows[0].pcr(SHA256, pcr).unwrap().contains(&prediction.pcrs[&pcr].value), "PCR {pcr}");
    }
    assert!(windows[0].pcr(SHA256, 11).unwrap().contains(&prediction.boot_part));
    assert!(windows[0].pcr(SHA256, 13).is_none(), "the host log's PCR is never judged by value");

    // An update: its window opens later, and the old image's stays.
    let mut updated = uki::uki();
    let at = updated.windows(3).position(|part| part == b"ro ").unwrap();
    updated[at..at + 2].copy_from_slice(b"rw");
    let update = predict(&updated, &BOOTED);
    let later = Validity { from: Some("2027-01-01T00:00:00Z".to_owned()), until: None };
    let both = References::parse("host", &add_to("host", &text, &update, &later).unwrap()).unwrap();
    assert_eq!((both.version(), open(&both).len()), (4, 1));
    assert_eq!(both.open(datetime!(2027-01-02 0:00 UTC)).count(), 2);
    for bad in ["tomorrow", "2026-13-01T00:00:00Z"] {
        let validity = Validity { from: Some(bad.to_owned()), until: None };
        assert!(matches!(add_to("host", &text, &update, &validity), Err(PredictedError::Policy(_))), "{bad}");
    }
}

#[test]
fn failed_options_are_bounded_and_taken_from_a_log() {
    let image = uki::uki();
    let many = |failed_options| value(&image, &Conditions { failed_options, ..BOOTED }, 4);
    assert_eq!(many(u8::MAX), many(FAILED_OPTIONS_MAX));
    let recorded = |name: &str| {
        let path = format!("{}/testdata/recorded/{name}/boot-log.bin", env!("CARGO_MANIFEST_DIR"));
        BootLog::parse(&std::fs::read(path).unwrap()).unwrap()
    };
    for (name, secure_boot) in [("plain", false), ("secureboot", true)] {
        let like = BOOTED.like(&recorded(name), SHA256);
        assert_eq!((like.secure_boot, like.failed_options), (secure_boot, 1), "{name}");
    }
}

/// Boots that this machine recorded together with their image: `images/record --keep-uki`.
#[test]
fn a_recorded_image_gives_the_quoted_values() {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/out");
    let folders = std::fs::read_dir(&out).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut compared = 0;
    for folder in folders.filter(|folder| folder.join("uki.efi").exists() && folder.join("pcrs.quoted.txt").exists()) {
        let image = std::fs::read(folder.join("uki.efi")).unwrap();
        let log = BootLog::parse(&std::fs::read(folder.join("boot-log.bin")).unwrap()).unwrap();
        let quoted = std::fs::read_to_string(folder.join("pcrs.quoted.txt")).unwrap();
        let like = BOOTED.like(&log, SHA256);
        let holds = |pcr: u8, value: Digest| quoted.lines().any(|one| one == format!("sha256 {pcr} {value}"));
        for (pcr, predicted) in predict(&image, &like).pcrs.iter().filter(|(pcr, _)| ![11, 13].contains(*pcr)) {
            assert!(holds(*pcr, predicted.value), "{}: PCR {pcr}", folder.display());
        }
        // The host log follows in PCR 13: its boot part is what the boot log gives.
        let boot_part = log.replay_bank(SHA256).get(&13).copied().unwrap_or(Digest::zero(SHA256));
        assert_eq!(value(&image, &like, 13), boot_part, "{}: PCR 13", folder.display());
        // A small guest runs no systemd and enters no phase; a host was ready when it was recorded.
        let reached = [Phase::Boot, Phase::Ready].map(|phase| value(&image, &Conditions { phase, ..like }, 11));
        assert!(reached.into_iter().any(|value| holds(11, value)), "{}: PCR 11", folder.display());
        compared += 1;
    }
    if compared == 0 {
        println!("skipped: no recording below images/out holds its image: images/record --keep-uki");
    }
}
