//! Installed packages, from dpkg's database.
//!
//! deb-control(5), `/var/lib/dpkg/status` and `status.d` (images without dpkg). Other package managers' databases are not read: then it is said
//! so, and nothing passes.

use hostmark_attest::profile::{Control, Observation, Observed, Predicate, SourceKind, Stated};

use super::Result;
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

const STATUS: &str = "/var/lib/dpkg/status";
const STATUS_DIRECTORY: &str = "/var/lib/dpkg/status.d";

pub(super) fn package(host: &Host, control: &Control, names: &[String]) -> Result {
    if !host.root.has(STATUS) && !host.root.has(STATUS_DIRECTORY) {
        let reason = "no package database that can be read: only dpkg's is".to_owned();
        return Ok(Observation::OutOfSight { reason, files: Vec::new() });
    }
    for name in names {
        if let Some(version) = version(&host.root, name)? {
            let value = Observed::Version { distribution: host.distribution(), package: name.clone(), version };
            let effective = Stated::new(SourceKind::Packages, STATUS, value);
            return Ok(Observation::Seen { effective, others: Vec::new() });
        }
    }
    if matches!(control.want.is, Predicate::Floor(_)) {
        let reason = format!("{} came by no package: its version has to be looked at by hand", names.join(", "));
        return Ok(Observation::OutOfSight { reason, files: Vec::new() });
    }
    let effective = Stated::new(SourceKind::Packages, STATUS, Observed::Absent);
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// The version of an installed package.
///
/// # Errors
/// The database cannot be read.
pub(in crate::profile) fn version(root: &Root, name: &str) -> Result<Option<String>> {
    let mut paths = vec![STATUS.to_owned()];
    paths.extend(root.list(STATUS_DIRECTORY)?.iter().map(|file| format!("{STATUS_DIRECTORY}/{file}")));
    for path in paths {
        match root.text(&path) {
            Text::Missing => {}
            Text::Unreadable(why) => return Err(why),
            Text::Read(text) => {
                if let Some(version) = text.split("\n\n").find_map(|stanza| in_stanza(stanza, name)) {
                    return Ok(Some(version));
                }
            }
        }
    }
    Ok(None)
}

fn in_stanza(stanza: &str, name: &str) -> Option<String> {
    let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
    (field("Package") == Some(name) && installed).then(|| field("Version").map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_installed_package_has_a_version() {
        let stanza = "Package: runc\nStatus: install ok installed\nVersion: 1.1.5-1";
        assert_eq!(in_stanza(stanza, "runc").as_deref(), Some("1.1.5-1"));
        assert_eq!(in_stanza(stanza, "run"), None);
        assert_eq!(in_stanza(&stanza.replace("ok installed", "ok config-files"), "runc"), None);
        assert_eq!(in_stanza("Package: base\nVersion: 2", "base").as_deref(), Some("2"), "status.d has no Status");
    }
}
