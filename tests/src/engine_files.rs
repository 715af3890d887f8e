//! A directory that is measured as a container host's root: configuration and units as Debian 12 ships them, and files that stand
//! for the programs. Files only: nothing in it runs, and the programs say so in their first line.

use std::path::{Path, PathBuf};

use hostmark_attest::manifest::EngineManifest;
use hostmark_hostd::engines::{DigestCache, EnginesConfig, measure};

/// Docker's configuration on most hosts of the laboratory.
pub const DAEMON_JSON: &str = r#"{
  "icc": false,
  "live-restore": true,
  "log-driver": "journald",
  "no-new-privileges": true,
  "userland-proxy": false
}
"#;
/// A second configuration that the laboratory permits: logs on disk, bounded.
pub const DAEMON_JSON_LOCAL_LOGS: &str = r#"{
  "icc": false,
  "live-restore": true,
  "log-driver": "local",
  "log-opts": { "max-size": "10m" },
  "no-new-privileges": true,
  "userland-proxy": false
}
"#;
/// A configuration that nobody permits: the API on every interface, without TLS.
pub const DAEMON_JSON_OPEN: &str = r#"{
  "hosts": ["fd://", "tcp://0.0.0.0:2375"],
  "icc": true
}
"#;
/// Path of Docker's configuration below the root.
pub const DAEMON_JSON_PATH: &str = "etc/docker/daemon.json";

const CONTAINERD_TOML: &str = r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  enable_unprivileged_ports = false

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#;
const DOCKER_SERVICE: &str = "[Unit]
Description=Docker Application Container Engine
Documentation=https://docs.docker.com
After=network-online.target docker.socket firewalld.service containerd.service time-set.target
Wants=network-online.target containerd.service
Requires=docker.socket

[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
LimitNOFILE=infinity
LimitNPROC=infinity
TasksMax=infinity
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
";
const DOCKER_SOCKET: &str = "[Unit]
Description=Docker Socket for the API

[Socket]
ListenStream=/run/docker.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker

[Install]
WantedBy=sockets.target
";
const CONTAINERD_SERVICE: &str = "[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
";
const PROGRAMS: [&str; 8] = [
    "usr/sbin/dockerd",
    "usr/sbin/runc",
    "usr/bin/docker",
    "usr/bin/docker-proxy",
    "usr/bin/docker-init",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
];

/// A tree of engine files.
#[derive(Debug, Clone)]
pub struct EngineFiles {
    root: PathBuf,
}

impl EngineFiles {
    /// Writes the tree below `root`.
    ///
    /// # Errors
    /// The system's.
    pub fn create(root: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let this = Self { root: root.canonicalize()? };
        for program in PROGRAMS {
            let text =
                format!("#!/bin/false\n# Stands for /{program} in a Hostmark demo or test; it is not the program.\n");
            this.write(program, &text)?;
            this.mode(program, 0o755)?;
        }
        let texts = [
            (DAEMON_JSON_PATH, DAEMON_JSON),
            ("etc/default/docker", "# Environment of docker.service\nDOCKER_OPTS=\"\"\n"),
            ("etc/containerd/config.toml", CONTAINERD_TOML),
            ("usr/lib/systemd/system/docker.service", DOCKER_SERVICE),
            ("usr/lib/systemd/system/docker.socket", DOCKER_SOCKET),
            ("usr/lib/systemd/system/containerd.service", CONTAINERD_SERVICE),
        ];
        for (path, text) in texts {
            this.write(path, text)?;
        }
        Ok(this)
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Replaces a file as an editor does: a new file, renamed over the old one.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &str, text: &str) -> std::io::Result<()> {
        let file = self.root.join(path);
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut new = file.clone().into_os_string();
        new.push(".new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, file)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, path: &str) -> std::io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn mode(&self, path: &str, mode: u32) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(self.root.join(path), std::fs::Permissions::from_mode(mode))
    }

    /// The canonical manifest of the tree as it is now, as an operator captures it on a machine of their own.
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        let measured = measure(&EnginesConfig::of_root(&self.root), &mut DigestCache::default());
        let manifest: EngineManifest = measured.manifest;
        manifest.to_canonical()
    }
}
