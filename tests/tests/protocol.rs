//! If this fails, `docs/protocol.md` and the code no longer say the same: a client written by the document
//! would not be understood.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use parlor_relay::limits;
use parlor_tests::protocol::{Document, Example, Outcome, bytes as bytes_of, normal, number};
use parlor_transport::address::PORT_DEFAULT;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::hop::HopReceiver;
use parlor_transport::hop::receive::{HOLD_DATAGRAM, HOLD_ELSEWHERE, HOLD_QUIC_STREAM};
use parlor_transport::id::{AppId, RoomId, StreamAlias, StreamId, UserId, UserName};
use parlor_transport::quic::media::FRAME_AGE_MAX;
use parlor_transport::quic::{Options, QUIC_STREAMS_FIRST};
use parlor_transport::repair::code::{
    SYMBOL_BYTES_MAX, SYMBOLS_MAX, WINDOW_FRAMES_MAX, WINDOW_SYMBOLS_MAX, coefficient,
};
use parlor_transport::repair::{RepairId, SourceBlock, encode_repair};
use parlor_transport::token::Token;
use parlor_transport::units::Timestamp;
use parlor_transport::wire::WireError;
use parlor_transport::wire::control::*;
use parlor_transport::wire::feedback::{
    DEFICIT_MAX, FRAMES_MAX, Feedback, HOLD_MAX, KIND_FEEDBACK, OLDER_MAX, STEP_MAX, TAIL_MAX,
};
use parlor_transport::wire::frame::{Frame, FrameHeader, LAYERS_MAX, METADATA_MAX, OBJECT_MAX, TRACKS_MAX};
use parlor_transport::wire::hop::{DATAGRAM_MAX, HopHeader, LANE_MAX};
use parlor_transport::wire::packet::{BURST_MAX, KIND_PACKET, PARTS_MAX, Packet, Part};
use parlor_transport::wire::varint;

#[test]
fn every_example_reads_as_it_says_and_is_written_as_it_stands() {
    let document = Document::read();
    assert!(document.examples.len() > 40, "the document lost its examples");
    for example in &document.examples {
        let place = format!("docs/protocol.md:{}: {} {}", example.line, example.group, example.name);
        match (read(example), &example.outcome) {
            (Ok((value, written)), Outcome::Value(expected)) => {
                assert_eq!(&normal(&value), expected, "{place}");
                assert_eq!(
                    written != example.bytes,
                    example.is_one_way,
                    "{place}: written as {written:02x?}"
                );
            }
            (Err(error), Outcome::Refused(expected)) => {
                let code = error.code();
                assert_eq!(&format!("{} {code:?}", code.number()), expected, "{place}: {error}");
            }
            (read, expected) => panic!("{place}: {read:?} where the document says {expected:?}"),
        }
    }
}

#[test]
fn every_message_type_has_its_row_its_fields_and_an_example() {
    let document = Document::read();
    let types = document.table(&["type", "name", "QUIC stream"]);
    let mut rows: BTreeMap<&str, BTreeMap<u64, String>> = BTreeMap::new();
    for row in &types.rows {
        let group = match (row[2].as_str(), row[3].as_str()) {
            ("Requests", "client") => "client",
            ("Requests", "relay") => "relay",
            ("Events", "relay") => "room",
            ("AppMessages", "client" | "relay") => "app",
            (stream, from) => panic!("a message from {from} on {stream}"),
        };
        rows.entry(group).or_default().insert(number(&row[0]), row[1].clone());
    }
    let mut examples: BTreeMap<&str, BTreeMap<u64, String>> = BTreeMap::new();
    for example in &document.examples {
        let Outcome::Value(value) = &example.outcome else { continue };
        if !rows.contains_key(example.group.as_str()) || example.is_one_way {
            continue;
        }
        assert!(value.starts_with(&format!("{}(", example.name)), "{} is called {}", value, example.name);
        let kind = varint::get(&mut &example.bytes[..], "type").unwrap();
        examples.entry(&example.group).or_default().insert(kind, example.name.clone());
        // Its payload is no field: see the section on app messages.
        if example.group != "app" {
            assert_eq!(
                documented_fields(&document, &example.name),
                fields(value),
                "fields of {}",
                example.name
            );
        }
    }
    assert_eq!(rows, examples, "the table of types and the examples");
    for (group, known) in [
        ("client", known_types::<ClientMessage>()),
        ("relay", known_types::<RelayMessage>()),
        ("room", known_events()),
        ("app", known_types::<AppMessage>()),
    ] {
        assert_eq!(rows[group].keys().copied().collect::<BTreeSet<_>>(), known, "types on {group}");
    }
}

