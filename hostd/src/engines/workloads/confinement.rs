//! How containers are confined, from what Docker inspects and from OCI bundles.
//!
//! Docker Engine API v1.41 `HostConfig`, `Config`; OCI runtime specification `process`, `root`, `linux`.

use std::collections::BTreeSet;

use hostmark_attest::digest::sha256;
use hostmark_attest::workload::{Confinement, LIST_MAX};
use serde_json::Value;

use super::{capability, text};
use crate::engines::files::bounded;
use crate::engines::settings::sorted;

/// What Docker gives a container of which nobody says otherwise (moby's `oci/caps/defaults.go` names the same).
const DOCKER_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const UNCONFINED: &str = "unconfined";

/// From Docker's `GET /containers/{id}/json`.
pub(super) fn inspected(value: &Value) -> Confinement {
    let host = |name: &str| value.pointer(&format!("/HostConfig/{name}"));
    let flag = |name: &str| host(name) == Some(&Value::Bool(true));
    let number = |name: &str| host(name).and_then(Value::as_i64).unwrap_or_default();
    let privileged = flag("Privileged");
    let options: Vec<&str> = strings(host("SecurityOpt")).collect();
    let option = |name: &str| {
        // Docker goes through them in their order: the last one holds.
        let stated = options.iter().rev().find_map(|option| option.strip_prefix(name)?.strip_prefix(['=', ':']));
        stated.filter(|value| !value.is_empty())
    };
    let seccomp = match option("seccomp") {
        _ if privileged => UNCONFINED.to_owned(),
        None => "default".to_owned(),
        Some(UNCONFINED) => UNCONFINED.to_owned(),
        Some(profile) => {
            serde_json::from_str(profile).map_or_else(|_| bounded(profile), |profile: Value| digest(&profile))
        }
    };
    let lsm =
        ["/AppArmorProfile", "/ProcessLabel"].iter().find_map(|at| text(value, at).filter(|label| !label.is_empty()));
    let cpu = match (number("NanoCpus"), number("CpuQuota"), number("CpuPeriod")) {
        (nano, ..) if nano > 0 => nano.checked_div(1_000_000).unwrap_or_default().max(1),
        (_, quota, period) => milli(quota, if period > 0 { period } else { 100_000 }),
    };
    let shared = |mount: &Value| {
        let spreads = matches!(text(mount, "/Propagation"), Some("shared" | "rshared"));
        spreads.then(|| bounded(text(mount, "/Destination").unwrap_or_default()))
    };
    let mounts = value.get("Mounts").and_then(Value::as_array).into_iter().flatten();
    let restarts = match (text(value, "/HostConfig/RestartPolicy/Name"), host("RestartPolicy/MaximumRetryCount")) {
        (None | Some("" | "no"), _) => 0,
        (Some("on-failure"), Some(count)) => count.as_i64().filter(|count| *count > 0).unwrap_or(-1),
        (Some(_), _) => -1,
    };
    let image = text(value, "/Config/Image").unwrap_or_default();
    Confinement {
        capabilities: if privileged {
            ["ALL".to_owned()].into()
        } else {
            docker_capabilities(host("CapAdd"), host("CapDrop"))
        },
        seccomp,
        lsm: bounded(lsm.unwrap_or(UNCONFINED)),
        no_new_privileges: options.iter().rev().find_map(|option| match option.strip_prefix("no-new-privileges")? {
            "" => Some(true),
            rest => rest.strip_prefix(['=', ':']).map(|value| value == "true"),
        }),
        user: bounded(text(value, "/Config/User").unwrap_or_default()),
        user_namespace: false,
        read_only_root: flag("ReadonlyRootfs"),
        memory: positive(number("Memory")),
        cpu: positive(cpu),
        pids: positive(number("PidsLimit")),
        propagation: mounts.filter_map(shared).take(LIST_MAX).collect(),
        ports: Some(ports(host("PortBindings"), flag("PublishAllPorts"))),
        restarts: Some(restarts),
        cgroup_parent: Some(bounded(text(value, "/HostConfig/CgroupParent").unwrap_or_default())),
        health_check: Some(
            value
                .pointer("/Config/Healthcheck/Test/0")
                .and_then(Value::as_str)
                .is_some_and(|first| !first.is_empty() && first != "NONE"),
        ),
        labels: Some(keys(value.pointer("/Config/Labels"))),
        by_digest: Some(image.contains("@sha256:") || image.starts_with("sha256:")),
    }
}

