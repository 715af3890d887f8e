//! The NVIDIA container toolkit: its runtimes and hooks, its configuration, and CDI specifications.
//!
//! CDI specification 0.6 (directories /etc/cdi and /run/cdi). Establishes the files that decide what a GPU container gets from
//! the host. The driver's own libraries are not measured here.

use hostmark_attest::manifest::EngineState;

use super::files::Files;
use super::{programs, unit};

const PROGRAMS: [&str; 4] = ["nvidia-container-*", "nvidia-ctk*", "nvidia-cdi-hook", "nvidia-persistenced"];
const TREES: [&str; 4] = ["/etc/nvidia-container-runtime", "/etc/nvidia-container-toolkit", "/etc/cdi", "/run/cdi"];

pub(super) fn measure(files: &mut Files<'_>, engine: &mut EngineState) {
    programs(files, &PROGRAMS, &mut engine.binaries);
    for tree in TREES {
        files.tree(tree, &|_| false, &mut engine.configuration);
    }
    for name in ["nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path", "nvidia-persistenced.service"] {
        unit(files, name, engine);
    }
    engine.installed = engine.binaries.keys().any(|path| path.contains("/nvidia-c"));
}
