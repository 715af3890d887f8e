//! Docker Engine as a canary's engine: its API over the unix socket.
//!
//! Docker Engine API 1.41: `/images/create`, `/containers/…`, `/networks/…`. HTTP/1.0 is spoken, so that no answer has chunks and an attached
//! stream begins after the head.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hostmark_attest::finding::one_line;
use serde_json::{Value, json};

use super::engine::{Ask, Engine, Inspected, LABEL, Made, Told, Words, left};

/// Largest answer: what one container, one image or one network has to say.
const ANSWER_MAX: u64 = 1 << 20;
/// Longest line of an answer's head.
const HEAD_LINE_MAX: u64 = 8 << 10;
/// Most lines of an answer's head.
const HEAD_LINES_MAX: usize = 64;

/// Docker at a socket.
#[derive(Debug)]
pub(super) struct Docker {
    socket: PathBuf,
}

impl Docker {
    pub(super) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends a request and reads the head of its answer.
    fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        end: Instant,
    ) -> Told<(u16, BufReader<UnixStream>)> {
        let silent = |error: std::io::Error| format!("{}: {error}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).map_err(silent)?;
        stream.set_write_timeout(Some(left(end))).map_err(silent)?;
        stream.set_read_timeout(Some(left(end))).map_err(silent)?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(silent)?;
        let mut reader = BufReader::new(stream);
        let mut status = None;
        for _ in 0..HEAD_LINES_MAX {
            let mut line = String::new();
            reader.by_ref().take(HEAD_LINE_MAX).read_line(&mut line).map_err(silent)?;
            match line.trim_end() {
                "" => break,
                first if status.is_none() => {
                    status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
                    if status.is_none() {
                        break;
                    }
                }
                _ => {}
            }
        }
        status.map(|status| (status, reader)).ok_or_else(|| "Docker's answer is not HTTP".to_owned())
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8], end: Instant) -> Told<(u16, Value)> {
        let (status, reader) = self.send(method, path, kind, body, end)?;
        let mut answer = Vec::new();
        reader.take(ANSWER_MAX).read_to_end(&mut answer).map_err(|error| format!("Docker's answer: {error}"))?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }

    /// A request that has to succeed.
    fn demand(&self, method: &str, path: &str, body: &Value, end: Instant) -> Told<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        match self.ask(method, path, "application/json", body.as_bytes(), end)? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(refusal(status, &answer)),
        }
    }
}

