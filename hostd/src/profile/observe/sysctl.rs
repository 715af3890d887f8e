//! Kernel settings: what /proc/sys says now, and which file sets them at the next boot.
//!
//! sysctl.d(5): directories by their weight, files by name, the last assignment wins, an exact name over a pattern. `/etc/sysctl.conf` counts
//! where a link makes it one of them, as Debian 12 has it.

use std::collections::BTreeMap;

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Observation, Observed, SourceKind, Stated};

use super::{NO_KERNEL, Result, not_applicable};
use crate::engines::units::matches;
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

/// Strongest first.
const DIRECTORIES: [&str; 5] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

pub(super) fn sysctl(host: &Host, names: &[String]) -> Result {
    let at_boot = at_boot(&host.root)?;
    let Some(kernel) = &host.kernel else {
        let files = by_file(&at_boot, names);
        return Ok(Observation::OutOfSight { reason: NO_KERNEL.to_owned(), files });
    };
    let mut now = BTreeMap::new();
    for name in names {
        match kernel.text(&format!("/proc/sys/{}", path_of(name))) {
            Text::Read(text) => drop(now.insert(name.clone(), Some(value(&text)))),
            Text::Missing => {}
            Text::Unreadable(why) => return Err(why),
        }
    }
    if now.is_empty() {
        return Ok(not_applicable("this kernel has no such setting"));
    }
    let known: Vec<String> = now.keys().cloned().collect();
    let effective = match (now.len(), now.first_key_value()) {
        (1, Some((_, Some(value)))) => Observed::Value(value.clone()),
        _ => Observed::Each(now),
    };
    Ok(Observation::Seen {
        effective: Stated::new(SourceKind::Kernel, "/proc/sys", effective),
        others: by_file(&at_boot, &known),
    })
}

/// What each file sets of these, files in the order of their names.
fn by_file(at_boot: &[Assignment], names: &[String]) -> Vec<Stated> {
    let mut files: BTreeMap<&str, BTreeMap<String, Option<Setting>>> = BTreeMap::new();
    for name in names {
        let exact = at_boot.iter().rev().find(|one| one.name == *name);
        let pattern = || at_boot.iter().rev().find(|one| one.covers(name));
        if let Some(one) = exact.or_else(pattern) {
            files.entry(&one.file).or_default().insert(name.clone(), Some(one.value.clone()));
        }
    }
    let stated = |(file, values): (&str, BTreeMap<String, Option<Setting>>)| {
        let value = match (names.len(), values.first_key_value()) {
            (1, Some((_, Some(value)))) => Observed::Value(value.clone()),
            _ => Observed::Each(values),
        };
        Stated::new(SourceKind::File, file, value)
    };
    files.into_iter().map(stated).collect()
}

/// One line of a file that is applied at boot.
#[derive(Debug)]
struct Assignment {
    file: String,
    /// With dots; may hold `*`.
    name: String,
    value: Setting,
}

impl Assignment {
    /// Whether its pattern stands for a name, component by component.
    fn covers(&self, name: &str) -> bool {
        let (pattern, name): (Vec<&str>, Vec<&str>) = (self.name.split('.').collect(), name.split('.').collect());
        self.name.contains('*')
            && pattern.len() == name.len()
            && pattern.iter().zip(name).all(|(one, part)| matches(one, part))
    }
}

/// Every assignment that is applied at boot, in its order.
fn at_boot(root: &Root) -> Result<Vec<Assignment>> {
    let mut assignments = Vec::new();
    for (file, text) in root.conf_files(&DIRECTORIES)? {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some((name, text)) = line.split_once('=') {
                let name = name.trim().trim_start_matches('-');
                let name =
                    if name.contains('/') && !name.contains('.') { name.replace('/', ".") } else { name.to_owned() };
                assignments.push(Assignment { file: file.clone(), name, value: value(text) });
            }
        }
    }
    Ok(assignments)
}

/// Dots for slashes: `net.ipv4.conf.eth0/1.rp_filter` is of the interface `eth0.1`.
fn path_of(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

/// A number where it is one; spaces between several are one.
fn value(text: &str) -> Setting {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.parse().map_or(Setting::Text(text), Setting::Number)
}
