//! What a control is about: one typed thing of a host. Nothing here is a command, a script or an expression.
//!
//! Establishes that a resource is exactly one of these kinds, with exactly the keys of its kind, and that its paths and names are plain.
//! What each kind observes, and in which canonical form, is said on its variant and in configs/profiles/README.md.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeyPath, OneOrMany};
use crate::manifest::Setting;

/// What a control is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "lowercase", tag = "kind", try_from = "Raw")]
pub enum Resource {
    /// A key of a JSON file. Of an engine's own file the engine's effective value counts: argv, drop-ins and what the engine says.
    Json(Keyed),
    /// A key of a TOML file, likewise.
    Toml(Keyed),
    /// A key of a file of `key = value` lines with or without sections (auditd.conf, /etc/default/docker). Values are text.
    Ini {
        /// The file.
        path: String,
        /// Its section; none: before the first.
        section: Option<String>,
        /// The key.
        key: String,
        /// What holds when nobody states it.
        default: Option<Setting>,
    },
    /// Kernel settings: /proc/sys, and the files from which they are set at boot. Several: each must satisfy.
    Sysctl {
        /// By name, with dots.
        names: Vec<String>,
    },
    /// Files by path; `*` and `?` in any component, `**` as the last one for all that is below. Each that is there must satisfy.
    File {
        /// The paths or patterns.
        paths: Vec<String>,
        /// The directories above are judged too: only their owner, who is root, may write there.
        parents: bool,
    },
    /// A unit of systemd: a setting of it after fragment and drop-ins, or whether it is enabled or active.
    Unit {
        /// The units; of several, one that satisfies is enough (chrony.service or systemd-timesyncd.service).
        units: Vec<String>,
        /// What of them.
        fact: UnitFact,
    },
    /// A rule or a switch of the kernel's audit.
    Audit(AuditRule),
    /// Kernel modules. Each is `loaded`, `builtin`, `loadable`, `blocked` or `missing`; wanted "absent" means blocked or missing.
    Module {
        /// Their names.
        names: Vec<String>,
    },
    /// A word of the kernel's command line: its last value, the word itself when it has none.
    Cmdline {
        /// The word before `=`.
        word: String,
    },
    /// The members of a group, by name; users whose primary group it is included.
    Group {
        /// The group.
        name: String,
    },
    /// The installed version of the first of these packages that is installed.
    Package {
        /// Names by which distributions know it.
        names: Vec<String>,
    },
    /// What is mounted at a path: its options; absent when the path is not a mount point of its own.
    Mount {
        /// The path, and the default when `setting` is given and nobody states it.
        path: String,
        /// `engine.setting` whose effective value is the path: `docker.data-root`.
        #[serde(skip_serializing_if = "Option::is_none")]
        setting: Option<String>,
    },
    /// What an engine says of itself, or what its configuration amounts to. Cannot be written.
    Engine {
        /// `docker`, `containerd`, `podman`.
        engine: String,
        /// The setting, as `hostd measure` names it.
        setting: String,
        /// What holds when nobody states it.
        default: Option<Setting>,
    },
    /// /etc/subuid or /etc/subgid: the size of the smallest range; 0 when ranges overlap.
    Subid {
        /// The file.
        path: String,
    },
    /// One fact of every container of every engine, whatever its state. Each must satisfy.
    Container {
        /// Which.
        fact: ContainerFact,
    },
}

/// A key of a structured file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keyed {
    /// The file.
    pub path: String,
    /// The key in it.
    pub key: KeyPath,
    /// What holds when nobody states it.
    pub default: Option<Setting>,
}

/// What of a unit is observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitFact {
    /// The last assignment of a key after fragment and drop-ins.
    Setting {
        /// `Service`, `Socket`…
        section: String,
        /// The key.
        key: String,
    },
    /// `enabled`, `disabled`, `masked`; absent when there is no such unit.
    Enabled,
    /// `active`, `inactive`: whether it has processes (a service) or listens (a socket).
    Active,
}