#[test]
fn structures_have_the_fields_of_their_tables() {
    let document = Document::read();
    let values = document.examples.iter().filter_map(|example| match &example.outcome {
        Outcome::Value(value) => Some(value.as_str()),
        Outcome::Refused(_) => None,
    });
    let values: Vec<_> = values.collect();
    for name in ["TrackInfo", "TrackWish", "EventStamp", "TrackStatus", "StreamExtra", "RoomExtra"] {
        let start = format!("{name} {{");
        let value = values.iter().find_map(|value| value.find(&start).map(|at| &value[at..])).unwrap();
        assert_eq!(documented_fields(&document, name), fields(value), "fields of {name}");
    }
}

#[test]
fn codes_are_those_of_the_code() {
    let document = Document::read();
    let written: Vec<Vec<String>> = document.table(&["number", "name", "retryable", "text"]).rows.clone();
    let known: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            let retryable = if code.is_retryable() { "yes" } else { "no" };
            vec![code.number().to_string(), format!("{code:?}"), retryable.to_owned(), code.text().to_owned()]
        })
        .collect();
    assert_eq!(written, known);
}

#[test]
fn limits_are_those_of_the_code_wherever_they_are_named() {
    let document = Document::read();
    let millis = |duration: Duration| duration.as_millis() as u64;
    let held = HopLimits::found();
    let relay = limits::Limits::default();
    let known: BTreeMap<&str, u64> = [
        ("AGENT_MAX", AGENT_MAX as u64),
        ("BURST_MAX", BURST_MAX),
        ("DEFICIT_MAX", DEFICIT_MAX),
        ("FRAMES_MAX", FRAMES_MAX as u64),
        ("HOLD_MAX", HOLD_MAX.as_micros() as u64),
        ("OLDER_MAX", OLDER_MAX as u64),
        ("PARTS_MAX", PARTS_MAX as u64),
        ("REPAIR_IDS", RepairId::COUNT.into()),
        ("STEP_MAX", STEP_MAX as u64),
        ("SYMBOLS_MAX", SYMBOLS_MAX as u64),
        ("SYMBOL_BYTES_MAX", SYMBOL_BYTES_MAX as u64),
        ("TAIL_MAX", TAIL_MAX),
        ("WINDOW_FRAMES_MAX", WINDOW_FRAMES_MAX as u64),
        ("WINDOW_SYMBOLS_MAX", WINDOW_SYMBOLS_MAX as u64),
        ("APP_MESSAGE_MAX", APP_MESSAGE_MAX as u64),
        ("BODY_MAX", BODY_MAX as u64),
        ("CODEC_MAX", CODEC_MAX as u64),
        ("DATAGRAM_MAX", DATAGRAM_MAX as u64),
        ("ENTRIES_MAX", ENTRIES_MAX as u64),
        ("FRAME_AGE_MAX", millis(FRAME_AGE_MAX)),
        ("HELD_BYTES_MAX", held.bytes),
        ("HELD_FRAMES_MAX", held.frames),
        ("HOLD_DATAGRAM", millis(HOLD_DATAGRAM)),
        ("HOLD_ELSEWHERE", millis(HOLD_ELSEWHERE)),
        ("HOLD_QUIC_STREAM", millis(HOLD_QUIC_STREAM)),
        ("LANE_MAX", LANE_MAX.into()),
        ("LISTED_MAX", LISTED_MAX as u64),
        ("MESSAGE_BURST_MAX", relay.message_burst_max.into()),
        ("MESSAGE_COST_PER_SECOND_MAX", relay.message_cost_per_second_max.into()),
        ("LAYERS_MAX", LAYERS_MAX.into()),
        ("METADATA_MAX", METADATA_MAX as u64),
        ("OBJECT_MAX", OBJECT_MAX as u64),
        ("PAGE_BYTES_MAX", limits::PAGE_BYTES_MAX as u64),
        ("PORT_DEFAULT", PORT_DEFAULT.into()),
        ("QUIC_STREAMS_FIRST", u64::from(QUIC_STREAMS_FIRST)),
        ("QUIC_STREAMS_MAX", u64::from(QUIC_STREAMS_FIRST + Options::default().frames_in_flight_max)),
        ("REFUSAL_TEXT_MAX", Refusal::TEXT_MAX as u64),
        ("REQUESTS_BURST_MAX", relay.requests_burst_max.into()),
        ("REQUESTS_PER_SECOND_MAX", relay.requests_per_second_max.into()),
        ("TOKEN_CHECK_COST", limits::TOKEN_CHECK_COST.into()),
        ("TOKEN_BYTES_MAX", Token::BYTES_MAX as u64),
        ("STREAM_INFO_MAX", STREAM_INFO_MAX as u64),
        ("ROOM_INFO_KEY_MAX", ROOM_INFO_KEY_MAX as u64),
        ("ROOM_INFO_VALUE_MAX", ROOM_INFO_VALUE_MAX as u64),
        ("ROOM_INFO_KEYS_MAX", limits::ROOM_INFO_KEYS_MAX as u64),
        ("TRACKS_MAX", TRACKS_MAX.into()),
        ("TRACKS_PER_STREAM_MAX", TRACKS_PER_STREAM_MAX as u64),
        ("VERSION", VERSION.into()),
        ("VERSION_MIN", VERSION_MIN.into()),
    ]
    .into();
    let rows = &document.table(&["limit", "value"]).rows;
    let written: BTreeMap<&str, u64> = rows.iter().map(|row| (row[0].as_str(), number(&row[1]))).collect();
    assert_eq!(written, known);

    // In the text they stand as `NAME` = value.
    let mut named = 0;
    for (at, _) in document.text.match_indices("` = ") {
        let name = document.text[..at].rsplit('`').next().unwrap_or_default();
        let value: String =
            document.text[at + 4..].chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        if let Some(&limit) = known.get(name) {
            assert_eq!(number(value.trim_end_matches(',')), limit, "{name} in the text");
            named += 1;
        }
    }
    assert!(named > 20, "limits are named in the text, not only in their table: {named}");

    let names: Vec<_> = document.table(&["name", "bytes", "characters"]).rows.clone();
    let names: Vec<_> = names.iter().map(|row| row[1].as_str()).collect();
    let max =
        [AppId::BYTES_MAX, RoomId::BYTES_MAX, UserId::BYTES_MAX, UserName::BYTES_MAX, StreamId::BYTES_MAX];
    let known: Vec<_> = (max.iter().zip([1, 1, 1, 0, 1])).map(|(max, min)| format!("{min}–{max}")).collect();
    assert_eq!(names, known);
}

