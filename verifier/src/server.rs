//! The service: router with its role table, limits, and the accept loop.
//!
//! Every route is a row of [`crate::api::routes`]; a route without a row does not exist. What is bounded here: connections, connections
//! without a certificate, handshake time, header time, request time, body size. A panic in a handler answers 500 `error` and grants nothing (D20).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_http::catch_panic::CatchPanicLayer;

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use crate::api::{Route, routes, too_large};
use crate::auth::{Peer, authorise};
use crate::metrics;
use crate::refusal::{Kind, Refusal};
use crate::state::AppState;
use crate::tls::{Remote, ServerCertificate, TlsError, server_config};

/// Largest request header block, in bytes. Ours have about 300.
const HEADERS_MAX: usize = 16 * 1024;
/// Largest body that is read and dropped after its refusal, in bytes: what people send by mistake.
const DISCARD_MAX: usize = 32 * 1024 * 1024;
/// How long that may take.
const DISCARD: std::time::Duration = std::time::Duration::from_secs(5);
/// Connections to the plain metrics listener: scrapers are few.
const METRICS_CONNECTIONS: usize = 32;
/// How often the server certificate is made anew.
const CERTIFICATE_EVERY: std::time::Duration = std::time::Duration::from_secs(86_400);
/// How often the trust directory is looked at.
const TRUST_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// How often old nonces are forgotten.
const PRUNE_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// How long open requests may finish after the signal to stop.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The router of every route in the table.
pub fn router(state: &AppState) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let guard = middleware::from_fn_with_state((state.clone(), *route), guard);
        let handler = (route.handler)().layer(DefaultBodyLimit::max(route.body_max)).layer(guard);
        router = router.route(route.path, handler);
    }
    finished(router).with_state(state.clone())
}

/// What holds for every route and for none: unknown paths and methods, and panics.
fn finished(router: Router<AppState>) -> Router<AppState> {
    router
        .fallback(|| async { Refusal::not_found("route") })
        .method_not_allowed_fallback(|| async {
            let finding = Finding::error("request.method", "this route does not have this method");
            (axum::http::StatusCode::METHOD_NOT_ALLOWED, Refusal::new(Kind::Malformed, finding)).into_response()
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Refusal::internal("a handler panicked").into_response()
        }))
}

/// When a request must have its answer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// Authorises one request, bounds its time, and counts it.
async fn guard(State((state, route)): State<(AppState, Route)>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let limit = state.config.limits.request.0;
    request.extensions_mut().insert(Deadline(started.checked_add(limit).unwrap_or(started)));
    let response = match admit(&state, &route, &mut request) {
        Err(refusal) => {
            discard(&mut request).await;
            refusal.into_response()
        }
        Ok(()) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                let finding = Finding::error("request.timeout", "the request took too long")
                    .fix("look whether the change was made before asking again");
                Refusal::new(Kind::Timeout, finding).into_response()
            }
        },
    };
    let status = response.status().as_u16().to_string();
    ::metrics::counter!(metrics::REQUESTS, "method" => route.method, "route" => route.path, "status" => status)
        .increment(1);
    ::metrics::histogram!(metrics::REQUEST_SECONDS, "route" => route.path).record(started.elapsed().as_secs_f64());
    response
}

/// Reads and drops the body of a refused request, if it is not much too large: a client that is still writing when the connection
/// closes never sees why it was refused.
async fn discard(request: &mut Request) {
    if announced(request).is_none_or(|size| size > DISCARD_MAX) {
        return;
    }
    let mut body = std::mem::take(request.body_mut());
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD, all).await;
}

fn announced(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
}

fn admit(state: &AppState, route: &Route, request: &mut Request) -> Result<(), Refusal> {
    if violated("request.path", !is_text(request.uri().path())) {
        return Err(Refusal::field("path", "its percent-encoded bytes are not UTF-8"));
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let row = match &peer {
        // A point read of some 10 µs on its own connection: cheaper than a hop to another thread.
        Some(peer) => state.store.certificate(&peer.serial)?,
        None => None,
    };
    if let Some(caller) = authorise(route.access, peer.as_ref(), row, &state.now())? {
        request.extensions_mut().insert(caller);
    }
    // An announced size is refused at once; one that is not announced is cut while it is read.
    if announced(request).is_some_and(|size| size > route.body_max) {
        return Err(too_large());
    }
    Ok(())
}

/// Whether a path's percent-encoded bytes are UTF-8.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.extend(byte);
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// A verifier that listens.
pub struct Server {
    state: AppState,
    listener: TcpListener,
    certificate: Arc<ServerCertificate>,
    tls: TlsAcceptor,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// When the address is taken or TLS cannot be set up.
    pub async fn bind(state: AppState) -> Result<Self, ServeError> {
        let address = state.config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
        let certificate = Arc::new(ServerCertificate::new(&state.ca, &state.config.names, &state.now())?);
        let tls = TlsAcceptor::from(server_config(&state.ca, Arc::clone(&certificate))?);
        Ok(Self { state, listener, certificate, tls })
    }

    /// The bound address.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` completes, then lets open requests finish.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        let (closing, closed) = watch::channel(false);
        let router = router(&self.state);
        let limits = self.state.config.limits.clone();
        let all = Arc::new(Semaphore::new(limits.connections));
        let anonymous = Arc::new(Semaphore::new(limits.anonymous_connections));
        let housekeeping = tokio::spawn(housekeeping(self.state.clone(), self.certificate));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&all).try_acquire_owned() else {
                ::metrics::counter!(metrics::CONNECTIONS_REFUSED, "reason" => "limit").increment(1);
                continue;
            };
            let connection = Connection {
                tls: self.tls.clone(),
                router: router.clone(),
                anonymous: Arc::clone(&anonymous),
                handshake: limits.handshake.0,
                idle: limits.idle.0,
                closed: closed.clone(),
                place,
            };
            tokio::spawn(connection.serve(stream, remote));
        }
        drop(self.listener);
        let _ = closing.send(true);
        drop(closed);
        let _ = tokio::time::timeout(DRAIN, closing.closed()).await;
        housekeeping.abort();
    }
}

