//! The QUIC stream for requests: read one by one, answered in order; and the notices from elsewhere.

use std::sync::Arc;
use std::task::{Wake, Waker};

use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::quic::inbound::Lanes;
use parlor_transport::quic::{Ended, MessageReceiver, MessageSender, RecvError};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{Closing, KeyframeWanted, RelayMessage};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::speaker::Speech;
use super::{Connection, events};
use crate::forward::publication::Inlet;
use crate::limits::{ANSWERS_PER_REQUEST_MAX, CLOSING_MAX, UNJOINED_MAX};
use crate::lobby::Notice;
use crate::lock;
use crate::server::Mail;

/// Reads requests until the client stops or breaks a rule. Their QUIC stream is there until the connection ends: a
/// client that finds it gone could not tell that from a fault, should the reason come later.
pub(super) async fn read(connection: Arc<Connection>, mut receiver: MessageReceiver) {
    read_all(&connection, &mut receiver).await;
    connection.session.closed().await;
}

async fn read_all(connection: &Connection, receiver: &mut MessageReceiver) {
    let clock = connection.hub.clock();
    let mut unjoined = clock.timer();
    loop {
        // A client that asks faster than it reads answers waits here, instead of filling its box.
        if connection.mail.reserve_many(ANSWERS_PER_REQUEST_MAX).await.is_err() {
            return;
        }
        if connection.hub.is_joined(connection.id) {
            unjoined.reset(None);
        } else if unjoined.deadline().is_none() {
            unjoined.reset(Some(clock.now() + UNJOINED_MAX));
        }
        let message = tokio::select! {
            biased;
            message = receiver.recv() => message,
            () = unjoined.expired() => {
                let text = "no room was joined for 10 s; join one right after connecting";
                return connection.hang_up(&Refusal::new(Code::HeartbeatTimeout, text));
            }
        };
        match message {
            Ok(Some(message)) => connection.hub.handle(connection.id, message),
            Ok(None) => return connection.session.close(Code::Ok, "the client stopped asking"),
            Err(RecvError::Wire(error)) => {
                let remedy = match error.code() {
                    Code::ProtocolViolation => "; update the older side, and report it if both are current",
                    _ => "",
                };
                let text = format!("a request cannot be read: {error}{remedy}");
                return connection.hang_up(&Refusal::new(error.code(), text));
            }
            Err(RecvError::Ended(ended)) => return connection.give_up(&ended),
        }
    }
}

/// Writes answers and notices, and does what they ask of this connection.
pub(super) async fn write(
    connection: Arc<Connection>,
    lanes: Lanes,
    sender: MessageSender,
    inbox: mpsc::Receiver<Mail>,
) {
    let speech = Speech::new(connection.hub.clock());
    let mut writer = Writer { connection, lanes, sender, inbox, speech, events: JoinSet::new() };
    if let Err(ended) = writer.run().await {
        writer.connection.give_up(&ended);
    }
}

struct Writer {
    connection: Arc<Connection>,
    lanes: Lanes,
    sender: MessageSender,
    inbox: mpsc::Receiver<Mail>,
    speech: Speech,
    events: JoinSet<()>,
}

impl Writer {
    async fn run(&mut self) -> Result<(), Ended> {
        let keyframes = self.connection.keyframes.clone();
        let mut keyframe_timer = self.connection.hub.clock().timer();
        loop {
            tokio::select! {
                biased;
                mail = self.inbox.recv() => match mail {
                    Some(Mail::Notice(Notice::Close(refusal))) => {
                        self.close(refusal).await;
                        return Ok(());
                    }
                    Some(mail) => self.open(mail).await?,
                    None => return Ok(()),
                },
                () = keyframes.notified() => {
                    let next = self.ask_for_keyframes().await?;
                    keyframe_timer.reset(next);
                }
                () = keyframe_timer.expired() => {
                    let next = self.ask_for_keyframes().await?;
                    keyframe_timer.reset(next);
                }
                () = self.speech.changed() => {
                    if let Some(news) = self.speech.news() {
                        self.sender.send(&news).await?;
                    }
                }
            }
        }
    }

    async fn open(&mut self, mail: Mail) -> Result<(), Ended> {
        let Connection { publications, plays, keyframes, id, hub, .. } = &*self.connection;
        let now = hub.clock().now();
        match mail {
            Mail::Entered { room, view, from, changed, voices } => {
                self.speech.enter(*id, voices);
                self.events.spawn(events::send(self.connection.clone(), room, view, from, changed));
            }
            Mail::Notice(notice) => match notice {
                Notice::Send(mut message) => {
                    stamp(&mut message, now);
                    self.sender.send(&message).await?;
                }
                Notice::PublishStarted { lane, publication } => {
                    publication.set_publisher(Waker::from(Arc::new(WakeNotify(keyframes.clone()))));
                    self.lanes.open(lane, publication.info().delivery);
                    lock(publications).insert(lane, Inlet::new(publication));
                }
                Notice::PublishEnded { lane } => {
                    self.lanes.close(lane);
                    lock(publications).remove(&lane);
                }
                Notice::PlayStarted { lane, publication, wishes } => {
                    plays.start(now, *id, lane, publication, &wishes);
                }
                Notice::PlayChanged { lane, wishes } => plays.change(now, lane, &wishes),
                Notice::PlayPaused { lane } => plays.pause(lane),
                Notice::PlayEnded { lane } => plays.end(lane),
                Notice::KeyframeAsked { lane, track } => plays.ask_keyframe(lane, track),
                Notice::Left => {
                    self.events.abort_all();
                    self.speech.leave();
                }
                // Both are dealt with before.
                Notice::Entered { .. } | Notice::Close(_) => {}
            },
        }
        Ok(())
    }

    /// Asks the client for the keyframes that are due; gives when to look again.
    async fn ask_for_keyframes(&mut self) -> Result<Option<Timestamp>, Ended> {
        let now = self.connection.hub.clock().now();
        let mut wanted = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (&lane, inlet) in lock(&self.connection.publications).iter() {
            let (due, later) = inlet.publication().poll_keyframes(now);
            wanted.extend(due.into_iter().map(|due| (lane, due)));
            next = next.into_iter().chain(later).min();
        }
        for (lane, due) in wanted {
            let wanted = KeyframeWanted { lane, track: due.track, spatial: due.spatial };
            self.sender.send(&RelayMessage::KeyframeWanted(wanted)).await?;
        }
        Ok(next)
    }

    /// Tells the client why, and closes once it has heard or had time enough.
    async fn close(&mut self, refusal: Refusal) {
        self.inbox.close();
        let closing = RelayMessage::Closing(Closing { refusal: refusal.clone() });
        let told = async {
            if self.sender.send(&closing).await.is_ok() {
                self.sender.finish().await;
            }
        };
        _ = self.connection.hub.clock().timeout(CLOSING_MAX, told).await;
        self.connection.session.close(refusal.code, &refusal.text);
    }
}

/// The clock in a message is that of its sending, not of its making.
fn stamp(message: &mut RelayMessage, now: Timestamp) {
    match message {
        RelayMessage::Welcome(welcome) => welcome.clock = now,
        RelayMessage::ClockReply(reply) => reply.sent = now,
        _ => {}
    }
}

/// Lets machines, which know only wakers, wake a task that waits for a [`Notify`].
pub(super) struct WakeNotify(pub(super) Arc<Notify>);

impl Wake for WakeNotify {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}
