//! What the machine says of itself: reported, never proof.
//!
//! DESIGN §4, "platform facts". Read below the measured root, so that several hosts on one machine do not speak for each other.
//! Serial numbers and addresses are left out: nobody judges by them, and the verifier need not know them.

use std::collections::BTreeMap;
use std::path::Path;

use super::preload::preloaded;
use crate::state;

/// Longest value, in bytes: Linux's longest command line. The verifier refuses twice as much.
const VALUE_MAX: usize = 4096;
/// Largest file that is read for a fact; /proc/cpuinfo of a large machine has more, and says everything in its first block.
const FILE_MAX: u64 = 1 << 20;

type Pick = fn(&str) -> Option<&str>;

/// Name, file, what of it.
const FACTS: [(&str, &str, Pick); 13] = [
    // Whole, but for the line end: the verifier compares it with the measured one.
    ("cmdline", "proc/cmdline", whole),
    ("kernel", "proc/sys/kernel/osrelease", trimmed),
    ("kernel-build", "proc/sys/kernel/version", trimmed),
    ("lockdown", "sys/kernel/security/lockdown", chosen),
    ("lsm", "sys/kernel/security/lsm", trimmed),
    ("ptrace-scope", "proc/sys/kernel/yama/ptrace_scope", trimmed),
    ("os", "etc/os-release", os_name),
    ("machine-vendor", "sys/class/dmi/id/sys_vendor", trimmed),
    ("machine-product", "sys/class/dmi/id/product_name", trimmed),
    ("firmware-vendor", "sys/class/dmi/id/bios_vendor", trimmed),
    ("firmware-version", "sys/class/dmi/id/bios_version", trimmed),
    ("cpu", "proc/cpuinfo", |text| field(text, "model name")),
    ("microcode", "proc/cpuinfo", |text| field(text, "microcode")),
];

/// The facts of the machine whose root directory this is. What is absent or is no text is left out.
#[must_use]
pub(super) fn facts(root: &Path) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for (name, file, pick) in FACTS {
        let Some(text) = read(&root.join(file)) else { continue };
        if let Some(value) = pick(&text).filter(|value| !value.is_empty() && value.len() <= VALUE_MAX) {
            facts.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(mut preloaded) = preloaded(root) {
        preloaded.truncate(preloaded.floor_char_boundary(VALUE_MAX));
        facts.insert("hostd-preload".to_owned(), preloaded);
    }
    facts
}

fn read(path: &Path) -> Option<String> {
    let bytes = match state::read(path, FILE_MAX) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a fact is left out");
            return None;
        }
    };
    String::from_utf8(bytes).ok()
}

fn whole(text: &str) -> Option<&str> {
    Some(text.strip_suffix('\n').unwrap_or(text))
}

fn trimmed(text: &str) -> Option<&str> {
    Some(text.trim())
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn os_name(text: &str) -> Option<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"'))
}

/// The first `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_below_the_root_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &[u8]| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/cmdline", b" ro  quiet \n");
        put("proc/sys/kernel/osrelease", b"6.1.0-40\n");
        put("sys/kernel/security/lockdown", b"none [integrity] confidentiality\n");
        put("etc/os-release", b"ID=debian\nPRETTY_NAME=\"Debian 12\"\n");
        put("proc/cpuinfo", b"processor\t: 0\nmodel name\t: Some CPU\nmodel name\t: Other\n");
        put("sys/class/dmi/id/sys_vendor", b"\xFF\xFE");
        put("sys/kernel/security/lsm", &[b'x'; VALUE_MAX + 1]);
        put("sys/class/dmi/id/product_name", b"\n");
        let expect = [
            ("cmdline", " ro  quiet "),
            ("cpu", "Some CPU"),
            ("kernel", "6.1.0-40"),
            ("lockdown", "integrity"),
            ("os", "Debian 12"),
        ];
        let found = facts(dir.path());
        assert_eq!(found.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expect);
    }
}
