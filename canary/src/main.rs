//! The only program of a canary's image: tries what its engine should not let it do, and tells in lines `name=value`.
//!
//! Issue "Hardened host profiles", proof by effect. It is linked statically and built into hostd (hostd/build.rs), so that an image needs
//! nothing else. What it says is a container's own word: hostd asks the kernel for everything that can be seen from outside.
//!
//! `canary look TOKEN` tells, then answers each connection with TOKEN. `canary call TOKEN IP:PORT` says whether that answers with TOKEN.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::personality::{self, Persona};

/// Where a canary listens.
const PORT: u16 = 7373;
/// A canary that nobody removes ends by itself: longer than hostd waits for all of them.
const LIFE: Duration = Duration::from_secs(90);
/// Packets that are dropped leave no answer; on one host an answer takes less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Of an answer, more than a token has.
const ANSWER_MAX: u64 = 256;
/// Variables that hostd gives the engine's client to see whether they come through begin so.
const VARIABLE: &str = "HOSTMARK_CANARY_";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [_, "look", token] => look(token),
        [_, "call", token, address] => call(token, address),
        _ => tell("error", "no such question"),
    }
}

/// One line; a reader that went away changes nothing.
fn tell(name: &str, value: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{name}={value}");
    let _ = out.flush();
}

fn look(token: &str) {
    let end = Instant::now().checked_add(LIFE);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
    // For whoever looks for this container's log: known to nobody before, so that no other log can have it.
    let line = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    tell("line", line.trim());
    // personality(2): the profiles of Docker and Podman allow five values, and this is none of them.
    let fixed = personality::set(Persona::ADDR_NO_RANDOMIZE);
    tell("fixed-address-space", if fixed.is_ok() { "granted" } else { "refused" });
    tell(
        "root",
        match std::fs::write("/hostmark-canary-was-here", b"") {
            Ok(()) => "written",
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => "refused",
            // Who may not write there for another reason says nothing of the file system.
            Err(_) => "denied",
        },
    );
    for (name, _) in std::env::vars_os() {
        if let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE)) {
            tell("variable", name);
        }
    }
    tell("listens", if listener.is_ok() { "yes" } else { "no" });
    tell("done", token);
    let answer = token.to_owned();
    std::thread::spawn(move || {
        for stream in listener.iter().flat_map(TcpListener::incoming).flatten() {
            let mut stream = stream;
            let _ = stream.set_write_timeout(Some(PATIENCE));
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    if let Some(left) = end.map(|end| end.saturating_duration_since(Instant::now())) {
        std::thread::sleep(left);
    }
}

fn call(token: &str, address: &str) {
    let reached = || -> std::io::Result<bool> {
        let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        Ok(answer == token)
    };
    tell(
        "call",
        match reached() {
            Ok(true) => "reached",
            Ok(false) => "another",
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused",
            Err(error) if matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) => {
                "silent"
            }
            Err(_) => "unreachable",
        },
    );
    tell("done", token);
}