#[test]
fn numbers_are_encoded_as_in_their_tables() {
    let document = Document::read();
    let varints = document.table(&["value", "bytes as a varint"]).columns(0, 1);
    for (value, encoded) in &varints {
        let (value, encoded) = (number(value), bytes_of(encoded));
        let mut written = Vec::new();
        varint::put(&mut written, value);
        assert_eq!(written, encoded);
        assert_eq!(varint::get(&mut &encoded[..], "value"), Ok(value));
    }
    let integers = document.table(&["value", "bytes as an integer"]).columns(0, 1);
    for (value, encoded) in &integers {
        let message = ClientMessage::ProbeClock(ProbeClock { sent: Timestamp::from_micros(number(value)) });
        assert_eq!(message.to_parts().1, bytes_of(encoded), "{value}");
    }
    assert!(varints.len() >= 8 && integers.len() >= 8);
    // Any form is read, if it is no wider than the field: here a u32.
    let leave = |body: &'static [u8]| ClientMessage::from_parts(0x03, Bytes::from_static(body));
    let nine = Ok(Some(ClientMessage::Leave(Leave { request: 9 })));
    assert_eq!(leave(&[252, 9, 0, 0, 0]), nine);
    assert!(
        leave(&[253, 9, 0, 0, 0, 0, 0, 0, 0]).is_err() && leave(&[254, 9]).is_err() && leave(&[255]).is_err()
    );
    assert_eq!(varint::get(&mut &[0x40, 9][..], "value"), Ok(9));
}

