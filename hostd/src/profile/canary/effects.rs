//! From what was seen to a control's effect: the value that is stored, and whether it is the wanted one.
//!
//! The last two columns of configs/profiles/README.md, "Canaries". A name that is not here has no effect and never passes.

use std::collections::BTreeMap;

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Control, Effect, Observed, Predicate, Resource};

use super::engine::Told;
use super::look::Look;
use super::probes::{Probe, Shown};
use crate::profile::observe::containers::CAPABILITIES;

/// What a canary of this name has to try; empty: there is none.
pub(super) fn needs(name: &str) -> &'static [Probe] {
    match name {
        "capabilities" | "cgroup-namespace" | "cgroup-path" | "confined" | "devices" | "environment" | "mac-label"
        | "mounts" | "namespaces" | "no-new-privileges" | "open-files" | "pids-limit" | "processes"
        | "read-only-root" | "seccomp" | "uid-map" => &[Probe::Look],
        "ipc-namespace" => &[Probe::Look, Probe::Memory],
        "log-line" => &[Probe::Look, Probe::Log],
        "peer-unreachable" => &[Probe::Look, Probe::Peer],
        "privileged-refused" => &[Probe::Look, Probe::Privileged],
        "networks-apart" => &[Probe::Apart],
        "published-address" | "userland-proxy" => &[Probe::Published],
        "api-certificate" => &[Probe::Certificate],
        "unsigned-refused" => &[Probe::Unsigned],
        _ => &[],
    }
}

/// What the canary of this name showed for a control.
pub(super) fn effect(control: &Control, name: &str, shown: &Shown) -> Effect {
    match seen(control, name, shown) {
        Ok((good, value)) => Effect::Seen { good, value },
        Err(why) => Effect::Failed(why),
    }
}

fn seen(control: &Control, name: &str, shown: &Shown) -> Told<(bool, Observed)> {
    let wanted = |value: &Setting| control.want.accepts(Some(value), control.resource.is_textual());
    match name {
        "api-certificate" => {
            let each = tried(shown.certificate.as_ref())?;
            let good = each.iter().all(|(address, word)| word == "refuses" && wanted(&Setting::Text(address.clone())));
            let each = each.iter().map(|(address, word)| (address.clone(), Some(Setting::Text(word.clone()))));
            Ok((good, Observed::Each(each.collect())))
        }
        "ipc-namespace" => {
            let (look, started) = (tried(shown.look.as_ref())?, *tried(shown.memory.as_ref())?);
            let word = match (look.of_host.contains("ipc"), started) {
                (true, _) => "host",
                (false, true) => "shareable",
                (false, false) => "private",
            };
            Ok(word_is(word, word == "private"))
        }
        "log-line" => {
            let place = tried(shown.log.as_ref())?.clone().map(Setting::Text);
            Ok((place.as_ref().is_some_and(wanted), Observed::of(place)))
        }
        "peer-unreachable" => apart(shown.peer.as_ref()),
        "networks-apart" => apart(shown.apart.as_ref()),
        "privileged-refused" => {
            tried(shown.look.as_ref())?;
            let word = *tried(shown.privileged.as_ref())?;
            Ok(word_is(word, word == "refused"))
        }
        "published-address" => {
            let published = tried(shown.published.as_ref())?;
            let loopback = |ip: &String| ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            let good = !published.addresses.is_empty() && published.addresses.iter().all(loopback);
            Ok((good, Observed::Value(Setting::List(published.addresses.clone()))))
        }
        "unsigned-refused" => {
            let fetched = *tried(shown.unsigned.as_ref())?;
            Ok(word_is(if fetched { "fetched" } else { "refused" }, !fetched))
        }
        "userland-proxy" => {
            let published = tried(shown.published.as_ref())?;
            let reached = if published.reached { "reached" } else { "not reached" };
            let by = if published.proxies.is_empty() { "no proxy".to_owned() } else { published.proxies.join(", ") };
            let good = published.reached && published.proxies.is_empty();
            Ok((good, Observed::Value(Setting::Text(format!("{reached}, {by}")))))
        }
        _ if needs(name).is_empty() => Err("no canary of that name is known".to_owned()),
        _ => of_look(control, name, tried(shown.look.as_ref())?),
    }
}

