//! How a container is confined, as its engine was told.
//!
//! Docker Engine API `GET /containers/{id}/json`; OCI runtime specification, `config.json`. Establishes what was asked for. What the kernel
//! then holds a process to is another question: an engine's own defaults are not in it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{LIST_MAX, limit};
use crate::bytes::ParseError;
use crate::manifest::TEXT_MAX;

/// How a container is confined. What an engine does not state of its containers is absent, and is not known to be harmless.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// All capabilities that its processes may have, without `CAP_`; `ALL` for a privileged one.
    pub capabilities: BTreeSet<String>,
    /// `default` (the engine's), `unconfined`, or `sha256:` of the profile's canonical JSON.
    pub seccomp: String,
    /// The AppArmor profile or SELinux label; `unconfined`.
    pub lsm: String,
    /// Whether no process gains privileges by a set-uid program; absent where nobody said so: then the engine's own setting holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// The user of its first process as it was asked for; empty where nobody did: root.
    pub user: String,
    /// Its root is another user outside.
    pub user_namespace: bool,
    /// Its root file system is read-only.
    pub read_only_root: bool,
    /// Bytes; 0: no limit.
    pub memory: u64,
    /// Thousandths of a processor; 0: no limit.
    pub cpu: u64,
    /// Processes; 0: no limit.
    pub pids: u64,
    /// Destinations of mounts that propagate to the host.
    pub propagation: BTreeSet<String>,
    /// `address:port` that the host listens at for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<BTreeSet<String>>,
    /// How often it is started again; -1: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i64>,
    /// The parent cgroup that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Whether it has a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<bool>,
    /// Names of its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeSet<String>>,
    /// Whether its image was named by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_digest: Option<bool>,
}

impl Confinement {
    pub(super) fn within_limits(&self) -> Result<(), ParseError> {
        let sets = [Some(&self.capabilities), Some(&self.propagation), self.ports.as_ref(), self.labels.as_ref()];
        for set in sets.into_iter().flatten() {
            limit("entries of a container's confinement", set.len(), LIST_MAX)?;
            set.iter().try_for_each(|text| limit("bytes of a text", text.len(), TEXT_MAX))?;
        }
        let texts = [Some(&self.seccomp), Some(&self.lsm), Some(&self.user), self.cgroup_parent.as_ref()];
        texts.into_iter().flatten().try_for_each(|text| limit("bytes of a text", text.len(), TEXT_MAX))
    }
}
