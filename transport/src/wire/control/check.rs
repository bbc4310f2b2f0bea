//! Bounds within a message that its length alone does not set: entries of lists, bytes of texts.

use super::extra::*;
use super::message::*;
use super::operate::{ADDRESS_MAX, ActiveSpeaker, FramesRefused, GoAway, Moderate, Overload};
use super::room::*;
use crate::token::Token;
use crate::wire::WireError;

/// The most entries of any list in a message; a snapshot with more takes another page.
pub const ENTRIES_MAX: usize = 1024;

/// What a decoder asks of a message before anybody sees it.
pub(super) trait Check {
    /// Whether lists and texts keep their bounds.
    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

pub(super) fn at_most(what: &'static str, value: usize, max: usize) -> Result<(), WireError> {
    if value > max {
        return Err(WireError::TooLarge { what, value: value as u64, max: max as u64 });
    }
    Ok(())
}

fn tracks(tracks: &[TrackInfo]) -> Result<(), WireError> {
    at_most("number of tracks", tracks.len(), TRACKS_PER_STREAM_MAX)?;
    tracks.iter().try_for_each(|track| at_most("codec name", track.codec.len(), CODEC_MAX))
}

fn wishes(wishes: &[TrackWish]) -> Result<(), WireError> {
    at_most("number of wishes", wishes.len(), TRACKS_PER_STREAM_MAX)
}

impl Check for Hello {
    fn check(&self) -> Result<(), WireError> {
        at_most("agent", self.agent.len(), AGENT_MAX)
    }
}

fn token(token: &Token) -> Result<(), WireError> {
    at_most("token", token.as_str().len(), Token::BYTES_MAX)
}

impl Check for Join {
    fn check(&self) -> Result<(), WireError> {
        self.token.as_ref().map_or(Ok(()), token)
    }
}

impl Check for RenewToken {
    fn check(&self) -> Result<(), WireError> {
        token(&self.token)
    }
}

impl Check for Publish {
    fn check(&self) -> Result<(), WireError> {
        tracks(&self.tracks)
    }
}

impl Check for Play {
    fn check(&self) -> Result<(), WireError> {
        wishes(&self.wishes)
    }
}

impl Check for UpdatePlay {
    fn check(&self) -> Result<(), WireError> {
        wishes(&self.wishes)
    }
}

impl Check for PlayStarted {
    fn check(&self) -> Result<(), WireError> {
        tracks(&self.tracks)
    }
}

impl Check for StreamAdded {
    fn check(&self) -> Result<(), WireError> {
        tracks(&self.stream.tracks)
    }
}

impl Check for SnapshotPage {
    fn check(&self) -> Result<(), WireError> {
        at_most("number of users", self.users.len(), ENTRIES_MAX)?;
        at_most("number of streams", self.streams.len(), ENTRIES_MAX)?;
        self.streams.iter().try_for_each(|stream| tracks(&stream.tracks))?;
        self.extras.as_ref().map_or(Ok(()), |extras| {
            at_most("number of track states", extras.track_states.len(), ENTRIES_MAX)?;
            at_most("number of stream infos", extras.stream_infos.len(), ENTRIES_MAX)?;
            at_most("number of room infos", extras.room_infos.len(), ENTRIES_MAX)?;
            extras.stream_infos.iter().try_for_each(|extra| stream_info(&extra.info))?;
            extras.room_infos.iter().try_for_each(|extra| room_info(&extra.key, &extra.value))
        })
    }
}

fn stream_info(info: &str) -> Result<(), WireError> {
    at_most("info of a stream", info.len(), STREAM_INFO_MAX)
}

fn room_info(key: &str, value: &str) -> Result<(), WireError> {
    at_most("key of the room's info", key.len(), ROOM_INFO_KEY_MAX)?;
    at_most("value of the room's info", value.len(), ROOM_INFO_VALUE_MAX)
}

impl Check for SetStreamInfo {
    fn check(&self) -> Result<(), WireError> {
        stream_info(&self.info)
    }
}

impl Check for StreamInfoChanged {
    fn check(&self) -> Result<(), WireError> {
        stream_info(&self.extra.info)
    }
}

impl Check for SetRoomInfo {
    fn check(&self) -> Result<(), WireError> {
        room_info(&self.key, &self.value)
    }
}

impl Check for RoomInfoChanged {
    fn check(&self) -> Result<(), WireError> {
        room_info(&self.extra.key, &self.extra.value)
    }
}

impl Check for Resumed {
    fn check(&self) -> Result<(), WireError> {
        at_most("number of publications", self.publications.len(), ENTRIES_MAX)?;
        at_most("number of plays", self.plays.len(), ENTRIES_MAX)
    }
}

impl Check for GoAway {
    fn check(&self) -> Result<(), WireError> {
        self.address.as_ref().map_or(Ok(()), |address| at_most("address", address.len(), ADDRESS_MAX))
    }
}

macro_rules! nothing_to_check {
    ($($name:ident)*) => { $(impl Check for $name {})* };
}

nothing_to_check! {
    Moderate
    Leave Unpublish StopPlay RequestKeyframe ProbeClock
    Welcome Joined Done Published PlayWaiting PlayEnded Refused KeyframeWanted ClockReply Closing
    TokenExpiring Resume FramesRefused ActiveSpeaker Overload
    RoomCount UserJoined UserLeft StreamRemoved EventStamp
    SetTrackState TrackStateChanged
}
