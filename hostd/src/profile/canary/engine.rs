//! What a canary asks of an engine, whichever that is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What is told, or why it is not.
pub(super) type Told<T> = Result<T, String>;

/// The label of everything that a canary leaves in an engine; its value is the run.
pub(super) const LABEL: &str = "org.hostmark.canary";
/// Of a container's word, more than a canary says.
const WORDS_MAX: u64 = 64 << 10;

/// A container that is wanted. Everything that is not named here is left to the engine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask<'a> {
    pub(super) name: &'a str,
    pub(super) command: &'a [&'a str],
    /// Instead of the default network.
    pub(super) network: Option<&'a str>,
    /// Asks for this container's shared memory.
    pub(super) memory_of: Option<&'a str>,
    /// Asks for everything: privileged, in the host's user namespace.
    pub(super) privileged: bool,
    /// Publishes this port without an address.
    pub(super) publish: Option<u16>,
    /// The engine's client has this variable.
    pub(super) variable: Option<&'a str>,
}

/// What an engine says of a container that runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) pid: u32,
    /// Its address on its network.
    pub(super) address: Option<String>,
    /// Host ports that are published, with the addresses that the engine names.
    pub(super) published: Vec<(String, u16)>,
    pub(super) log_driver: String,
    pub(super) log_path: Option<String>,
}

/// An engine that can start canaries. Names are the run's own; each call is bounded in time.
pub(super) trait Engine: Sync {
    /// As in a control's id.
    fn name(&self) -> &'static str;
    /// Makes an image of an archive.
    fn import(&self, image: &str, archive: &[u8], end: Instant) -> Told<()>;
    /// Creates and starts a container, and gives its standard output.
    fn start(&self, image: &str, run: &str, ask: &Ask<'_>, end: Instant) -> Told<Words>;
    /// What the engine says of it.
    fn inspect(&self, name: &str, end: Instant) -> Told<Inspected>;
    /// Its log, from the driver that the engine reads itself.
    fn log(&self, name: &str, end: Instant) -> Told<String>;
    /// Creates a network.
    fn network(&self, name: &str, run: &str, end: Instant) -> Told<()>;
    /// Removes a container, a network or an image; one that is not there is fine.
    fn remove(&self, what: &Made, end: Instant) -> Told<()>;
    /// Fetches an image without a signature over plain HTTP: whether its policy let it in.
    fn fetch(&self, image: &str, end: Instant) -> Told<bool>;
}

/// Something that a run creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    Container(String),
    Network(String),
    Image(String),
}

/// The lines `name=value` that a canary says, as they come.
#[derive(Debug)]
pub(super) struct Words {
    lines: mpsc::Receiver<String>,
    /// The engine's client, while it passes on what the container says.
    client: Option<Child>,
}

impl Words {
    /// Reads in the background; the thread ends with the container.
    pub(super) fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from.take(WORDS_MAX)).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines: receiver, client: None }
    }

    /// Ends the client with it.
    pub(super) fn with(self, client: Child) -> Self {
        let mut this = self;
        this.client = Some(client);
        this
    }

    /// Everything until the canary says that it is done.
    pub(super) fn all(&self, token: &str, end: Instant) -> Told<BTreeMap<String, String>> {
        let mut words = BTreeMap::new();
        let mut last = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => return Err("the container said nothing in time".to_owned()),
                Err(mpsc::RecvTimeoutError::Disconnected) if last.is_empty() => {
                    return Err("the container ended without a word".to_owned());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(format!("the container ended: {last}")),
            };
            match line.split_once('=') {
                Some(("done", said)) if said == token => return Ok(words),
                Some((name, value)) => {
                    words.insert(name.to_owned(), value.to_owned());
                }
                None => {}
            }
            last = line;
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let Some(client) = &mut self.client {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// The rest of a time, at least a little.
pub(super) fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(10))
}
