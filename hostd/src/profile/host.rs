//! The host that is observed: a root, the running kernel behind it or none, its engines and its containers.
//!
//! Establishes what `when` asks of a host. A directory has no kernel and no engine that runs: what only they could say is out of sight.

use std::cell::OnceCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use hostmark_attest::manifest::{EngineManifest, EngineState, Setting};
use hostmark_attest::profile::When;
use hostmark_attest::workload::Inventory;

use super::root::{Root, Text};
use crate::engines::{self, DigestCache, EnginesConfig, WorkloadCache};

/// What is observed.
#[derive(Debug)]
pub struct Host {
    pub(crate) root: Root,
    /// Where /proc and /sys of the running kernel are; none for a directory.
    pub(crate) kernel: Option<Root>,
    pub(crate) config: EnginesConfig,
    manifest: OnceCell<EngineManifest>,
    inventory: OnceCell<Told<Option<Inventory>>>,
}

/// What a fact of a host is, when it can be told.
type Told<T> = Result<T, String>;

impl Host {
    /// What the engines' configuration names: the running host for the root `/`, a directory that looks like one for any other.
    #[must_use]
    pub fn new(config: EnginesConfig) -> Self {
        let kernel = config.root_is_default().then(|| Root::new("/"));
        Self { root: Root::new(&config.root), kernel, config, manifest: OnceCell::new(), inventory: OnceCell::new() }
    }

    /// A directory with the /proc and /sys of another one: for tests.
    #[must_use]
    pub fn with_kernel(mut self, kernel: impl Into<PathBuf>) -> Self {
        self.kernel = Some(Root::new(kernel));
        self
    }

