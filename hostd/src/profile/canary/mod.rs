//! Canaries: containers that are started to see what an engine really lets them do.
//!
//! Issue "Hardened host profiles", proof by effect; the table is in configs/profiles/README.md, "Canaries". Establishes for each control with
//! `prove = "canary:NAME"` what was seen: by the kernel's word on the canary's process where that can be had, else by what came of trying.
//! A canary that cannot be started, or whose name is unknown, is a failure with its reason and never a pass. The inventory of containers is
//! taken before the first canary starts and they are gone afterwards, so nothing has to be excused in it, and no label excuses anything.
//! Does not establish what other containers asked for: those are judged one by one.

mod docker;
mod effects;
mod engine;
mod image;
mod log;
mod look;
mod podman;
mod probes;
mod registry;
mod run;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use hostmark_attest::profile::{Control, Effect, Profile, Prove};

use self::engine::{Engine, Made};
use self::probes::{Probe, Shown};
use self::registry::Registry;
use self::run::Run;
use super::host::Host;

/// How long the canaries of one engine may take, without their removal: a healthy host needs some seconds.
const TIME: Duration = Duration::from_secs(45);
/// How long an image from this host may take to come.
const FETCH: Duration = Duration::from_secs(15);
/// Name of the variable that an engine's client is given.
const VARIABLE: &str = "HOSTMARK_CANARY_VARIABLE";

/// Starts the canaries that a profile's controls ask for, and tells by the control's id what they showed. Controls that do not concern this
/// host, and a directory that nothing runs in, have none.
#[must_use]
pub fn effects(host: &Host, profile: &Profile) -> BTreeMap<String, Effect> {
    let controls: Vec<&Control> = profile.controls().collect();
    of_controls(host, &controls)
}

/// The same for some controls.
#[must_use]
pub fn of_controls(host: &Host, controls: &[&Control]) -> BTreeMap<String, Effect> {
    if !host.is_live() {
        return BTreeMap::new();
    }
    let mut engines: BTreeMap<&str, Vec<(&Control, &str)>> = BTreeMap::new();
    for control in controls {
        let Prove::Canary(name) = &control.prove else { continue };
        if host.unmet(&control.when) == Ok(None) {
            let part = control.id.split('.').next().unwrap_or_default();
            engines.entry(part).or_default().push((control, name));
        }
    }
    if engines.is_empty() {
        return BTreeMap::new();
    }
    // Before the first canary is there. What cannot be told is told again where it is judged.
    drop(host.inventory());
    let each: Vec<_> = engines.iter().map(|(part, controls)| (controls, Asked::of(host, part))).collect();
    std::thread::scope(|scope| {
        let each: Vec<_> = each
            .iter()
            .map(|(controls, asked)| (controls, scope.spawn(|| of_engine(asked.as_ref(), controls))))
            .collect();
        let joined = each
            .into_iter()
            .map(|(controls, thread)| thread.join().unwrap_or_else(|_| effects::none(controls, "a thread ended")));
        joined.flatten().collect()
    })
}

/// An engine, and what of it only the host knows.
struct Asked {
    engine: Box<dyn Engine + Send>,
    /// Its daemon.
    pids: Vec<u32>,
}

impl Asked {
    fn of(host: &Host, part: &str) -> Result<Self, String> {
        match part {
            "docker" => {
                let socket = host.docker_socket().ok_or("no socket of Docker is known")?;
                Ok(Self { engine: Box::new(docker::Docker::at(&socket)), pids: host.processes("dockerd") })
            }
            "podman" => {
                let podman = podman::Podman::installed(Path::new(run::NOTES)).ok_or("Podman is not installed")?;
                Ok(Self { engine: Box::new(podman), pids: Vec::new() })
            }
            other => Err(format!("no canary is started by {other}")),
        }
    }
}

fn of_engine(asked: Result<&Asked, &String>, controls: &[(&Control, &str)]) -> BTreeMap<String, Effect> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return effects::none(controls, why),
    };
    let wanted: BTreeSet<Probe> = controls.iter().flat_map(|(_, name)| effects::needs(name)).copied().collect();
    let wanted: Vec<Probe> = wanted.into_iter().collect();
    let mut shown = containers(asked, &wanted);
    if wanted.contains(&Probe::Unsigned) {
        shown.unsigned = Some(unsigned(asked.engine.as_ref()));
    }
    if wanted.contains(&Probe::Certificate) {
        shown.certificate = Some(match asked.pids.as_slice() {
            [] => Err("the daemon's process was not found".to_owned()),
            pids => sockets::without_certificate(pids),
        });
    }
    controls.iter().map(|(control, name)| (control.id.clone(), effects::effect(control, name, &shown))).collect()
}

/// Whether an image without a signature is let in.
fn unsigned(engine: &dyn Engine) -> Result<bool, String> {
    let end = Instant::now().checked_add(FETCH).ok_or("no clock")?;
    let registry = Registry::start()?;
    let image = registry.image("unsigned");
    let fetched = engine.fetch(&image, end);
    engine.remove(&Made::Image(image), end)?;
    fetched
}

/// What containers show; nothing is started when no control needs one.
fn containers(asked: &Asked, wanted: &[Probe]) -> Shown {
    if wanted.iter().all(|probe| matches!(probe, Probe::Certificate | Probe::Unsigned)) {
        return Shown::default();
    }
    let Some(end) = Instant::now().checked_add(TIME) else { return Shown::nothing("no clock") };
    match Run::begin(asked.engine.as_ref(), Path::new(run::NOTES), end) {
        Ok(run) => probes::probe(&run, wanted, Some(VARIABLE)),
        Err(why) => Shown::nothing(&why),
    }
}
