//! Files of controls, and what hosts report of them.

use hostmark_attest::jws::KeySet;
use hostmark_attest::profile::{
    KeyPath, Layer, Level, Observation, Observed, Part, Profile, ProfileReport, SourceKind, Stated, Waiver, judge,
};
use time::OffsetDateTime;

/// A file of each part. One that loads is a profile, whose controls are written and judged.
pub(super) fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = KeyPath::parse(text) {
        assert_eq!(KeyPath::parse(&key.to_string()).as_ref(), Ok(&key), "a key's canonical form is the key");
    }
    drop(Waiver::parse("waiver.toml", text));
    let _ = KeySet::new().add_pem(bytes);
    for part in Part::ALL {
        let Ok(layer) = Layer::parse(part, Level::Baseline, text) else { continue };
        let Ok(profile) = Profile::build(Level::Restricted, vec![layer]) else { continue };
        drop(profile.coverage());
        for control in profile.controls() {
            let textual = control.resource.is_textual();
            assert_ne!(control.want.tightens(&control.want, textual), Some(false), "nothing loosens itself");
            let value = control.value_to_write().map_or(Observed::Absent, Observed::Value);
            let effective = Stated::new(SourceKind::File, "file", value);
            drop(judge(control, Observation::Seen { effective, others: Vec::new() }, None));
        }
    }
}

/// A report that parses is its own canonical bytes.
pub(super) fn report(bytes: &[u8]) {
    if let Ok(report) = ProfileReport::parse(bytes) {
        assert_eq!(report.to_canonical(), bytes);
        let (waived, _) = report.waived_by(&KeySet::new(), &["a"], OffsetDateTime::UNIX_EPOCH);
        assert_eq!(waived.counts.waived, 0, "nobody's key excuses nothing");
    }
}
