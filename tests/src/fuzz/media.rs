//! Frames, hop headers, media packets and reports: any bytes give a value or an error, and values read back.

use bytes::{Bytes, BytesMut};
use parlor_transport::repair::{Decoder, Output, RepairId, SourceBlock, Window, encode_repair};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::feedback::Feedback;
use parlor_transport::wire::frame::{Frame, LAYERS_MAX, METADATA_MAX, TRACKS_MAX};
use parlor_transport::wire::hop::{DATAGRAM_MAX, HopHeader, LANE_MAX};
use parlor_transport::wire::packet::{BURST_MAX, PARTS_MAX, Packet, Part};
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

/// The input is a media packet.
pub(super) fn packets(input: &[u8]) {
    let Ok(packet) = Packet::decode(Bytes::copy_from_slice(input)) else { return };
    assert!(input.len() <= DATAGRAM_MAX);
    assert!((1..=PARTS_MAX).contains(&packet.parts.len()) && packet.burst <= BURST_MAX);
    let is_gone = |part: &Part| matches!(part, Part::Gone { .. });
    assert!(packet.parts.iter().all(|part| part.bytes().is_empty() == is_gone(part)));

    let anew = packet.encode();
    assert!(anew.len() <= Packet::HEAD_MAX + packet.parts.iter().map(Part::size).sum::<usize>());
    assert!(anew.len() < input.len() || anew == input);
    assert_eq!(Packet::decode(anew), Ok(packet));
}

/// The input says which symbols are lost (16 bits) and is, twenty times over, two frames of one track. If
/// enough combinations come for what is lost, both frames come out; if not, what comes out is right.
pub(super) fn repair(input: &[u8]) {
    let Some((lost, content)) = input.split_first_chunk() else { return };
    let lost = u16::from_be_bytes(*lost);
    if content.is_empty() || content.len() > 800 {
        return;
    }
    let older = SourceBlock::new(content.repeat(20).into()).expect("not empty");
    let newer = SourceBlock::new(content[content.len() / 2..].repeat(10).into()).expect("not empty");
    let frames = [&newer, &older];
    let window = Window::new(8, frames.map(|frame| Some(frame.shape())), 0).expect("at most 24 symbols");

    let mut decoder = Decoder::default();
    let mut missing = 0;
    for (place, (frame, index)) in window.symbols().enumerate() {
        if lost >> (place % 16) & 1 == 1 {
            missing += 1;
            continue;
        }
        let block = if frame == 8 { &newer } else { &older };
        let taken = decoder.handle_source(frame, block.shape(), index, block.symbol(index));
        taken.expect("what is true contradicts nothing");
    }
    let mut id = RepairId::default();
    for _ in 0..missing {
        let symbol = encode_repair(frames, 0, id).expect("the window is one");
        decoder.handle_repair(&window, id, &symbol).expect("what is true contradicts nothing");
        id = id.next();
    }
    let mut whole = 0;
    while let Some(output) = decoder.poll_output() {
        let Output::Frame { frame, block } = output else { continue };
        assert_eq!(&block, if frame == 8 { &newer } else { &older });
        whole += 1;
    }
    assert_eq!(whole, 2, "{missing} combinations repair {missing} losses");
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
