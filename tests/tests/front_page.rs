//! If this fails, the call on the front page of parlor-client does not run: it does so here, between two people,
//! through a relay on this machine's loopback.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::time::Duration;

use parlor_client::RoomId;
use parlor_client::room::RoomEvent;
use parlor_relay::{Config, Relay};

include!("../../client/front_page.rs.in");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_front_page_is_a_call() {
    let relay = Relay::bind(Config::dev()).await.unwrap();
    let address = relay.address(Some(RoomId::new("standup").unwrap())).to_string();
    tokio::spawn(relay.run(std::future::pending()));
    let engine = Engine::new(Scenario::StandardCall).unwrap();
    let clock = engine.clock().clone();
    let room = engine.join(JoinOptions::new(&address, "bob")).unwrap();
    room.joined().await.unwrap();
    let ann = async { call(&address, "ann").await.map_err(|error| error.to_string()) };
    let bob = async {
        let capture = Capture::start(&engine, Sources::pattern(2, Scenario::StandardCall).unwrap()).unwrap();
        let broadcast = capture.publish(&room, "bob-cam").unwrap();
        let view = LatestPicture::new();
        let player = room.play("ann-cam", PlayOptions::new()).unwrap();
        let playback = player.show(view.clone(), &Mixer::new()).unwrap();
        while view.count() < 10 {
            clock.sleep(Duration::from_millis(20)).await;
        }
        drop((broadcast, playback));
        let mut events = room.events();
        assert!(matches!(events.next().await, Some(RoomEvent::State(_))));
        room.leave().await.unwrap();
    };
    // Only a test that hangs gets there.
    let both = clock.timeout(Duration::from_secs(60), async { tokio::join!(biased; ann, bob) }).await;
    both.unwrap().0.unwrap();
}
