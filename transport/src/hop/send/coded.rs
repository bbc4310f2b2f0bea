//! A frame together with the combinations made of it so far, so that coding it once serves every subscriber.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::repair::{Fault, RepairId};
use crate::wire::frame::Frame;

/// Combinations kept of one frame: those of a large frame at 20 % loss. What is beyond is made anew.
const MADE_MAX: usize = 48;

/// A frame to send. Clones share what is coded of it: a relay keeps one and hands clones to its connections.
#[derive(Clone, Debug)]
pub struct CodedFrame {
    frame: Frame,
    coded: Arc<Coded>,
}

impl From<Frame> for CodedFrame {
    fn from(frame: Frame) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        CodedFrame { frame, coded: Arc::new(Coded { id, made: Mutex::default() }) }
    }
}

impl Deref for CodedFrame {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.frame
    }
}

impl CodedFrame {
    /// How many combinations were made that end with this frame, and are kept.
    pub fn combinations(&self) -> usize {
        self.coded.made.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn coded(&self) -> &Arc<Coded> {
        &self.coded
    }
}

/// What is coded of one frame.
#[derive(Debug)]
pub(super) struct Coded {
    /// No other frame of this process has it.
    id: u64,
    made: Mutex<BTreeMap<Key, Bytes>>,
}

/// Which combination: the older frames in it, the slice and the repair id. It depends on nothing else.
type Key = (Vec<u64>, usize, RepairId);

impl Coded {
    /// The combination of this frame with `older` ones, made by `make` unless it is here.
    pub(super) fn get_or_make<'a>(
        self: &Arc<Self>,
        older: impl Iterator<Item = &'a Arc<Coded>>,
        slice: usize,
        id: RepairId,
        make: impl FnOnce() -> Result<Bytes, Fault>,
    ) -> Result<Bytes, Fault> {
        // Nobody else has the frame: it is the publisher's, and is coded once as it is.
        if Arc::strong_count(self) == 1 {
            return make();
        }
        let key = (older.map(|coded| coded.id).collect(), slice, id);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = made.get(&key) {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        if made.len() < MADE_MAX {
            made.insert(key, bytes.clone());
        }
        Ok(bytes)
    }
}