/// What one container with nothing asked for showed.
fn of_look(control: &Control, name: &str, look: &Look) -> Told<(bool, Observed)> {
    let wanted = |value: &Setting| control.want.accepts(Some(value), control.resource.is_textual());
    let status = |name: &str| {
        look.status.get(name).map(String::as_str).ok_or_else(|| format!("the kernel does not state {name}"))
    };
    let said =
        |name: &str| look.words.get(name).map(String::as_str).ok_or_else(|| format!("the canary did not say {name}"));
    let list = |list: &[String]| Observed::Value(Setting::List(list.to_vec()));
    Ok(match name {
        "no-new-privileges" => {
            let value: i64 = number(status("NoNewPrivs")?)?;
            (value == 1, Observed::Value(Setting::Number(value)))
        }
        "seccomp" => {
            let value = format!("{} {}", status("Seccomp")?, said("fixed-address-space")?);
            (value == "2 refused", Observed::Value(Setting::Text(value)))
        }
        "capabilities" => {
            let value = Setting::List(capabilities(status("CapBnd")?)?);
            (wanted(&value), Observed::Value(value))
        }
        "confined" => {
            let privileged = look.disk || capabilities(status("CapBnd")?)?.iter().any(|name| name == "SYS_ADMIN");
            word_is(if privileged { "privileged" } else { "confined" }, !privileged)
        }
        "uid-map" => {
            let outside = look.uid_map.strip_prefix("0 ").and_then(|rest| rest.split(' ').next());
            let good = outside.is_some_and(|outside| outside != "0");
            (good, Observed::Value(Setting::Text(look.uid_map.clone())))
        }
        "open-files" => limit(control, look, "Max open files", "/proc/sys/fs/nr_open")?,
        "processes" => limit(control, look, "Max processes", "/proc/sys/kernel/pid_max")?,
        "pids-limit" => {
            let value = Setting::Number(look.pids_max.ok_or("the control group states no pids.max")?);
            (wanted(&value), Observed::Value(value))
        }
        "cgroup-namespace" => {
            let host = look.of_host.contains("cgroup");
            word_is(if host { "host" } else { "private" }, !host)
        }
        "cgroup-path" => {
            let path = look.group.clone().ok_or("no control group of the canary has its name")?;
            let own = ["/system.slice", "/docker", "/machine.slice", "/libpod_parent"].contains(&path.as_str());
            (own, Observed::Value(Setting::Text(path)))
        }
        "namespaces" => {
            // The key names the namespace: `containers.netns`.
            let Resource::Toml(keyed) = &control.resource else {
                return Err("the control's key names no namespace".to_owned());
            };
            let key = keyed.key.to_string();
            let kind = key.rsplit('.').next().and_then(|last| last.strip_suffix("ns"));
            let kind = kind.filter(|kind| ["cgroup", "ipc", "net", "pid", "uts"].contains(kind));
            let kind = kind.ok_or("the control's key names no namespace")?;
            let shared: Vec<String> = look.of_host.iter().cloned().collect();
            (!look.of_host.contains(kind), list(&shared))
        }
        "mac-label" => {
            let label = look.label.clone().filter(|label| !label.is_empty()).map(Setting::Text);
            let good = label.as_ref().is_some_and(|label| *label != Setting::Text("unconfined".to_owned()));
            (good, Observed::of(label))
        }
        "mounts" => (look.mounts.is_empty(), list(&look.mounts)),
        "devices" => (look.devices.is_empty(), list(&look.devices)),
        "environment" => {
            let variable = look.words.get("variable").map(|_| "passed on");
            (variable.is_none(), Observed::of(variable.map(|word| Setting::Text(word.to_owned()))))
        }
        "read-only-root" => {
            let word = said("root")?;
            word_is(word, word == "refused")
        }
        _ => return Err("no canary of that name is known".to_owned()),
    })
}

fn word_is(word: &str, good: bool) -> (bool, Observed) {
    (good, Observed::Value(Setting::Text(word.to_owned())))
}

fn number(text: &str) -> Told<i64> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// Something that was tried and told.
fn tried<T>(told: Option<&Told<T>>) -> Told<&T> {
    told.ok_or("it was not tried")?.as_ref().map_err(Clone::clone)
}

/// A listener that only the host reached.
fn apart(told: Option<&Told<String>>) -> Told<(bool, Observed)> {
    let word = tried(told)?;
    match word.as_str() {
        "reached" => Ok(word_is(word, false)),
        "refused" | "silent" | "unreachable" => Ok(word_is(word, true)),
        _ => Err(format!("the caller says `{word}`")),
    }
}

/// A hard limit. A control that only wants there to be one is satisfied by any below what the kernel allows everybody.
fn limit(control: &Control, look: &Look, name: &str, ceiling: &str) -> Told<(bool, Observed)> {
    let value = *look.limits.get(name).ok_or_else(|| format!("the kernel states no {name}"))?;
    let good = match &control.want.is {
        Predicate::NotEmpty | Predicate::Present => {
            let ceiling = std::fs::read_to_string(ceiling).map_err(|error| format!("{ceiling}: {error}"))?;
            value >= 0 && value < number(ceiling.trim())?
        }
        _ => control.want.accepts(Some(&Setting::Number(value)), control.resource.is_textual()),
    };
    Ok((good, Observed::Value(Setting::Number(value))))
}

/// Names of the bits of `CapBnd`.
fn capabilities(mask: &str) -> Told<Vec<String>> {
    let mask = u64::from_str_radix(mask, 16).map_err(|_| "CapBnd is no mask".to_owned())?;
    let set = (0u32..64).filter(|bit| mask.checked_shr(*bit).is_some_and(|rest| rest & 1 == 1));
    let name = |bit: u32| {
        let known = usize::try_from(bit).ok().and_then(|bit| CAPABILITIES.get(bit));
        known.map_or_else(|| bit.to_string(), |name| (*name).to_owned())
    };
    let mut names: Vec<String> = set.map(name).collect();
    names.sort();
    Ok(names)
}

/// Effects of a whole engine that could not be asked.
pub(super) fn none(controls: &[(&Control, &str)], why: &str) -> BTreeMap<String, Effect> {
    controls.iter().map(|(control, _)| (control.id.clone(), Effect::Failed(why.to_owned()))).collect()
}
