//! A call against a relay of which only the messages are there.

use bytes::Bytes;
use parlor_transport::hop::Received;
use parlor_transport::id::{LoginId, SessionId, StreamAlias, UserId};
use parlor_transport::token::Token;
use parlor_transport::wire::control::{
    ClockReply, Closing, Done, Joined, KeyframeWanted, PlayEnded, PlayWaiting, Published, Refused,
    ResumeSecret, TokenExpiring, Welcome,
};
use parlor_transport::wire::control::{Departure, PlayStarted, TrackInfo, TrackKind};
use parlor_transport::wire::frame::{Frame, FrameHeader};

use super::*;
use crate::error::RenewError;
use crate::options::{JoinOptions, PlayOptions, PublishOptions, PublishRequest};
use crate::player::PlayerState;
use crate::publisher::{EncodedFrame, PublisherState, SendOutcome};

const TIMEOUTS: Timeouts =
    Timeouts { join: Duration::from_secs(10), leave: Duration::from_secs(2), reconnect: Duration::ZERO };

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn call() -> Call {
    let request = JoinOptions::new("parlor://h/r", "me").check().unwrap();
    Call::new(at(0), request, LoginId([7; 16]), &"ä".repeat(100), TIMEOUTS)
}

fn stream(id: &str) -> StreamId {
    StreamId::new(id).unwrap()
}

fn camera(id: &str) -> PublishRequest {
    PublishOptions::new(id).video("x").check().unwrap()
}

fn sent(call: &mut Call) -> Vec<ClientMessage> {
    std::iter::from_fn(|| call.poll_message()).collect()
}

fn welcome() -> RelayMessage {
    let clock = at(5000);
    let session = SessionId(1);
    RelayMessage::Welcome(Welcome { version: 1, features: 0, session, clock, publish_max: 9, play_max: 9 })
}

fn joined() -> RelayMessage {
    RelayMessage::Joined(Joined {
        request: JOIN,
        epoch: 1,
        position: 1,
        users: 1,
        secret: ResumeSecret([1; 16]),
    })
}

/// A call that is in its room at 100 ms.
fn in_room() -> Call {
    let mut call = call();
    call.handle_connected(at(50));
    sent(&mut call);
    call.handle_message(at(100), welcome()).unwrap();
    call.handle_message(at(100), joined()).unwrap();
    call
}

fn refused(request: u32, code: Code) -> RelayMessage {
    RelayMessage::Refused(Refused { request, refusal: Refusal::from(code) })
}

#[test]
fn everything_asked_before_the_connection_stands_goes_out_in_one_flight() {
    let mut call = call();
    let publish = call.publish(camera("cam")).unwrap();
    let play = call.play(stream("other"), &[]).unwrap();
    assert_eq!(call.poll_message(), None, "there is no connection yet");
    call.handle_connected(at(50));
    let flight = sent(&mut call);
    assert!(matches!(
        &flight[..],
        [ClientMessage::Hello(hello), ClientMessage::Join(_), ClientMessage::Publish(p), ClientMessage::Play(q)]
            if hello.agent.len() == 128 && p.request == publish && q.request == play
    ));
    assert_eq!(call.poll_lane(), Some((play, Some(Delivery::default()))), "frames may overtake the answer");
    call.handle_message(at(100), welcome()).unwrap();
    call.handle_message(at(100), joined()).unwrap();
    assert!(call.is_joined());
    assert_eq!(call.stats(at(100)).join_time, Some(Duration::from_millis(100)));
    // Half of the round trip, and the drift of two clocks in the 50 ms that it took.
    assert_eq!(call.stats(at(100)).clock_error, Some(Duration::from_micros(25_010)));
}