#[test]
fn kinds_and_enumerations_are_those_of_the_code() {
    let document = Document::read();
    let written = document.table(&["kind", "name", "QUIC stream"]).columns(0, 1);
    let written: BTreeMap<u8, String> =
        written.into_iter().map(|(kind, name)| (number(&kind) as u8, name)).collect();
    let known = (0..=255).filter_map(|kind| Some((kind, format!("{:?}", StreamKind::from_byte(kind)?))));
    assert_eq!(written, known.collect());

    let datagrams = document.table(&["datagram", "name"]).columns(0, 1);
    let datagrams: Vec<_> = datagrams.keys().map(|kind| number(kind) as u8).collect();
    assert_eq!(datagrams, [KIND_PACKET, KIND_FEEDBACK]);

    // A Publish of one track: the kind of track and the delivery are the bytes that vary.
    let publish = |kind: u8, delivery: u8| {
        let body = vec![1, 1, b's', 1, kind, 0, 1, 1, delivery];
        ClientMessage::from_parts(0x04, body.into()).map(|message| match message {
            Some(ClientMessage::Publish(publish)) => (publish.tracks[0].kind, publish.delivery),
            other => panic!("{other:?}"),
        })
    };
    let numbered = |name: &str| -> BTreeMap<u8, String> {
        let columns = document.table(&[name, "number"]).columns(1, 0);
        columns.into_iter().map(|(value, name)| (number(&value) as u8, name)).collect()
    };
    let kinds = (0..=250).filter_map(|n| Some((n, format!("{:?}", publish(n, 0).ok()?.0))));
    assert_eq!(numbered("TrackKind"), kinds.collect());
    let deliveries = (0..=250).filter_map(|n| Some((n, format!("{:?}", publish(0, n).ok()?.1))));
    assert_eq!(numbered("Delivery"), deliveries.collect());
    let departures = (0..=255).map(|n| (n, Departure::from_number(n)));
    let departures = departures.filter(|(_, departure)| !matches!(departure, Departure::Other(_)));
    assert_eq!(
        numbered("Departure"),
        departures.map(|(n, departure)| (n, format!("{departure:?}"))).collect()
    );
    let states = (0..=255).map(|n| (n, TrackState::from_number(n)));
    let states = states.filter(|(_, state)| !matches!(state, TrackState::Other(_)));
    assert_eq!(numbered("TrackState"), states.map(|(n, state)| (n, format!("{state:?}"))).collect());
}