/// Why the verifier cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The port is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

struct Connection {
    tls: TlsAcceptor,
    router: Router,
    anonymous: Arc<Semaphore>,
    handshake: std::time::Duration,
    idle: std::time::Duration,
    closed: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream, remote: SocketAddr) {
        // Without it a handshake waits for delayed acknowledgements: some 40 ms each.
        let _ = stream.set_nodelay(true);
        let refused =
            |reason: &'static str| ::metrics::counter!(metrics::CONNECTIONS_REFUSED, "reason" => reason).increment(1);
        let stream = match tokio::time::timeout(self.handshake, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%remote, %error, "handshake failed");
                return refused("handshake");
            }
            Err(_) => return refused("handshake-timeout"),
        };
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(|der| Peer::from_der(der));
        let stranger = match peer {
            Some(_) => None,
            None => match Arc::clone(&self.anonymous).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return refused("anonymous-limit"),
            },
        };
        let router = self.router.clone();
        let service = tower::service_fn(move |mut request: axum::http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Remote(remote));
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            tower::ServiceExt::oneshot(router.clone(), request)
        });
        ::metrics::gauge!(metrics::CONNECTIONS).increment(1);
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle)
            .max_header_size(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            _ = self.closed.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%remote, %error, "connection ended");
        }
        ::metrics::gauge!(metrics::CONNECTIONS).decrement(1);
        drop((stranger, self.place));
    }
}

async fn housekeeping(state: AppState, certificate: Arc<ServerCertificate>) {
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    let mut trust = tokio::time::interval(TRUST_EVERY);
    let mut renew = tokio::time::interval(CERTIFICATE_EVERY);
    renew.tick().await;
    loop {
        tokio::select! {
            _ = prune.tick() => {
                let now = state.now();
                if let Err(refusal) = state.store(move |store| store.prune_nonces(&now)).await {
                    tracing::warn!(finding = %refusal.first, "old nonces could not be removed");
                }
            }
            _ = trust.tick() => match state.reload_trust() {
                Ok(false) => {}
                Ok(true) => tracing::info!(dir = %state.config.trust_dir.display(), "trust directory read again"),
                Err(error) => tracing::error!(%error, "the changed trust directory is unusable; the former trust stays"),
            },
            _ = renew.tick() => {
                if let Err(error) = certificate.renew(&state.ca, &state.config.names, &state.now()) {
                    tracing::error!(%error, "the server certificate could not be renewed");
                }
            }
        }
    }
}

/// Serves `/metrics` and health in plain text on a loopback address, for a scraper on this machine. Returns the bound address.
///
/// # Errors
/// [`ServeError::Bind`].
pub async fn serve_metrics(state: AppState, address: SocketAddr) -> Result<SocketAddr, ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/metrics", axum::routing::get(crate::api::metrics))
        .route("/healthz", axum::routing::get(|| async { "ok\n" }))
        .route("/readyz", axum::routing::get(crate::api::readyz))
        .with_state(state);
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(std::time::Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
                drop(place);
            });
        }
    });
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn panics() -> &'static str {
        panic!("inside a handler")
    }

    #[tokio::test]
    async fn d20_a_panic_answers_error_and_says_nothing_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::Config {
            state_dir: dir.path().join("state"),
            trust_dir: dir.path().join("trust"),
            ..crate::config::Config::default()
        };
        crate::setup::init(&config.state_dir, "admin", &config).unwrap();
        let state = crate::setup::load(config).unwrap();
        let router = finished(Router::new().route("/panics", axum::routing::get(panics))).with_state(state);
        for (path, status, id) in [("/panics", 500, "error"), ("/nowhere", 404, "route.unknown")] {
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let body: hostmark_attest::wire::ErrorBody = serde_json::from_slice(&body).unwrap();
            assert_eq!(body.error.id, id);
            assert!(!body.error.message.contains("inside"));
        }
    }
}
