//! Audit: the kernel's list of rules, and the files from which it is loaded at boot.
//!
//! auditctl(8), audit.rules(7), augenrules(8). The kernel's list is asked for with `auditctl -l` and `-s`: no shell, an empty environment,
//! bounded time and output, only a program that root alone can write. A rule counts whatever its key is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{AuditRule, Observation, Observed, SourceKind, Stated};

use super::{NO_KERNEL, Result, not_applicable};
use crate::engines::files::join;
use crate::profile::host::Host;
use crate::profile::root::Text;

const PROGRAMS: [&str; 2] = ["/usr/sbin/auditctl", "/sbin/auditctl"];
/// The kernel answers at once.
const DEADLINE: Duration = Duration::from_secs(5);
/// The kernel's list has at most some thousand rules.
const OUTPUT_MAX: u64 = 1 << 20;

pub(super) fn audit(host: &Host, rule: &AuditRule) -> Result {
    if let AuditRule::Watch { watch, .. } = rule
        && !host.root.has(watch)
    {
        return Ok(not_applicable(format!("there is no {watch}")));
    }
    let (source, text) = files(host)?;
    let from_file = judge(host, rule, &text);
    let value = match (&from_file, rule) {
        (None, AuditRule::Switch { .. }) => Observed::Absent,
        // That no file has the rule is a word too: the kernel forgets it at the next boot.
        (value, _) => Observed::Each(BTreeMap::from([(rule.to_string(), value.clone())])),
    };
    let at_boot = Stated::new(SourceKind::File, source, value);
    if host.kernel.is_none() {
        return Ok(Observation::OutOfSight { reason: NO_KERNEL.to_owned(), files: vec![at_boot] });
    }
    let program = PROGRAMS.iter().find(|path| {
        let meta = std::fs::metadata(path);
        meta.is_ok_and(|meta| meta.is_file() && meta.uid() == 0 && meta.mode() & 0o022 == 0)
    });
    let Some(program) = program else {
        let reason = "auditctl is not installed: the kernel's list cannot be asked for".to_owned();
        return Ok(Observation::OutOfSight { reason, files: vec![at_boot] });
    };
    let switch = matches!(rule, AuditRule::Switch { .. });
    let list = ask(program, if switch { "-s" } else { "-l" })?;
    let now = Observed::of(judge(host, rule, &list));
    Ok(Observation::Seen {
        effective: Stated::new(SourceKind::Kernel, "the kernel's audit", now),
        others: vec![at_boot],
    })
}

/// rules.d in its order, or the one file that it becomes.
fn files(host: &Host) -> Result<(String, String)> {
    const DIRECTORY: &str = "/etc/audit/rules.d";
    let names = host.root.list(DIRECTORY)?;
    let mut paths: Vec<String> =
        names.iter().filter(|name| name.ends_with(".rules")).map(|name| join(DIRECTORY, name)).collect();
    let source = if paths.is_empty() { "/etc/audit/audit.rules" } else { DIRECTORY };
    if paths.is_empty() {
        paths.push(source.to_owned());
    }
    let mut all = String::new();
    for path in paths {
        match host.root.text(&path) {
            Text::Read(text) => all.extend([text.as_str(), "\n"]),
            Text::Missing => {}
            Text::Unreadable(why) => return Err(why),
        }
    }
    Ok((source.to_owned(), all))
}

