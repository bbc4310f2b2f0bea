//! Frames out to one client: its plays, which of them have something to send, and the loop that sends.
//!
//! Sound goes first. Pictures take turns, one frame each, and stop together at the first frame there
//! is no room for, so that small frames do not keep a large one waiting for ever.
//!
//! A lone small packet costs the relay ten times what it costs as one of several in a packet. So who plays many voices gets
//! those together that come within a few milliseconds; see [`VOICES_MIN`].

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use parlor_transport::error::Code;
use parlor_transport::id::SessionId;
use parlor_transport::quic::{MediaSender, Outgoing};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{TrackKind, TrackWish};
use tokio::sync::Notify;

use super::Connection;
use crate::forward::cursor::{Cut, CutFrames, Link, Step};
use crate::forward::patience::Patience;
use crate::forward::publication::{Play, Publication};
use crate::lock;
use crate::overload::Shed;

/// Streams that a client plays at least before frames of sound wait for each other: fewer have little to share.
const VOICES_MIN: usize = 3;

/// The plays of one connection. Frames wake it through the wakers it gave to publications.
#[derive(Default)]
pub(super) struct Plays {
    by_lane: Mutex<BTreeMap<u32, Playing>>,
    todo: Arc<Todo>,
}

/// A play, and where on its lane it began: a lane whose stream ends and comes back has one play after the other, and
/// its hop sequences go on, while each play counts its own frames from 0.
struct Playing {
    play: Play,
    /// The hop sequence of its frame 0, by track; taken at the first look at the track.
    first: BTreeMap<u8, u64>,
}

/// What happened since the sending task last looked.
#[derive(Default)]
struct Todo {
    news: Mutex<News>,
    notify: Notify,
}

#[derive(Default)]
struct News {
    /// Something came that does not wait.
    is_pressing: bool,
    /// The sending task lets sound wait for more of it, and need not hear of any.
    is_gathering: bool,
    /// Lanes whose publication has a new frame. At most as many as there are plays.
    ready: BTreeSet<u32>,
    /// Lanes that are not used again.
    ended: BTreeSet<u32>,
    /// Lanes and tracks on which the decoder is stuck.
    stuck: BTreeSet<(u32, u8)>,
    /// Something is played anew, or other parts of it are wanted.
    is_rewished: bool,
}

impl Plays {
    pub(super) fn start(
        &self,
        now: Timestamp,
        session: SessionId,
        lane: u32,
        publication: Arc<Publication>,
        wishes: &[TrackWish],
    ) {
        let is_sound = publication.info().tracks.iter().all(|track| track.kind == TrackKind::Audio);
        let waker = Waker::from(Arc::new(WakeLane { lane, is_sound, todo: self.todo.clone() }));
        let play = Play::new(now, publication, (session, lane), wishes, waker);
        lock(&self.by_lane).insert(lane, Playing { play, first: BTreeMap::new() });
        self.rewish(lane);
    }

    pub(super) fn change(&self, now: Timestamp, lane: u32, wishes: &[TrackWish]) {
        if let Some(playing) = lock(&self.by_lane).get_mut(&lane) {
            playing.play.set_wishes(now, wishes);
        }
        self.rewish(lane);
    }

    fn rewish(&self, lane: u32) {
        self.todo.press(|news| {
            news.ready.insert(lane);
            news.is_rewished = true;
        });
    }

    pub(super) fn pause(&self, lane: u32) {
        lock(&self.by_lane).remove(&lane);
    }

    pub(super) fn end(&self, lane: u32) {
        self.pause(lane);
        self.todo.press(|news| _ = news.ended.insert(lane));
    }

    pub(super) fn ask_keyframe(&self, lane: u32, track: u8) {
        self.todo.press(|news| _ = news.stuck.insert((lane, track)));
    }

    /// Whether what came may wait for more. Then the sending task is not woken by what may wait as well, until it looks.
    fn gather(&self, window: Duration) -> bool {
        if window.is_zero() || lock(&self.by_lane).len() < VOICES_MIN {
            return false;
        }
        let mut news = lock(&self.todo.news);
        news.is_gathering = !news.is_pressing;
        news.is_gathering
    }

    /// Ends all plays; their publications forget them.
    pub(super) fn clear(&self) {
        lock(&self.by_lane).clear();
    }
}

impl Todo {
    /// Notes what does not wait.
    fn press(&self, note: impl FnOnce(&mut News)) {
        self.tell(|news| {
            note(news);
            news.is_pressing = true;
        });
    }

    fn tell(&self, note: impl FnOnce(&mut News)) {
        let may_wait = {
            let mut news = lock(&self.news);
            note(&mut news);
            news.is_gathering && !news.is_pressing
        };
        if !may_wait {
            self.notify.notify_one();
        }
    }
}

