//! Control messages as bytes: what reads back, what is skipped, what is refused.

use super::*;
use crate::error::Code;
use crate::id::{AppId, LoginId, RoomId, StreamId, UserId, UserName};
use crate::token::Token;
use crate::wire::WireError;

fn join() -> ClientMessage {
    ClientMessage::Join(Join {
        request: 1,
        app: AppId::dev(),
        room: RoomId::new("standup").unwrap(),
        user: UserId::new("u1").unwrap(),
        name: UserName::new("Ann").unwrap(),
        login: LoginId([7; 16]),
        token: Some(Token::new("a.b.c").unwrap()),
        presence: Presence { uninterested: true, ..Presence::default() },
    })
}

fn read_one<M: Message>(bytes: &[u8]) -> Result<Option<M>, WireError> {
    let mut reader = MessageReader::default();
    reader.push(bytes);
    reader.read()
}

#[test]
fn a_message_reads_back_and_is_waited_for_byte_by_byte() {
    let bytes = encode(&join());
    let mut reader = MessageReader::default();
    for (at, byte) in bytes.iter().enumerate() {
        reader.push(&[*byte]);
        let message = reader.read::<ClientMessage>().unwrap();
        assert_eq!(message.is_some(), at + 1 == bytes.len(), "after byte {at}");
        assert!(message.is_none_or(|m| m == join()));
    }
    assert!(!reader.is_mid_message());
}

#[test]
fn unknown_types_are_skipped_and_longer_bodies_read() {
    let mut bytes = vec![0x3f, 3, 1, 2, 3];
    let (kind, body) = join().to_parts();
    bytes.extend([kind as u8, body.len() as u8 + 2]);
    bytes.extend_from_slice(&body);
    bytes.extend([0xaa, 0xbb]);
    assert_eq!(read_one(&bytes), Ok(Some(join())));
}

#[test]
fn an_unknown_event_still_says_its_position() {
    let stamp = EventStamp { epoch: 3, position: 9, previous: 8, users: 2 };
    let bytes = encode(&RoomMessage::Unknown(stamp));
    assert_eq!(bytes[0], 0x40, "0x5f takes two bytes");
    assert_eq!(read_one::<RoomMessage>(&bytes).unwrap().unwrap().stamp(), Some(stamp));
}

#[test]
fn lengths_are_bounded_before_anything_is_kept() {
    let mut long = vec![0x02];
    crate::wire::varint::put(&mut long, BODY_MAX as u64 + 1);
    assert!(matches!(read_one::<ClientMessage>(&long), Err(WireError::TooLarge { .. })));
    // A list that claims 2^32 entries in a body of nine bytes.
    let bomb = [0x04, 9, 1, 1, b's', 0xfc, 0xff, 0xff, 0xff, 0xff, 0];
    assert!(read_one::<ClientMessage>(&bomb).is_err());
}

#[test]
fn a_bad_id_in_a_message_is_refused_by_the_reader() {
    let (kind, body) = join().to_parts();
    let mut body = body.to_vec();
    let at = body.windows(7).position(|w| w == b"standup").unwrap();
    body[at] = b'/';
    assert!(
        ClientMessage::from_parts(kind, body.into()).unwrap_err().to_string().contains("room id holds '/'")
    );
}

#[test]
fn app_messages_are_bounded() {
    let from = UserId::new("u1").unwrap();
    let said = |size: usize| {
        AppMessage::Said(Said { from: from.clone(), direct: false, payload: vec![7; size].into() })
    };
    let bytes = encode(&said(APP_MESSAGE_MAX));
    assert_eq!(read_one(&bytes), Ok(Some(said(APP_MESSAGE_MAX))));
    assert!(read_one::<AppMessage>(&encode(&said(APP_MESSAGE_MAX + 1))).is_err());

    // The largest there is: as many users as may be listed, each with the longest id.
    let user = |n: usize| UserId::new(format!("{n:0>width$}", width = UserId::BYTES_MAX)).unwrap();
    let say = |listed: usize| {
        let to = (0..listed).map(user).collect();
        AppMessage::Say(Say { request: u32::MAX, to, lossy: true, payload: vec![7; APP_MESSAGE_MAX].into() })
    };
    assert_eq!(read_one(&encode(&say(LISTED_MAX))), Ok(Some(say(LISTED_MAX))));
    let long = read_one::<AppMessage>(&encode(&say(LISTED_MAX + 1)));
    assert!(matches!(long, Err(WireError::TooLarge { what: "number of listed users", .. })));
}

