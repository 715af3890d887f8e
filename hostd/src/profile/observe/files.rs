//! Files by pattern: who may do what with them, what they hold, and who may replace them.
//!
//! Each existing file is one entry, `MODE OWNER GROUP`. A directory above that others than root may write is an entry of its own that never
//! satisfies: who may rename a file's parent owns the file.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

use hostmark_attest::manifest::{FileState, Setting};
use hostmark_attest::profile::{Control, Observation, Observed, Predicate, SourceKind, Stated};

use super::{Result, not_applicable};
use crate::engines::files::{DigestCache, Files};
use crate::profile::host::Host;

pub(super) fn files(host: &Host, control: &Control, patterns: &[String], parents: bool) -> Result {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        found.extend(host.root.matching(pattern)?);
    }
    let there = matches!(control.want.is, Predicate::Present | Predicate::Absent);
    if found.is_empty() && !there {
        return Ok(not_applicable("there is no such file"));
    }
    let mut each: BTreeMap<String, Option<Setting>> = BTreeMap::new();
    for path in &found {
        let meta = host.root.meta(path).ok_or_else(|| format!("{path}: it vanished"))?;
        let text = match control.want.is {
            Predicate::Digest(_) => digest(host, path)?,
            _ => host.root.access(&meta),
        };
        each.insert(path.clone(), Some(Setting::Text(text)));
        if parents {
            above(host, path, &mut each);
        }
    }
    let value = if each.is_empty() { Observed::Absent } else { Observed::Each(each) };
    let effective = Stated::new(SourceKind::File, "the file system", value);
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// Directories above where a path leads that others than root may write, and the path as written.
fn above(host: &Host, path: &str, each: &mut BTreeMap<String, Option<Setting>>) {
    const STICKY: u32 = 0o1000;
    for start in [Some(path.to_owned()), host.root.leads_to(path)].into_iter().flatten() {
        let mut at = start.as_str();
        while let Some((parent, _)) = at.rsplit_once('/') {
            let directory = if parent.is_empty() { "/" } else { parent };
            if let Some(meta) = host.root.meta(directory) {
                let open = meta.mode() & 0o022 != 0 && meta.mode() & STICKY == 0;
                if open || meta.uid() != 0 {
                    let text = format!("others than root may write here: {}", host.root.access(&meta));
                    each.insert(directory.to_owned(), Some(Setting::Text(text)));
                }
            }
            at = parent;
        }
    }
}

fn digest(host: &Host, path: &str) -> Result<String> {
    let mut cache = DigestCache::default();
    let mut into = BTreeMap::new();
    Files::new(host.root.path(), &mut cache).measure(path, &mut into);
    let hashed = into.values().find_map(|state| match state {
        FileState::File { sha256, .. } => Some(format!("sha256:{sha256}")),
        _ => None,
    });
    hashed.ok_or_else(|| format!("{path}: its content cannot be read"))
}
