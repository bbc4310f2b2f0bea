//! The part of a [`Call`] that publishes: requests, states, and frames on their way out.

use parlor_transport::error::Refusal;
use parlor_transport::id::StreamAlias;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{
    ClientMessage, Delivery, KeyframeWanted, Publish, Published, TrackKind, TrackState,
};
use parlor_transport::wire::frame::Frame;

use super::Call;
use super::unsettled::Unsettled;
use crate::error::PublishError;
use crate::options::PublishRequest;
use crate::publisher::outbox::{Limits, Outbox};
use crate::publisher::{
    DropReason, EncodedFrame, KeyframeRequest, Lifecycle, PublisherState, PublisherStatus, SendOutcome,
};
use crate::stats::{Meter, PublisherStats};

/// One stream that is published here, was, or will be.
#[derive(Debug)]
pub struct Publication {
    request: PublishRequest,
    lifecycle: Lifecycle,
    pub(super) outbox: Outbox,
    /// What others are told of each track.
    pub(super) states: Vec<TrackState>,
    /// What the relay took as its info.
    pub(super) info: String,
    video: Meter,
    audio: Meter,
}

impl Publication {
    /// What was asked for.
    pub fn request(&self) -> &PublishRequest {
        &self.request
    }

    /// State and error.
    pub fn status(&self) -> &PublisherStatus {
        self.lifecycle.status()
    }
}

/// A frame to be given to the network.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// The publication.
    pub lane: u32,
    /// How it travels.
    pub delivery: Delivery,
    /// Sound, which nothing may hold up.
    pub urgent: bool,
    /// The frame.
    pub frame: Frame,
}

fn publish_message(lane: u32, request: &PublishRequest) -> ClientMessage {
    ClientMessage::Publish(Publish {
        request: lane,
        stream: request.stream.clone(),
        tracks: request.tracks.clone(),
        delivery: request.delivery,
    })
}

impl Call {
    /// Publishes a stream; its lane is its name from here on.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was sent then.
    pub fn publish(&mut self, request: PublishRequest) -> Result<u32, PublishError> {
        if let Some(error) = self.ended() {
            return Err(PublishError::Ended(error));
        }
        let is_live = |publication: &Publication| publication.status().state != PublisherState::Idle;
        if self.publications.values().any(|other| is_live(other) && other.request.stream == request.stream) {
            return Err(PublishError::AlreadyPublishing(request.stream));
        }
        if self.is_full() {
            return Err(PublishError::TooManyRequests);
        }
        let lane = self.next_request();
        self.push(publish_message(lane, &request));
        let outbox = Outbox::new(&request.tracks, Limits::default());
        let lifecycle = Lifecycle::requesting();
        let (video, audio) = (Meter::default(), Meter::default());
        let states = vec![TrackState::Open; request.tracks.len()];
        self.publications.insert(
            lane,
            Publication { request, lifecycle, outbox, states, info: String::new(), video, audio },
        );
        Ok(lane)
    }

    /// Stops publishing. Idempotent.
    pub fn unpublish(&mut self, lane: u32) {
        let Some(publication) = self.publications.get_mut(&lane) else { return };
        if publication.status().state == PublisherState::Idle {
            return;
        }
        publication.lifecycle.stopped();
        publication.outbox.close();
        let stream = publication.request.stream.clone();
        if !self.take_back(|message| matches!(message, ClientMessage::Publish(p) if p.request == lane)) {
            self.settle(Unsettled::Unpublish(lane, stream));
            self.lanes.insert(lane, None);
        }
        self.touch(lane);
    }

    /// Stops publishing and forgets the publication: nobody asks for it any more.
    pub fn release_publication(&mut self, lane: u32) {
        self.unpublish(lane);
        self.publications.remove(&lane);
    }

    /// The publication on `lane`, until it is released.
    pub fn publication(&self, lane: u32) -> Option<&Publication> {
        self.publications.get(&lane)
    }

    /// How many streams are being published.
    pub fn publishing(&self) -> usize {
        let live = |publication: &&Publication| publication.status().state == PublisherState::Publishing;
        self.publications.values().filter(live).count()
    }

    /// What the relay takes of all that is published, bits/s, as far as it said that more was too much.
    pub fn publish_most(&self, now: Timestamp) -> Option<u64> {
        self.ceiling.most(now)
    }

    /// Takes a frame to send, or says why not.
    pub fn offer_frame(&mut self, now: Timestamp, lane: u32, frame: EncodedFrame) -> SendOutcome {
        match self.publications.get_mut(&lane) {
            Some(publication) => {
                let outcome = publication.outbox.offer(now, frame);
                // What was lost here may have to be mended by a keyframe.
                if matches!(outcome, SendOutcome::Dropped(_)) {
                    self.touched.insert(lane);
                }
                outcome
            }
            None => SendOutcome::Dropped(DropReason::NotPublishing),
        }
    }

    /// The keyframes wanted since the last call.
    pub fn take_keyframe_requests(&mut self, lane: u32) -> Vec<KeyframeRequest> {
        let publication = self.publications.get_mut(&lane);
        publication.map(|publication| publication.outbox.take_keyframe_requests()).unwrap_or_default()
    }

