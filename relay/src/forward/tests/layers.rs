//! Spatial layers: when a player goes from one to another.

use parlor_transport::wire::control::TrackWish;

use super::super::publication::KeyframeDue;
use super::*;

/// Two spatial layers with 30 frames per second each.
struct Simulcast {
    publication: Arc<Publication>,
    numbers: [u64; 2],
}

impl Simulcast {
    fn new() -> Self {
        Simulcast { publication: publication(vec![track(TrackKind::Video, 2, 1)]), numbers: [0; 2] }
    }

    fn shoot(&mut self, now: Timestamp, spatial: u8, keyframe: bool) {
        let number = &mut self.numbers[usize::from(spatial)];
        let header = FrameHeader { spatial, ..header(*number, keyframe) };
        self.publication.push(now, 0, frame(header, 100), 0).unwrap();
        *number += 1;
    }

    fn due(&self, now: Timestamp) -> Vec<KeyframeDue> {
        self.publication.poll_keyframes(now).0
    }
}

#[test]
fn layers_change_at_keyframes_which_are_asked_for() {
    let mut stream = Simulcast::new();
    let small = TrackWish { spatial_max: 0, ..TrackWish::all(0) };
    let mut play =
        Play::new(at(0), stream.publication.clone(), (SessionId(1), 1), &[small], Waker::noop().clone());
    for spatial in [0, 1] {
        stream.shoot(at(10), spatial, true);
        stream.shoot(at(43), spatial, false);
    }
    assert_eq!(drain_layers(&mut play, at(43)), [(0, 0), (0, 1)]);

    play.set_wishes(at(50), &[]);
    assert!(drain_layers(&mut play, at(50)).is_empty(), "the larger keyframe is older than what was sent");
    assert_eq!(stream.due(at(50)), [KeyframeDue { track: 0, spatial: 1 }]);
    stream.shoot(at(76), 0, false);
    stream.shoot(at(76), 1, false);
    assert_eq!(drain_layers(&mut play, at(76)), [(0, 2)], "the old layer goes on meanwhile");
    stream.shoot(at(109), 1, true);
    stream.shoot(at(109), 0, false);
    assert_eq!(drain_layers(&mut play, at(109)), [(1, 3)]);

    for ms in (0..3000).step_by(33) {
        stream.shoot(at(142 + ms), 0, ms % 990 == 0);
    }
    assert_eq!(drain_layers(&mut play, at(3112)).first(), Some(&(0, 94)), "a silent layer is left");
}
