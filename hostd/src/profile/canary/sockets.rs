//! Who listens on this host, and who forwards for a container. proc_pid_net(5): `tcp`, `tcp6`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::engine::Told;

/// State LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";
/// How long an answer on this host may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer to `/_ping`, more than its head has.
const ANSWER_MAX: u64 = 8 << 10;

/// Every TCP address that somebody listens at in this network namespace.
pub(super) fn listening() -> Told<Vec<SocketAddr>> {
    Ok(table("/proc/self/net")?.into_values().collect())
}

/// Inode and address of each listening socket.
fn table(net: &str) -> Told<BTreeMap<u64, SocketAddr>> {
    let mut sockets = BTreeMap::new();
    for (name, must) in [("tcp", true), ("tcp6", false)] {
        let text = match fs::read_to_string(format!("{net}/{name}")) {
            Ok(text) => text,
            Err(error) if must => return Err(format!("{net}/{name}: {error}")),
            Err(_) => continue,
        };
        sockets.extend(text.lines().skip(1).filter_map(listener));
    }
    Ok(sockets)
}

fn listener(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each as this machine stores the network's order.
    let words: Vec<u32> = (0..address.len())
        .step_by(8)
        .filter_map(|at| u32::from_str_radix(address.get(at..at.checked_add(8)?)?, 16).ok())
        .collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some((inode.parse().ok()?, SocketAddr::new(ip, port)))
}

/// Where to call what listens at an address that may be any.
pub(super) fn from_here(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, to.port())
}

/// Processes that forward a published port: they name the container's address, or listen at the port, and are no daemon.
pub(super) fn proxies(address: Option<&str>, ports: &[u16]) -> Vec<String> {
    let mut names = BTreeSet::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Ok(arguments) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let arguments: Vec<&str> = arguments.split('\0').collect();
        let port = ports.iter().any(|port| arguments.contains(&port.to_string().as_str()));
        if port && address.is_some_and(|address| arguments.contains(&address)) {
            let program = arguments.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
            names.insert(program.to_owned());
        }
    }
    names.into_iter().collect()
}

/// Who answers a client without a certificate, of the TCP addresses at which a process speaks Docker's API.
pub(super) fn without_certificate(pids: &[u32]) -> Told<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pid in pids {
        let sockets = table(&format!("/proc/{pid}/net"))?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| format!("/proc/{pid}/fd: {error}"))?;
        for file in files.flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(address) = inode.and_then(|inode| sockets.get(&inode.parse().ok()?)) else { continue };
            if let Some(answers) = api(from_here(*address)) {
                let word = if answers { "answers" } else { "refuses" };
                found.insert(format!("tcp://{address}"), word.to_owned());
            }
        }
    }
    Ok(found)
}

/// Whether Docker's API there answers anybody; None: it is something else.
fn api(to: SocketAddr) -> Option<bool> {
    let plain = connect(to).and_then(ping).ok()?;
    if plain.contains("HTTPS server") {
        return Some(tls(to).is_ok_and(|answer| is_api(&answer)));
    }
    is_api(&plain).then(|| !plain.starts_with("HTTP/1.0 403") && !plain.starts_with("HTTP/1.1 403"))
}

fn is_api(answer: &str) -> bool {
    answer.lines().any(|line| line.to_ascii_lowercase().starts_with("api-version:"))
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ping(mut stream: impl Read + std::io::Write) -> std::io::Result<String> {
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    // What was said before a connection broke counts.
    let read = stream.take(ANSWER_MAX).read_to_end(&mut answer);
    if answer.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn tls(to: SocketAddr) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), ServerName::from(to.ip())).map_err(std::io::Error::other)?;
    ping(rustls::StreamOwned::new(connection, connect(to)?))
}

/// Whoever the server is: the question is whom it lets in, and nothing is told to it.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_sockets_is_read() {
        let line = "   0: 0100007F:1CCD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        assert_eq!(listener(line), Some((4711, "127.0.0.1:7373".parse().unwrap())));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None, "a connection");
        let six = line.replace("0100007F:", "00000000000000000000000001000000:");
        assert_eq!(listener(&six), Some((4711, "[::1]:7373".parse().unwrap())));
    }

    #[test]
    fn only_dockers_api_counts_as_it() {
        use std::io::Write as _;
        use std::net::TcpListener;
        for (answer, expect) in [
            ("HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\n\r\nOK", Some(true)),
            ("HTTP/1.0 403 Forbidden\r\nApi-Version: 1.41\r\n\r\n", Some(false)),
            ("HTTP/1.0 404 Not Found\r\n\r\n", None),
            ("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", Some(false)),
            ("", None),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut request = [0; 64];
                    let _ = stream.read(&mut request);
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            assert_eq!(api(to), expect, "{answer}");
        }
    }
}
