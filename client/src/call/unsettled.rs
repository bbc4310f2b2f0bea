//! The part of a [`Call`] that makes sure that what nobody waits for is done all the same: ends of publications and
//! plays, other wishes, states of tracks. A connection that breaks takes such requests with it, and then the relay
//! would keep what was ended and others see what was true before.

use parlor_transport::error::Refusal;
use parlor_transport::id::StreamId;
use parlor_transport::wire::control::{
    ClientMessage, SetStreamInfo, SetTrackState, StopPlay, TrackState, Unpublish, UpdatePlay,
};

use super::Call;
use crate::player::PlayerState;
use crate::publisher::PublisherState;

/// What was asked for and has not been answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unsettled {
    /// The publication on this lane is over.
    Unpublish(u32, StreamId),
    /// The play on this lane is over.
    StopPlay(u32, StreamId),
    /// Other things are wanted of the play on this lane.
    Wishes(u32),
    /// A track of the publication on this lane has another state.
    State(u32, u8),
    /// The publication on this lane was published anew, and its info with it.
    Info(u32),
}

impl Call {
    /// Asks for it, now or once there is a connection again.
    pub(super) fn settle(&mut self, wanted: Unsettled) {
        // Of several only the last one counts, which says what is true then.
        self.unsettled.retain(|_, other| *other != wanted);
        let request = self.next_request();
        if self.recovery.is_none()
            && let Some(message) = self.message_for(request, &wanted)
        {
            self.outgoing.push_back(message);
        }
        self.unsettled.insert(request, wanted);
    }

    /// An answer came, whichever: true if it was to one of these.
    pub(super) fn handle_settled(&mut self, request: u32, answer: &Result<(), Refusal>) -> bool {
        let Some(settled) = self.unsettled.remove(&request) else { return false };
        if let Err(refusal) = answer {
            tracing::debug!(request, ?settled, %refusal, "refused");
        }
        true
    }

    /// The session goes on, and the relay knows of these lanes: asks again for what concerns them.
    pub(super) fn settle_again(&mut self, publications: &[u32], plays: &[u32]) {
        for wanted in std::mem::take(&mut self.unsettled).into_values() {
            let is_known = match &wanted {
                Unsettled::Unpublish(lane, _) | Unsettled::State(lane, _) | Unsettled::Info(lane) => {
                    publications.contains(lane)
                }
                Unsettled::StopPlay(lane, _) | Unsettled::Wishes(lane) => plays.contains(lane),
            };
            if is_known {
                self.settle(wanted);
            }
        }
    }

    /// A publication is asked for anew: others are told again what they were told of it.
    pub(super) fn tell_again(&mut self, lane: u32) {
        let Some(publication) = self.publications.get(&lane) else { return };
        let states = (0u8..).zip(&publication.states).filter(|(_, state)| **state != TrackState::Open);
        let states: Vec<u8> = states.map(|(track, _)| track).collect();
        let has_info = !publication.info.is_empty();
        states.into_iter().for_each(|track| self.settle(Unsettled::State(lane, track)));
        if has_info {
            self.settle(Unsettled::Info(lane));
        }
    }

    /// The message as things are now; none if it came to nothing.
    fn message_for(&self, request: u32, wanted: &Unsettled) -> Option<ClientMessage> {
        let publication = |lane: &u32| {
            let publication = self.publications.get(lane);
            publication.filter(|publication| publication.status().state != PublisherState::Idle)
        };
        Some(match wanted {
            Unsettled::Unpublish(_, stream) => {
                ClientMessage::Unpublish(Unpublish { request, stream: stream.clone() })
            }
            Unsettled::StopPlay(_, stream) => {
                ClientMessage::StopPlay(StopPlay { request, stream: stream.clone() })
            }
            Unsettled::Wishes(lane) => {
                let play = self.plays.get(lane).filter(|play| play.status().state != PlayerState::Idle)?;
                let (stream, wishes) = (play.stream().clone(), play.wishes.clone());
                ClientMessage::UpdatePlay(UpdatePlay { request, stream, wishes })
            }
            Unsettled::State(lane, track) => {
                let publication = publication(lane)?;
                let (stream, state) =
                    (publication.request().stream.clone(), *publication.states.get(usize::from(*track))?);
                ClientMessage::SetTrackState(SetTrackState { request, stream, track: *track, state })
            }
            Unsettled::Info(lane) => {
                let publication = publication(lane)?;
                let (stream, info) = (publication.request().stream.clone(), publication.info.clone());
                ClientMessage::SetStreamInfo(SetStreamInfo { request, stream, info })
            }
        })
    }
}
