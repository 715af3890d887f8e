//! One observer for each kind of resource.
//!
//! Establishes the effective value and who else states it. Reads files below the root, /proc and /sys of the running kernel, the engines'
//! measured state, and asks `auditctl` for the kernel's rules; starts nothing else and changes nothing.

mod accounts;
mod audit;
pub(super) mod containers;
mod files;
mod kernel;
mod keyed;
pub(super) mod packages;
mod sysctl;
pub(super) mod units;
mod yaml;

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Control, Observation, Observed, Resource, Stated};

use super::host::Host;
use crate::engines::files::is_cut;
use crate::engines::settings::LIST_KEPT;

/// Why something that only a running kernel or engine could say is not said of a directory.
const NO_KERNEL: &str = "a directory has no running kernel to ask";

/// What is known of a control's resource on this host.
#[must_use]
pub fn observe(host: &Host, control: &Control) -> Observation {
    let trouble = || host.root.take_trouble().or_else(|| host.kernel.as_ref()?.take_trouble());
    drop(trouble());
    let observation = looked_at(host, control);
    // What cannot be looked at is not absent, and what was cut is not what is there.
    let cut = || {
        Some(format!(
            "{} states more than is kept of one value",
            stated(&observation).find(|one| cut(&one.value))?.source
        ))
    };
    match trouble().or_else(cut) {
        Some(reason) => Observation::Failed { reason },
        None => observation,
    }
}

fn stated(observation: &Observation) -> impl Iterator<Item = &Stated> {
    let (effective, others) = match observation {
        Observation::Seen { effective, others } => (Some(effective), others.as_slice()),
        Observation::OutOfSight { files, .. } => (None, files.as_slice()),
        Observation::NotApplicable { .. } | Observation::Failed { .. } => (None, [].as_slice()),
    };
    effective.into_iter().chain(others)
}

/// Whether a value is only the size and digest of one, or a list that is as long as one can be.
fn cut(value: &Observed) -> bool {
    let of_one = |value: &Setting| match value {
        Setting::Text(text) => is_cut(text),
        Setting::List(list) => list.len() >= LIST_KEPT || list.iter().any(|text| is_cut(text)),
        Setting::Flag(_) | Setting::Number(_) => false,
    };
    match value {
        Observed::Value(value) => of_one(value),
        Observed::Each(map) | Observed::Any(map) => map.values().flatten().any(of_one),
        Observed::Absent | Observed::Version { .. } => false,
    }
}

fn looked_at(host: &Host, control: &Control) -> Observation {
    match host.unmet(&control.when) {
        Ok(None) => {}
        Ok(Some(reason)) => return Observation::NotApplicable { reason },
        Err(reason) => return Observation::Failed { reason },
    }
    let observed = match &control.resource {
        Resource::Json(keyed) => keyed::json(host, control, keyed),
        Resource::Toml(keyed) => keyed::toml(host, control, keyed),
        Resource::Ini { path, section, key, default } => {
            keyed::ini(host, path, section.as_deref(), key, default.as_ref())
        }
        Resource::Engine { engine, setting, default } => {
            keyed::engine(host, control, engine, setting, default.as_ref())
        }
        Resource::Sysctl { names } => sysctl::sysctl(host, names),
        Resource::File { paths, parents } => files::files(host, control, paths, *parents),
        Resource::Unit { units, fact } => units::unit(host, units, fact),
        Resource::Audit(rule) => audit::audit(host, rule),
        Resource::Module { names } => kernel::modules(host, names),
        Resource::Cmdline { word } => kernel::cmdline(host, word),
        Resource::Mount { path, setting } => kernel::mount(host, path, setting.as_deref()),
        Resource::Group { name } => accounts::group(host, name),
        Resource::Subid { path } => accounts::subid(host, path),
        Resource::Package { names } => packages::package(host, control, names),
        Resource::Container { fact } => containers::containers(host, control, *fact),
    };
    observed.unwrap_or_else(|reason| Observation::Failed { reason })
}

/// What an observer found, or why it found nothing.
type Result<T = Observation> = std::result::Result<T, String>;

fn not_applicable(reason: impl Into<String>) -> Observation {
    Observation::NotApplicable { reason: reason.into() }
}
