//! If this fails, somebody who does not take what others say holds them up, or gets lossy messages when they are old.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use parlor_relay::limits::{MESSAGES_WAITING_BYTES_MAX, MESSAGES_WAITING_MAX};
use parlor_transport::error::Code;
use parlor_transport::sim::{self, LinkConfig, Profile};
use parlor_transport::wire::control::*;
use support::*;

/// 300 kbit/s downwards.
fn modem() -> Profile {
    let mut profile = Profile::perfect().with_rtt(RTT);
    profile.down = LinkConfig { rate: Some(300_000), queue_max: 30_000, ..profile.down };
    profile
}

fn count(client: &mut Client) -> usize {
    std::iter::from_fn(|| client.said.try_recv().ok()).count()
}

#[test]
fn a_receiver_who_does_not_read_is_sent_away_and_the_others_get_everything() {
    sim::run(1, async |sim| {
        let world = World::start(&sim).await;
        let mut fast = world.enter("r", "fast").await;
        let slow = world.enter("r", "slow").await;
        slow.deaf.store(true, Ordering::Relaxed);
        let mut senders = Vec::new();
        for n in 0..8 {
            senders.push(world.enter("r", &format!("u{n}")).await);
        }
        let mut said = 0;
        let ended = tokio::spawn(async move { slow.ended().await });
        while !ended.is_finished() {
            for sender in &mut senders {
                sender.say(&[], false, vec![7; APP_MESSAGE_MAX].into()).await;
                said += 1;
            }
            assert!(said < 4 * MESSAGES_WAITING_MAX, "the slow one is kept for ever");
            // 4 a second of each: within the rate.
            world.pass(millis(250)).await;
        }
        assert_eq!(ended.await.unwrap().code, Code::PeerTooSlow);
        assert!(said * APP_MESSAGE_MAX > MESSAGES_WAITING_BYTES_MAX, "{said} messages");
        world.pass(millis(500)).await;
        assert_eq!(count(&mut fast), said);
        for sender in &mut senders {
            let mut answers = std::iter::from_fn(|| sender.answers.try_recv().ok());
            assert!(answers.all(|answer| matches!(answer, RelayMessage::Done(_))));
        }
    });
}

#[test]
fn lossy_messages_are_dropped_for_who_is_slow_and_counted() {
    sim::run(2, async |sim| {
        let world = World::start(&sim).await;
        let mut fast = world.enter("r", "fast").await;
        let mut slow = world.enter_with("r", "slow", modem()).await;
        let mut sender = world.enter("r", "u1").await;
        let mut other = world.enter("r", "u2").await;
        for _ in 0..1_200 {
            sender.say(&["fast", "slow"], true, vec![7; APP_MESSAGE_MAX].into()).await;
            other.say(&["fast", "slow"], true, vec![7; APP_MESSAGE_MAX].into()).await;
            world.pass(millis(250)).await;
        }
        world.pass(millis(1_000)).await;
        assert_eq!(count(&mut fast), 2_400);
        let dropped = world.relay.counters().messages_dropped;
        let came = count(&mut slow) as u64;
        assert!(dropped > 100 && came > 500 && came + dropped <= 2_400, "{dropped} dropped, {came} came");
        assert_eq!(world.relay.survey().connections, 4, "nobody was sent away");
    });
}

#[test]
fn what_breaks_the_rules_ends_the_connection_or_is_refused() {
    sim::run(3, async |sim| {
        let world = World::start(&sim).await;
        let mut early = world.connect("early", Profile::perfect()).await;
        early.say(&[], false, "hi".into()).await;
        assert_eq!(early.refusal().await.0, Code::NotJoined);

        let mut u1 = world.enter("r", "u1").await;
        u1.say(&[], false, "hi".into()).await;
        assert!(matches!(u1.answer().await, RelayMessage::Done(_)));
        u1.say(&["u1", "nobody"], false, "hi".into()).await;
        assert_eq!(u1.refusal().await.0, Code::UnknownUser);
        let from = parlor_transport::id::UserId::new("u2").unwrap();
        let forged = AppMessage::Said(Said { from, direct: false, payload: "I am u2".into() });
        u1.saying.as_mut().unwrap().send(&forged).await.unwrap();
        assert_eq!(u1.ended().await.code, Code::ProtocolViolation);

        let mut u3 = world.enter("r", "u3").await;
        u3.say(&[], false, vec![0; APP_MESSAGE_MAX + 1].into()).await;
        assert_eq!(u3.ended().await.code, Code::TooLarge);

        let mut u4 = world.enter("r", "u4").await;
        u4.say(&[], false, "one".into()).await;
        drop(u4.saying.take());
        u4.say(&[], false, "two".into()).await;
        assert_eq!(u4.ended().await.code, Code::ProtocolViolation);
    });
}
