//! A registry of one unsigned image, on the loopback address, for as long as it is fetched from.
//!
//! OCI distribution specification 1.0, pull; OCI image specification 1.0. It answers two blobs, one manifest, and nothing else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hostmark_attest::digest::sha256;
use serde_json::json;

use super::engine::Told;
use super::image;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Longest line and most lines of a request's head.
const LINE_MAX: u64 = 8 << 10;
const LINES_MAX: usize = 64;
/// How long a client may think.
const PATIENCE: Duration = Duration::from_secs(5);

/// Type, digest, bytes.
struct Blob(&'static str, String, Vec<u8>);

impl Blob {
    fn of(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self(kind, format!("sha256:{}", hex::encode(sha256(&[&bytes]))), bytes)
    }
}

/// The registry; it ends when it is dropped.
pub(super) struct Registry {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
}

impl Registry {
    pub(super) fn start() -> Told<Self> {
        let problem = |error: std::io::Error| format!("a registry on the loopback address: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(problem)?;
        let address = listener.local_addr().map_err(problem)?;
        let layer = Blob::of("application/vnd.oci.image.layer.v1.tar", image::archive());
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Cmd": [image::PATH] },
            "rootfs": { "type": "layers", "diff_ids": [layer.1] },
        });
        let config = Blob::of("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let named = |blob: &Blob| json!({ "mediaType": blob.0, "digest": blob.1, "size": blob.2.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": named(&config), "layers": [named(&layer)],
        });
        let manifest = Blob::of(MANIFEST, manifest.to_string().into_bytes());
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away in the middle is its own problem.
                let _ = answer(stream, &manifest, &[&config, &layer]);
            }
        });
        Ok(Self { address, ends })
    }

    /// The image's name there.
    pub(super) fn image(&self, tag: &str) -> String {
        format!("{}/hostmark-canary:{tag}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}

fn answer(stream: TcpStream, manifest: &Blob, blobs: &[&Blob]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.by_ref().take(LINE_MAX).read_line(&mut first)?;
    for _ in 0..LINES_MAX {
        let mut line = String::new();
        if reader.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = match path.rsplit_once('/') {
        Some(("/v2", "")) => Some(("application/json", "", b"{}".as_slice())),
        Some((before, _)) if before.ends_with("/manifests") => {
            Some((manifest.0, manifest.1.as_str(), manifest.2.as_slice()))
        }
        Some((before, digest)) if before.ends_with("/blobs") => blobs
            .iter()
            .find(|blob| blob.1 == digest)
            .map(|blob| ("application/octet-stream", blob.1.as_str(), blob.2.as_slice())),
        _ => None,
    };
    let (status, (kind, digest, body)) = match found {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", ("application/json", "", b"{}".as_slice())),
    };
    let length = body.len();
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n")?;
    if !digest.is_empty() {
        write!(stream, "Docker-Content-Digest: {digest}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}