    /// What was sent and dropped.
    pub fn publisher_stats(&mut self, now: Timestamp, lane: u32) -> PublisherStats {
        let Some(publication) = self.publications.get_mut(&lane) else { return PublisherStats::default() };
        let (video, audio) = (publication.video.rates(now), publication.audio.rates(now));
        PublisherStats { counts: publication.outbox.counts(), video, audio }
    }

    /// The next frame to give to the network: sound first, then what waited longest. `has_room` says whether
    /// the network takes a frame of that many bytes, that delivery and that urgency now.
    pub fn poll_frame(
        &mut self,
        now: Timestamp,
        has_room: impl Fn(usize, Delivery, bool) -> bool,
    ) -> Option<OutgoingFrame> {
        let mut best = None;
        for (&lane, publication) in &mut self.publications {
            let waiting = publication.outbox.peek(now);
            // What was dropped for its age may call for a keyframe.
            if publication.outbox.wants_keyframes() {
                self.touched.insert(lane);
            }
            let Some((bytes, urgent)) = waiting else { continue };
            let order = (!urgent, publication.outbox.waiting_since());
            if best.as_ref().is_none_or(|&(_, best_order, _, _)| order < best_order) {
                best = Some((lane, order, bytes, publication.request.delivery));
            }
        }
        let (lane, (patient, _), bytes, delivery) = best?;
        if !has_room(bytes, delivery, !patient) {
            return None;
        }
        let clock = &mut self.clock;
        let publication = self.publications.get_mut(&lane)?;
        let mut captured = now;
        let frame = publication.outbox.take(now, |time| {
            captured = time;
            // A publication is answered after the welcome, which set the clock.
            clock.to_relay(now, time).unwrap_or(time)
        })?;
        self.ceiling.sent(now, frame.object().len());
        let meter = match publication.request.tracks.get(usize::from(frame.header().track)).map(|t| t.kind) {
            Some(TrackKind::Audio) => Some(&mut publication.audio),
            Some(TrackKind::Video) => Some(&mut publication.video),
            _ => None,
        };
        if let Some(meter) = meter {
            meter.record(now, frame.object().len(), now.saturating_since(captured));
        }
        Some(OutgoingFrame { lane, delivery, urgent: !patient, frame })
    }

    pub(super) fn handle_published(&mut self, published: &Published) {
        // A publication that was stopped meanwhile is none any more; its end is on the way.
        let Some(publication) = self.publications.get_mut(&published.request) else { return };
        if publication.status().state == PublisherState::Requesting {
            publication.lifecycle.published();
            publication.outbox.open(published.alias);
            self.touch(published.request);
        }
    }

    pub(super) fn handle_publish_refused(&mut self, lane: u32, refusal: Refusal) {
        if let Some(publication) = self.publications.get_mut(&lane) {
            publication.lifecycle.refused(refusal);
            publication.outbox.close();
            self.touch(lane);
        }
    }

    /// The relay drops frames; the stream goes on.
    pub(super) fn handle_frames_refused(&mut self, now: Timestamp, lane: u32, refusal: Refusal) {
        self.ceiling.refused(now);
        if let Some(publication) = self.publications.get_mut(&lane) {
            publication.lifecycle.limited(refusal);
            self.touch(lane);
        }
    }

    pub(super) fn handle_keyframe_wanted(&mut self, wanted: &KeyframeWanted) {
        if let Some(publication) = self.publications.get_mut(&wanted.lane) {
            let request = KeyframeRequest { track: wanted.track, spatial: wanted.spatial };
            publication.outbox.request_keyframe(request);
            self.touched.insert(wanted.lane);
        }
    }

    /// The connection is gone for `error`: nothing is sent until another one stands.
    pub(super) fn pause_publications(&mut self, error: &Refusal) {
        for (&lane, publication) in &mut self.publications {
            publication.lifecycle.interrupted(error.clone());
            publication.outbox.close();
            self.touched.insert(lane);
        }
    }

    /// The relay still has it.
    pub(super) fn publication_goes_on(&mut self, lane: u32, alias: StreamAlias) {
        self.handle_published(&Published { request: lane, alias });
    }

    /// Publishes again what is not among `known`.
    pub(super) fn publish_again(&mut self, known: &[u32]) {
        let lost = self.publications.iter().filter(|(lane, publication)| {
            publication.status().state != PublisherState::Idle && !known.contains(lane)
        });
        let messages: Vec<_> =
            lost.map(|(&lane, publication)| (lane, publish_message(lane, &publication.request))).collect();
        for (lane, message) in messages {
            self.outgoing.push_back(message);
            self.tell_again(lane);
        }
    }

    pub(super) fn end_publications(&mut self, error: &Refusal) {
        for (&lane, publication) in &mut self.publications {
            publication.lifecycle.refused(error.clone());
            publication.outbox.close();
            self.touched.insert(lane);
        }
    }

    pub(super) fn touch(&mut self, lane: u32) {
        self.touched.insert(lane);
        self.changed = true;
    }
}
