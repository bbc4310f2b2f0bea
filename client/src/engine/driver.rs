//! The task of one room: from the connection that the race gave to its end.
//!
//! It carries messages and frames between the connection and the call, and closes it when the call is over.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::quic::inbound::Lanes;
use parlor_transport::quic::{
    Arrival, Endpoint, Inbound, MediaSender, MessageReceiver, MessageSender, Outgoing, RecvError, Session,
};
use parlor_transport::wire::control::{AppMessage, RelayMessage, RoomMessage, StreamKind};
use tokio::sync::oneshot;

use super::path::{Passed, Path, Step};
use super::race::{self, Chosen, Pace};
use super::shared::Shared;

/// How often a connection is looked at for whether anything came.
const PATH_CHECK: Duration = Duration::from_millis(250);

/// How long a path may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Then another socket is tried; zero for never.
    pub(super) rebind_after: Duration,
    /// Then another connection.
    pub(super) path_timeout: Duration,
}

/// Runs a call from its start to its end.
pub(super) async fn drive(shared: Arc<Shared>, endpoint: Endpoint, patience: Patience) {
    let mut pace = Pace::JOIN;
    loop {
        let connected = tokio::select! {
            biased;
            () = over(&shared) => break,
            () = keep_time(&shared) => break,
            outcome = race::run(&shared, &endpoint, pace) => outcome,
        };
        pace = Pace::RECONNECT;
        let lost = match connected {
            Err(refusal) => refusal,
            Ok(chosen) => {
                let session = chosen.session.clone();
                shared.set_session(Some(session.clone()));
                let end = tokio::select! {
                    biased;
                    end = run(&shared, chosen) => end,
                    end = watch_path(&shared, &endpoint, &session, patience) => end,
                };
                shared.set_session(None);
                let (code, text) = match &end {
                    // The relay need not hear what it said itself.
                    End::Over => (Code::Ok, String::new()),
                    End::Fault(refusal) | End::Lost(refusal) => (refusal.code, refusal.text.clone()),
                };
                session.close(code, &text);
                match end {
                    End::Over => break,
                    End::Fault(refusal) => {
                        shared.act(|_, call| call.handle_end(refusal));
                        break;
                    }
                    End::Lost(refusal) => refusal,
                }
            }
        };
        tracing::debug!(%lost, "no connection");
        let Some(wait) = shared.act(|now, call| call.handle_lost(now, lost)) else { break };
        tokio::select! {
            biased;
            () = over(&shared) => break,
            () = keep_time(&shared) => break,
            () = shared.clock.sleep(wait) => {}
        }
    }
    let (user, status) = shared.look(|_, call| (call.request().user.clone(), call.status().clone()));
    match status.error {
        Some(error) => tracing::info!(%user, reason = ?status.reason, %error, "room ended"),
        None => tracing::debug!(%user, reason = ?status.reason, "room ended"),
    }
    shared.finish();
}

/// Why the connection is not needed any more.
enum End {
    /// The call is over.
    Over,
    /// The relay broke the protocol.
    Fault(Refusal),
    /// The connection ended.
    Lost(Refusal),
}

impl End {
    fn lost(error: &(impl Coded + std::fmt::Display)) -> Self {
        End::Lost(race::refusal(error))
    }
}

async fn over(shared: &Shared) {
    shared.when(|call| call.is_over().then_some(())).await;
}

/// Tells the call when time has passed; before there is a connection, that is all there is to do.
async fn keep_time(shared: &Shared) {
    let mut timer = shared.clock.timer();
    loop {
        let due = shared.look(|_, call| call.poll_timeout());
        timer.reset(due);
        tokio::select! {
            biased;
            () = timer.expired() => shared.act(|now, call| call.handle_timeout(now)),
            // A leave, say, is due sooner than what was waited for.
            () = shared.when(|call| (call.poll_timeout() != due).then_some(())) => {}
        }
    }
}