/// From a bundle's `config.json`. What engines keep elsewhere (ports, restarts, labels, health checks) is not stated.
pub(super) fn specified(value: &Value, capabilities: &BTreeSet<String>) -> Confinement {
    let process = |name: &str| value.pointer(&format!("/process/{name}"));
    let resource = |name: &str| value.pointer(&format!("/linux/resources/{name}")).and_then(Value::as_i64);
    let label = ["apparmorProfile", "selinuxLabel"]
        .iter()
        .find_map(|name| process(name)?.as_str().filter(|one| !one.is_empty()));
    let spreads = |mount: &Value| {
        let shared = strings(mount.get("options")).any(|option| matches!(option, "shared" | "rshared"));
        shared.then(|| bounded(text(mount, "/destination").unwrap_or_default()))
    };
    let mounts = value.get("mounts").and_then(Value::as_array).into_iter().flatten();
    // Root of the container, as it is outside.
    let number = |map: &Value, name: &str| map.get(name).and_then(Value::as_u64).unwrap_or_default();
    let maps = value.pointer("/linux/uidMappings").and_then(Value::as_array);
    let root = maps.into_iter().flatten().find(|map| number(map, "containerID") == 0);
    let mapped = root.is_some_and(|map| number(map, "hostID") != 0);
    Confinement {
        capabilities: capabilities.clone(),
        seccomp: value
            .pointer("/linux/seccomp")
            .filter(|profile| profile.is_object())
            .map_or_else(|| UNCONFINED.to_owned(), digest),
        lsm: bounded(label.unwrap_or(UNCONFINED)),
        no_new_privileges: Some(process("noNewPrivileges") == Some(&Value::Bool(true))),
        user: process("user").and_then(|user| user.get("uid")).and_then(Value::as_u64).unwrap_or_default().to_string(),
        user_namespace: mapped,
        read_only_root: value.pointer("/root/readonly") == Some(&Value::Bool(true)),
        memory: positive(resource("memory/limit").unwrap_or_default()),
        cpu: positive(milli(resource("cpu/quota").unwrap_or_default(), resource("cpu/period").unwrap_or(100_000))),
        pids: positive(resource("pids/limit").unwrap_or_default()),
        propagation: mounts.filter_map(spreads).take(LIST_MAX).collect(),
        by_digest: text(value, "/annotations/io.kubernetes.cri.image-name").map(|image| image.contains("@sha256:")),
        ..Confinement::default()
    }
}

/// Docker's own set, less what was dropped, and what was added.
fn docker_capabilities(added: Option<&Value>, dropped: Option<&Value>) -> BTreeSet<String> {
    let dropped: BTreeSet<String> = strings(dropped).map(capability).collect();
    let added: BTreeSet<String> = strings(added).map(capability).collect();
    let own = DOCKER_CAPABILITIES.iter().map(|name| (*name).to_owned());
    let kept = own.filter(|name| !dropped.contains("ALL") && !dropped.contains(name));
    kept.chain(added).take(LIST_MAX).collect()
}

/// `address:port` of each binding; an address that nobody named is every one.
fn ports(bindings: Option<&Value>, all: bool) -> BTreeSet<String> {
    let every = |address: &str| if address.is_empty() { "0.0.0.0" } else { address }.to_owned();
    let one = |binding: &Value| {
        let (address, port) =
            (text(binding, "/HostIp").unwrap_or_default(), text(binding, "/HostPort").unwrap_or_default());
        let address = every(address);
        let address = if address.contains(':') { format!("[{address}]") } else { address };
        bounded(&format!("{address}:{}", if port.is_empty() { "*" } else { port }))
    };
    let lists =
        bindings.and_then(Value::as_object).into_iter().flat_map(|map| map.values()).filter_map(Value::as_array);
    lists.flatten().map(one).chain(all.then(|| "0.0.0.0:*".to_owned())).take(LIST_MAX).collect()
}

/// SHA-256 of a document with its keys in order.
fn digest(value: &Value) -> String {
    format!("sha256:{}", hex::encode(sha256(&[sorted(value).to_string().as_bytes()])))
}

/// Thousandths of a processor.
fn milli(quota: i64, period: i64) -> i64 {
    quota.saturating_mul(1000).checked_div(period).unwrap_or_default()
}