    /// Whether a kernel and engines run behind the root.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.kernel.is_some()
    }

    /// What the engines are made of and run with.
    pub(crate) fn manifest(&self) -> &EngineManifest {
        self.manifest.get_or_init(|| engines::measure(&self.config, &mut DigestCache::default()).manifest)
    }

    /// One engine.
    pub(crate) fn engine(&self, name: &str) -> Option<&EngineState> {
        self.manifest().engines.get(name)
    }

    /// The containers; None when no engine can have any.
    ///
    /// # Errors
    /// The inventory does not hold together: what is in it is not known.
    pub(crate) fn inventory(&self) -> Told<Option<&Inventory>> {
        let take = || {
            let bytes = engines::inventory(&self.config, self.manifest(), &mut WorkloadCache::default());
            if bytes.is_empty() {
                Ok(None)
            } else {
                Inventory::parse(&bytes).map(Some).map_err(|error| error.to_string())
            }
        };
        self.inventory.get_or_init(take).as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// Docker Engine's socket, if any is known.
    pub(crate) fn docker_socket(&self) -> Option<PathBuf> {
        self.config.socket()
    }

    /// Processes of a running daemon.
    pub(crate) fn processes(&self, daemon: &str) -> Vec<u32> {
        engines::process::pids(&self.config, daemon)
    }

    /// `ID-VERSION_ID` of os-release.
    pub(crate) fn distribution(&self) -> String {
        let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| match self.root.text(path) {
            Text::Read(text) => Some(text),
            Text::Missing | Text::Unreadable(_) => None,
        });
        let text = text.unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map_or_else(|| "unknown".to_owned(), |value| value.trim_matches(['"', '\'']).to_owned())
        };
        format!("{}-{}", field("ID"), field("VERSION_ID"))
    }

    /// Why a control does not concern this host; None when it does.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub(crate) fn unmet(&self, when: &When) -> Told<Option<String>> {
        let has = |path: &str| self.root.has(path);
        if let Some(engine) = &when.engine
            && !self.installed(engine)
        {
            return Ok(Some(format!("{engine} is not installed")));
        }
        if let Some(wanted) = when.swarm
            && self.swarm()? != wanted
        {
            return Ok(Some(if wanted { "no swarm is active" } else { "a swarm is active" }.to_owned()));
        }
        if let Some(wanted) = when.rootless
            && self.rootless() != wanted
        {
            return Ok(Some(
                if wanted { "no engine runs without root" } else { "the engine runs without root" }.to_owned(),
            ));
        }
        if let Some(wanted) = when.kubernetes
            && self.installed("kubelet") != wanted
        {
            return Ok(Some(if wanted { "no kubelet is installed" } else { "a kubelet is installed" }.to_owned()));
        }
        if let Some(wanted) = when.efi {
            let efi = self.kernel.as_ref().map_or_else(|| has("/boot/efi"), |kernel| kernel.has("/sys/firmware/efi"));
            if efi != wanted {
                return Ok(Some(if wanted { "it did not boot from EFI" } else { "it booted from EFI" }.to_owned()));
            }
        }
        if let Some(unit) = &when.unit
            && super::observe::units::fragment(&self.root, unit).is_none()
        {
            return Ok(Some(format!("there is no unit {unit}")));
        }
        if let Some(package) = &when.package
            && super::observe::packages::version(&self.root, package)?.is_none()
        {
            return Ok(Some(format!("the package {package} is not installed")));
        }
        if let Some(file) = when.file.as_ref().filter(|file| !has(file)) {
            return Ok(Some(format!("there is no {file}")));
        }
        if let Some(file) = when.no_file.as_ref().filter(|file| has(file)) {
            return Ok(Some(format!("there is a {file}")));
        }
        Ok(None)
    }

    /// Whether an engine, or the kubelet, is installed.
    pub(crate) fn installed(&self, engine: &str) -> bool {
        const DIRECTORIES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];
        match self.engine(engine) {
            Some(state) => state.installed,
            None => DIRECTORIES.iter().any(|directory| self.root.has(&format!("{directory}/{engine}"))),
        }
    }

    /// A file of a running engine's configuration that was changed after its daemon started: what it runs with is not what is written.
    pub(crate) fn changed_since_start(&self, engine: &str) -> Option<String> {
        let daemon = if engine == "docker" { "dockerd" } else { engine };
        // Registries' hosts.toml and certificates are read at each pull.
        let own = |path: &&String| match engine {
            "docker" => path.ends_with("/daemon.json") || **path == self.config.docker_config,
            _ => path.ends_with(".toml") && !path.ends_with("/hosts.toml"),
        };
        let changed = |path: &&String| self.changed_since(daemon, path);
        self.engine(engine)?.configuration.keys().filter(own).find(changed).cloned()
    }

    /// Whether a file was changed after a daemon started, where one runs.
    pub(crate) fn changed_since(&self, daemon: &str, path: &str) -> bool {
        let started = || engines::process::started(&self.config, daemon)?.duration_since(UNIX_EPOCH).ok();
        let Some(meta) = self.root.meta(path).filter(|_| self.is_live()) else { return false };
        let time = u64::try_from(meta.ctime()).ok().zip(u32::try_from(meta.ctime_nsec()).ok());
        let later = |started| time.is_none_or(|(seconds, nanos)| Duration::new(seconds, nanos) > started);
        started().is_some_and(later)
    }

    /// Whether Docker is part of a swarm: its own word, or what it keeps on disk when it does not run.
    fn swarm(&self) -> Told<bool> {
        let docker = self.engine("docker");
        match docker.and_then(|docker| docker.settings.get("swarm.state")).and_then(|stated| stated.get("live")) {
            Some(Setting::Text(state)) => Ok(state != "inactive"),
            _ if docker.is_some_and(|docker| !docker.processes.is_empty()) => {
                Err("Docker runs and does not say whether a swarm is active".to_owned())
            }
            _ => Ok(self.root.has("/var/lib/docker/swarm/docker-state.json")),
        }
    }

    /// Whether Docker runs without root.
    fn rootless(&self) -> bool {
        let options = self.engine("docker").and_then(|docker| docker.settings.get("security-options")?.get("live"));
        matches!(options, Some(Setting::List(list)) if list.iter().any(|option| option == "name=rootless"))
    }
}