/// A rule or switch of audit, as auditctl(8) has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields, untagged)]
pub enum AuditRule {
    /// `-w PATH -p PERMISSIONS`. Links are followed: the rule must name where the path leads.
    Watch {
        /// The path. One that does not exist needs no rule.
        watch: String,
        /// Of `r`, `w`, `x`, `a`.
        permissions: String,
    },
    /// `-a always,exit -S …` for every native architecture.
    Syscalls {
        /// Names.
        syscalls: Vec<String>,
    },
    /// `-e`, `-f` or `-b`: a number.
    Switch {
        /// `enabled`, `failure` or `backlog_limit`.
        switch: String,
    },
}

/// A fact of a container, and its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerFact {
    /// true or false.
    Privileged,
    /// List: what it may do beyond nothing, without `CAP_`.
    Capabilities,
    /// List of host paths inside it that let it rule the host (sockets apart).
    SensitiveMounts,
    /// List of engines' sockets inside it, or directories above them.
    EngineSockets,
    /// List of `ipc`, `network`, `pid`, `user`, `uts`, `cgroup`, `mount`.
    HostNamespaces,
    /// `default`, `unconfined`, or the profile's name or digest.
    Seccomp,
    /// The AppArmor or SELinux label; `unconfined`.
    Lsm,
    /// true or false.
    NoNewPrivileges,
    /// The user id that its first process has outside: a mapped 0 is not 0.
    HostUid,
    /// true or false.
    ReadOnlyRoot,
    /// Bytes; 0: none.
    MemoryLimit,
    /// Thousandths of a processor; 0: none.
    CpuLimit,
    /// Processes; 0: none.
    PidsLimit,
    /// List of device rules beyond those that every engine grants.
    Devices,
    /// List of `address:port` that the host listens at for it; `0.0.0.0` or `[::]` where it is not bound.
    PublishedPorts,
    /// List of mounts that propagate to the host: `shared`, `rshared`.
    Propagation,
    /// Number of restarts; -1: without end.
    RestartLimit,
    /// The parent cgroup that was asked for; empty: the engine's own.
    CgroupParent,
    /// Whether it has a health check.
    HealthCheck,
    /// List of the names of its labels.
    Labels,
    /// `sha256:…` of its image's content.
    ImageDigest,
    /// Whether its image was named by digest.
    ByDigest,
    /// The OCI runtime that runs it.
    Runtime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    json: Option<String>,
    toml: Option<String>,
    ini: Option<String>,
    sysctl: Option<OneOrMany>,
    file: Option<OneOrMany>,
    unit: Option<OneOrMany>,
    audit: Option<AuditRule>,
    module: Option<OneOrMany>,
    cmdline: Option<String>,
    group: Option<String>,
    package: Option<OneOrMany>,
    mount: Option<String>,
    engine: Option<String>,
    subid: Option<String>,
    container: Option<ContainerFact>,
    key: Option<String>,
    section: Option<String>,
    default: Option<Setting>,
    parents: Option<bool>,
    state: Option<String>,
    setting: Option<String>,
}

