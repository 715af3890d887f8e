//! The containers of a host: those that reach further than a workload should.
//!
//! The inventory is hostd's word, and so are these findings; what they cost is the policy's `[workload]` table. A container counts whatever
//! its state: one that was created or stopped is started by its restart policy, or by anybody who may ask the engine.

use crate::check::violated;
use crate::finding::{Finding, Findings, Severity};
use crate::manifest::EngineManifest;
use crate::policy::WorkloadRules;
use crate::workload::{Container, Inventory, Mount, rules_by_capability, rules_by_device, sensitive};

/// Most findings of one round: a host that runs only such containers is not better explained by a thousand lines.
const LISTED_MAX: usize = 64;

/// Judges the inventory that came with an anchored manifest.
pub(super) fn appraise(bytes: &[u8], manifest: &EngineManifest, rules: &WorkloadRules) -> Findings {
    let mut findings = Findings::new();
    let inventory = if bytes.is_empty() { None } else { Some(Inventory::parse(bytes)) };
    let inventory = match inventory {
        Some(Ok(inventory)) => Some(inventory),
        Some(Err(error)) => {
            findings.push(
                Finding::error("workload.malformed", "the workload inventory is malformed")
                    .found(error)
                    .fix("run the same release of hostd and verifier"),
            );
            return findings;
        }
        None => None,
    };
    for (name, engine) in &manifest.engines {
        let told = inventory.as_ref().is_some_and(|inventory| inventory.engines.contains_key(name));
        findings.check("workload.unknown", !engine.processes.is_empty() && !told, || {
            Finding::new("", rules.unknown().severity(), format!("{name} runs, and its containers are not told"))
                .fix("update hostd, and let it ask the engine's socket")
        });
    }
    for (engine, workloads) in inventory.iter().flat_map(|inventory| &inventory.engines) {
        let unreadable = workloads.unreadable.first();
        findings.check("workload.unreadable", unreadable.is_some(), || {
            let (what, why) = unreadable.map_or(("", ""), |one| (&one.what, &one.why));
            let text = format!("{engine} has containers of which nothing is known: {what}: {why}");
            Finding::new("", rules.unknown().severity(), text)
                .fix("let hostd read the engine's socket and state directory")
        });
        for (id, container) in &workloads.containers {
            let who = who(engine, id, container);
            // Docker names an image by the digest of its content; a bundle's annotation is whatever its maker wrote.
            let exempt = engine == "docker" && rules.exempt_images.contains(&container.image);
            if !exempt {
                judge(&who, container, rules, &mut findings);
            }
            judge_runtime(&who, engine, container, manifest, rules, &mut findings);
        }
    }
    let more = findings.as_slice().len().saturating_sub(LISTED_MAX);
    if violated("workload.more", more > 0) {
        // What is cut weighs as much as the worst of all.
        let weight = findings.worst().unwrap_or(Severity::Warning);
        let mut kept = findings.into_vec();
        kept.sort_by_key(|one| std::cmp::Reverse(one.severity));
        kept.truncate(LISTED_MAX);
        kept.push(Finding::new(
            "workload.more",
            weight,
            format!("{more} more findings about containers are not listed"),
        ));
        findings = kept.into();
    }
    findings
}

fn who(engine: &str, id: &str, container: &Container) -> String {
    format!(
        "the {engine} container {} ({}, {}, restart {}, image {})",
        container.name,
        id.get(..12).unwrap_or(id),
        container.state,
        container.restart,
        container.image
    )
}