/// Tries another socket when nothing is heard. Returns when nothing was heard for too long, of a room that is joined
/// and may come back on another connection.
async fn watch_path(shared: &Shared, endpoint: &Endpoint, session: &Session, patience: Patience) -> End {
    let Patience { rebind_after, path_timeout } = patience;
    let passed = || {
        let (received, sent) = session.datagrams();
        Passed { received, sent, rebinds: endpoint.rebinds() }
    };
    let mut path = Path::new(shared.clock.now(), passed(), rebind_after, path_timeout);
    let mut timer = shared.clock.timer();
    loop {
        let now = shared.clock.now();
        match path.look(now, passed()) {
            Some(Step::Lost) if shared.look(|_, call| call.comes_back_from(Code::HeartbeatTimeout)) => {
                return End::Lost(Refusal::from(Code::HeartbeatTimeout));
            }
            Some(Step::Rebind) => match endpoint.renew() {
                Ok(()) => tracing::info!("nothing came for a while; trying another socket"),
                Err(error) => {
                    tracing::debug!(%error, "nothing came for a while, and no other socket can be had")
                }
            },
            Some(Step::Migrated(took)) => shared.act(|_, call| call.handle_migrated(took)),
            Some(Step::Lost) | None => {}
        }
        timer.reset(Some(now + PATH_CHECK));
        timer.expired().await;
    }
}

/// Carries everything both ways until the call or the connection ends. None of the directions waits for
/// another.
async fn run(shared: &Shared, chosen: Chosen) -> End {
    let Chosen { session, requests, answers, inbound, lanes, came, arrived, .. } = chosen;
    for message in came {
        if let Err(refusal) = shared.act(|now, call| call.handle_message(now, message)) {
            return End::Fault(refusal);
        }
    }
    let (found_events, events) = oneshot::channel();
    let (found_messages, messages) = oneshot::channel();
    let found = Found { events: Some(found_events), messages: Some(found_messages) };
    tokio::select! {
        biased;
        () = over(shared) => End::Over,
        refusal = shared.when(|call| call.setback()) => End::Lost(refusal),
        end = send_messages(shared, requests) => end,
        end = receive_answers(shared, answers) => end,
        end = receive_events(shared, events) => end,
        end = send_app_messages(shared, &session) => end,
        end = receive_app_messages(shared, messages) => end,
        end = receive_frames(shared, inbound, arrived, found) => end,
        () = send_frames(shared, session.media_sender(), lanes) => End::Over,
    }
}

async fn send_messages(shared: &Shared, mut requests: MessageSender) -> End {
    loop {
        while let Some(message) = shared.look(|_, call| call.poll_message()) {
            if let Err(ended) = requests.send(&message).await {
                return End::lost(&ended);
            }
        }
        shared.messages.notified().await;
    }
}

async fn receive_answers(shared: &Shared, mut answers: MessageReceiver) -> End {
    loop {
        match answers.recv::<RelayMessage>().await {
            Ok(Some(message)) => {
                if let Err(refusal) = shared.act(|now, call| call.handle_message(now, message)) {
                    return End::Fault(refusal);
                }
            }
            Ok(None) => {
                // A relay that ends a connection says so in the close that follows.
                return pending().await;
            }
            Err(error) => return unreadable(&error),
        }
    }
}

async fn receive_events(shared: &Shared, found: oneshot::Receiver<MessageReceiver>) -> End {
    let Ok(mut events) = found.await else { return pending().await };
    loop {
        match events.recv::<RoomMessage>().await {
            Ok(Some(message)) => {
                if let Err(refusal) = shared.act(|_, call| call.handle_room_message(message)) {
                    return End::Fault(refusal);
                }
            }
            Ok(None) => return pending().await,
            Err(error) => return unreadable(&error),
        }
    }
}

