//! Several voices into one: sum and soft limit. Pure; the speaker's side pulls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::AudioFeed;
use crate::frame::{MediaTime, Samples};

/// Voices mixed at most: far more than anybody can tell apart; the rest stays silent.
const FEEDS_MAX: usize = 256;

/// Above this level the limiter begins to bend: three quarters of full scale.
const KNEE: i32 = 24_576;

/// Names a feed of a [`Mixer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(u64);

/// Mixes any number of feeds to mono. Clones are the same mixer: give one to the speaker and keep one.
#[derive(Clone, Default)]
pub struct Mixer {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    feeds: BTreeMap<FeedId, Box<dyn AudioFeed>>,
    next: u64,
}

impl Mixer {
    /// Silent.
    pub fn new() -> Mixer {
        Mixer::default()
    }

    /// Mixes `feed` in from now on. With 256 feeds already, it is taken but not heard.
    pub fn add(&self, feed: impl AudioFeed + 'static) -> FeedId {
        let mut shared = self.lock();
        let id = FeedId(shared.next);
        shared.next += 1;
        if shared.feeds.len() < FEEDS_MAX {
            shared.feeds.insert(id, Box::new(feed));
        }
        id
    }

    /// Ends a feed; nothing if it has ended.
    pub fn remove(&self, id: FeedId) {
        self.lock().feeds.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The map is whole between calls, whatever a feed did.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AudioFeed for Mixer {
    fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
        let mut sums = vec![0i32; len];
        for feed in self.lock().feeds.values_mut() {
            let voice = feed.pull(now, len).to_mono();
            sums.iter_mut().zip(voice.data()).for_each(|(sum, &sample)| *sum += i32::from(sample));
        }
        Samples::mono(sums.into_iter().map(soft_limit).collect(), now)
    }
}

/// Leaves quiet sums alone and bends loud ones towards full scale, so that nothing crackles.
fn soft_limit(sum: i32) -> i16 {
    let over = sum.abs() - KNEE;
    if over <= 0 {
        return sum as i16;
    }
    let room = i32::from(i16::MAX) - KNEE;
    // Rises with slope 1 at the knee and approaches, never reaches, full scale: KNEE + room * over / (over + room).
    let bent = KNEE + (i64::from(room) * i64::from(over) / i64::from(over + room)) as i32;
    (bent * sum.signum()) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::{Tone, tone_level};

    struct Voice(Tone);

    impl AudioFeed for Voice {
        fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
            self.0.samples(len, now)
        }
    }

    #[test]
    fn every_voice_is_heard_until_removed() {
        let mut mixer = Mixer::new();
        assert_eq!(mixer.pull(MediaTime::ZERO, 960).data(), [0; 960]);
        let ids: Vec<FeedId> = [400.0, 700.0].map(|hz| mixer.add(Voice(Tone::new(hz, 0.3)))).into();
        let both = mixer.pull(MediaTime::ZERO, 4_800);
        assert!(
            (tone_level(both.data(), 400.0) - 0.3).abs() < 0.01
                && (tone_level(both.data(), 700.0) - 0.3).abs() < 0.01
        );
        mixer.remove(ids[0]);
        let one = mixer.pull(MediaTime::ZERO, 4_800);
        assert!(tone_level(one.data(), 400.0) < 0.01 && tone_level(one.data(), 700.0) > 0.29);
    }

    #[test]
    fn loud_sums_bend_and_keep_their_order() {
        let limited: Vec<i16> = (-200_000..200_000).step_by(7).map(soft_limit).collect();
        assert!(limited.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((soft_limit(20_000), soft_limit(-20_000)), (20_000, -20_000));
        assert!(soft_limit(i32::MAX / 2) > 32_700);
    }
}
