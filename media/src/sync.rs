//! Lip sync: sound and pictures of one stream are played with the same offset.
//!
//! Both are captured on one clock, so equal offsets mean lips and voice agree. Sound leads, because it can only move
//! slowly; pictures follow where it is. It holds no frames and only passes offsets between the two playouts.

/// Sound waits at most this long for slower pictures, µs; a conversation matters more than lips.
const SOUND_WAIT_MAX: i64 = 250_000;

/// Pictures wait at most this long for slower sound, µs.
const PICTURE_WAIT_MAX: i64 = 400_000;

/// Holds what each side last said; ask it for the other side's floor.
///
/// ```
/// use parlor_media::sync::LipSync;
///
/// let mut sync = LipSync::new();
/// sync.sound(Some(50_000), Some(50_000));
/// sync.picture(Some(120_000));
/// assert_eq!(sync.sound_floor(), Some(120_000), "sound waits for the pictures");
/// assert_eq!(sync.picture_floor(), Some(50_000), "pictures stay where the sound is until then");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LipSync {
    sound_plays: Option<i64>,
    sound_wishes: Option<i64>,
    picture_wishes: Option<i64>,
}

impl LipSync {
    /// Knows nothing yet: both play when ready.
    pub fn new() -> LipSync {
        LipSync::default()
    }

    /// After each pull: where sound plays and where it would, from
    /// [`AudioPlayout`](crate::jitter::AudioPlayout)'s `playout_offset` and `wished_offset`.
    pub fn sound(&mut self, plays: Option<i64>, wishes: Option<i64>) {
        self.sound_plays = plays;
        self.sound_wishes = wishes;
    }

    /// After each push: where pictures would play, from [`VideoPlayout`](crate::jitter::VideoPlayout)'s
    /// `wished_offset`; `None` when the pictures end.
    pub fn picture(&mut self, wishes: Option<i64>) {
        self.picture_wishes = wishes;
    }

    /// For `AudioPlayout::set_floor`.
    pub fn sound_floor(&self) -> Option<i64> {
        let most = self.sound_wishes?.saturating_add(SOUND_WAIT_MAX);
        self.picture_wishes.map(|pictures| pictures.min(most))
    }

    /// For `VideoPlayout::set_floor`.
    pub fn picture_floor(&self) -> Option<i64> {
        let most = self.picture_wishes?.saturating_add(PICTURE_WAIT_MAX);
        self.sound_plays.map(|sound| sound.min(most))
    }
}
