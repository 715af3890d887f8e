//! A report on a profile.

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{
    Counts, Layer, Level, Observation, Observed, Part, Profile, ProfileReport, SignedWaiver, SourceKind, Stated,
    Status, judge,
};

const TEXT: &str = r#"
[[control]]
id = "host.a"
title = "t"
refs = []
role = "operator"
severity = "high"
fix = "automatic"
resource = { sysctl = "a.b" }
want = 1
prove = "kernel"
"#;

/// A waiver on it.
pub const WAIVER: &str =
    "controls = ['host.a']\nhosts = ['a']\nreason = 'r'\napprover = 'p'\nexpires = '2027-01-31T00:00:00Z'\n";

/// A report on one control that fails, and that it calls waived.
#[must_use]
pub fn profile_report() -> Vec<u8> {
    let made = || {
        let layer = Layer::parse(Part::Host, Level::Baseline, TEXT).ok()?;
        let profile = Profile::build(Level::Baseline, vec![layer]).ok()?;
        let seen = |value| Stated::new(SourceKind::Kernel, "/proc/sys", Observed::Value(Setting::Number(value)));
        let observation = Observation::Seen { effective: seen(2), others: vec![seen(1)] };
        let outcome = judge(profile.control("host.a")?, observation, None);
        let mut report = ProfileReport::new(&profile, true, vec![outcome]);
        report.waivers.push(SignedWaiver { text: WAIVER.to_owned(), signature: "a..b".to_owned() });
        report.outcomes.first_mut()?.waiver = report.waivers.first().map(SignedWaiver::digest);
        report.outcomes.first_mut()?.status = Status::Waived;
        report.counts = Counts::of(&report.outcomes);
        Some(report.to_canonical())
    };
    made().unwrap_or_default()
}