/// -1 and 0 are no limit.
fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn keys(table: Option<&Value>) -> BTreeSet<String> {
    table
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|table| table.keys())
        .take(LIST_MAX)
        .map(|key| bounded(key))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn e9_what_docker_was_told_of_confinement_is_stated() {
        let plain = inspected(&json!({
            "AppArmorProfile": "docker-default",
            "Config": {"Image": "busybox", "User": "", "Labels": {"tenant": "a"}, "Healthcheck": {"Test": ["CMD", "true"]}},
            "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}, "Memory": 1_048_576, "NanoCpus": 500_000_000,
                "PidsLimit": 64, "CapDrop": ["ALL"], "CapAdd": ["CAP_NET_BIND_SERVICE"], "SecurityOpt": ["no-new-privileges"],
                "ReadonlyRootfs": true, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}},
        }));
        assert_eq!((plain.seccomp.as_str(), plain.lsm.as_str()), ("default", "docker-default"));
        assert!(plain.no_new_privileges == Some(true) && plain.read_only_root && plain.health_check == Some(true));
        assert_eq!((plain.memory, plain.cpu, plain.pids, plain.restarts), (1 << 20, 500, 64, Some(5)));
        assert_eq!(plain.capabilities, ["NET_BIND_SERVICE".to_owned()].into());
        assert_eq!(plain.ports, Some(["127.0.0.1:8080".to_owned()].into()));
        assert_eq!((plain.labels, plain.by_digest), (Some(["tenant".to_owned()].into()), Some(false)));

        let bad = inspected(&json!({
            "AppArmorProfile": "",
            "Config": {"Image": "busybox@sha256:00", "User": "app"},
            "HostConfig": {"RestartPolicy": {"Name": "always"}, "SecurityOpt": ["seccomp=unconfined", "no-new-privileges:false"],
                "PidsLimit": null, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "::", "HostPort": "1"}]}},
            "Mounts": [{"Destination": "/d", "Propagation": "rshared"}, {"Destination": "/e", "Propagation": "rprivate"}],
        }));
        assert_eq!((bad.seccomp.as_str(), bad.lsm.as_str(), bad.user.as_str()), ("unconfined", "unconfined", "app"));
        assert!(bad.no_new_privileges == Some(false) && !bad.read_only_root && bad.by_digest == Some(true));
        assert_eq!((bad.memory, bad.cpu, bad.pids, bad.restarts), (0, 0, 0, Some(-1)));
        assert_eq!(bad.capabilities.len(), DOCKER_CAPABILITIES.len());
        assert_eq!(bad.ports, Some(["0.0.0.0:*".to_owned(), "[::]:1".to_owned()].into()));
        assert_eq!(bad.propagation, ["/d".to_owned()].into());
        let all = inspected(&json!({"HostConfig": {"Privileged": true, "SecurityOpt": ["seccomp={\"a\":1}"]}}));
        assert_eq!((all.capabilities, all.seccomp.as_str()), (["ALL".to_owned()].into(), "unconfined"));
        let last = inspected(&json!({"HostConfig": {"SecurityOpt":
            ["seccomp={}", "no-new-privileges", "seccomp=unconfined", "no-new-privileges=false"]}}));
        assert_eq!((last.seccomp.as_str(), last.no_new_privileges), ("unconfined", Some(false)), "the last one holds");
        assert_eq!(inspected(&json!({})).no_new_privileges, None, "left to the daemon");
        let own = inspected(&json!({"HostConfig": {"SecurityOpt": ["seccomp={\"b\":2, \"a\":1}"]}}));
        assert_eq!(own.seccomp, digest(&json!({"a": 1, "b": 2})));
    }

    #[test]
    fn e9_what_a_bundle_says_of_confinement_is_stated() {
        let bundle = json!({
            "process": {"user": {"uid": 7}, "noNewPrivileges": true, "apparmorProfile": "p"},
            "root": {"readonly": true},
            "mounts": [{"destination": "/d", "options": ["rbind", "shared"]}],
            "linux": {"seccomp": {"defaultAction": "x"}, "uidMappings": [{"hostID": 1}],
                "resources": {"memory": {"limit": 9}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": -1}}},
        });
        let good = specified(&bundle, &BTreeSet::new());
        assert!(
            good.no_new_privileges == Some(true)
                && good.read_only_root
                && good.user_namespace
                && good.seccomp.starts_with("sha256:")
        );
        assert_eq!((good.user.as_str(), good.lsm.as_str(), good.memory, good.cpu, good.pids), ("7", "p", 9, 500, 0));
        assert_eq!((good.propagation, good.ports, good.restarts), (["/d".to_owned()].into(), None, None));
        let same = json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}});
        assert!(!specified(&same, &BTreeSet::new()).user_namespace, "root that is mapped to root");
        let bad = specified(&json!({}), &BTreeSet::new());
        assert_eq!((bad.seccomp.as_str(), bad.lsm.as_str(), bad.user.as_str()), ("unconfined", "unconfined", "0"));
    }
}
