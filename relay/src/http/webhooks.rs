//! Posts what happened to the app's server: one after the other, again and again until it is taken or too old.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parlor_transport::clock::Clock;
use parlor_transport::units::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::config::http::Webhooks;
use crate::limits::{
    HTTP_HEAD_BYTES_MAX, WEBHOOK_AGE_MAX, WEBHOOK_ANSWER_MAX, WEBHOOK_WAIT_MAX, WEBHOOK_WAIT_MIN,
};
use crate::lock;
use crate::webhook::{Happening, Queue, WebhookCounters};

/// The queue, shared by who fills it and who empties it.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to post.
    filled: Notify,
    /// There is nothing any more.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// One is being posted.
    is_busy: bool,
}

impl Outbox {
    pub(crate) fn push(&self, date: UnixTime, happening: Happening) {
        lock(&self.state).queue.push(date, happening);
        self.filled.notify_one();
    }

    pub(crate) fn counters(&self) -> WebhookCounters {
        lock(&self.state).queue.counters()
    }

    /// Waits until everything was posted or given up.
    pub(crate) async fn empty(&self) {
        loop {
            {
                let state = lock(&self.state);
                if !state.is_busy && state.queue.counters().waiting == 0 {
                    return;
                }
            }
            // Its permit is kept, if it comes before the wait.
            self.emptied.notified().await;
        }
    }

    async fn next(&self) -> String {
        loop {
            {
                let mut state = lock(&self.state);
                if let Some(body) = state.queue.pop() {
                    state.is_busy = true;
                    return body;
                }
            }
            self.filled.notified().await;
        }
    }

    fn finish(&self, delivered: bool) {
        let mut state = lock(&self.state);
        state.queue.finish(delivered);
        state.is_busy = false;
        drop(state);
        self.emptied.notify_one();
    }
}

/// Posts until the task is dropped.
pub(crate) async fn post_all(clock: Clock, webhooks: Webhooks, outbox: Arc<Outbox>) {
    loop {
        let body = Bytes::from(outbox.next().await);
        let started = clock.now();
        let mut wait = WEBHOOK_WAIT_MIN;
        let delivered = loop {
            let failure = match clock.timeout(WEBHOOK_ANSWER_MAX, post(&webhooks, &body)).await {
                Ok(Ok(status)) if status.is_success() => break true,
                Ok(Ok(status)) => format!("it answered {status}"),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            lock(&outbox.state).queue.count_failure();
            let is_over = clock.now().saturating_since(started) + wait > WEBHOOK_AGE_MAX;
            tracing::warn!(url = webhooks.url(), failure, is_over, "an event was not taken");
            if is_over {
                break false;
            }
            clock.sleep(wait).await;
            wait = Duration::min(wait * 2, WEBHOOK_WAIT_MAX);
        };
        outbox.finish(delivered);
    }
}

async fn post(webhooks: &Webhooks, body: &Bytes) -> Result<StatusCode, io::Error> {
    let stream = TcpStream::connect((webhooks.host(), webhooks.port())).await?;
    let builder = http1::Builder::new().max_buf_size(HTTP_HEAD_BYTES_MAX).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::post(webhooks.path())
        .header(HOST, webhooks.authority())
        .header(CONTENT_TYPE, "application/json")
        .header("parlor-signature", webhooks.sign(body))
        .body(Full::new(body.clone()))
        .map_err(io::Error::other)?;
    // What it says beside the status is not read.
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // A server that closes at once: its answer may have come together with the end.
        ended = connection => {
            ended.map_err(io::Error::other)?;
            answer.await
        }
    };
    Ok(answer.map_err(io::Error::other)?.status())
}
