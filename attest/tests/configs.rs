//! Every shipped policy, pool and admission file parses and validates.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

use std::collections::BTreeSet;

use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::label::Levels;
use hostmark_attest::policy::AppraisalPolicy;
use hostmark_attest::pool::Pool;

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = format!("{}/../configs/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    paths.map(read).collect()
}

#[test]
fn every_shipped_file_loads_and_names_what_exists() {
    let appraisal: BTreeSet<String> = files("appraisal")
        .into_iter()
        .map(|(name, text)| AppraisalPolicy::parse(&name, &text).unwrap().name().to_owned())
        .collect();
    let admission: BTreeSet<String> = files("admission")
        .into_iter()
        .map(|(name, text)| {
            let policy = AdmissionPolicy::parse(&name, &text).unwrap();
            assert!(appraisal.contains(policy.requires_appraisal()), "{name}: {}", policy.requires_appraisal());
            name
        })
        .collect();
    let pools = files("pools");
    assert!(pools.len() >= 3);
    for (name, text) in pools {
        let pool = Pool::parse(&name, &text, &Levels::default()).unwrap();
        assert!(admission.contains(pool.admission()), "{name}: {}", pool.admission());
    }
}