/// What a list of rules has of a rule; None: nothing.
fn judge(host: &Host, rule: &AuditRule, text: &str) -> Option<Setting> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    // Wherever it stands in the list: what silences a part is not looked at more closely.
    let silenced = |own: &dyn Fn(&Rule<'_>) -> bool| {
        lines.clone().map(Rule::parse).any(|parsed| parsed.silences && (parsed.every_call || own(&parsed)))
    };
    match rule {
        AuditRule::Watch { watch, permissions } => {
            let ends = [Some(watch.clone()), host.root.leads_to(watch)];
            let own = |parsed: &Rule<'_>| {
                let calls = ["all", "execve", "open", "openat"];
                let broad = parsed.syscalls.is_empty() || parsed.syscalls.iter().any(|name| calls.contains(name));
                parsed
                    .path
                    .map_or(broad, |path| ends.iter().flatten().any(|end| end.starts_with(path.trim_end_matches('/'))))
            };
            if silenced(&own) {
                return None;
            }
            let mut covered: BTreeSet<char> = BTreeSet::new();
            for line in lines {
                let parsed = Rule::parse(line);
                let own =
                    parsed.path.is_some_and(|path| ends.iter().flatten().any(|end| end == path.trim_end_matches('/')));
                let whole = parsed.syscalls.iter().all(|name| *name == "all") && parsed.native;
                if own && parsed.records && whole {
                    covered.extend(parsed.permissions.chars());
                }
            }
            permissions.chars().all(|one| covered.contains(&one)).then(|| Setting::Text(rule.to_string()))
        }
        AuditRule::Syscalls { syscalls } => {
            let own = |parsed: &Rule<'_>| {
                let named = |name: &&str| *name == "all" || syscalls.iter().any(|own| own == name);
                parsed.path.is_none() && (parsed.syscalls.is_empty() || parsed.syscalls.iter().any(named))
            };
            if silenced(&own) {
                return None;
            }
            let mut covered: BTreeSet<&str> = BTreeSet::new();
            for line in lines {
                let parsed = Rule::parse(line);
                // A rule with filters beyond architecture and key records only part of the calls, and the usual one leaves out daemons.
                if parsed.records && parsed.path.is_none() && parsed.native {
                    covered.extend(parsed.syscalls);
                }
            }
            let all = syscalls.iter().all(|name| covered.contains(name.as_str()));
            all.then(|| Setting::Text(rule.to_string()))
        }
        AuditRule::Switch { switch } => {
            let flag = match switch.as_str() {
                "enabled" => "-e",
                "failure" => "-f",
                _ => "-b",
            };
            let own = |line: &str| {
                let (name, value) = line.split_once(char::is_whitespace)?;
                (name == flag || name == switch).then(|| value.trim().parse().ok()).flatten()
            };
            lines.filter_map(own).next_back().map(Setting::Number)
        }
    }
}

/// What of a rule is looked at.
#[derive(Debug, Default)]
struct Rule<'l> {
    path: Option<&'l str>,
    permissions: &'l str,
    syscalls: Vec<&'l str>,
    /// `always`, at the exit of a call.
    records: bool,
    /// `never`, at the exit of a call or for whole processes.
    silences: bool,
    /// Of a rule that silences: whole processes.
    every_call: bool,
    /// For the native 64-bit architecture, or for every.
    native: bool,
}

impl<'l> Rule<'l> {
    fn parse(line: &'l str) -> Self {
        let mut rule = Self { permissions: "rwxa", native: true, ..Self::default() };
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let Some(value) = words.next() else { break };
            match word {
                "-w" => (rule.path, rule.records) = (Some(value), true),
                "-p" => rule.permissions = value,
                "-a" | "-A" => {
                    rule.records = matches!(value, "always,exit" | "exit,always");
                    rule.silences = matches!(value, "never,exit" | "exit,never" | "never,task" | "task,never");
                    rule.every_call = value.contains("task");
                }
                // Compares fields of one call: a filter.
                "-C" => rule.records = false,
                "-S" => rule.syscalls.extend(value.split(',')),
                "-F" => match value.split_once('=') {
                    Some(("path" | "dir", path)) => rule.path = Some(path),
                    Some(("perm", permissions)) => rule.permissions = permissions,
                    Some(("arch", arch)) => rule.native = !matches!(arch, "b32"),
                    Some(("key", _)) => {}
                    // A filter: the rule records only some.
                    _ => rule.records = false,
                },
                _ => {}
            }
        }
        rule
    }
}