#[test]
fn requests_taken_back_before_they_left_are_never_sent_and_leave_nothing() {
    let mut call = call();
    for _ in 0..3 * OUTGOING_MAX {
        let publish = call.publish(camera("cam")).unwrap();
        let play = call.play(stream("other"), &[]).unwrap();
        call.update_play(play, PlayOptions::new().without_track(1).wishes());
        call.release_publication(publish);
        call.release_play(play);
    }
    assert_eq!((call.outgoing.len(), call.lanes.len()), (2, 0));
    let mut streams = 0;
    let full = loop {
        match call.play(stream(&format!("s{streams}")), &[]) {
            Ok(_) => streams += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full.code(), call.outgoing.len()), (Code::TooManyRequests, OUTGOING_MAX));
}

#[test]
fn a_refused_join_ends_publishers_and_players_with_its_error() {
    let mut call = call();
    let publish = call.publish(camera("cam")).unwrap();
    let play = call.play(stream("other"), &[]).unwrap();
    call.handle_connected(at(50));
    call.handle_message(at(100), welcome()).unwrap();
    call.handle_message(at(100), refused(JOIN, Code::RoomFull)).unwrap();
    assert_eq!(*call.status(), RoomStatus::failed(RoomReason::JoinFailed, Refusal::from(Code::RoomFull)));
    assert!(call.is_over());
    let publisher = call.publication(publish).unwrap().status().clone();
    assert_eq!((publisher.state, publisher.error.unwrap().code), (PublisherState::Idle, Code::RoomFull));
    let player = call.play_on(play).unwrap();
    assert!(player.is_closed() && player.status().state == PlayerState::Idle);
    assert_eq!(call.publish(camera("cam")).unwrap_err().code(), Code::RoomFull);
    assert_eq!(call.play(stream("x"), &[]).unwrap_err().code(), Code::RoomFull);
}

#[test]
fn a_join_that_takes_too_long_fails() {
    let mut call = call();
    assert_eq!(call.poll_timeout(), Some(at(10_000)));
    call.handle_timeout(at(9_999));
    assert!(!call.is_over());
    call.handle_timeout(at(10_000));
    assert_eq!(call.status().reason, RoomReason::JoinFailed);
    assert_eq!(call.status().error.as_ref().unwrap().code, Code::ConnectTimeout);
    assert_eq!(call.poll_timeout(), None);
}

#[test]
fn leaving_waits_for_the_answer_but_not_for_ever() {
    let mut call = in_room();
    call.leave(at(200));
    call.leave(at(300));
    let [ClientMessage::Leave(leave)] = &sent(&mut call)[..] else { panic!("one leave is sent") };
    assert_eq!(call.publish(camera("cam")).unwrap_err().code(), Code::Closed);
    call.handle_message(at(250), RelayMessage::Done(Done { request: leave.request })).unwrap();
    assert_eq!(*call.status(), RoomStatus::new(RoomReason::Left));

    let mut call = in_room();
    call.leave(at(200));
    call.handle_timeout(at(2_199));
    assert!(!call.is_over());
    call.handle_timeout(at(2_200));
    assert_eq!(call.status().reason, RoomReason::LeaveFailed);
}

#[test]
fn why_a_room_ended_is_told() {
    for (code, reason) in [
        (Code::RepeatedLogin, RoomReason::KickedOut),
        (Code::Kicked, RoomReason::KickedOut),
        (Code::RelayShutdown, RoomReason::ConnectionLost),
        (Code::HeartbeatTimeout, RoomReason::ConnectionLost),
    ] {
        let mut call = in_room();
        let closing = RelayMessage::Closing(Closing { refusal: Refusal::from(code) });
        call.handle_message(at(200), closing).unwrap();
        assert_eq!(*call.status(), RoomStatus::failed(reason, Refusal::from(code)));
        // What the connection says afterwards does not matter any more.
        call.handle_end(Refusal::from(Code::ConnectionLost));
        assert_eq!(call.status().error.as_ref().unwrap().code, code);
    }
}