fn refusal(status: u16, answer: &Value) -> String {
    let message = answer.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    one_line(&format!("Docker refuses ({status}): {message}"))
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn import(&self, image: &str, archive: &[u8], end: Instant) -> Told<()> {
        let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        match self.ask("POST", &path, "application/x-tar", archive, end)? {
            // One object with the new image's id; an error comes as an object of its own.
            (200, answer) if answer.get("status").is_some() => Ok(()),
            (200, answer) => Err(one_line(&format!("Docker did not import the image: {answer}"))),
            (status, answer) => Err(refusal(status, &answer)),
        }
    }

    fn start(&self, image: &str, run: &str, ask: &Ask<'_>, end: Instant) -> Told<Words> {
        let mut host = json!({ "AutoRemove": true });
        let mut set = |name: &str, value: Value| {
            if let Some(host) = host.as_object_mut() {
                host.insert(name.to_owned(), value);
            }
        };
        if let Some(network) = ask.network {
            set("NetworkMode", json!(network));
        }
        if let Some(other) = ask.memory_of {
            set("IpcMode", json!(format!("container:{other}")));
        }
        if ask.privileged {
            set("Privileged", json!(true));
            set("UsernsMode", json!("host"));
        }
        let mut body = json!({ "Image": image, "Cmd": ask.command, "Labels": { (LABEL): run } });
        if let (Some(port), Some(body)) = (ask.publish, body.as_object_mut()) {
            set("PortBindings", json!({ format!("{port}/tcp"): [{ "HostPort": "" }] }));
            body.insert("ExposedPorts".to_owned(), json!({ format!("{port}/tcp"): {} }));
        }
        if let Some(body) = body.as_object_mut() {
            body.insert("HostConfig".to_owned(), host);
        }
        let name = ask.name;
        self.demand("POST", &format!("/containers/create?name={name}"), &body, end)?;
        let path = format!("/containers/{name}/attach?stream=1&stdout=1&stderr=1");
        let (status, stream) = self.send("POST", &path, "application/json", b"", end)?;
        if status != 200 {
            return Err(format!("Docker refuses ({status}) to show what the container says"));
        }
        self.demand("POST", &format!("/containers/{name}/start"), &Value::Null, end)?;
        Ok(Words::of(Frames { stream, left: 0 }))
    }

    fn fetch(&self, _: &str, _: Instant) -> Told<bool> {
        Err("Docker has no policy on signatures".to_owned())
    }

    fn inspect(&self, name: &str, end: Instant) -> Told<Inspected> {
        let answer = self.demand("GET", &format!("/containers/{name}/json"), &Value::Null, end)?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let pid = answer.pointer("/State/Pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
        let networks = answer.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
        let address = networks
            .into_iter()
            .flat_map(|networks| networks.values())
            .find_map(|network| network.get("IPAddress").and_then(Value::as_str).filter(|address| !address.is_empty()));
        let ports = answer.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
        let bindings = ports.into_iter().flat_map(|ports| ports.values()).filter_map(Value::as_array).flatten();
        let binding = |binding: &Value| {
            let port = binding.get("HostPort")?.as_str()?.parse().ok()?;
            Some((binding.get("HostIp")?.as_str()?.to_owned(), port))
        };
        Ok(Inspected {
            id: text("/Id").unwrap_or_default().to_owned(),
            pid: pid.filter(|pid| *pid > 0).ok_or("Docker names no process of the container")?,
            address: address.map(str::to_owned),
            published: bindings.filter_map(binding).collect(),
            log_driver: text("/HostConfig/LogConfig/Type").unwrap_or_default().to_owned(),
            log_path: text("/LogPath").map(str::to_owned),
        })
    }

    fn log(&self, name: &str, end: Instant) -> Told<String> {
        let path = format!("/containers/{name}/logs?stdout=1");
        let (status, reader) = self.send("GET", &path, "application/json", b"", end)?;
        if status != 200 {
            return Err(format!("Docker refuses ({status}) to show the log"));
        }
        let mut text = Vec::new();
        Frames { stream: reader, left: 0 }
            .take(ANSWER_MAX)
            .read_to_end(&mut text)
            .map_err(|error| format!("the log: {error}"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn network(&self, name: &str, run: &str, end: Instant) -> Told<()> {
        let body = json!({ "Name": name, "CheckDuplicate": true, "Labels": { (LABEL): run } });
        self.demand("POST", "/networks/create", &body, end).map(drop)
    }

    fn remove(&self, what: &Made, end: Instant) -> Told<()> {
        let path = match what {
            Made::Container(name) => format!("/containers/{name}?force=1&v=1"),
            Made::Network(name) => format!("/networks/{name}"),
            Made::Image(name) => format!("/images/{name}?force=1"),
        };
        loop {
            match self.ask("DELETE", &path, "application/json", b"", end)? {
                (200..=299 | 404, _) => return Ok(()),
                // It is being removed already, as a container that ends by itself is.
                (409, _) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
                (status, answer) => return Err(refusal(status, &answer)),
            }
        }
    }
}

/// Standard output and error out of one stream: a head of eight bytes, the last four of which are a length, before each part.
struct Frames {
    stream: BufReader<UnixStream>,
    left: usize,
}

impl Read for Frames {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            if self.stream.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let mut head = [0u8; 8];
            self.stream.read_exact(&mut head)?;
            let [.., a, b, c, d] = head;
            self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(std::io::Error::other)?;
        }
        let most = self.left.min(into.len());
        let read = self.stream.read(into.get_mut(..most).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}