#[test]
fn a_join_that_ends_before_its_token_has_none() {
    let (kind, body) = join().to_parts();
    let login_end = body.len() - "a.b.c".len() - 3;
    let read = |body: &[u8]| ClientMessage::from_parts(kind, body.to_vec().into());
    let ClientMessage::Join(without) = join() else { panic!("a join") };
    let presence = Presence::default();
    let plain = ClientMessage::Join(Join { presence, ..without.clone() });
    let without = ClientMessage::Join(Join { token: None, presence, ..without });
    assert_eq!(read(&body[..login_end]), Ok(Some(without.clone())));
    assert_eq!(read(&[&body[..login_end], &[0]].concat()), Ok(Some(without)));
    assert_eq!(read(&body[..body.len() - 1]), Ok(Some(plain)), "nor need it say who sees whom");
    for cut in login_end + 1..body.len() - 1 {
        assert!(read(&body[..cut]).is_err(), "cut at {cut}");
    }
    assert!(read(&[&body[..login_end], &[2]].concat()).is_err());
}

#[test]
fn tokens_are_bounded_and_not_shown() {
    let renew = |bytes: usize| {
        ClientMessage::RenewToken(RenewToken { request: 1, token: Token::from_wire("x".repeat(bytes)) })
    };
    let bytes = encode(&renew(Token::BYTES_MAX));
    assert_eq!(read_one(&bytes), Ok(Some(renew(Token::BYTES_MAX))));
    let long = read_one::<ClientMessage>(&encode(&renew(Token::BYTES_MAX + 1)));
    assert!(matches!(long, Err(WireError::TooLarge { what: "token", .. })));
    let mut other = encode(&join()).to_vec();
    let at = other.windows(5).position(|w| w == b"a.b.c").unwrap();
    other[at] = b' ';
    let Ok(Some(ClientMessage::Join(read))) = read_one(&other) else { panic!("any text is read") };
    assert_eq!(format!("{:?}", read.token), "Some(Token(5 bytes))");
}

#[test]
fn a_page_that_ends_before_its_extras_has_none_and_infos_are_bounded() {
    let extra = |bytes: usize| RoomExtra { key: "k".into(), version: 2, value: "v".repeat(bytes) };
    let page = |extras| {
        RoomMessage::Page(SnapshotPage {
            epoch: 1,
            position: 2,
            page: 0,
            last: true,
            users_total: 0,
            users: vec![],
            streams: vec![],
            extras,
        })
    };
    let full = page(Some(Extras { room_infos: vec![extra(1024)], ..Extras::default() }));
    assert_eq!(read_one(&encode(&full)), Ok(Some(full)));
    let long = page(Some(Extras { room_infos: vec![extra(1025)], ..Extras::default() }));
    assert!(matches!(read_one::<RoomMessage>(&encode(&long)), Err(WireError::TooLarge { .. })));
    let (kind, body) = page(None).to_parts();
    assert_eq!(RoomMessage::from_parts(kind, body.slice(..body.len() - 1)), Ok(Some(page(None))));

    let info = |bytes: usize| {
        let stream = StreamId::new("cam").unwrap();
        ClientMessage::SetStreamInfo(SetStreamInfo { request: 1, stream, info: "i".repeat(bytes) })
    };
    assert!(read_one::<ClientMessage>(&encode(&info(STREAM_INFO_MAX))).is_ok());
    let long = read_one::<ClientMessage>(&encode(&info(STREAM_INFO_MAX + 1)));
    assert!(matches!(long, Err(WireError::TooLarge { what: "info of a stream", .. })));
}

#[test]
fn tracks_are_checked() {
    let track =
        TrackInfo { kind: TrackKind::Video, codec: "avc1".into(), spatial_layers: 1, temporal_layers: 4 };
    assert!(check_tracks(std::slice::from_ref(&track)).is_ok());
    for bad in [vec![], vec![track.clone(); 9], vec![TrackInfo { spatial_layers: 0, ..track.clone() }]] {
        assert_eq!(check_tracks(&bad).unwrap_err().code, Code::BadTracks);
    }
    assert!(StreamId::new("ok").is_ok());
}
