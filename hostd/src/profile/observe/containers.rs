//! Facts of containers, from the inventory that each round states too: every engine's, whatever their state.
//!
//! BASELINE rows 110–127. A container of which nothing is known is none that is harmless: what an engine does not tell makes an error.

use std::collections::BTreeMap;

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{ContainerFact, Observation, Observed, SourceKind, Stated};
use hostmark_attest::workload::{Container, sensitive};

use super::{Result, not_applicable};
use crate::profile::host::Host;

pub(super) fn containers(host: &Host, fact: ContainerFact) -> Result {
    if !host.is_live() {
        let reason = "a directory has no engine to ask for its containers".to_owned();
        return Ok(Observation::OutOfSight { reason, files: Vec::new() });
    }
    let Some(inventory) = host.inventory() else {
        return Ok(not_applicable("no engine has containers"));
    };
    let mut each: BTreeMap<String, Option<Setting>> = BTreeMap::new();
    for (engine, workloads) in &inventory.engines {
        if let Some(one) = workloads.unreadable.iter().next() {
            return Err(format!("{engine}: {}: {}", one.what, one.why));
        }
        for (id, container) in &workloads.containers {
            let name = if container.name.is_empty() { id } else { &container.name };
            let value = of(container, fact).ok_or_else(|| {
                format!("{engine}/{name}: the inventory does not state {} of this engine's containers", fact.name())
            })?;
            each.insert(format!("{engine}/{name} ({})", container.state), Some(value));
        }
    }
    if each.is_empty() {
        return Ok(not_applicable("there are no containers"));
    }
    let effective = Stated::new(SourceKind::Inventory, "the engines' containers", Observed::Each(each));
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// A fact in its canonical form; None: the inventory does not state it.
fn of(container: &Container, fact: ContainerFact) -> Option<Setting> {
    let list = |set: &std::collections::BTreeSet<String>| Setting::List(set.iter().cloned().collect());
    let reached = || container.mounts.iter().flat_map(|mount| [Some(&mount.source), mount.leads_to.as_ref()]).flatten();
    let ruling = |sockets: bool| {
        let mut paths: Vec<String> =
            reached().filter(|path| sensitive(path).is_some_and(|what| is_socket(what) == sockets)).cloned().collect();
        paths.sort();
        paths.dedup();
        Setting::List(paths)
    };
    Some(match fact {
        ContainerFact::Privileged => Setting::Flag(container.privileged),
        ContainerFact::Capabilities => list(&container.capabilities),
        ContainerFact::SensitiveMounts => ruling(false),
        ContainerFact::EngineSockets => ruling(true),
        ContainerFact::HostNamespaces => list(&container.host_namespaces),
        ContainerFact::Devices => list(&container.device_rules),
        ContainerFact::Runtime => Setting::Text(container.runtime.clone()),
        _ => return None,
    })
}

fn is_socket(what: &str) -> bool {
    what.ends_with(".sock") || what == "/run/user"
}
