//! Podman: programs, /etc/containers, /usr/share/containers, CNI and hooks, podman.socket.
//!
//! containers.conf(5), storage.conf(5), oci-hooks(5). Establishes the system-wide files only: Podman has no daemon, and what a
//! user's `$HOME` overrides is not measured here.

use hostmark_attest::manifest::EngineState;

use super::files::Files;
use super::{programs, unit};

const PROGRAMS: [&str; 8] =
    ["podman", "podman-remote", "conmon", "crun", "runc", "buildah", "skopeo", "fuse-overlayfs"];
const TREES: [&str; 7] = [
    "/usr/libexec/podman",
    "/usr/lib/podman",
    "/etc/containers",
    "/usr/share/containers",
    "/etc/cni",
    "/etc/nri",
    "/run/containers/oci/hooks.d",
];

pub(super) fn measure(files: &mut Files<'_>, engine: &mut EngineState) {
    programs(files, &PROGRAMS, &mut engine.binaries);
    for tree in TREES {
        let programs = tree.ends_with("/podman");
        files.tree(tree, &|_| false, if programs { &mut engine.binaries } else { &mut engine.configuration });
    }
    for name in ["podman.socket", "podman.service"] {
        unit(files, name, engine);
    }
    engine.installed = engine.binaries.keys().any(|path| path.ends_with("/podman"));
}