impl TryFrom<Raw> for Resource {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        raw.exactly_one_kind()?;
        let key = |key: Option<String>| key.ok_or_else(|| "`key` is missing".to_owned());
        let keyed = |path: String, raw: Option<String>, default| {
            Ok::<Keyed, String>(Keyed { path: plain_path(path)?, key: KeyPath::parse(&key(raw)?)?, default })
        };
        if let Some(path) = raw.json {
            return Ok(Self::Json(keyed(path, raw.key, raw.default)?));
        }
        if let Some(path) = raw.toml {
            return Ok(Self::Toml(keyed(path, raw.key, raw.default)?));
        }
        if let Some(path) = raw.ini {
            let section = raw.section.map(word).transpose()?;
            return Ok(Self::Ini { path: plain_path(path)?, section, key: word(key(raw.key)?)?, default: raw.default });
        }
        if let Some(names) = raw.sysctl {
            let names = each(names, |name| {
                let fits =
                    name.split('.').all(|part| !part.is_empty() && part.chars().all(is_sysctl)) && name.contains('.');
                fits.then_some(())
                    .ok_or_else(|| format!("`{name}` is no kernel setting's name: `kernel.kptr_restrict`"))
            })?;
            return Ok(Self::Sysctl { names });
        }
        if let Some(paths) = raw.file {
            let paths = each(paths, plain_pattern)?;
            return Ok(Self::File { paths, parents: raw.parents.unwrap_or(false) });
        }
        if let Some(units) = raw.unit {
            return Self::unit(units, raw.section, raw.key, raw.state);
        }
        if let Some(rule) = raw.audit {
            return Ok(Self::Audit(rule.sound()?));
        }
        if let Some(names) = raw.module {
            return Ok(Self::Module { names: each(names, |name| word(name.to_owned()).map(drop))? });
        }
        if let Some(name) = raw.cmdline {
            return Ok(Self::Cmdline { word: word(name)? });
        }
        if let Some(name) = raw.group {
            return Ok(Self::Group { name: word(name)? });
        }
        if let Some(names) = raw.package {
            return Ok(Self::Package { names: each(names, |name| word(name.to_owned()).map(drop))? });
        }
        if let Some(path) = raw.mount {
            let setting = raw.setting.map(word).transpose()?;
            if setting.as_ref().is_some_and(|setting| !setting.contains('.')) {
                return Err("`setting` of a mount is engine.setting: `docker.data-root`".to_owned());
            }
            return Ok(Self::Mount { path: plain_path(path)?, setting });
        }
        if let Some(engine) = raw.engine {
            let setting = raw.setting.ok_or("`setting` is missing")?;
            return Ok(Self::Engine { engine: word(engine)?, setting: word(setting)?, default: raw.default });
        }
        if let Some(path) = raw.subid {
            return Ok(Self::Subid { path: plain_path(path)? });
        }
        match raw.container {
            Some(fact) => Ok(Self::Container { fact }),
            None => Err("a resource has one kind".to_owned()),
        }
    }
}

impl Raw {
    /// One kind, and no key that belongs to another.
    fn exactly_one_kind(&self) -> Result<(), String> {
        let kinds: [(&str, bool, &[&str]); 15] = [
            ("json", self.json.is_some(), &["key", "default"]),
            ("toml", self.toml.is_some(), &["key", "default"]),
            ("ini", self.ini.is_some(), &["key", "section", "default"]),
            ("sysctl", self.sysctl.is_some(), &[]),
            ("file", self.file.is_some(), &["parents"]),
            ("unit", self.unit.is_some(), &["key", "section", "state"]),
            ("audit", self.audit.is_some(), &[]),
            ("module", self.module.is_some(), &[]),
            ("cmdline", self.cmdline.is_some(), &[]),
            ("group", self.group.is_some(), &[]),
            ("package", self.package.is_some(), &[]),
            ("mount", self.mount.is_some(), &["setting"]),
            ("engine", self.engine.is_some(), &["setting", "default"]),
            ("subid", self.subid.is_some(), &[]),
            ("container", self.container.is_some(), &[]),
        ];
        let companions = [
            ("key", self.key.is_some()),
            ("section", self.section.is_some()),
            ("default", self.default.is_some()),
            ("parents", self.parents.is_some()),
            ("state", self.state.is_some()),
            ("setting", self.setting.is_some()),
        ];
        let mut given = kinds.iter().filter(|(_, given, _)| *given);
        let (Some((kind, _, own)), None) = (given.next(), given.next()) else {
            return Err(format!("a resource is exactly one of {}", kinds.map(|(kind, ..)| kind).join(", ")));
        };
        match companions.iter().find(|(name, given)| *given && !own.contains(name)) {
            Some((name, _)) => Err(format!("a resource of kind {kind} has no `{name}`")),
            None => Ok(()),
        }
    }
}