/// Messages to other users, on a QUIC stream that is opened with the first.
async fn send_app_messages(shared: &Shared, session: &Session) -> End {
    let mut sender = None;
    loop {
        while let Some(message) = shared.look(|_, call| call.poll_app_message()) {
            let sender = match &mut sender {
                Some(sender) => sender,
                None => match session.open_messages(StreamKind::AppMessages).await {
                    Ok(opened) => sender.insert(opened),
                    Err(ended) => return End::lost(&ended),
                },
            };
            if let Err(ended) = sender.send(&message).await {
                return End::lost(&ended);
            }
        }
        shared.app_messages.notified().await;
    }
}

async fn receive_app_messages(shared: &Shared, found: oneshot::Receiver<MessageReceiver>) -> End {
    let Ok(mut messages) = found.await else { return pending().await };
    loop {
        match messages.recv::<AppMessage>().await {
            Ok(Some(message)) => {
                if let Err(refusal) = shared.act(|_, call| call.handle_app_message(message)) {
                    return End::Fault(refusal);
                }
            }
            Ok(None) => return pending().await,
            Err(error) => return unreadable(&error),
        }
    }
}

fn unreadable(error: &RecvError) -> End {
    match error {
        RecvError::Wire(wire) => End::Fault(Refusal::new(wire.code(), wire.to_string())),
        RecvError::Ended(ended) => End::lost(ended),
    }
}

/// Where the relay's QUIC streams go once they are found, each once.
struct Found {
    events: Option<oneshot::Sender<MessageReceiver>>,
    messages: Option<oneshot::Sender<MessageReceiver>>,
}

async fn receive_frames(
    shared: &Shared,
    mut inbound: Inbound,
    mut arrived: Option<Arrival>,
    mut found: Found,
) -> End {
    loop {
        let arrival = match arrived.take() {
            Some(arrival) => Ok(arrival),
            None => inbound.next().await,
        };
        match arrival {
            Ok(Arrival::Frame(received)) => shared.handle(|now, call| call.handle_frame(now, received)),
            Ok(Arrival::Events(events)) => match found.events.take() {
                Some(found) => _ = found.send(events),
                None => {
                    return End::Fault(Refusal::new(Code::ProtocolViolation, "a second stream of events"));
                }
            },
            // Frames come in order here, and each says how many before it were given up.
            Ok(Arrival::GivenUp(_) | Arrival::Piece(_)) => {}
            Ok(Arrival::AppMessages(messages)) => match found.messages.take() {
                Some(found) => _ = found.send(messages),
                None => {
                    return End::Fault(Refusal::new(Code::ProtocolViolation, "a second stream of messages"));
                }
            },
            Ok(Arrival::Requests(..)) => {
                return End::Fault(Refusal::new(Code::ProtocolViolation, "the relay made a request"));
            }
            Err(ended) => return End::lost(&ended),
        }
    }
}

/// Opens lanes, keeps time, and gives frames to the network as it takes them.
async fn send_frames(shared: &Shared, mut media: MediaSender, lanes: Lanes) {
    let mut timer = shared.clock.timer();
    loop {
        while let Some((lane, delivery)) = shared.look(|_, call| call.poll_lane()) {
            match delivery {
                Some(delivery) => lanes.open(lane, delivery),
                None => {
                    lanes.close(lane);
                    media.forget_lane(lane);
                }
            }
        }
        while let Some(frame) = shared.handle(|now, call| {
            call.poll_frame(now, |bytes, delivery, urgent| media.has_room(bytes, delivery, urgent))
        }) {
            let crate::call::OutgoingFrame { lane, delivery, urgent, frame } = frame;
            media.send(Outgoing { lane, delivery, urgent, sequence: None, frame: frame.into() });
            // The next one asks for room again.
            media.flush();
        }
        timer.reset(shared.look(|_, call| call.poll_timeout()));
        tokio::select! {
            biased;
            () = shared.media.notified() => {}
            () = media.progress() => {}
            () = timer.expired() => shared.act(|now, call| call.handle_timeout(now)),
        }
    }
}