/// Reads an example's bytes; gives the value's `Debug` form and the bytes it is written as.
fn read(example: &Example) -> Result<(String, Vec<u8>), WireError> {
    let object = Bytes::copy_from_slice(&example.bytes);
    match example.group.as_str() {
        "client" => read_message::<ClientMessage>(&object),
        "relay" => read_message::<RelayMessage>(&object),
        "room" => read_message::<RoomMessage>(&object),
        "app" => read_message::<AppMessage>(&object),
        "frame" => read_frame(object),
        "hop" => {
            let mut rest = object;
            let hop = HopHeader::decode(&mut rest)?;
            assert!(rest.is_empty(), "{rest:?} left over");
            let mut written = Vec::new();
            hop.encode(&mut written);
            Ok((format!("{hop:?}"), written))
        }
        "quic-stream" => {
            let mut rest = object.slice(1..);
            assert_eq!(StreamKind::from_byte(object[0]), Some(StreamKind::Frame));
            let hop = HopHeader::decode(&mut rest)?;
            let (frame, object) = read_frame(rest)?;
            let mut written = vec![StreamKind::Frame as u8];
            hop.encode(&mut written);
            written.extend(object);
            Ok((format!("{hop:?} {frame}"), written))
        }
        "packet" => {
            let packet = Packet::decode(object)?;
            let parts: Vec<_> = packet.parts.iter().map(part_in_words).collect();
            let Packet { tx_seq, burst, is_calm, .. } = packet;
            let head = format!("Packet {{ tx_seq: {tx_seq}, burst: {burst}, is_calm: {is_calm} }}");
            Ok((format!("{head} {}", parts.join(" ")), packet.encode().to_vec()))
        }
        "report" => {
            let report = Feedback::decode(object)?;
            Ok((format!("{report:?}"), report.encode().to_vec()))
        }
        group => panic!("line {}: nobody reads a {group}", example.line),
    }
}

fn part_in_words(part: &Part) -> String {
    match part {
        Part::Source { hop, shape, index, bytes } => {
            let length = shape.length();
            format!("Source {{ hop: {hop:?}, length: {length}, index: {index}, bytes: {bytes:?} }}")
        }
        Part::Gone { hop } => format!("Gone {{ hop: {hop:?} }}"),
        Part::Repair { hop, window, id, bytes } => {
            let frames: Vec<_> = window.frames().map(|(frame, shape)| (frame, shape.length())).collect();
            let (slice, id) = (window.slice(), id.get());
            format!(
                "Repair {{ hop: {hop:?}, frames: {frames:?}, slice: {slice}, id: {id}, bytes: {bytes:?} }}"
            )
        }
    }
}

fn read_message<M: Message + Debug>(bytes: &[u8]) -> Result<(String, Vec<u8>), WireError> {
    let mut reader = MessageReader::default();
    reader.push(bytes);
    let message: M = reader.read()?.expect("an example is a whole message");
    assert!(!reader.is_mid_message(), "an example is one message");
    Ok((format!("{message:?}"), encode(&message).to_vec()))
}

fn read_frame(object: Bytes) -> Result<(String, Vec<u8>), WireError> {
    let frame = Frame::decode(object)?;
    let written = Frame::new(frame.header().clone(), &frame.payload())?;
    Ok((format!("{:?} payload {:?}", frame.header(), frame.payload()), written.object().to_vec()))
}

/// The types that a set of messages knows: an unknown one is skipped whatever is in it.
fn known_types<M: Message>() -> BTreeSet<u64> {
    (0..1 << 14).filter(|&kind| !matches!(M::from_parts(kind, Bytes::new()), Ok(None))).collect()
}

/// The types of the room: of an unknown event a stamp is all that is read.
fn known_events() -> BTreeSet<u64> {
    let stamp = Bytes::from_static(&[0; 4]);
    let is_known = |kind: &u64| {
        !matches!(RoomMessage::from_parts(*kind, stamp.clone()), Ok(None | Some(RoomMessage::Unknown(_))))
    };
    let is_event = |kind: &u64| {
        matches!(RoomMessage::from_parts(*kind, stamp.clone()), Ok(Some(RoomMessage::Unknown(_))))
    };
    assert_eq!((0..1 << 14).filter(is_event).collect::<Vec<_>>(), (0x48..=0x5f).collect::<Vec<_>>());
    (0..1 << 14).filter(is_known).collect()
}