struct WakeLane {
    lane: u32,
    /// The stream has nothing but sound.
    is_sound: bool,
    todo: Arc<Todo>,
}

impl Wake for WakeLane {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.todo.tell(|news| {
            news.ready.insert(self.lane);
            news.is_pressing |= !self.is_sound;
        });
    }
}

/// Sends frames until the connection ends. Sound waits up to `window` for more of it.
pub(super) async fn send(connection: Arc<Connection>, window: Duration) {
    let clock = connection.hub.clock();
    let mut sender = connection.session.media_sender();
    let mut pump = Pump {
        connection: &connection,
        waiting: BTreeSet::new(),
        turn: 0,
        taken: BTreeMap::new(),
        shed: Shed::NONE,
        patience: Patience::default(),
        frames_sent: 0,
        bytes_sent: 0,
    };
    let mut gathering = clock.timer();
    loop {
        tokio::select! {
            biased;
            () = sender.progress() => {
                // There may be room for what waits; who has nothing waiting need not look.
                if pump.waiting.is_empty() {
                    continue;
                }
            }
            () = connection.plays.todo.notify.notified() => {
                if connection.plays.gather(window) {
                    if gathering.deadline().is_none() {
                        gathering.reset(Some(clock.now() + window));
                    }
                    continue;
                }
            }
            () = gathering.expired() => {}
        }
        gathering.reset(None);
        if !pump.is_taken(&sender) {
            return connection.end_deaf();
        }
        pump.run(&mut sender);
    }
}

struct Pump<'a> {
    connection: &'a Connection,
    /// Lanes that may have frames to send.
    waiting: BTreeSet<u32>,
    /// The lane whose turn it is.
    turn: u32,
    /// Hop sequences taken so far, by lane and track: the next one's number.
    taken: BTreeMap<(u32, u8), u64>,
    /// What is left out because the machine is too slow.
    shed: Shed,
    patience: Patience,
    /// Sent and not yet counted.
    frames_sent: u64,
    bytes_sent: u64,
}

impl Connection {
    /// Ends the connection of one who is sent frames and takes none.
    fn end_deaf(&self) {
        let code = Code::PeerTooSlow;
        let seconds = self.hub.settings().limits.slow_subscriber_timeout.as_secs_f64();
        let (room, user) = self.hub.place(self.id);
        tracing::warn!(
            session = self.id.0,
            room,
            user,
            seconds,
            "closing: it takes none of the frames that it plays"
        );
        self.hub.operate(|_, _, lobby| lobby.count_refused(code));
        // At once: who reads nothing would not read why either.
        self.session
            .close(code, &format!("no frame was taken for {seconds} s; read what comes, or play less"));
    }
}

