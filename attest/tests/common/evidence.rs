//! Third-party evidence, read in place from the folder named by HOSTMARK_EVIDENCE.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A folder of the evidence, or None, and said so, where this machine has none.
pub fn folder(name: &str, rows: usize) -> Option<PathBuf> {
    let root = std::env::var_os("HOSTMARK_EVIDENCE");
    if root.is_none() {
        println!("skipped: {rows} fixtures of {name} (HOSTMARK_EVIDENCE is not set)");
    }
    root.map(|root| PathBuf::from(root).join(name))
}

#[allow(dead_code, reason = "each test binary uses its part")]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every fixture of a folder has a row, and every row its fixture. `companion` tells the files that belong to another one.
pub fn complete<'a>(folder: &Path, rows: impl IntoIterator<Item = &'a str>, companion: impl Fn(&str) -> bool) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = entries.filter(|name| !companion(name)).collect();
    let listed: BTreeSet<String> = rows.into_iter().map(str::to_owned).collect();
    let missing: Vec<_> = found.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "fixtures without a row, or rows without a fixture: {missing:?}");
}
