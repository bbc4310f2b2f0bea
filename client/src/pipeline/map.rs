//! The one place where a media frame becomes a transport frame, and back. Values only.

use parlor_media::frame::{AUDIO_FRAME, EncodedAudio, EncodedVideo, MediaTime};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::TrackKind;
use parlor_transport::wire::frame::AudioLevel;

use super::timestamp;
use crate::player::ReceivedFrame;
use crate::publisher::EncodedFrame;

/// What the built-in sound tracks carry, in the words of WebCodecs.
pub const AUDIO_CODEC: &str = "opus";
/// What the built-in picture tracks carry, in the words of WebCodecs: H.264 constrained baseline, as Annex B.
pub const VIDEO_CODEC: &str = "avc1.42e01f";

/// Whether the built-in decoders can read such a track.
pub(super) fn is_readable(kind: TrackKind, codec: &str) -> bool {
    match kind {
        TrackKind::Audio => codec == AUDIO_CODEC,
        // Any profile: the decoder says what it cannot read.
        TrackKind::Video => codec.starts_with("avc1"),
        TrackKind::Data => false,
    }
}

/// The same moment of the same clock.
pub(super) fn media_time(time: Timestamp) -> MediaTime {
    MediaTime::from_micros(time.as_micros())
}

/// A picture on its way out.
pub(super) fn from_video(track: u8, video: EncodedVideo) -> EncodedFrame {
    EncodedFrame {
        temporal: video.temporal_layer,
        keyframe: video.keyframe,
        discardable: video.discardable,
        ..EncodedFrame::new(track, timestamp(video.time), video.data)
    }
}

/// Sound on its way out.
pub(super) fn from_audio(track: u8, audio: EncodedAudio) -> EncodedFrame {
    let level = AudioLevel { below_full_scale: audio.level, voice: audio.voice };
    EncodedFrame {
        keyframe: true,
        level: Some(level),
        ..EncodedFrame::new(track, timestamp(audio.time), audio.data)
    }
}

/// A picture that came. Its size stands in its own parameter sets.
pub(super) fn to_video(frame: &ReceivedFrame) -> EncodedVideo {
    EncodedVideo {
        data: frame.payload.clone(),
        keyframe: frame.header.keyframe,
        temporal_layer: frame.header.temporal,
        discardable: frame.header.discardable,
        time: media_time(frame.captured),
        width: 0,
        height: 0,
    }
}

/// Sound that came.
pub(super) fn to_audio(frame: &ReceivedFrame) -> EncodedAudio {
    let level = frame.header.level.unwrap_or(AudioLevel { below_full_scale: 127, voice: false });
    EncodedAudio {
        data: frame.payload.clone(),
        time: media_time(frame.captured),
        duration: AUDIO_FRAME,
        level: level.below_full_scale,
        voice: level.voice,
        dtx: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use parlor_transport::id::StreamAlias;
    use parlor_transport::wire::frame::FrameHeader;

    /// The frame as the other end gets it.
    fn travel(sent: EncodedFrame) -> ReceivedFrame {
        let header = FrameHeader {
            alias: StreamAlias(1),
            track: sent.track,
            spatial: sent.spatial,
            temporal: sent.temporal,
            number: 0,
            captured: sent.captured,
            keyframe: sent.keyframe,
            discardable: sent.discardable,
            level: sent.level,
            metadata: sent.metadata,
        };
        let captured = sent.captured;
        ReceivedFrame { header, payload: sent.payload, missed: 0, arrived: captured, captured }
    }

    #[test]
    fn what_goes_out_comes_back() {
        let video = EncodedVideo {
            data: Bytes::from_static(b"picture"),
            keyframe: false,
            temporal_layer: 1,
            discardable: true,
            time: MediaTime::from_micros(123),
            width: 0,
            height: 0,
        };
        assert_eq!(to_video(&travel(from_video(1, video.clone()))), video);
        let audio = EncodedAudio {
            data: Bytes::from_static(b"sound"),
            time: MediaTime::from_micros(456),
            duration: AUDIO_FRAME,
            level: 30,
            voice: true,
            dtx: false,
        };
        assert_eq!(to_audio(&travel(from_audio(0, audio.clone()))), audio);
    }
}
