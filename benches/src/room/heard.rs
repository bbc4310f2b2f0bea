//! What members are told, decoded once for all that live on a thread: a load of thousands would spend half its time on decoding
//! the same few bytes again and again, and have the relay wait for it. Each still receives all of them on its own connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::wire::WireError;
use parlor_transport::wire::control::{Message, RoomMessage};

/// Messages kept: those of some seconds.
const KNOWN_MAX: usize = 2048;
/// Larger ones, pages of snapshots, are not kept.
const BODY_MAX: usize = 1024;

thread_local! {
    static KNOWN: RefCell<BTreeMap<Bytes, (u64, Heard)>> = RefCell::default();
}

/// A message that others may have heard before.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<RoomMessage>);

impl std::ops::Deref for Heard {
    type Target = RoomMessage;

    fn deref(&self) -> &RoomMessage {
        &self.0
    }
}

impl Message for Heard {
    fn to_parts(&self) -> (u64, Bytes) {
        self.0.to_parts()
    }

    fn from_parts(kind: u64, body: Bytes) -> Result<Option<Self>, WireError> {
        let decode = |body| Ok(RoomMessage::from_parts(kind, body)?.map(|message| Heard(Arc::new(message))));
        if body.len() > BODY_MAX {
            return decode(body);
        }
        KNOWN.with_borrow_mut(|known| {
            if let Some((_, heard)) = known.get(&body).filter(|(other, _)| *other == kind) {
                return Ok(Some(heard.clone()));
            }
            let heard = decode(body.clone())?;
            if let Some(heard) = &heard {
                if known.len() == KNOWN_MAX {
                    known.clear();
                }
                // What came is part of a larger buffer.
                known.insert(Bytes::copy_from_slice(&body), (kind, heard.clone()));
            }
            Ok(heard)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_transport::wire::control::RoomCount;

    #[test]
    fn what_was_heard_before_is_the_same_and_kinds_are_not_mixed_up() {
        let message = RoomMessage::Count(RoomCount { users: 3 });
        let (kind, body) = message.to_parts();
        let first = Heard::from_parts(kind, body.clone()).unwrap().unwrap();
        let again = Heard::from_parts(kind, body.clone()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first.0, &again.0) && *first == message);
        assert!(Heard::from_parts(0x3fff, body).unwrap().is_none(), "an unknown kind");
        assert!(Heard::from_parts(kind, Bytes::new()).is_err());
    }
}