impl Pump<'_> {
    /// Whether the client takes what it is sent, or has not been silent for too long.
    fn is_taken(&mut self, sender: &MediaSender) -> bool {
        let hub = &self.connection.hub;
        let now = hub.clock().now();
        if !self.patience.is_due(now) {
            return true;
        }
        let timeout = hub.settings().limits.slow_subscriber_timeout;
        self.patience.look(now, sender.reception(), !self.waiting.is_empty(), timeout)
    }

    /// Leaves out what is to be left out from now on: video first of what was wanted least recently.
    fn thin(&mut self, sender: &mut MediaSender, shed: Shed, plays: &mut BTreeMap<u32, Playing>) {
        let now = self.connection.hub.clock().now();
        self.shed = shed;
        sender.set_parity(!shed.parity());
        let wished = plays.iter().filter_map(|(&lane, playing)| Some((playing.play.video_wished()?, lane)));
        let mut wished: Vec<_> = wished.collect();
        wished.sort_unstable();
        let withheld: BTreeSet<u32> =
            wished.iter().take(shed.withheld_of(wished.len())).map(|(_, lane)| *lane).collect();
        for (lane, playing) in plays {
            let video = withheld.contains(lane);
            let cut = Cut { layers: shed.layers(), discardable: shed.discardable(), video };
            playing.play.set_cut(now, cut);
            // What comes back may have to be asked for.
            self.waiting.insert(*lane);
        }
    }

    /// Sends what there is and what there is room for.
    fn run(&mut self, sender: &mut MediaSender) {
        let now = self.connection.hub.clock().now();
        let link = Link {
            rate: sender.rate_estimate(),
            rtt: self.connection.session.rtt(),
            is_heard: self.patience.is_heard(),
        };
        let News { ready, ended, stuck, is_rewished, is_pressing: _, is_gathering: _ } =
            take(&mut *lock(&self.connection.plays.todo.news));
        self.waiting.extend(ready);
        let mut plays = lock(&self.connection.plays.by_lane);
        let shed = self.connection.hub.shed();
        if shed != self.shed || is_rewished && shed > Shed::NONE {
            self.thin(sender, shed, &mut plays);
        }
        for (lane, track) in stuck {
            if let Some(Playing { play, .. }) = plays.get_mut(&lane) {
                play.decoder_stuck(now, track, link);
                self.waiting.insert(lane);
            }
        }
        for lane in ended {
            sender.forget_lane(lane);
            self.taken.retain(|(other, _), _| *other != lane);
        }
        self.waiting.retain(|lane| plays.contains_key(lane));

        // Sound: little, and all of it. The lanes stay on the list until their pictures are through too.
        let mut mute = Vec::new();
        let waiting = take(&mut self.waiting);
        for &lane in &waiting {
            let Some(play) = plays.get_mut(&lane) else { continue };
            let mut outcome = Outcome::Sent;
            while outcome == Outcome::Sent {
                outcome = self.step(sender, now, link, lane, play, true);
            }
            if outcome == Outcome::Blocked {
                mute.push(lane);
            }
        }
        self.waiting = waiting;
        let mut is_flushed = false;
        while let Some(lane) = self.next_in_turn() {
            let Some(play) = plays.get_mut(&lane) else { break };
            match self.step(sender, now, link, lane, play, false) {
                Outcome::Sent => self.turn = lane.wrapping_add(1),
                Outcome::Idle => _ = self.waiting.remove(&lane),
                // What was taken may leave at once, and then there is room.
                Outcome::Blocked if !is_flushed => {
                    sender.flush();
                    is_flushed = true;
                }
                Outcome::Blocked => {
                    self.turn = lane;
                    break;
                }
            }
        }
        self.waiting.extend(mute);
        sender.flush();
        drop(plays);
        self.count_sent();
    }

    fn send(&mut self, sender: &mut MediaSender, outgoing: Outgoing) {
        self.frames_sent += 1;
        self.bytes_sent += outgoing.frame.object().len() as u64;
        sender.send(outgoing);
    }

    /// Counts what was sent, once for all of it: the counters are everybody's.
    fn count_sent(&mut self) {
        let counts = self.connection.hub.counts();
        let (frames, bytes) = (take(&mut self.frames_sent), take(&mut self.bytes_sent));
        if frames > 0 {
            counts.frames_sent.fetch_add(frames, Ordering::Relaxed);
            counts.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The waiting lane whose turn it is.
    fn next_in_turn(&self) -> Option<u32> {
        self.waiting.range(self.turn..).chain(&self.waiting).next().copied()
    }

    /// Sends one frame of `play`: of its sound, or of its other tracks.
    fn step(
        &mut self,
        sender: &mut MediaSender,
        now: Timestamp,
        link: Link,
        lane: u32,
        Playing { play, first }: &mut Playing,
        urgent: bool,
    ) -> Outcome {
        let delivery = play.publication().info().delivery;
        for track in 0..play.publication().info().tracks.len() as u8 {
            if (play.kind(track) == TrackKind::Audio) != urgent {
                continue;
            }
            let skipped = play.frames_skipped(track);
            let step = play.next(now, track, link, |bytes| sender.has_room(bytes, delivery, urgent));
            let skipped = play.frames_skipped(track) - skipped;
            if skipped > 0 {
                self.connection.hub.counts().frames_skipped.fetch_add(skipped, Ordering::Relaxed);
            }
            let cut = play.take_cut_frames(track);
            if cut != CutFrames::default() {
                self.connection.hub.counts().frames_cut.add(cut);
            }
            let taken = self.taken.entry((lane, track)).or_default();
            let first = *first.entry(track).or_insert(*taken);
            *taken += u64::from(matches!(step, Step::Send(_) | Step::Reserve));
            match step {
                Step::Send(frame) => {
                    self.send(sender, Outgoing { lane, delivery, urgent, sequence: None, frame });
                    return Outcome::Sent;
                }
                Step::SendReserved(sequence, frame) => {
                    let sequence = Some(first + sequence);
                    self.send(sender, Outgoing { lane, delivery, urgent, sequence, frame });
                    return Outcome::Sent;
                }
                Step::SendPiece(sequence, piece) => {
                    sender.send_piece(lane, first + sequence, urgent, &piece);
                    return Outcome::Sent;
                }
                Step::Reserve => {
                    sender.reserve(lane, track);
                    return Outcome::Sent;
                }
                Step::GiveUp(sequence) => {
                    self.connection.hub.counts().frames_gone.fetch_add(1, Ordering::Relaxed);
                    sender.give_up(lane, track, first + sequence);
                    return Outcome::Sent;
                }
                Step::Blocked => return Outcome::Blocked,
                Step::Wait => {}
            }
        }
        Outcome::Idle
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    Blocked,
    Idle,
}