#[test]
fn a_relay_that_breaks_the_protocol_is_left() {
    let mut early = call();
    early.handle_connected(at(50));
    let outcome = early.handle_message(at(60), joined());
    assert_eq!(outcome.unwrap_err().code, Code::ProtocolViolation);
    assert_eq!(early.status().reason, RoomReason::JoinFailed);

    let mut twice = in_room();
    assert!(twice.handle_message(at(120), welcome()).is_err());
    assert!(in_room().handle_message(at(120), joined()).is_err());

    let mut newer = call();
    newer.handle_connected(at(50));
    let RelayMessage::Welcome(welcome) = welcome() else { unreachable!("made so") };
    let newer = newer.handle_message(at(60), RelayMessage::Welcome(Welcome { version: 2, ..welcome }));
    assert_eq!(newer.unwrap_err().code, Code::VersionMismatch);
}

#[test]
fn a_publication_lives_from_its_answer_to_its_end() {
    let mut call = in_room();
    let lane = call.publish(camera("cam")).unwrap();
    assert_eq!(call.publish(camera("cam")).unwrap_err().code(), Code::AlreadyPublishing);
    let frame = || EncodedFrame::new(0, at(190), &b"key"[..]).keyframe();
    assert!(matches!(call.offer_frame(at(200), lane, frame()), SendOutcome::Dropped(_)));
    sent(&mut call);
    let alias = StreamAlias(4);
    call.handle_message(at(210), RelayMessage::Published(Published { request: lane, alias })).unwrap();
    assert_eq!(call.publication(lane).unwrap().status().state, PublisherState::Publishing);
    assert_eq!(call.take_keyframe_requests(lane).len(), 1, "a stream begins with a keyframe");
    assert_eq!(call.offer_frame(at(211), lane, frame()), SendOutcome::Queued);
    assert!(call.poll_frame(at(212), |_, _, _| false).is_none(), "the network has no room");
    let sent_frame = call.poll_frame(at(212), |_, _, urgent| !urgent).unwrap();
    // The relay's clock showed 5,000 at 75 ms of ours.
    assert_eq!(sent_frame.frame.header().captured, at(190 + 4925));

    call.take_touched();
    let wanted = KeyframeWanted { lane, track: 0, spatial: 0 };
    call.handle_message(at(220), RelayMessage::KeyframeWanted(wanted)).unwrap();
    assert!(call.take_touched().contains(&lane));
    assert_eq!(call.take_keyframe_requests(lane).len(), 1);

    call.release_publication(lane);
    assert!(matches!(&sent(&mut call)[..], [ClientMessage::Unpublish(u)] if u.stream == stream("cam")));
    assert_eq!(call.poll_lane(), Some((lane, None)));
    assert!(call.publication(lane).is_none());
}

#[test]
fn a_taken_stream_id_is_told_and_final() {
    let mut call = in_room();
    let lane = call.publish(camera("cam")).unwrap();
    call.handle_message(at(210), refused(lane, Code::StreamTaken)).unwrap();
    let status = call.publication(lane).unwrap().status();
    assert_eq!(
        (status.state, status.error.as_ref().unwrap().code),
        (PublisherState::Idle, Code::StreamTaken)
    );
    assert!(call.is_joined(), "the room goes on");
    sent(&mut call);
    call.release_publication(lane);
    assert_eq!(sent(&mut call), [], "there is nothing to unpublish");
}

