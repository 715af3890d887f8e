//! What a run of canaries tries: each probe starts what it needs, looks, and tells what it saw.
//!
//! The rows of configs/profiles/README.md, "Canaries". Probes of one engine run beside each other.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::engine::{Ask, Inspected, Told, Words};
use super::image::PATH;
use super::look::{Look, look};
use super::run::Run;
use super::{log, sockets};

/// Where a canary listens (canary/src/main.rs).
pub(super) const PORT: u16 = 7373;
/// How long an answer on this host may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer, more than a token has.
const ANSWER_MAX: u64 = 256;

/// What has to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Probe {
    /// One container with nothing asked for, seen from outside.
    Look,
    /// Where its log is.
    Log,
    /// A second one calls it on the default network.
    Peer,
    /// A second one asks for its shared memory.
    Memory,
    /// One that publishes a port.
    Published,
    /// One that asks for everything.
    Privileged,
    /// A listener on one new network, a caller on another.
    Apart,
    /// A client without a certificate.
    Certificate,
    /// An image without a signature.
    Unsigned,
}

/// What a container that published a port showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Addresses that the host listens at or forwards for it.
    pub(super) addresses: Vec<String>,
    /// A call from the host got the canary's answer.
    pub(super) reached: bool,
    /// Names of the proxy processes that were there for it.
    pub(super) proxies: Vec<String>,
}

/// What was seen; None: not tried.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) look: Option<Told<Look>>,
    /// Where the line was found; None: nowhere.
    pub(super) log: Option<Told<Option<String>>>,
    pub(super) peer: Option<Told<String>>,
    /// Whether the second container started.
    pub(super) memory: Option<Told<bool>>,
    pub(super) published: Option<Told<Published>>,
    /// `started`, `accepted` (and the runtime could not start it), `refused`.
    pub(super) privileged: Option<Told<&'static str>>,
    pub(super) apart: Option<Told<String>>,
    pub(super) certificate: Option<Told<BTreeMap<String, String>>>,
    /// Whether it was let in.
    pub(super) unsigned: Option<Told<bool>>,
}

impl Shown {
    /// Nothing could be tried.
    pub(super) fn nothing(why: &str) -> Self {
        fn none<T>(why: &str) -> Option<Told<T>> {
            Some(Err(why.to_owned()))
        }
        Self {
            look: none(why),
            log: none(why),
            peer: none(why),
            memory: none(why),
            published: none(why),
            privileged: none(why),
            apart: none(why),
            certificate: none(why),
            unsigned: none(why),
        }
    }
}

/// A canary that listens.
struct Listener {
    words: BTreeMap<String, String>,
    said: Inspected,
    /// Its pipe stays open while it runs.
    _words: Words,
}

/// Tries them all.
pub(super) fn probe(run: &Run<'_>, wanted: &[Probe], variable: Option<&str>) -> Shown {
    let wants = |probe: Probe| wanted.contains(&probe);
    std::thread::scope(|scope| {
        let published = wants(Probe::Published).then(|| scope.spawn(|| published(run)));
        let apart = wants(Probe::Apart).then(|| scope.spawn(|| apart(run)));
        let privileged = wants(Probe::Privileged).then(|| scope.spawn(|| privileged(run)));
        let mut shown = first(run, wanted, variable);
        shown.published = published.map(|thread| joined(thread.join()));
        shown.apart = apart.map(|thread| joined(thread.join()));
        shown.privileged = privileged.map(|thread| joined(thread.join()));
        shown
    })
}

fn joined<T>(outcome: std::thread::Result<Told<T>>) -> Told<T> {
    outcome.unwrap_or_else(|_| Err("a thread ended".to_owned()))
}

/// The container with nothing asked for, and those that come to it.
fn first(run: &Run<'_>, wanted: &[Probe], variable: Option<&str>) -> Shown {
    let wants = |probe: Probe| wanted.contains(&probe);
    if ![Probe::Look, Probe::Log, Probe::Peer, Probe::Memory, Probe::Privileged].into_iter().any(wants) {
        return Shown::default();
    }
    let first = match listener(run, "look", &Ask { variable, ..Ask::default() }) {
        Ok(first) => first,
        Err(why) => return Shown::nothing(&why),
    };
    let (log, peer, memory) = std::thread::scope(|scope| {
        let peer = wants(Probe::Peer).then(|| scope.spawn(|| call(run, "caller", None, &first.said)));
        let memory = wants(Probe::Memory).then(|| scope.spawn(|| memory(run)));
        let log = wants(Probe::Log).then(|| log::place(run, "look", &first.said, &first.words));
        (log, peer.map(|thread| joined(thread.join())), memory.map(|thread| joined(thread.join())))
    });
    Shown { look: Some(look(&first.said, first.words)), log, peer, memory, ..Shown::default() }
}