impl Resource {
    fn unit(
        units: OneOrMany,
        section: Option<String>,
        key: Option<String>,
        state: Option<String>,
    ) -> Result<Self, String> {
        let units = each(units, |unit| {
            let known = ["service", "socket", "timer", "mount", "target"];
            let fits = unit.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && known.contains(&kind));
            word(unit.to_owned())?;
            fits.then_some(()).ok_or_else(|| format!("`{unit}` is no unit's name: `docker.service`"))
        })?;
        let fact = match (section, key, state.as_deref()) {
            (Some(section), Some(key), None) => UnitFact::Setting { section: word(section)?, key: word(key)? },
            (None, None, Some("enabled")) => UnitFact::Enabled,
            (None, None, Some("active")) => UnitFact::Active,
            _ => return Err("a unit has `section` and `key`, or `state` = \"enabled\" or \"active\"".to_owned()),
        };
        Ok(Self::Unit { units, fact })
    }

    /// Its kind's name, as in TOML.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Toml(_) => "toml",
            Self::Ini { .. } => "ini",
            Self::Sysctl { .. } => "sysctl",
            Self::File { .. } => "file",
            Self::Unit { .. } => "unit",
            Self::Audit(_) => "audit",
            Self::Module { .. } => "module",
            Self::Cmdline { .. } => "cmdline",
            Self::Group { .. } => "group",
            Self::Package { .. } => "package",
            Self::Mount { .. } => "mount",
            Self::Engine { .. } => "engine",
            Self::Subid { .. } => "subid",
            Self::Container { .. } => "container",
        }
    }

    /// Whether its values are text that stands for numbers, switches and lists: `yes`, `5`, `a b`.
    #[must_use]
    pub const fn is_textual(&self) -> bool {
        matches!(self, Self::Ini { .. } | Self::Unit { .. } | Self::Cmdline { .. } | Self::Sysctl { .. })
    }

    /// Whether somebody may change it for good: containers, packages and what an engine says of itself are not written.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        !matches!(self, Self::Container { .. } | Self::Engine { .. } | Self::Package { .. })
    }

    /// What holds when nobody states it.
    #[must_use]
    pub const fn default_value(&self) -> Option<&Setting> {
        match self {
            Self::Json(keyed) | Self::Toml(keyed) => keyed.default.as_ref(),
            Self::Ini { default, .. } | Self::Engine { default, .. } => default.as_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(keyed) | Self::Toml(keyed) => write!(out, "{}: {}", keyed.path, keyed.key),
            Self::Ini { path, section: Some(section), key, .. } => write!(out, "{path}: [{section}] {key}"),
            Self::Ini { path, section: None, key, .. } => write!(out, "{path}: {key}"),
            Self::Sysctl { names } => out.write_str(&names.join(", ")),
            Self::File { paths, .. } => out.write_str(&paths.join(", ")),
            Self::Unit { units, fact } => match fact {
                UnitFact::Setting { section, key } => write!(out, "{}: [{section}] {key}", units.join(" or ")),
                UnitFact::Enabled => write!(out, "{} enabled", units.join(" or ")),
                UnitFact::Active => write!(out, "{} active", units.join(" or ")),
            },
            Self::Audit(rule) => write!(out, "audit {rule}"),
            Self::Module { names } => write!(out, "module {}", names.join(", ")),
            Self::Cmdline { word } => write!(out, "kernel command line: {word}"),
            Self::Group { name } => write!(out, "group {name}"),
            Self::Package { names } => write!(out, "package {}", names.join(" or ")),
            Self::Mount { path, setting: None } => write!(out, "mount {path}"),
            Self::Mount { path, setting: Some(setting) } => write!(out, "mount of {setting} ({path})"),
            Self::Engine { engine, setting, .. } => write!(out, "{engine}: {setting}"),
            Self::Subid { path } => write!(out, "{path}: smallest range"),
            Self::Container { fact } => write!(out, "containers: {}", fact.name()),
        }
    }
}

