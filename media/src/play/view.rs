//! The two interfaces that take what a call brings, the one that gives sound, and the simplest of each.

use std::sync::{Arc, Mutex, PoisonError};

use crate::audio::AudioDecode;
use crate::frame::{MediaTime, Picture, Samples};
use crate::jitter::AudioPlayout;

/// Takes decoded pictures: an app's user interface implements it, one for each player.
pub trait View: Send {
    /// Shows `picture` now. Called from a media thread; must return soon and must not wait for that thread.
    fn show(&mut self, picture: &Picture);
}

impl<F: FnMut(&Picture) + Send> View for F {
    fn show(&mut self, picture: &Picture) {
        self(picture);
    }
}

/// Takes sound.
pub trait AudioSink: Send {
    /// Takes the next block; blocks follow each other without gaps.
    fn play(&mut self, samples: &Samples);
}

impl<F: FnMut(&Samples) + Send> AudioSink for F {
    fn play(&mut self, samples: &Samples) {
        self(samples);
    }
}

/// Gives sound, one block after the other: a playout buffer, or several mixed.
pub trait AudioFeed: Send {
    /// The next `len` samples per channel, mono or stereo; the first is heard at `now`. Silence if there is nothing.
    fn pull(&mut self, now: MediaTime, len: usize) -> Samples;
}

impl<D: AudioDecode + Send> AudioFeed for AudioPlayout<D> {
    fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
        AudioPlayout::pull(self, now, len)
    }
}

/// So that the network's side can push while the speaker's side pulls.
impl<F: AudioFeed> AudioFeed for Arc<Mutex<F>> {
    fn pull(&mut self, now: MediaTime, len: usize) -> Samples {
        // A feed is valid between calls; one that panicked is silent or worse, but not unsound.
        self.lock().unwrap_or_else(PoisonError::into_inner).pull(now, len)
    }
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullView;

impl View for NullView {
    fn show(&mut self, _picture: &Picture) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl AudioSink for NullSink {
    fn play(&mut self, _samples: &Samples) {}
}

/// Keeps the newest picture. Clones look at the same place: give one to the player and keep one.
#[derive(Clone, Debug, Default)]
pub struct LatestPicture {
    shared: Arc<Mutex<(Option<Picture>, u64)>>,
}

impl LatestPicture {
    /// Without a picture.
    pub fn new() -> LatestPicture {
        LatestPicture::default()
    }

    /// The newest picture; `None` before the first.
    pub fn get(&self) -> Option<Picture> {
        self.lock().0.clone()
    }

    /// How many pictures were shown so far.
    pub fn count(&self) -> u64 {
        self.lock().1
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<Picture>, u64)> {
        // Both fields are set without anything between that could panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for LatestPicture {
    fn show(&mut self, picture: &Picture) {
        let mut shared = self.lock();
        shared.0 = Some(picture.clone());
        shared.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_picture_is_seen_by_every_clone() {
        let mut view = LatestPicture::new();
        let eye = view.clone();
        assert!(eye.get().is_none());
        for n in 1..=3 {
            view.show(&Picture::filled(16, 16, [n, 0, 0], MediaTime::from_millis(n.into())).unwrap());
            assert_eq!((eye.count(), eye.get().unwrap().luma()[0]), (u64::from(n), n));
        }
    }

    #[test]
    fn a_closure_is_a_view() {
        let mut seen = 0;
        let mut view = |_: &Picture| seen += 1;
        View::show(&mut view, &Picture::filled(16, 16, [0; 3], MediaTime::ZERO).unwrap());
        assert_eq!(seen, 1);
    }
}