/// Starts a canary that tells and listens.
fn listener(run: &Run<'_>, role: &str, ask: &Ask<'_>) -> Told<Listener> {
    let command = [PATH, "look", run.token()];
    let said = run.start(role, &Ask { command: &command, ..*ask })?;
    let words = said.all(run.token(), run.end)?;
    Ok(Listener { words, said: run.inspect(role)?, _words: said })
}

/// Starts a canary that calls another one: `reached`, `refused`, `silent`.
fn call(run: &Run<'_>, role: &str, network: Option<&str>, to: &Inspected) -> Told<String> {
    let address = to.address.as_deref().ok_or("the engine gave the container no address")?;
    let ip: IpAddr = address.parse().map_err(|_| "the engine's address is none")?;
    let to = SocketAddr::new(ip, PORT);
    // The same call from the host: who does not answer at all proves nothing.
    if !answers(to, run.token()) {
        return Err("the listener does not answer the host either".to_owned());
    }
    let to = to.to_string();
    let command = [PATH, "call", run.token(), &to];
    let words = run.start(role, &Ask { command: &command, network, ..Ask::default() })?.all(run.token(), run.end)?;
    words.get("call").cloned().ok_or_else(|| "the caller did not say what came of it".to_owned())
}

/// Whether a canary of this run answers there.
fn answers(to: SocketAddr, token: &str) -> bool {
    let called = || -> std::io::Result<String> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    called().is_ok_and(|answer| answer == token)
}

fn memory(run: &Run<'_>) -> Told<bool> {
    let command = [PATH, "call", run.token(), "127.0.0.1:9"];
    let other = run.name("look");
    let started = run.start("memory", &Ask { command: &command, memory_of: Some(&other), ..Ask::default() });
    match started.and_then(|words| words.all(run.token(), run.end)) {
        Ok(_) => Ok(true),
        Err(why) if why.to_ascii_lowercase().contains("ipc") => Ok(false),
        Err(why) => Err(why),
    }
}

fn privileged(run: &Run<'_>) -> Told<&'static str> {
    let command = [PATH, "call", run.token(), "127.0.0.1:9"];
    let started = run.start("privileged", &Ask { command: &command, privileged: true, ..Ask::default() });
    match started.and_then(|words| words.all(run.token(), run.end)) {
        Ok(_) => Ok("started"),
        Err(why) if why.contains("authorization denied") => Ok("refused"),
        // A host that has not all capabilities itself: the engine would have given them.
        Err(why) if why.contains("OCI runtime create failed") => Ok("accepted"),
        Err(why) => Err(why),
    }
}

fn apart(run: &Run<'_>) -> Told<String> {
    let (near, far) = (run.network("near")?, run.network("far")?);
    let listener = listener(run, "near", &Ask { network: Some(&near), ..Ask::default() })?;
    call(run, "far", Some(&far), &listener.said)
}

fn published(run: &Run<'_>) -> Told<Published> {
    let canary = listener(run, "published", &Ask { publish: Some(PORT), ..Ask::default() })?;
    let named: Vec<(IpAddr, u16)> =
        canary.said.published.iter().filter_map(|(ip, port)| Some((ip.parse().ok()?, *port))).collect();
    let mut ports: Vec<u16> = canary.said.published.iter().map(|(_, port)| *port).collect();
    ports.dedup();
    if ports.is_empty() {
        return Err("the engine published no port".to_owned());
    }
    let listened = sockets::listening()?.into_iter().filter(|socket| ports.contains(&socket.port()));
    let mut all: Vec<SocketAddr> = listened.chain(named.into_iter().map(SocketAddr::from)).collect();
    all.sort();
    all.dedup();
    let reached = all.iter().any(|to| answers(sockets::from_here(*to), run.token()));
    let proxies = sockets::proxies(canary.said.address.as_deref(), &ports);
    let mut addresses: Vec<String> = all.iter().map(|socket| socket.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(Published { addresses, reached, proxies })
}
