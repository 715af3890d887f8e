//! Modules, the command line and mounts, as the running kernel has them.
//!
//! modprobe.d(5): only an `install` line that runs nothing keeps a module from being loaded; `blacklist` hides its aliases alone. proc(5):
//! /proc/modules, /proc/cmdline, /proc/PID/mountinfo.

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::kernel_parameters::parameters;
use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Observation, Observed, SourceKind, Stated};

use super::{NO_KERNEL, Result};
use crate::engines::units::matches;
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

const MODPROBE: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

pub(super) fn modules(host: &Host, names: &[String]) -> Result {
    let (loaded, modular) = match host.kernel.as_ref().map(|kernel| kernel.text("/proc/modules")) {
        Some(Text::Read(text)) => (first_words(&text), true),
        Some(Text::Unreadable(why)) => return Err(why),
        // A kernel without modules has no such file.
        Some(Text::Missing) => (BTreeSet::new(), false),
        None => (BTreeSet::new(), true),
    };
    let installs = installs(&host.root)?;
    let releases = match &host.kernel {
        Some(kernel) => match kernel.text("/proc/sys/kernel/osrelease") {
            Text::Read(release) => vec![release.trim().to_owned()],
            Text::Missing => Vec::new(),
            Text::Unreadable(why) => return Err(why),
        },
        None => host.root.list("/lib/modules")?,
    };
    let (mut builtin, mut loadable) = (BTreeSet::new(), BTreeSet::new());
    let mut listed = false;
    for release in releases {
        for (file, into) in [("modules.builtin", &mut builtin), ("modules.dep", &mut loadable)] {
            match host.root.text(&format!("/lib/modules/{release}/{file}")) {
                Text::Read(text) => {
                    listed |= file == "modules.dep";
                    into.extend(text.lines().filter_map(module_of));
                }
                Text::Missing => {}
                Text::Unreadable(why) => return Err(why),
            }
        }
    }
    let unknown = |name: &&String| {
        let plain = plain(name);
        !loaded.contains(&plain) && !builtin.contains(&plain) && !blocked(&installs, &plain)
    };
    // A list that is not there does not say that a module is not.
    if let Some(name) = names.iter().find(unknown).filter(|_| modular && !listed && host.kernel.is_some()) {
        return Err(format!(
            "/lib/modules has no list for the running kernel: whether {name} can be loaded is not known"
        ));
    }
    let state = |name: &String| {
        let plain = plain(name);
        let word = match () {
            () if loaded.contains(&plain) => "loaded",
            () if builtin.contains(&plain) => "builtin",
            () if blocked(&installs, &plain) || !loadable.contains(&plain) => return (name.clone(), None),
            () => "loadable",
        };
        (name.clone(), Some(Setting::Text(word.to_owned())))
    };
    let each: BTreeMap<String, Option<Setting>> = names.iter().map(state).collect();
    let value = Observed::Each(each);
    if host.kernel.is_none() {
        let files = vec![Stated::new(SourceKind::File, "modprobe.d and /lib/modules", value)];
        return Ok(Observation::OutOfSight { reason: NO_KERNEL.to_owned(), files });
    }
    let effective = Stated::new(SourceKind::Kernel, "/proc/modules and modprobe.d", value);
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// `-` and `_` are one to modprobe.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn first_words(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split(' ').next()).map(plain).collect()
}

/// `kernel/fs/cramfs/cramfs.ko.xz: …` is of `cramfs`.
fn module_of(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let (stem, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(plain(stem))
}

/// Whether the first `install` line for a module, which is the one that counts, runs a program that does nothing.
fn blocked(installs: &[(String, bool)], module: &str) -> bool {
    // A pattern with brackets is not read: one that runs something could be for any module.
    let fits = |pattern: &str, nothing: bool| if pattern.contains('[') { !nothing } else { matches(pattern, module) };
    installs.iter().find(|(pattern, nothing)| fits(pattern, *nothing)).is_some_and(|(_, nothing)| *nothing)
}

/// `install` lines in modprobe's order: the pattern, and whether the program does nothing.
fn installs(root: &Root) -> Result<Vec<(String, bool)>> {
    let mut installs = Vec::new();
    for (_, text) in root.conf_files(&MODPROBE)? {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["install", pattern, command @ ..] = words.as_slice() {
                let nothing = ["/bin/true", "/bin/false", "/usr/bin/true", "/usr/bin/false"];
                installs.push((plain(pattern), matches!(command, [program] if nothing.contains(program))));
            }
        }
    }
    Ok(installs)
}

pub(super) fn cmdline(host: &Host, word: &str) -> Result {
    let Some(kernel) = &host.kernel else {
        return Ok(Observation::OutOfSight { reason: NO_KERNEL.to_owned(), files: Vec::new() });
    };
    let line = match kernel.text("/proc/cmdline") {
        Text::Read(line) => line,
        Text::Missing => return Err("/proc/cmdline: it is missing".to_owned()),
        Text::Unreadable(why) => return Err(why),
    };
    let last = parameters(&line).filter(|one| one.is_named(word)).last();
    let value = last.map(|one| Setting::Text(one.value().unwrap_or(word).to_owned()));
    let effective = Stated::new(SourceKind::Kernel, "/proc/cmdline", Observed::of(value));
    Ok(Observation::Seen { effective, others: Vec::new() })
}

pub(super) fn mount(host: &Host, path: &str, setting: Option<&str>) -> Result {
    let named = setting.and_then(|setting| setting.split_once('.')).and_then(|(engine, setting)| {
        let stated = host.engine(engine)?.settings.get(setting)?;
        let strongest = ["live", "argv", "file", "unit"].iter().find_map(|source| stated.get(*source));
        strongest.and_then(|value| if let Setting::Text(path) = value { Some(path.clone()) } else { None })
    });
    let path = named.as_deref().unwrap_or(path);
    let Some(kernel) = &host.kernel else {
        return Ok(Observation::OutOfSight { reason: NO_KERNEL.to_owned(), files: Vec::new() });
    };
    // PID 1's table is the host's; hostd's unit gives hostd another one.
    let table = ["/proc/1/mountinfo", "/proc/self/mountinfo"].iter().find_map(|table| match kernel.text(table) {
        Text::Read(text) if !text.is_empty() => Some(text),
        _ => None,
    });
    let table = table.ok_or("/proc/1/mountinfo: it cannot be read")?;
    let end = host.root.leads_to(path).unwrap_or_else(|| path.to_owned());
    let own = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        (unescaped(point) == end).then(|| options.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let mut options = table.lines().filter_map(own).next_back();
    if let Some(options) = &mut options {
        options.sort();
    }
    let effective = Stated::new(
        SourceKind::Kernel,
        format!("the mount table for {path}"),
        Observed::of(options.map(Setting::List)),
    );
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// Spaces, tabs, line ends and backslashes are octal in a mount table.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_come_from_their_files() {
        for (line, expect) in [
            ("kernel/fs/cramfs/cramfs.ko: kernel/a.ko", Some("cramfs")),
            ("kernel/net/sctp/sctp-diag.ko.xz:", Some("sctp_diag")),
            ("kernel/fs/ext4/ext4.ko", Some("ext4")),
            ("", None),
        ] {
            assert_eq!(module_of(line).as_deref(), expect, "{line}");
        }
    }
}