/// Runs `auditctl` with one flag.
fn ask(program: &str, flag: &str) -> Result<String> {
    let failed = || format!("{program} {flag} fails or takes too long: is this root, and is audit in the kernel?");
    let end = Instant::now().checked_add(DEADLINE).ok_or_else(failed)?;
    let mut child = Command::new(program)
        .arg(flag)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let output = child.stdout.take().ok_or_else(failed)?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.take(OUTPUT_MAX).read_to_string(&mut text).ok().map(|_| text)
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            _ => break None,
        }
    };
    if status.is_none() {
        // It is this process's own child, and nothing else waits for it.
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = reader.join().ok().flatten();
    text.filter(|_| status.is_some_and(|status| status.success())).ok_or_else(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::EnginesConfig;

    #[test]
    fn a_rule_counts_when_it_records_all_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/sbin")).unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/sbin/runc"), "").unwrap();
        std::os::unix::fs::symlink("../sbin/runc", dir.path().join("usr/bin/runc")).unwrap();
        let host = Host::new(EnginesConfig::of_root(dir.path()));
        let watch = |path: &str| AuditRule::Watch { watch: path.to_owned(), permissions: "x".to_owned() };
        let calls = AuditRule::Syscalls { syscalls: vec!["mount".to_owned(), "umount2".to_owned()] };
        let switch = |name: &str| AuditRule::Switch { switch: name.to_owned() };
        for (rule, text, expect) in [
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p x -k any", true),
            (watch("/usr/bin/runc"), "-w /usr/sbin/runc -p rwxa", true),
            (watch("/usr/sbin/runc"), "-w /usr/bin/runc -p x", false),
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p wa", false),
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p w\n-w /usr/sbin/runc -p x", true),
            (watch("/usr/sbin/runc"), "# -w /usr/sbin/runc -p x", false),
            (watch("/usr/sbin/runc"), "-a always,exit -F path=/usr/sbin/runc -F perm=x -F key=k", true),
            (watch("/usr/sbin/runc"), "-a never,exit -F path=/usr/sbin/runc -F perm=x", false),
            (watch("/usr/sbin/runc"), "-a always,exit -F path=/usr/sbin/runc -F perm=x -F auid=1000", false),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount,umount2 -F key=m", true),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount\n-a exit,always -F arch=b64 -S umount2", true),
            (calls.clone(), "-a always,exit -F arch=b32 -S mount,umount2", false),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount", false),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount,umount2 -F uid=0", false),
            (watch("/usr/sbin/runc"), "-a task,never\n-w /usr/sbin/runc -p x", false),
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p x\n-a never,exit -F dir=/usr/sbin", false),
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p x\n-a never,exit -F path=/other", true),
            (watch("/usr/sbin/runc"), "-w /usr/sbin/runc -p x\n-a never,exit -F arch=b64 -S adjtimex", true),
            (watch("/usr/sbin/runc"), "-a always,exit -S unlink -F path=/usr/sbin/runc", false),
            (watch("/usr/sbin/runc"), "-a always,exit -F arch=b32 -F path=/usr/sbin/runc -F perm=x", false),
            (calls.clone(), "-a task,never\n-a always,exit -F arch=b64 -S mount,umount2", false),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount,umount2\n-a never,exit -S mount", false),
            (calls.clone(), "-a always,exit -F arch=b64 -S mount,umount2 -C uid!=euid", false),
            (switch("failure"), "-f 1", true),
            (switch("failure"), "enabled 1\nfailure 1", true),
            (switch("enabled"), "-f 1", false),
        ] {
            assert_eq!(judge(&host, &rule, text).is_some(), expect, "{rule}: {text}");
        }
        assert_eq!(judge(&host, &switch("enabled"), "-e 1\n-e 2"), Some(Setting::Number(2)));
    }
}