fn judge(who: &str, container: &Container, rules: &WorkloadRules, findings: &mut Findings) {
    let fix = "remove the container (docker rm -f), and find out who may start such; or exempt its image in the policy";
    findings.check("workload.privileged", container.privileged, || {
        Finding::new("", rules.privileged.severity(), format!("{who} is privileged: it rules the host"))
            .expected("an unprivileged container")
            .found("privileged")
            .fix(fix)
    });
    findings.check("workload.host-namespace", !container.host_namespaces.is_empty(), || {
        let shared: Vec<&str> = container.host_namespaces.iter().map(String::as_str).collect();
        Finding::new("", rules.host_namespace.severity(), format!("{who} lives in namespaces of the host"))
            .expected("namespaces of its own")
            .found(shared.join(", "))
            .fix(fix)
    });
    let capable: Vec<&str> = container.capabilities.iter().map(String::as_str).collect();
    let capable: Vec<&str> =
        capable.into_iter().filter(|name| rules_by_capability(name) && !rules.allows_capability(name)).collect();
    findings.check("workload.capability", !capable.is_empty(), || {
        Finding::new("", rules.capability.severity(), format!("{who} has a capability that is enough to rule the host"))
            .expected("the engine's own capabilities")
            .found(capable.join(", "))
            .fix(fix)
    });
    let open: Vec<&str> =
        container.device_rules.iter().map(String::as_str).filter(|rule| rules_by_device(rule)).collect();
    findings.check("workload.device-rule", !open.is_empty(), || {
        Finding::new("", rules.capability.severity(), format!("{who} may open devices of the host"))
            .expected("the devices that engines grant every container")
            .found(open.join(", "))
            .fix(fix)
    });
    findings.check("workload.system-paths", container.system_paths, || {
        let text = format!(
            "{who} may write /proc/sys, which is the host's: its core_pattern names a program that the host runs"
        );
        Finding::new("", rules.capability.severity(), text)
            .expected("/proc/sys read-only")
            .found("no read-only paths (systempaths=unconfined)")
            .fix(fix)
    });
    for mount in container.mounts.iter().filter(|mount| !engines_own(mount)) {
        let ends = mount.leads_to.as_deref().unwrap_or(&mount.source);
        let why = sensitive(ends).or_else(|| sensitive(&mount.source));
        findings.check("workload.sensitive-mount", why.is_some() && !rules.allows_mount(ends), || {
            let how = if mount.writable { "writable" } else { "read-only" };
            let by = if ends == mount.source { String::new() } else { format!(", by {}", mount.source) };
            Finding::new(
                "",
                rules.sensitive_mount.severity(),
                format!("{who} has {} of the host", why.unwrap_or_default()),
            )
            .expected("no path that rules the host")
            .found(format!("{ends}{by} at {} ({how})", mount.destination))
            .fix(fix)
        });
    }
}

/// An image that may rule the host still has to run by a runtime that is known.
fn judge_runtime(
    who: &str,
    engine: &str,
    container: &Container,
    manifest: &EngineManifest,
    rules: &WorkloadRules,
    findings: &mut Findings,
) {
    let usual = manifest.engines.get(engine).and_then(|engine| engine.settings.get("default-runtime"));
    let usual = usual.and_then(|stated| stated.get("live")).map(ToString::to_string);
    let other = usual.as_ref().is_some_and(|usual| *usual != format!("\"{}\"", container.runtime));
    findings.check(
        "workload.runtime",
        engine == "runc" || (other && !rules.runtimes.contains(&container.runtime)),
        || {
            let text = match engine {
                "runc" => format!("{who} was started by hand, past every engine"),
                _ => format!("{who} runs by another runtime than the engine's default"),
            };
            Finding::warning("", text)
                .expected(usual.unwrap_or_else(|| "an engine".to_owned()))
                .found(&container.runtime)
                .fix("remove the container; or name the runtime in the policy's [workload] runtimes")
        },
    );
}

/// The three files that an engine writes for each container and mounts into it.
fn engines_own(mount: &Mount) -> bool {
    let name =
        mount.destination.strip_prefix("/etc/").filter(|name| matches!(*name, "hosts" | "hostname" | "resolv.conf"));
    let below = |path: &str| {
        let kept = ["/var/lib/docker/", "/var/lib/nerdctl/", "/var/lib/kubelet/", "/var/lib/containerd/"];
        kept.iter().any(|directory| path.starts_with(directory)) && path.rsplit('/').next() == name
    };
    name.is_some() && below(&mount.source) && mount.leads_to.as_deref().is_none_or(below)
}