impl ContainerFact {
    /// As in TOML.
    #[must_use]
    pub fn name(self) -> String {
        // A unit variant of a kebab-case enumeration: its JSON is its name in quotes.
        serde_json::to_string(&self).unwrap_or_default().trim_matches('"').to_owned()
    }
}

impl AuditRule {
    fn sound(self) -> Result<Self, String> {
        match &self {
            Self::Watch { watch, permissions } => {
                plain_path(watch.clone())?;
                let fits = !permissions.is_empty() && permissions.chars().all(|c| "rwxa".contains(c));
                fits.then_some(()).ok_or_else(|| format!("`permissions` are letters of rwxa, not `{permissions}`"))?;
            }
            Self::Syscalls { syscalls } => {
                let fits = |name: &String| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                };
                if syscalls.is_empty() || syscalls.len() > super::LIST_MAX || !syscalls.iter().all(fits) {
                    return Err("`syscalls` lists names of system calls".to_owned());
                }
            }
            Self::Switch { switch } => {
                let known = ["enabled", "failure", "backlog_limit"];
                let fits = known.contains(&switch.as_str());
                fits.then_some(()).ok_or_else(|| format!("`switch` is one of {}", known.join(", ")))?;
            }
        }
        Ok(self)
    }
}

impl fmt::Display for AuditRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watch { watch, permissions } => write!(out, "-w {watch} -p {permissions}"),
            Self::Syscalls { syscalls } => write!(out, "-S {}", syscalls.join(",")),
            Self::Switch { switch } => out.write_str(switch),
        }
    }
}

fn each(list: OneOrMany, sound: impl Fn(&str) -> Result<(), String>) -> Result<Vec<String>, String> {
    let list = list.into_list()?;
    list.iter().try_for_each(|one| sound(one))?;
    Ok(list)
}

fn is_sysctl(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/')
}

/// A name: no spaces, no control characters, no quotes.
fn word(text: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '`' | '$');
    let good = !text.is_empty() && text.len() <= 256 && text.chars().all(fits);
    good.then_some(()).ok_or_else(|| format!("`{}` is not a plain name", crate::finding::one_line(&text)))?;
    Ok(text)
}

/// An absolute path without `.`, `..`, empty components and patterns.
pub(super) fn plain_path(path: String) -> Result<String, String> {
    plain_pattern(&path)?;
    if path.contains(['*', '?', '[']) {
        return Err(format!("`{}`: no pattern here", crate::finding::one_line(&path)));
    }
    Ok(path)
}

