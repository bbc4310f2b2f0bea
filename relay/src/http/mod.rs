//! HTTP beside QUIC: whether the relay lives and is ready, what it counts, and its administration.
//!
//! A shell on hyper. One request a connection, each within a bounded time, bounded connections: what people of the
//! operator's own network ask needs no more, and what others ask can hold nothing.

mod admin;
pub(crate) mod webhooks;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::http::AdminToken;
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_CONNECTIONS_MAX, HTTP_EXCHANGE_MAX, HTTP_HEAD_BYTES_MAX};
use crate::metrics::Figures;
use crate::server::{Hub, Readiness};

/// The HTTP address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve HTTP on {address} (TCP): {source}; choose another address with --http, or --no-http")]
pub struct HttpError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound listener.
pub(crate) struct Listener {
    listener: TcpListener,
    local: SocketAddr,
    admin: Option<AdminToken>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Listener {
    pub(crate) async fn bind(address: SocketAddr, admin: Option<AdminToken>) -> Result<Self, HttpError> {
        let failed = |source| HttpError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(Listener { listener, local, admin })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until the task is dropped.
    pub(crate) async fn serve(self, hub: Arc<Hub>) {
        let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        let admin = Arc::new(self.admin);
        let mut exchanges = JoinSet::new();
        loop {
            // Who comes when all places are taken waits in the system's queue.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                Some(_) = exchanges.join_next(), if !exchanges.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let (hub, admin) = (hub.clone(), admin.clone());
                    exchanges.spawn(async move {
                        let _place = place;
                        exchange(hub, admin, stream, remote).await;
                    });
                }
                Err(error) => {
                    // Out of file descriptors, say: going on at once would spin.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    hub.clock().sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One connection, which is one request.
async fn exchange(hub: Arc<Hub>, admin: Arc<Option<AdminToken>>, stream: TcpStream, remote: SocketAddr) {
    let clock = hub.clock().clone();
    let service = service_fn(move |request| {
        let (hub, admin) = (hub.clone(), admin.clone());
        async move { Ok::<_, Infallible>(answer(&hub, admin.as_ref().as_ref(), request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match clock.timeout(HTTP_EXCHANGE_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%remote, %error, "HTTP connection failed"),
        Err(_) => tracing::debug!(%remote, "HTTP connection took too long"),
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(hub: &Arc<Hub>, admin: Option<&AdminToken>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if let Some(task) = path.strip_prefix("/admin").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let task = task.to_owned();
        return administer(hub, admin, request, &task).await;
    }
    let is_known = matches!(path, "/healthz" | "/readyz" | "/metrics");
    if is_known && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET\n");
    }
    match path {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => match hub.readiness() {
            Readiness::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Readiness::Serving => plain(StatusCode::OK, "ready\n"),
            Readiness::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => {
            let mut answer = plain(StatusCode::OK, figures(hub).to_text());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        _ => plain(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /admin/\n"),
    }
}

async fn administer(
    hub: &Arc<Hub>,
    admin: Option<&AdminToken>,
    request: Request<Incoming>,
    path: &str,
) -> Answer {
    let Some(token) = admin else {
        let text = "no admin token is configured, so nobody administers; start with --admin-token-file";
        return as_json(403, &json!({ "error": text }));
    };
    if !is_authorised(token, &request) {
        let text = "show the admin token: Authorization: Bearer TOKEN";
        let mut answer = as_json(401, &json!({ "error": text }));
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    if path == "/reload" {
        return reload(hub, request.method()).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, HTTP_BODY_BYTES_MAX).collect().await else {
        let text = format!("the body cannot be read; it may have {HTTP_BODY_BYTES_MAX} bytes");
        return as_json(413, &json!({ "error": text }));
    };
    let query = head.uri.query().unwrap_or_default();
    let answer = match admin::parse(head.method.as_str(), path, query, &body.to_bytes()) {
        Ok(task) => {
            if head.method != Method::GET {
                tracing::info!(method = %head.method, path, "administering");
            }
            match task {
                admin::Task::Overload(set) => {
                    if let Some(forced) = set {
                        hub.force_overload(forced);
                    }
                    admin::overload(&hub.overload())
                }
                task => hub.operate(|now, date, lobby| admin::execute(now, date, lobby, task)),
            }
        }
        Err(answer) => answer,
    };
    as_json(answer.status, &answer.body)
}

/// Reads the configuration again, on a thread that may wait for files.
async fn reload(hub: &Arc<Hub>, method: &Method) -> Answer {
    if method != Method::POST {
        return as_json(405, &json!({ "error": "this path takes POST" }));
    }
    let hub = hub.clone();
    match tokio::task::spawn_blocking(move || hub.reload()).await {
        Ok(Ok(reloaded)) => {
            as_json(200, &json!({ "apps": reloaded.apps, "needs_restart": reloaded.needs_restart }))
        }
        Ok(Err(error)) => as_json(409, &json!({ "error": error.to_string() })),
        Err(_) => as_json(500, &json!({ "error": "the configuration could not be read; the log says more" })),
    }
}

fn is_authorised(token: &AdminToken, request: &Request<Incoming>) -> bool {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.split_once(' '));
    shown.is_some_and(|(scheme, shown)| scheme.eq_ignore_ascii_case("bearer") && token.is(shown.trim()))
}

/// Everything that is counted, now.
fn figures(hub: &Hub) -> Figures {
    let sessions = hub.sessions();
    let outs: Vec<_> = sessions.iter().map(|session| session.out_stats()).collect();
    Figures {
        survey: hub.survey(),
        counters: hub.counters(),
        tally: hub.operate(|_, _, lobby| lobby.tally().clone()),
        latencies: hub.latencies(),
        rtts: sessions.iter().map(|session| session.rtt()).collect(),
        queue_ages: outs.iter().map(|out| out.queue_age).collect(),
        symbols_expired: outs.iter().map(|out| out.sent.expired).sum(),
        webhooks: hub.outbox().counters(),
        is_draining: hub.readiness() == Readiness::Draining,
        overload: hub.overload(),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn as_json(status: u16, body: &serde_json::Value) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = plain(status, format!("{body}\n"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
