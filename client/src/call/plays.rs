//! The part of a [`Call`] that plays: requests, states, and frames that came.

use std::collections::BTreeMap;

use parlor_transport::error::Refusal;
use parlor_transport::hop::Received;
use parlor_transport::id::{StreamAlias, StreamId};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    ClientMessage, Delivery, Departure, Play as PlayMessage, PlayStarted, RequestKeyframe, TrackKind,
    TrackWish,
};
use parlor_transport::wire::frame::FrameHeader;

use super::Call;
use super::unsettled::Unsettled;
use crate::error::PlayError;
use crate::player::inbox::{Inbox, Limits};
use crate::player::{Lifecycle, PlayedStream, PlayerState, PlayerStatus, ReceivedFrame};
use crate::stats::{Meter, PlayerStats};

/// One stream that is played here, was, or will be.
#[derive(Debug)]
pub struct Play {
    stream: StreamId,
    pub(super) wishes: Vec<TrackWish>,
    lifecycle: Lifecycle,
    inbox: Inbox,
    given: Given,
    stats: PlayerStats,
    video: Meter,
    audio: Meter,
}

/// How far the frames of a publication have come. A relay that goes on with a player on another connection begins at
/// the newest keyframe, which the app may have had, with frames behind it.
#[derive(Debug, Default)]
struct Given {
    /// Which publication: the room's life and the stream's alias in it.
    of: Option<(u64, StreamAlias)>,
    /// The number of the next frame, by track and spatial layer: no more than frame headers can name.
    next: BTreeMap<(u8, u8), u64>,
}

impl Given {
    /// Whether the frame was not given before.
    fn is_next(&mut self, epoch: u64, header: &FrameHeader) -> bool {
        let of = Some((epoch, header.alias));
        if self.of != of {
            *self = Given { of, next: BTreeMap::new() };
        }
        let next = self.next.entry((header.track, header.spatial)).or_default();
        let is_next = header.number >= *next;
        if is_next {
            *next = header.number.saturating_add(1);
        }
        is_next
    }
}

impl Play {
    /// The stream asked for.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// State and error.
    pub fn status(&self) -> &PlayerStatus {
        self.lifecycle.status()
    }

    /// Publisher and tracks, while it is played.
    pub fn played(&self) -> Option<&PlayedStream> {
        self.lifecycle.stream()
    }

    /// Whether no more frames will come; what waits can still be taken.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }
}

impl Call {
    /// Plays a stream, now or when it appears; its lane is its name from here on.
    ///
    /// # Errors
    /// [`PlayError`]; nothing was sent then.
    pub fn play(&mut self, stream: StreamId, wishes: &[TrackWish]) -> Result<u32, PlayError> {
        if let Some(error) = self.ended() {
            return Err(PlayError::Ended(error));
        }
        let is_live = |play: &Play| play.status().state != PlayerState::Idle;
        if self.plays.values().any(|other| is_live(other) && other.stream == stream) {
            return Err(PlayError::AlreadyPlaying(stream));
        }
        if self.is_full() {
            return Err(PlayError::TooManyRequests);
        }
        let lane = self.next_request();
        let message = PlayMessage { request: lane, stream: stream.clone(), wishes: wishes.to_vec() };
        self.push(ClientMessage::Play(message));
        // Frames may overtake the answer that says how they travel: the lane is open for both ways at once.
        self.lanes.insert(lane, Some(Delivery::default()));
        let play = Play {
            stream,
            wishes: wishes.to_vec(),
            lifecycle: Lifecycle::requesting(),
            inbox: Inbox::new(Limits::default()),
            given: Given::default(),
            stats: PlayerStats::default(),
            video: Meter::default(),
            audio: Meter::default(),
        };
        self.plays.insert(lane, play);
        Ok(lane)
    }

    /// Changes what is wanted of a stream that is played. Ignored after its end.
    pub fn update_play(&mut self, lane: u32, wishes: &[TrackWish]) {
        let is_live = |play: &&mut Play| play.status().state != PlayerState::Idle;
        let Some(play) = self.plays.get_mut(&lane).filter(is_live) else { return };
        play.wishes = wishes.to_vec();
        // What is wanted again begins anew, at a keyframe that the app may have had.
        play.given = Given::default();
        let (stream, wishes) = (play.stream.clone(), wishes.to_vec());
        for waiting in &mut self.outgoing {
            if let ClientMessage::Play(play) = waiting
                && play.request == lane
            {
                play.wishes = wishes;
                return;
            }
        }
        // The newest wishes count.
        self.take_back(|message| matches!(message, ClientMessage::UpdatePlay(u) if u.stream == stream));
        self.settle(Unsettled::Wishes(lane));
    }

    /// Stops playing. Idempotent.
    pub fn stop_play(&mut self, lane: u32) {
        let Some(play) = self.plays.get_mut(&lane) else { return };
        if play.status().state == PlayerState::Idle {
            return;
        }
        play.lifecycle.stopped();
        play.inbox.close();
        let stream = play.stream.clone();
        self.take_back(|message| Self::is_about(message, lane, &stream));
        if self.take_back(|message| matches!(message, ClientMessage::Play(play) if play.request == lane)) {
            self.lanes.remove(&lane);
        } else {
            self.settle(Unsettled::StopPlay(lane, stream));
            self.lanes.insert(lane, None);
        }
        self.touch(lane);
    }

