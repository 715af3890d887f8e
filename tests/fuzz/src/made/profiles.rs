//! A report on a profile.

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{
    Layer, Level, Observation, Observed, Part, Profile, ProfileReport, SourceKind, Stated, judge,
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

/// A report on one control that fails.
#[must_use]
pub fn profile_report() -> Vec<u8> {
    let made = || {
        let layer = Layer::parse(Part::Host, Level::Baseline, TEXT).ok()?;
        let profile = Profile::build(Level::Baseline, vec![layer]).ok()?;
        let seen = |value| Stated::new(SourceKind::Kernel, "/proc/sys", Observed::Value(Setting::Number(value)));
        let observation = Observation::Seen { effective: seen(2), others: vec![seen(1)] };
        let outcome = judge(profile.control("host.a")?, observation, None);
        Some(ProfileReport::new(&profile, true, vec![outcome]).to_canonical())
    };
    made().unwrap_or_default()
}