fn plain_pattern(path: &str) -> Result<(), String> {
    let sound = |(at, part): (usize, &str)| {
        let plain =
            !matches!(part, "" | "." | "..") && !part.contains(['[', ']']) && !part.chars().any(char::is_control);
        // The first component is never a pattern: it would walk the whole host.
        plain && (at > 0 || !part.contains(['*', '?']))
    };
    let good = path.len() <= super::TEXT_MAX
        && path.strip_prefix('/').is_some_and(|rest| rest.is_empty() || rest.split('/').enumerate().all(sound));
    let whole = |at: &str| path.strip_suffix("/**").unwrap_or(path).contains(at);
    if !good || whole("**") {
        return Err(format!(
            "`{}` is no plain absolute path; `*` and `?` stand for parts of a component, `**` only for the last one",
            crate::finding::one_line(path)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        resource: Resource,
    }

    #[test]
    fn a_resource_is_exactly_one_kind_with_the_keys_of_that_kind() {
        let rows: [(&str, Result<&str, &str>); 42] = [
            ("json = '/etc/docker/daemon.json', key = 'icc'", Ok("/etc/docker/daemon.json: icc")),
            ("json = '/a', key = 'a.b', default = 5", Ok("/a: a.b")),
            ("toml = '/etc/containerd/config.toml', key = 'grpc.uid'", Ok("/etc/containerd/config.toml: grpc.uid")),
            ("ini = '/etc/audit/auditd.conf', key = 'max_log_file'", Ok("/etc/audit/auditd.conf: max_log_file")),
            ("ini = '/a.conf', section = 'Time', key = 'NTP'", Ok("/a.conf: [Time] NTP")),
            ("sysctl = 'kernel.kptr_restrict'", Ok("kernel.kptr_restrict")),
            (
                "sysctl = ['net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.default.rp_filter']",
                Ok("net.ipv4.conf.all.rp_filter, net.ipv4.conf.default.rp_filter"),
            ),
            ("file = '/etc/docker', parents = true", Ok("/etc/docker")),
            ("file = '/etc/docker/certs.d/*/*.crt'", Ok("/etc/docker/certs.d/*/*.crt")),
            ("file = '/etc/containers/**'", Ok("/etc/containers/**")),
            (
                "unit = 'docker.service', section = 'Service', key = 'Delegate'",
                Ok("docker.service: [Service] Delegate"),
            ),
            (
                "unit = ['chrony.service', 'ntpsec.service'], state = 'active'",
                Ok("chrony.service or ntpsec.service active"),
            ),
            ("audit = { watch = '/usr/bin/runc', permissions = 'x' }", Ok("audit -w /usr/bin/runc -p x")),
            ("audit = { syscalls = ['mount', 'umount2'] }", Ok("audit -S mount,umount2")),
            ("audit = { switch = 'failure' }", Ok("audit failure")),
            ("module = ['cramfs', 'udf']", Ok("module cramfs, udf")),
            ("cmdline = 'lockdown'", Ok("kernel command line: lockdown")),
            ("group = 'docker'", Ok("group docker")),
            ("package = ['docker.io', 'docker-ce']", Ok("package docker.io or docker-ce")),
            ("mount = '/tmp'", Ok("mount /tmp")),
            (
                "mount = '/var/lib/docker', setting = 'docker.data-root'",
                Ok("mount of docker.data-root (/var/lib/docker)"),
            ),
            ("engine = 'docker', setting = 'swarm.state'", Ok("docker: swarm.state")),
            ("subid = '/etc/subuid'", Ok("/etc/subuid: smallest range")),
            ("container = 'host-namespaces'", Ok("containers: host-namespaces")),
            ("", Err("exactly one of")),
            ("key = 'icc'", Err("exactly one of")),
            ("json = '/a', toml = '/a', key = 'b'", Err("exactly one of")),
            ("json = '/a'", Err("`key` is missing")),
            ("json = 'etc/a', key = 'b'", Err("no plain absolute path")),
            ("json = '/etc/*.json', key = 'b'", Err("no pattern here")),
            ("json = '/etc/../a', key = 'b'", Err("no plain absolute path")),
            ("sysctl = 'kernel.x', key = 'b'", Err("has no `key`")),
            ("sysctl = []", Err("between 1 and")),
            ("sysctl = ['a.b', 'a.b']", Err("written twice")),
            ("sysctl = '../../etc/passwd'", Err("no kernel setting")),
            ("file = '/*/x'", Err("no plain absolute path")),
            ("file = '/etc/**/x'", Err("no plain absolute path")),
            ("unit = 'docker', state = 'active'", Err("no unit's name")),
            ("unit = 'docker.service', state = 'on'", Err("a unit has")),
            ("audit = { watch = '/a', permissions = 'rz' }", Err("letters of rwxa")),
            ("group = 'a b'", Err("not a plain name")),
            ("shell = 'true'", Err("unknown field `shell`")),
        ];
        for (text, expect) in rows {
            let parsed: Result<Holder, _> = toml::from_str(&format!("resource = {{ {text} }}"));
            match (parsed, expect) {
                (Ok(holder), Ok(shown)) => assert_eq!(holder.resource.to_string(), shown),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (got, want) => panic!("{text}: {got:?}, expected {want:?}"),
            }
        }
    }
}