#[test]
fn a_play_waits_plays_ends_and_plays_again() {
    let mut call = in_room();
    let lane = call.play(stream("cam"), &[]).unwrap();
    assert_eq!(call.play(stream("cam"), &[]).unwrap_err().code(), Code::AlreadyPlaying);
    sent(&mut call);
    let state = |call: &Call| call.play_on(lane).unwrap().status().state;
    call.handle_message(at(200), RelayMessage::PlayWaiting(PlayWaiting { lane })).unwrap();
    assert_eq!(state(&call), PlayerState::Requesting);
    let started = || {
        RelayMessage::PlayStarted(PlayStarted {
            lane,
            alias: StreamAlias(3),
            user: UserId::new("u2").unwrap(),
            tracks: vec![TrackInfo {
                kind: TrackKind::Video,
                codec: "x".into(),
                spatial_layers: 1,
                temporal_layers: 1,
            }],
            delivery: Delivery::Datagram,
        })
    };
    call.handle_message(at(300), started()).unwrap();
    assert_eq!(state(&call), PlayerState::Playing);
    assert_eq!(call.poll_lane(), Some((lane, Some(Delivery::Datagram))));

    let header = FrameHeader {
        alias: StreamAlias(3),
        track: 0,
        spatial: 0,
        temporal: 0,
        number: 0,
        captured: at(5200),
        keyframe: true,
        discardable: false,
        level: None,
        metadata: Bytes::new(),
    };
    let frame = Frame::new(header, b"picture").unwrap();
    call.handle_frame(at(310), Received { lane, track: 0, sequence: 2, frame, missed: 2, arrived: at(310) });
    let got = call.pop_frame(lane).unwrap();
    assert_eq!((got.missed, got.age()), (2, Duration::from_millis(310 + 4925 - 5200)));
    assert_eq!(call.player_stats(at(400), lane).lost, 2);

    call.request_keyframe(lane, 0);
    call.request_keyframe(lane, 0);
    assert_eq!(sent(&mut call).len(), 1, "one request at a time");

    let reason = Departure::HeartbeatTimeout;
    call.handle_message(at(500), RelayMessage::PlayEnded(PlayEnded { lane, reason })).unwrap();
    assert_eq!(state(&call), PlayerState::Requesting);
    call.handle_message(at(600), started()).unwrap();
    assert_eq!(state(&call), PlayerState::Playing);
    call.stop_play(lane);
    call.stop_play(lane);
    assert!(matches!(&sent(&mut call)[..], [ClientMessage::StopPlay(_)]));
    // An answer that was under way changes nothing.
    call.handle_message(at(700), started()).unwrap();
    assert_eq!(state(&call), PlayerState::Idle);
}

#[test]
fn the_clock_is_probed_one_at_a_time() {
    let mut call = in_room();
    assert_eq!(call.poll_timeout(), Some(at(200)));
    call.handle_timeout(at(200));
    call.handle_timeout(at(600));
    let [ClientMessage::ProbeClock(probe)] = &sent(&mut call)[..] else { panic!("one probe waits") };
    let reply = ClockReply { probe_sent: probe.sent, received: at(5135), sent: at(5135) };
    call.handle_message(at(220), RelayMessage::ClockReply(reply)).unwrap();
    assert_eq!(call.stats(at(220)).clock_error.unwrap().as_millis(), 10);
}

