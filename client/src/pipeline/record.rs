//! Play → file: a stream written as it comes, without encoding it again.

use std::path::Path;

use parlor_media::play::{Mp4Recorder, RecordedTracks};
use parlor_media::video::{Decoded, H264Decoder};
use parlor_transport::id::StreamAlias;
use parlor_transport::wire::control::TrackKind;

use super::MediaError;
use super::map::{is_readable, to_audio, to_video};
use crate::engine::{Frames, Player};
use crate::player::ReceivedFrame;

/// An MP4 file in the making.
pub struct Recording {
    frames: Frames,
    recorder: Mp4Recorder,
    /// What each track carries, as far as it is recorded.
    kinds: Vec<Option<TrackKind>>,
    alias: Option<StreamAlias>,
    /// Width and height, pixels: not on the wire, but in the file's header.
    size: Option<(u32, u32)>,
    written: Recorded,
}

/// What a [`Recording`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// Pictures.
    pub pictures: u64,
    /// Packets of sound, 20 ms each.
    pub packets: u64,
}

impl Recording {
    /// Makes the file for the stream that `player` plays, which must be [playing](Player::playing).
    ///
    /// # Errors
    /// [`MediaError::NotPlaying`], [`MediaError::Codec`] when no track can be recorded, [`MediaError::Play`] when the file cannot be
    /// written.
    pub fn start(player: &Player, path: impl AsRef<Path>) -> Result<Self, MediaError> {
        let played = player.played().ok_or(MediaError::NotPlaying)?;
        // One track of each kind fits into the file: the first.
        let mut seen = Vec::new();
        let kind = |track: &crate::TrackInfo| {
            let fits = is_readable(track.kind, &track.codec) && !seen.contains(&track.kind);
            fits.then(|| seen.push(track.kind)).map(|()| track.kind)
        };
        let kinds: Vec<_> = played.tracks.iter().map(kind).collect();
        let has = |kind| kinds.contains(&Some(kind));
        let tracks =
            RecordedTracks { video: has(TrackKind::Video), audio: has(TrackKind::Audio).then_some(1) };
        if tracks == (RecordedTracks { video: false, audio: None }) {
            let codecs =
                played.tracks.iter().map(|track| track.codec.as_str()).collect::<Vec<_>>().join(", ");
            return Err(MediaError::Codec(codecs));
        }
        let recorder = Mp4Recorder::create(path, tracks)?;
        let frames = player.frames();
        Ok(Recording { frames, recorder, kinds, alias: None, size: None, written: Recorded::default() })
    }

    /// Writes frames as they come, until the player ends or another publication takes the stream's place. Can be
    /// cancelled and called again.
    ///
    /// # Errors
    /// [`MediaError::Play`] when the file cannot be written any more.
    pub async fn run(&mut self) -> Result<(), MediaError> {
        while let Some(frame) = self.frames.next().await {
            let alias = *self.alias.get_or_insert(frame.header.alias);
            if alias != frame.header.alias {
                break;
            }
            match self.kinds.get(usize::from(frame.header.track)).copied().flatten() {
                Some(TrackKind::Video) => self.write_picture(&frame)?,
                Some(TrackKind::Audio) => {
                    self.recorder.audio(&to_audio(&frame))?;
                    self.written.packets += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_picture(&mut self, frame: &ReceivedFrame) -> Result<(), MediaError> {
        let mut video = to_video(frame);
        if self.size.is_none() && video.keyframe {
            self.size = match H264Decoder::new()?.decode(&video)? {
                Decoded::Picture(picture) => Some((picture.width(), picture.height())),
                Decoded::NeedKeyframe => None,
            };
        }
        match self.size {
            Some((width, height)) => {
                (video.width, video.height) = (width, height);
                self.recorder.video(&video)?;
                self.written.pictures += 1;
            }
            // The file begins with a keyframe.
            None => self.frames.request_keyframe(frame.header.track),
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`MediaError::Play`] when it cannot be written, or nothing came that could be recorded.
    pub fn finish(self) -> Result<Recorded, MediaError> {
        self.recorder.finish()?;
        Ok(self.written)
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("written", &self.written).finish_non_exhaustive()
    }
}
