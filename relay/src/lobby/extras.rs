//! Requests about states of tracks and infos: what they cost, and the way to the index.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::SessionId;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{SetRoomInfo, SetStreamInfo, SetTrackState, TrackStatus};

use super::{Asked, Lobby};
use crate::room::index::Action;

impl Lobby {
    pub(super) fn set_track_state(&mut self, now: Timestamp, session: SessionId, set: SetTrackState) {
        let SetTrackState { request, stream, track, state } = set;
        let action = Action::SetTrackState(TrackStatus { stream, track, state });
        self.propose_joined(now, session, request, action, Asked::Extra);
    }

    pub(super) fn set_stream_info(&mut self, now: Timestamp, session: SessionId, set: SetStreamInfo) {
        let SetStreamInfo { request, stream, info } = set;
        if self.pay_for_info(now, session, request, info.len()) {
            let action = Action::SetStreamInfo { stream, info };
            self.propose_joined(now, session, request, action, Asked::Extra);
        }
    }

    pub(super) fn set_room_info(&mut self, now: Timestamp, session: SessionId, set: SetRoomInfo) {
        let SetRoomInfo { request, key, value } = set;
        if self.pay_for_info(now, session, request, key.len() + value.len()) {
            let action = Action::SetRoomInfo { key, value };
            self.propose_joined(now, session, request, action, Asked::Extra);
        }
    }

    /// Infos go to everyone in the room, and so cost as much as messages.
    fn pay_for_info(&mut self, now: Timestamp, session: SessionId, request: u32, bytes: usize) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        if client.pay_for_message(now, bytes) {
            return true;
        }
        let text = "infos change more often than the relay passes on; slow down";
        self.refuse(session, request, Refusal::new(Code::TooManyMessages, text));
        false
    }
}
