//! Frames, hop headers and media datagrams: any bytes give a value or an error, and values read back.

use bytes::{BufMut, Bytes, BytesMut};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::feedback::Feedback;
use parlor_transport::wire::frame::{Frame, LAYERS_MAX, METADATA_MAX, TRACKS_MAX};
use parlor_transport::wire::hop::{DATAGRAM_MAX, FRAGMENTS_MAX, Fragment, HopHeader, LANE_MAX, fragments};
use parlor_transport::wire::varint;

/// The input is an object. Nothing of it is lost, and what it says of itself is within bounds.
pub(super) fn frames(input: &[u8]) {
    let object = Bytes::copy_from_slice(input);
    let Ok(frame) = Frame::decode(object.clone()) else { return };
    assert_eq!(frame.object(), &object);
    let header = frame.header();
    assert!(header.track < TRACKS_MAX && header.spatial < LAYERS_MAX && header.temporal < LAYERS_MAX);
    assert!(header.metadata.len() <= METADATA_MAX);

    let anew = Frame::new(header.clone(), &frame.payload()).expect("what was read may be written");
    assert_eq!((anew.header(), anew.payload()), (header, frame.payload()));
    assert_eq!(Frame::decode(anew.object().clone()).as_ref(), Ok(&anew));
    // Only a number that was written with more bytes than it needs makes a difference.
    assert!(anew.object().len() < object.len() || anew.object() == &object);
}

/// The input begins with a hop header.
pub(super) fn hop_headers(input: &[u8]) {
    let mut rest = Bytes::copy_from_slice(input);
    let Ok(hop) = HopHeader::decode(&mut rest) else { return };
    assert!(hop.lane <= LANE_MAX && hop.track < TRACKS_MAX);
    let read = input.len() - rest.len();
    assert_eq!(&input[read..], &rest[..]);

    let mut anew = BytesMut::new();
    hop.encode(&mut anew);
    assert!(anew.len() < read || anew[..] == input[..read]);
    assert_eq!(HopHeader::decode(&mut anew.freeze()), Ok(hop));
}

/// The input is a media datagram.
pub(super) fn datagrams(input: &[u8]) {
    let Ok(fragment) = Fragment::decode(Bytes::copy_from_slice(input)) else { return };
    assert!(input.len() <= DATAGRAM_MAX);
    assert!(fragment.index < fragment.count && fragment.count <= FRAGMENTS_MAX);
    assert!(!fragment.bytes.is_empty() && input.ends_with(&fragment.bytes));

    let mut anew = BytesMut::from(&input[..1]);
    fragment.hop.encode(&mut anew);
    varint::put(&mut anew, fragment.index);
    varint::put(&mut anew, fragment.count);
    anew.put_slice(&fragment.bytes);
    assert!(anew.len() < input.len() || anew[..] == input[..]);
    assert_eq!(Fragment::decode(anew.freeze()), Ok(fragment));
}

/// The input is a hop header and an object, which goes into datagrams and comes out again. The object
/// stands twenty times, so that it has several fragments.
pub(super) fn fragmentation(input: &[u8]) {
    let mut rest = Bytes::copy_from_slice(input);
    let Ok(hop) = HopHeader::decode(&mut rest) else { return };
    if rest.is_empty() {
        return;
    }
    let object: Bytes = rest.repeat(20).into();
    let datagrams = fragments(hop, &object);
    let count = datagrams.len() as u64;
    let mut joined = BytesMut::new();
    for (index, datagram) in datagrams.enumerate() {
        let fragment = Fragment::decode(datagram).expect("our own datagrams are within their bounds");
        assert_eq!((fragment.hop, fragment.index, fragment.count), (hop, index as u64, count));
        joined.extend_from_slice(&fragment.bytes);
    }
    assert_eq!(joined, object);
}

/// The input is a report of what was received. Times that would lie before the origin are rounded to it.
pub(super) fn feedback(input: &[u8]) {
    let Ok(feedback) = Feedback::decode(Bytes::copy_from_slice(input)) else { return };
    let written = feedback.encode();
    assert!(written.len() <= DATAGRAM_MAX);
    let again = Feedback::decode(written).expect("what was read may be written");
    let reach = std::time::Duration::from_secs(2 * 255 + 60);
    assert!(again == feedback || feedback.arrived.saturating_since(Timestamp::ZERO) < reach);
    assert_eq!(again.packets().count(), feedback.packets().count());
    assert_eq!((again.highest, again.lost, again.frames), (feedback.highest, feedback.lost, feedback.frames));
}

/// The input begins with a varint of RFC 9000.
pub(super) fn varints(input: &[u8]) {
    let mut rest = input;
    let Ok(value) = varint::get(&mut rest, "value") else {
        assert_eq!(rest, input, "an error takes nothing");
        return;
    };
    assert!(value <= varint::MAX);
    let mut anew = Vec::new();
    varint::put(&mut anew, value);
    assert_eq!(anew.len(), varint::size(value));
    assert!(anew.len() < input.len() - rest.len() || input.starts_with(&anew));
    assert_eq!(varint::get(&mut &anew[..], "value"), Ok(value));

    let mut bounded = input;
    assert!(varint::get_bounded(&mut bounded, "value", value).is_ok());
    assert!(value == 0 || varint::get_bounded(&mut &input[..], "value", value - 1).is_err());
}
