//! The layers of one track, and which of them a player should get.

use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{TrackInfo, TrackKind};

use super::cache::Cache;
use super::intake::Intake;
use crate::limits::{LAYER_SILENCE_MAX, Limits};

/// One track of a publication: a cache for each spatial layer.
#[derive(Debug)]
pub struct Track {
    kind: TrackKind,
    temporal_layers: u8,
    layers: Vec<Cache>,
    pub(super) intake: Intake,
    /// For each layer: frames of the track were lost since this layer's last frame.
    lost: Vec<bool>,
}

impl Track {
    /// A track without frames.
    pub fn new(info: &TrackInfo, limits: &Limits) -> Self {
        let count = usize::from(info.spatial_layers);
        Track {
            kind: info.kind,
            temporal_layers: info.temporal_layers,
            layers: (0..count).map(|_| Cache::new(limits)).collect(),
            intake: Intake::new(count == 1),
            lost: vec![false; count],
        }
    }

    /// What it carries.
    pub fn kind(&self) -> TrackKind {
        self.kind
    }

    /// How many spatial layers it has.
    pub fn spatial_layers(&self) -> u8 {
        self.layers.len() as u8
    }

    /// How many temporal layers it has.
    pub fn temporal_layers(&self) -> u8 {
        self.temporal_layers
    }

    /// The frames of one spatial layer.
    ///
    /// # Panics
    /// When `spatial` is not below [`spatial_layers`](Self::spatial_layers).
    pub fn layer(&self, spatial: u8) -> &Cache {
        &self.layers[usize::from(spatial)]
    }

    pub(super) fn layer_mut(&mut self, spatial: u8) -> &mut Cache {
        &mut self.layers[usize::from(spatial)]
    }

    /// Whether frames of the layer may have been lost since its last one; `lost` says that some of the track were
    /// just before this one. With it the layer is in doubt no longer, while all others are.
    pub(super) fn doubt(&mut self, spatial: u8, lost: bool) -> bool {
        if lost {
            self.lost.fill(true);
        }
        std::mem::take(&mut self.lost[usize::from(spatial)])
    }

    /// Lets go of frames that are too old by `now`.
    pub(super) fn evict(&mut self, now: Timestamp) {
        self.layers.iter_mut().for_each(|layer| layer.evict(now));
    }

    /// The highest spatial layer up to `wish` on which frames come; `None` while there is none.
    pub fn choose(&self, wish: u8, now: Timestamp) -> Option<u8> {
        let on_offer = |spatial: &u8| {
            let heard = self.layer(*spatial).heard();
            heard.is_some_and(|heard| now.saturating_since(heard) <= LAYER_SILENCE_MAX)
        };
        let top = wish.min(self.spatial_layers() - 1);
        (0..=top).rev().find(on_offer)
    }

    /// The same, but not the highest of all layers on which frames come, unless there is no other.
    pub fn choose_below_top(&self, wish: u8, now: Timestamp) -> Option<u8> {
        let top = self.choose(u8::MAX, now)?;
        let below = top.checked_sub(1).and_then(|below| self.choose(wish.min(below), now));
        below.or_else(|| self.choose(wish, now))
    }
}
