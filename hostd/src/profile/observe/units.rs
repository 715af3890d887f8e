//! Units of systemd: a setting after fragment and drop-ins, whether it is enabled, whether it runs.
//!
//! systemd.unit(5). Reads files as the engines' measurement does and asks no manager: a unit that was changed and not reloaded shows its new
//! state. Whether a unit runs is what its cgroup says.

use std::collections::BTreeMap;

use hostmark_attest::manifest::{EngineState, Setting};
use hostmark_attest::profile::{Observation, Observed, SourceKind, Stated, UnitFact};

use super::{NO_KERNEL, Result, not_applicable};
use crate::engines::files::{DigestCache, Files, join};
use crate::engines::units::{logical_lines, measure};
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

/// Where `.wants` directories and aliases are.
const ENABLING: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) fn unit(host: &Host, units: &[String], fact: &UnitFact) -> Result {
    let mut any: BTreeMap<String, Option<Setting>> = BTreeMap::new();
    for unit in units {
        let value = match fact {
            UnitFact::Setting { section, key } => {
                if fragment(&host.root, unit).is_none() {
                    continue;
                }
                setting(&host.root, unit, section, key)?
            }
            UnitFact::Enabled => enabled(&host.root, unit)?,
            UnitFact::Active => {
                let Some(kernel) = &host.kernel else {
                    let enabled = units.iter().filter_map(|unit| enabled(&host.root, unit).ok().flatten());
                    let word = enabled.map(|word| word.to_string()).collect::<Vec<_>>().join(", ");
                    let reason = if word.is_empty() {
                        NO_KERNEL.to_owned()
                    } else {
                        format!("{NO_KERNEL}; by its files: {word}")
                    };
                    return Ok(Observation::OutOfSight { reason, files: Vec::new() });
                };
                if !kernel.has("/run/systemd/system") {
                    let reason = "systemd is not this host's first process".to_owned();
                    return Ok(Observation::OutOfSight { reason, files: Vec::new() });
                }
                active(kernel, unit)
            }
        };
        any.insert(unit.clone(), value.map(Setting::Text));
    }
    if any.is_empty() {
        return Ok(not_applicable("there is no such unit"));
    }
    let (by, source) = match fact {
        UnitFact::Active => (SourceKind::Kernel, "/sys/fs/cgroup"),
        UnitFact::Setting { .. } | UnitFact::Enabled => (SourceKind::Unit, "the unit's files"),
    };
    let value = match (any.len(), any.first_key_value()) {
        (1, Some((_, value))) => Observed::of(value.clone()),
        _ => Observed::Any(any),
    };
    Ok(Observation::Seen { effective: Stated::new(by, source, value), others: Vec::new() })
}

/// The files of a unit in the order in which they apply: fragment, then drop-ins. None when there is no fragment.
pub(in crate::profile) fn fragment(root: &Root, unit: &str) -> Option<(String, Vec<String>, bool)> {
    let mut cache = DigestCache::default();
    let mut engine = EngineState::default();
    measure(&mut Files::new(root.path(), &mut cache), unit, &mut engine);
    let state = engine.units.remove(unit)?;
    Some((state.fragment?, state.drop_ins, state.masked))
}

/// The last assignment of a key in a section; an empty one takes back what was before.
fn setting(root: &Root, unit: &str, section: &str, key: &str) -> Result<Option<String>> {
    let Some((fragment, drop_ins, masked)) = fragment(root, unit) else { return Ok(None) };
    if masked {
        return Ok(None);
    }
    let mut found = None;
    for path in std::iter::once(fragment).chain(drop_ins) {
        let text = match root.text(&path) {
            Text::Read(text) => text,
            Text::Missing => continue,
            Text::Unreadable(_) if root.leads_to(&path).as_deref() == Some("/dev/null") => continue,
            Text::Unreadable(why) => return Err(why),
        };
        let mut inside = false;
        for line in logical_lines(&text) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                inside = name == section;
            } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
                && name.trim() == key
            {
                found = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            }
        }
    }
    Ok(found)
}

/// `masked`, `enabled`, `disabled`; None when there is no such unit.
fn enabled(root: &Root, unit: &str) -> Result<Option<String>> {
    let Some((fragment, _, masked)) = fragment(root, unit) else { return Ok(None) };
    if masked {
        return Ok(Some("masked".to_owned()));
    }
    for directory in ENABLING {
        for name in root.list(directory)? {
            let path = join(directory, &name);
            let pulls = [".wants", ".requires", ".upholds"].iter().any(|end| name.ends_with(end));
            let entry = join(&path, unit);
            let pulled = pulls && std::fs::symlink_metadata(root.real(&entry)).is_ok();
            // `Alias=`: another name in /etc that leads to this unit.
            let alias =
                directory.starts_with("/etc") && name != unit && root.leads_to(&path).as_ref() == Some(&fragment);
            if pulled || alias {
                return Ok(Some("enabled".to_owned()));
            }
        }
    }
    Ok(Some("disabled".to_owned()))
}

/// `active` when its cgroup has processes, or systemd keeps an invocation of it; `inactive` otherwise.
fn active(kernel: &Root, unit: &str) -> Option<String> {
    const GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"];
    let runs = GROUPS.iter().any(|groups| {
        let procs = kernel.text(&format!("{groups}/system.slice/{unit}/cgroup.procs"));
        matches!(procs, Text::Read(text) if !text.trim().is_empty())
    });
    let invocation = kernel.real(&format!("/run/systemd/units/invocation:{unit}"));
    let listens = !unit.ends_with(".service") && std::fs::symlink_metadata(invocation).is_ok();
    if !runs && !listens && fragment(kernel, unit).is_none() {
        return None;
    }
    Some(if runs || listens { "active" } else { "inactive" }.to_owned())
}
