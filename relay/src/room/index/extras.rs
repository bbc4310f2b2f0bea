//! Who may say what of tracks, streams and the room, and how much of it.

use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{SessionId, StreamId};
use parlor_transport::wire::control::TrackStatus;

use super::{Change, MemoryIndex, RoomKey, Ticket};
use crate::limits::ROOM_INFO_KEYS_MAX;

impl MemoryIndex {
    pub(super) fn set_track_state(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        status: TrackStatus,
    ) -> Result<(), Refusal> {
        let (room, tracks) = self.published(session, &status.stream)?;
        if usize::from(status.track) >= tracks {
            let (stream, track) = (&status.stream, status.track);
            let text = format!("stream {stream:?} has {tracks} tracks and no track {track}; count from 0");
            return Err(Refusal::new(Code::BadTracks, text));
        }
        self.commit(ticket, &room, Change::TrackState { session, status });
        Ok(())
    }

    pub(super) fn set_stream_info(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        stream: StreamId,
        info: String,
    ) -> Result<(), Refusal> {
        let (room, _) = self.published(session, &stream)?;
        self.commit(ticket, &room, Change::StreamInfo { session, stream, info });
        Ok(())
    }

    pub(super) fn set_room_info(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        key: String,
        value: String,
    ) -> Result<(), Refusal> {
        let room = self.stay(session)?.room.clone();
        let Some(books) = self.rooms.get_mut(&room) else { return Err(Refusal::from(Code::Internal)) };
        if key.is_empty() {
            return Err(Refusal::new(Code::BadId, "a key of the room's info is empty; give it a name"));
        }
        if value.is_empty() {
            books.keys.remove(&key);
        } else if !books.keys.contains(&key) {
            if books.keys.len() >= ROOM_INFO_KEYS_MAX {
                let text = format!(
                    "the info of room {:?} has {ROOM_INFO_KEYS_MAX} keys and no more, so {key:?} cannot be added; \
                     remove one first, with an empty value",
                    room.room
                );
                return Err(Refusal::new(Code::TooManyKeys, text));
            }
            books.keys.insert(key.clone());
        }
        self.commit(ticket, &room, Change::RoomInfo { session, key, value });
        Ok(())
    }

    /// The room and the number of tracks of a stream that this stay publishes.
    fn published(&mut self, session: SessionId, stream: &StreamId) -> Result<(RoomKey, usize), Refusal> {
        let stay = self.stay(session)?;
        match stay.streams.get(stream) {
            Some(&tracks) => Ok((stay.room.clone(), tracks)),
            None => Err(Refusal::new(
                Code::NotPublishing,
                format!(
                    "stream {stream:?} is not published by {:?}; only its publisher may do that",
                    stay.user
                ),
            )),
        }
    }
}
