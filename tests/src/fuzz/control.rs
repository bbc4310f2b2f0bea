//! Control QUIC streams: any bytes, in any pieces.

use std::fmt::Debug;

use parlor_transport::wire::WireError;
use parlor_transport::wire::control::{Message, MessageReader, encode};

/// The first byte is how the stream is cut into pieces, the rest is the stream (after its kind byte).
///
/// The pieces do not matter: one after the other gives the same messages, and the same end, as all at
/// once. What was understood reads back the same after it was encoded anew.
pub(super) fn stream<M: Message + PartialEq + Debug>(input: &[u8]) {
    let Some((&piece, stream)) = input.split_first() else { return };

    let mut messages = Vec::new();
    let end = read(stream.chunks(stream.len().max(1)), |message: M| messages.push(message));

    let mut again = messages.iter();
    let end_again = read(stream.chunks(usize::from(piece) + 1), |message: M| {
        assert_eq!(Some(&message), again.next());
    });
    assert_eq!((again.next(), end_again), (None, end));

    for message in &messages {
        let mut copies = 0;
        let end = read([&encode(message)[..]].into_iter(), |copy: M| {
            assert_eq!(&copy, message);
            copies += 1;
        });
        assert_eq!((copies, end), (1, Ok(false)));
    }
}

/// Reads a stream that comes in `pieces`. The result is how it ended: within a message or between two, or
/// where it could not be read any further.
fn read<'a, M: Message>(
    pieces: impl Iterator<Item = &'a [u8]>,
    mut message: impl FnMut(M),
) -> Result<bool, WireError> {
    let mut reader = MessageReader::default();
    for piece in pieces {
        reader.push(piece);
        while let Some(read) = reader.read()? {
            message(read);
        }
    }
    Ok(reader.is_mid_message())
}