    /// Stops playing and forgets the play: nobody asks for it any more.
    pub fn release_play(&mut self, lane: u32) {
        self.stop_play(lane);
        self.plays.remove(&lane);
    }

    /// The play on `lane`, until it is released.
    pub fn play_on(&self, lane: u32) -> Option<&Play> {
        self.plays.get(&lane)
    }

    /// A decoder cannot go on without a keyframe of `track`. Asked once until the request has left.
    pub fn request_keyframe(&mut self, lane: u32, track: u8) {
        let Some(play) = self.plays.get_mut(&lane) else { return };
        let request = ClientMessage::RequestKeyframe(RequestKeyframe { lane, track });
        let plays = play.status().state == PlayerState::Playing;
        if plays && self.outgoing.len() < super::OUTGOING_MAX && !self.outgoing.contains(&request) {
            play.stats.keyframe_requests += 1;
            self.push(request);
        }
    }

    /// Takes a frame that came. Frames of lanes that nobody plays are dropped.
    pub fn handle_frame(&mut self, now: Timestamp, received: Received) {
        let Some(play) = self.plays.get_mut(&received.lane) else { return };
        let header = received.frame.header().clone();
        if !play.given.is_next(self.epoch, &header) {
            return;
        }
        let captured = self.clock.from_relay(now, header.captured).unwrap_or(received.arrived);
        let payload = received.frame.payload();
        let (missed, arrived) = (received.missed, received.arrived);
        let frame = ReceivedFrame { header, payload, missed, arrived, captured };
        play.stats.frames += 1;
        play.stats.bytes += frame.payload.len() as u64;
        play.stats.lost += missed;
        let kind = play.played().and_then(|played| played.tracks.get(usize::from(received.track)));
        match kind.map(|track| track.kind) {
            Some(TrackKind::Audio) => play.audio.record(now, frame.payload.len(), frame.age()),
            Some(TrackKind::Video) => play.video.record(now, frame.payload.len(), frame.age()),
            Some(TrackKind::Data) | None => {}
        }
        let needs_keyframe = play.inbox.push(frame);
        self.touched.insert(received.lane);
        if let Some(track) = needs_keyframe {
            self.request_keyframe(received.lane, track);
        }
    }

    /// The next frame that came on `lane`.
    pub fn pop_frame(&mut self, lane: u32) -> Option<ReceivedFrame> {
        self.plays.get_mut(&lane)?.inbox.pop()
    }

    /// What was received.
    pub fn player_stats(&mut self, now: Timestamp, lane: u32) -> PlayerStats {
        let Some(play) = self.plays.get_mut(&lane) else { return PlayerStats::default() };
        let skipped = play.inbox.skipped();
        PlayerStats { skipped, video: play.video.rates(now), audio: play.audio.rates(now), ..play.stats }
    }

    pub(super) fn handle_play_started(&mut self, started: &PlayStarted) {
        let Some(play) = self.live_play(started.lane) else { return };
        play.lifecycle.started(started);
        play.inbox.started(&started.tracks);
        self.lanes.insert(started.lane, Some(started.delivery));
        self.touch(started.lane);
    }

    pub(super) fn handle_play_waiting(&mut self, lane: u32) {
        let Some(play) = self.live_play(lane) else { return };
        play.lifecycle.waiting();
        self.touch(lane);
    }

    pub(super) fn handle_play_ended(&mut self, lane: u32, reason: Departure) {
        let Some(play) = self.live_play(lane) else { return };
        play.lifecycle.ended(reason);
        self.touch(lane);
    }

    pub(super) fn handle_play_refused(&mut self, lane: u32, refusal: Refusal) {
        // A refused change of wishes leaves everything as it was.
        let Some(play) = self.live_play(lane) else { return };
        play.lifecycle.refused(refusal);
        play.inbox.close();
        self.lanes.insert(lane, None);
        self.touch(lane);
    }

    /// The connection is gone: nothing comes until another one stands.
    pub(super) fn pause_plays(&mut self) {
        for (&lane, play) in
            self.plays.iter_mut().filter(|(_, play)| play.status().state != PlayerState::Idle)
        {
            play.lifecycle.ended(Departure::Disconnected);
            self.lanes.insert(lane, Some(Delivery::default()));
            self.touched.insert(lane);
        }
    }

    /// Plays again what is not among `known`.
    pub(super) fn play_again(&mut self, known: &[u32]) {
        let lost = self
            .plays
            .iter()
            .filter(|(lane, play)| play.status().state != PlayerState::Idle && !known.contains(lane));
        let messages = lost.map(|(&request, play)| {
            let (stream, wishes) = (play.stream.clone(), play.wishes.clone());
            ClientMessage::Play(PlayMessage { request, stream, wishes })
        });
        let messages: Vec<_> = messages.collect();
        self.outgoing.extend(messages);
    }

    pub(super) fn end_plays(&mut self, error: &Refusal) {
        for (&lane, play) in &mut self.plays {
            play.lifecycle.refused(error.clone());
            play.inbox.close();
            self.touched.insert(lane);
        }
    }

    /// The play on `lane`, unless it was stopped meanwhile.
    fn live_play(&mut self, lane: u32) -> Option<&mut Play> {
        self.plays.get_mut(&lane).filter(|play| play.status().state != PlayerState::Idle)
    }
}
