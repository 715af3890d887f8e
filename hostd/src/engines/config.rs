//! `[engines]` in hostd.toml: what is measured, and where a test or a demo keeps it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Which running daemons are measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processes {
    /// All of this PID namespace for the root `/`; those of `pid_files` for any other.
    #[default]
    Auto,
    /// All of this PID namespace.
    All,
    /// Only those of `pid_files`.
    PidFiles,
    /// None.
    None,
}

/// `[engines]`. The defaults measure the running host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// Directory that is measured as if it were `/`.
    pub root: PathBuf,
    /// Engines to measure: `docker`, `containerd`, `podman`, `nvidia`.
    pub enabled: Vec<String>,
    /// Which running daemons are measured.
    pub processes: Processes,
    /// PID files of the daemons to measure, for several engines on one machine. Real paths, not below `root`.
    pub pid_files: Vec<PathBuf>,
    /// Docker Engine's socket; default `/run/docker.sock` when the root is `/`, else none. A real path.
    pub docker_socket: Option<PathBuf>,
    /// Docker Engine's configuration, where no command line names another. Below `root`.
    pub docker_config: String,
    /// containerd's configuration, where no command line names another. Below `root`.
    pub containerd_config: String,
    /// Run `containerd config dump` (root `/` only) to learn the merged configuration.
    pub ask_containerd: bool,
    /// Further files and directories to measure as Docker's configuration. Below `root`.
    pub extra: Vec<String>,
}

impl Default for EnginesConfig {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            enabled: super::NAMES.iter().map(|name| (*name).to_owned()).collect(),
            processes: Processes::Auto,
            pid_files: Vec::new(),
            docker_socket: None,
            docker_config: "/etc/docker/daemon.json".to_owned(),
            containerd_config: "/etc/containerd/config.toml".to_owned(),
            ask_containerd: true,
            extra: Vec::new(),
        }
    }
}

impl EnginesConfig {
    /// Measures `root` as if it were `/`: no running daemon, no live interface.
    #[must_use]
    pub fn of_root(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// Whether the running host itself is measured.
    #[must_use]
    pub fn root_is_default(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The socket to ask, if any.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        self.docker_socket.clone().or_else(|| self.root_is_default().then(|| PathBuf::from("/run/docker.sock")))
    }

    /// Whether running daemons or their interface are looked for elsewhere than on a real host.
    #[must_use]
    pub fn looks_elsewhere(&self) -> bool {
        let usual = Self::default();
        (self.processes, &self.pid_files, &self.docker_socket)
            != (usual.processes, &usual.pid_files, &usual.docker_socket)
    }

    /// Names in `enabled` that no engine has.
    #[must_use]
    pub fn unknown_engines(&self) -> Vec<&str> {
        self.enabled.iter().map(String::as_str).filter(|name| !super::NAMES.contains(name)).collect()
    }
}
