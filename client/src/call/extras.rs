//! The part of a [`Call`] that tells others of its tracks, and attaches info to its streams and the room.

use std::mem;

use parlor_transport::wire::control::{
    ClientMessage, ROOM_INFO_KEY_MAX, ROOM_INFO_VALUE_MAX, STREAM_INFO_MAX, SetRoomInfo, SetStreamInfo,
    TrackState,
};

use super::Call;
use super::unsettled::Unsettled;
use crate::error::InfoError;
use crate::publisher::PublisherState;

impl Call {
    /// Tells others of a track's state, and sends nothing of it unless it is open. A track that was not published is
    /// ignored.
    pub fn set_track_state(&mut self, lane: u32, track: u8, state: TrackState) {
        let can_ask = self.ended().is_none();
        let Some(publication) = self.publications.get_mut(&lane) else { return };
        let Some(known) = publication.states.get_mut(usize::from(track)) else { return };
        publication.outbox.set_muted(track, state != TrackState::Open);
        let before = mem::replace(known, state);
        self.touched.insert(lane);
        let publication = &self.publications[&lane];
        if before == state || publication.status().state == PublisherState::Idle || !can_ask {
            return;
        }
        let stream = publication.request().stream.clone();
        // Of several that wait to be sent only the last counts, so that few ever wait.
        self.take_back(|message| {
            matches!(message, ClientMessage::SetTrackState(set) if set.stream == stream && set.track == track)
        });
        self.settle(Unsettled::State(lane, track));
    }

    /// Attaches info to a stream that is published here; gives the request's number.
    ///
    /// # Errors
    /// [`InfoError`]; nothing was sent then.
    pub fn set_stream_info(&mut self, lane: u32, info: String) -> Result<u32, InfoError> {
        if info.len() > STREAM_INFO_MAX {
            return Err(InfoError::TooLarge { bytes: info.len(), max: STREAM_INFO_MAX });
        }
        let publication = self.publications.get(&lane);
        let live = publication.filter(|publication| publication.status().state != PublisherState::Idle);
        let stream = live.ok_or(InfoError::NotPublishing)?.request().stream.clone();
        let text = info.clone();
        let set = |request| ClientMessage::SetStreamInfo(SetStreamInfo { request, stream, info });
        let request = self.ask(set)?;
        self.infos.insert(request, (lane, text));
        Ok(request)
    }

    /// Attaches info to the room; gives the request's number.
    ///
    /// # Errors
    /// [`InfoError`]; nothing was sent then.
    pub fn set_room_info(&mut self, key: String, value: String) -> Result<u32, InfoError> {
        if key.is_empty() {
            return Err(InfoError::NoKey);
        }
        for (bytes, max) in [(key.len(), ROOM_INFO_KEY_MAX), (value.len(), ROOM_INFO_VALUE_MAX)] {
            if bytes > max {
                return Err(InfoError::TooLarge { bytes, max });
            }
        }
        Ok(self.ask(|request| ClientMessage::SetRoomInfo(SetRoomInfo { request, key, value }))?)
    }
}
