//! The table of targets.

use hostmark_attest::label::Label;

/// A parser under fuzzing.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Seeds: recorded files with one of these names, or text given here.
    pub seeds: &'static [Seed],
    /// Runs the parser; a panic is the finding.
    pub run: fn(&[u8]),
}

/// Where a target's seeds come from.
#[derive(Debug, Clone, Copy)]
pub enum Seed {
    /// Every file of that name below a `testdata/` folder.
    Recorded(&'static str),
    /// Every file below `configs/` whose path contains this.
    Config(&'static str),
    /// These bytes.
    Text(&'static str),
}

/// Every target. A parser that reads foreign bytes and is missing here is a mistake.
pub const TARGETS: &[Target] = &[Target {
    name: "label",
    seeds: &[Seed::Text("restricted:phi,pci@hospital-a"), Seed::Text("public")],
    run: |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = text.parse::<Label>();
        }
    },
}];