#[test]
fn a_token_goes_with_the_join_and_its_end_is_told_until_it_is_renewed() {
    let request = JoinOptions::new("parlor://h/r", "me").token("a.b.c").check().unwrap();
    let mut call = Call::new(at(0), request, LoginId([7; 16]), "", TIMEOUTS);
    call.handle_connected(at(50));
    let flight = sent(&mut call);
    assert!(
        matches!(&flight[1], ClientMessage::Join(join) if join.token.as_ref().unwrap().as_str() == "a.b.c")
    );
    call.handle_message(at(100), welcome()).unwrap();
    call.handle_message(at(100), joined()).unwrap();
    let mut early = Reader::default();
    let is_state = |event: Option<RoomEvent>| matches!(event, Some(RoomEvent::State(_)));
    assert!(is_state(call.next_event(&mut early)) && call.next_event(&mut early).is_none());
    call.handle_message(at(200), RelayMessage::TokenExpiring(TokenExpiring { seconds: 30 })).unwrap();
    let told = Some(RoomEvent::TokenWillExpire { at: at(30_200) });
    assert_eq!((call.next_event(&mut early), call.next_event(&mut early)), (told.clone(), None));
    let mut late = Reader::default();
    assert!(is_state(call.next_event(&mut late)));
    assert_eq!(call.next_event(&mut late), told);

    let first = call.renew_token(Token::new("d.e.f").unwrap()).unwrap();
    assert!(matches!(&sent(&mut call)[..], [ClientMessage::RenewToken(renew)] if renew.request == first));
    call.handle_message(at(300), refused(first, Code::TokenInvalid)).unwrap();
    assert_eq!(call.renewal(first), Some(Err(Refusal::from(Code::TokenInvalid))));
    assert_eq!(call.request().token.as_ref().unwrap().as_str(), "a.b.c");
    let second = call.renew_token(Token::new("d.e.f").unwrap()).unwrap();
    call.handle_message(at(300), RelayMessage::Done(Done { request: second })).unwrap();
    assert_eq!(call.renewal(second), Some(Ok(())));
    assert_eq!(call.request().token.as_ref().unwrap().as_str(), "d.e.f");
    let mut later = Reader::default();
    assert!(is_state(call.next_event(&mut later)) && call.next_event(&mut later).is_none());
    assert!(!format!("{call:?}").contains("d.e.f"), "tokens are shown nowhere");

    // Answers that nobody reads are not kept, and not more than a few wait.
    call.release_renewal(first);
    call.release_renewal(second);
    let waiting: Vec<_> =
        std::iter::from_fn(|| call.renew_token(Token::new("g.h.i").unwrap()).ok()).collect();
    assert_eq!(waiting.len(), 8);
    call.release_renewal(waiting[0]);
    let expired = Closing { refusal: Refusal::from(Code::TokenExpired) };
    call.handle_message(at(400), RelayMessage::Closing(expired)).unwrap();
    assert_eq!((call.status().reason, call.renewals.len()), (RoomReason::KickedOut, 7));
    assert_eq!(call.renewal(waiting[1]), Some(Err(Refusal::from(Code::TokenExpired))));
    assert!(matches!(call.renew_token(Token::new("x").unwrap()), Err(RenewError::Ended(_))));
}

#[test]
fn actions_of_a_moderator_have_their_answers_and_the_end_of_the_relay_is_told_once() {
    use parlor_transport::wire::control::{GoAway, ModerateAction};

    let mut call = call();
    call.handle_connected(at(0));
    sent(&mut call);
    call.handle_message(at(100), welcome()).unwrap();
    call.handle_message(at(100), joined()).unwrap();
    let kick = || ModerateAction::Kick { user: UserId::new("bob").unwrap() };
    let first = call.moderate(kick()).unwrap();
    let second = call.moderate(kick()).unwrap();
    assert_eq!(sent(&mut call).len(), 2);
    assert_eq!(call.answer(first), None);
    call.release_answer(second);
    call.handle_message(at(200), RelayMessage::Done(Done { request: first })).unwrap();
    call.handle_message(at(200), refused(second, Code::NotFound)).unwrap();
    assert_eq!((call.answer(first), call.answer(second)), (Some(Ok(())), None));
    call.release_answer(first);
    let full = (0..2_000).map(|_| call.moderate(kick())).find_map(Result::err).unwrap();
    assert_eq!(full, crate::error::ModerateError::TooManyRequests);

    let mut reader = Reader::default();
    assert!(matches!(call.next_event(&mut reader), Some(RoomEvent::State(_))));
    for address in [Some("nonsense".to_owned()), Some("parlor://other:4433".to_owned())] {
        call.handle_message(at(300), RelayMessage::GoAway(GoAway { address })).unwrap();
    }
    let told = call.next_event(&mut reader);
    assert!(
        matches!(&told, Some(RoomEvent::RelayLeaving { address: Some(address) }) if address.host == "other"),
        "{told:?}"
    );
    assert_eq!(call.next_event(&mut reader), None);
    assert!(!call.is_over(), "it goes on");
    call.handle_end(Refusal::from(Code::Kicked));
    assert_eq!(call.status().reason, RoomReason::KickedOut);
    assert!(call.moderate(kick()).is_err());
}