/// The fields that the table headed by `name` lists.
fn documented_fields(document: &Document, name: &str) -> Vec<String> {
    document.table(&[name, "encoding"]).rows.iter().map(|row| row[0].clone()).collect()
}

/// The fields of the first structure in a value's `Debug` form.
fn fields(value: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let (mut depth, mut word, mut in_text) = (0, String::new(), false);
    for c in value.chars() {
        match c {
            '"' => in_text = !in_text,
            _ if in_text => {}
            '{' | '[' | '(' => {
                // A message is its structure in parentheses.
                depth += usize::from(c != '(' || depth > 0);
                word.clear();
            }
            '}' | ']' | ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            ':' if depth == 1 => fields.push(std::mem::take(&mut word)),
            c if c.is_alphanumeric() || c == '_' => word.push(c),
            _ => word.clear(),
        }
    }
    fields
}

/// How much a receiver holds while an earlier frame is missing, found by trying.
struct HopLimits {
    frames: u64,
    bytes: u64,
}

impl HopLimits {
    fn found() -> Self {
        HopLimits { frames: held_objects(1), bytes: held_objects(OBJECT_MAX) * OBJECT_MAX as u64 }
    }
}

/// How many objects of about `size` are held behind a gap before it is given up.
fn held_objects(size: usize) -> u64 {
    let mut receiver = HopReceiver::default();
    receiver.open_lane(1, Delivery::QuicStream);
    let object = frame_of(size).object().clone();
    (1..)
        .find(|&sequence| {
            let hop = HopHeader { lane: 1, track: 0, sequence };
            receiver.handle_object(Timestamp::ZERO, hop, object.clone()).expect("a frame");
            receiver.poll_output().is_some()
        })
        .map_or(0, |first_too_many| first_too_many - 1)
}

/// A frame whose object has `size` bytes, or as few as it can.
fn frame_of(size: usize) -> Frame {
    let header = FrameHeader {
        alias: StreamAlias(1),
        track: 0,
        spatial: 0,
        temporal: 0,
        number: 0,
        captured: Timestamp::ZERO,
        keyframe: true,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    let empty = Frame::new(header.clone(), b"").expect("within its bounds");
    Frame::new(header, &vec![0; size.saturating_sub(empty.object().len())]).expect("within its bounds")
}

/// The symbols of the examples are those of the frames in the examples, cut and combined as the text says.
#[test]
fn the_packets_of_the_examples_carry_its_frames() {
    let document = Document::read();
    let example = |name: &str| {
        let found = document.examples.iter().find(|example| example.name == name);
        Bytes::copy_from_slice(&found.unwrap_or_else(|| panic!("no example {name}")).bytes)
    };
    let packet = |name: &str| Packet::decode(example(name)).unwrap();
    let block = |name: &str| SourceBlock::new(example(name)).unwrap();
    let (audio, next) = (block("Audio"), block("NextAudio"));
    assert_eq!(packet("Sound").parts[0].bytes(), &audio.symbol(0));
    let [source, Part::Repair { id, bytes, .. }] = &packet("SoundAndRepair").parts[..] else {
        panic!("a source and a repair symbol");
    };
    assert_eq!(source.bytes(), &next.symbol(0));
    assert_eq!(bytes, &encode_repair([&next, &audio], 0, *id).unwrap());
    for row in &document.table(&["repair id", "place", "coefficient"]).rows {
        let id = RepairId::new(number(&row[0]) as u8).unwrap();
        assert_eq!(vec![coefficient(id, number(&row[1]) as usize)], bytes_of(&row[2]), "{row:?}");
    }
    assert!(RepairId::new(RepairId::COUNT).is_err());
}
