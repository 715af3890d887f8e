//! What operators write or bring: policies, pools, labels, reference values and what they are made from, kernel images.
//!
//! Beside "it returns": what is written can be read and says no more than what it was made from, and what accepts a difference ends.

use std::str::FromStr as _;

use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::digest::HashAlg;
use hostmark_attest::label::{Label, Levels};
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::policy::corim::{Signer, VerifiedCorim};
use hostmark_attest::policy::import;
use hostmark_attest::policy::predicted::{Validity, bundle};
use hostmark_attest::policy::rebase::{Terms, rebase};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::pool::Pool;
use hostmark_attest::predict::pe::Image;
use hostmark_attest::predict::{Conditions, Phase, Uki};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::{made, signed};

const NOW: OffsetDateTime = datetime!(2026-11-22 8:00 UTC);
const UNTIL: OffsetDateTime = datetime!(2026-12-24 0:00 UTC);

fn text(bytes: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

pub(super) fn policy(bytes: &[u8]) {
    text(bytes, |text| drop(AppraisalPolicy::parse("fuzz", text)));
}

pub(super) fn admission(bytes: &[u8]) {
    text(bytes, |text| drop(AdmissionPolicy::parse("fuzz", text)));
}

pub(super) fn pool(bytes: &[u8]) {
    text(bytes, |text| drop(Pool::parse("fuzz", text, &Levels::default())));
}

pub(super) fn references(bytes: &[u8]) {
    text(bytes, |text| drop(References::parse("fuzz", text)));
}

pub(super) fn label(bytes: &[u8]) {
    if let Some(label) = std::str::from_utf8(bytes).ok().and_then(|text| Label::from_str(text).ok()) {
        assert_eq!(Label::from_str(&label.to_string()).as_ref(), Ok(&label), "a label's canonical form is a label");
    }
}

/// A Keylime runtime policy. Every digest that becomes a reference value stands in it.
pub(super) fn keylime(bytes: &[u8]) {
    let Ok(imported) = import::keylime(bytes, 3) else { return };
    let Ok(read) = References::parse("imported", &imported.text) else { panic!("what is imported can be read") };
    assert_eq!(read.version(), 3);
    let input = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    for digest in imported.text.split(['"', '\'']).filter_map(|one| one.split_once(':')).map(|(_, hex)| hex) {
        let plain = digest.len() >= 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(!plain || input.contains(&digest.to_ascii_lowercase()) || input.contains("\\u"), "{digest}");
    }
}

/// As a whole file, and as what a trusted author signs: behind the signature lies most of the parser.
pub(super) fn signed_corim(bytes: &[u8]) {
    text(bytes, |text| drop(Signer::from_pem("fuzz", text)));
    for file in [bytes.to_vec(), signed::envelope(bytes)] {
        let Ok(verified) = VerifiedCorim::verify(&file, signed::signers(), NOW) else { continue };
        for environment in [None, verified.environments().next()] {
            if let Ok((imported, _)) = verified.import(environment, 3) {
                let Ok(read) = References::parse("imported", &imported.text) else {
                    panic!("what is imported can be read")
                };
                assert_eq!((read.version(), read.open(NOW).count()), (3, 1), "what is imported is valid now");
            }
        }
    }
}

/// Two bundles: the second holds what a machine has.
pub(super) fn rebased(bytes: &[u8]) {
    let Ok(both) = std::str::from_utf8(bytes) else { return };
    let (before, captured) = both.split_once(made::BREAK).unwrap_or((both, both));
    let terms = Terms { model: "R340".to_owned(), change: "CHG-7".to_owned(), from: None, until: UNTIL };
    let Ok(rebased) = rebase("fuzz", before, captured, &terms, NOW) else { return };
    let Some(text) = &rebased.text else { return assert!(rebased.differences.is_empty()) };
    let (Ok(old), Ok(new)) = (References::parse("fuzz", before), References::parse("fuzz", text)) else {
        panic!("both can be read")
    };
    assert_eq!(new.version(), old.version() + 1);
    assert_eq!(new.open(UNTIL).count(), old.open(UNTIL).count(), "what is accepted ends");
    assert_eq!(new.open(NOW).count(), old.open(NOW).count() + 1);
}

/// A boot log, an IMA list and a manifest, as a machine has them.
pub(super) fn captured(bytes: &[u8]) {
    let sources = [
        Capture { boot_log: bytes, ..Capture::default() },
        Capture { ima: bytes, ..Capture::default() },
        Capture { manifests: &[bytes], ..Capture::default() },
    ];
    for source in sources {
        if let Ok(text) = capture(&source, 1) {
            assert!(References::parse("captured", &text).is_ok(), "what is captured can be read:\n{text}");
        }
    }
}

pub(super) fn kernel_image(bytes: &[u8]) {
    if let Ok(image) = Image::parse(bytes) {
        let _ = image.authenticode(HashAlg::Sha256);
    }
    let Ok(uki) = Uki::parse(bytes) else { return };
    let _ = (uki.stub(), uki.kernel_version(), uki.os_name(), uki.command_line());
    for secure_boot in [true, false] {
        let conditions = Conditions { secure_boot, failed_options: 1, phase: Phase::Final, systemd_initrd: true };
        if let Ok(prediction) = uki.predict(HashAlg::Sha256, &conditions)
            && let Ok(text) = bundle(&prediction, &Validity::default(), 1)
        {
            assert!(References::parse("predicted", &text).is_ok(), "what is predicted can be read");
        }
    }
}
