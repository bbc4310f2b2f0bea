//! Any history against a model of a decoder.

use std::collections::BTreeMap;

use parlor_transport::wire::control::TrackWish;
use proptest::prelude::*;

use super::super::cursor::Cut;
use super::*;
use crate::limits::OLD_GROUP_AGE_MAX;

#[derive(Clone, Debug)]
enum Act {
    Push { spatial: u8, temporal: u8, keyframe: bool, discardable: bool, size: usize, delivered: bool },
    Pass { ms: u64 },
    Poll { budget: usize, rate: u64 },
    Wish { wanted: bool, spatial_max: u8, temporal_max: u8 },
    Cut(Cut),
    Stuck,
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop_oneof![20 => 1..5000usize, 1 => 100_000..700_000usize];
    let push = (0..2u8, 0..3u8, prop::bool::weighted(0.1), any::<bool>(), size, prop::bool::weighted(0.95));
    prop_oneof![
        12 => push.prop_map(|(spatial, temporal, keyframe, discardable, size, delivered)| Act::Push {
            spatial,
            temporal: if keyframe { 0 } else { temporal },
            keyframe,
            discardable: discardable && !keyframe,
            size,
            delivered,
        }),
        8 => (0..120u64).prop_map(|ms| Act::Pass { ms }),
        8 => (0..20_000usize, 0..500_000u64).prop_map(|(budget, rate)| Act::Poll { budget, rate }),
        1 => (prop::bool::weighted(0.8), 0..3u8, 0..4u8)
            .prop_map(|(wanted, spatial_max, temporal_max)| Act::Wish { wanted, spatial_max, temporal_max }),
        1 => any::<(bool, bool, bool)>()
            .prop_map(|(layers, discardable, video)| Act::Cut(Cut { layers, discardable, video })),
        1 => Just(Act::Stuck),
    ]
}

/// A decoder that knows what the publisher made: a frame needs the last keyframe of its layer and all
/// frames since that are not discardable and not of a higher temporal layer.
#[derive(Default)]
struct Decoder {
    made: [Vec<(u8, bool, bool)>; 2],
    got: BTreeMap<u8, Vec<u64>>,
    current: Option<u8>,
}

impl Decoder {
    fn take(&mut self, header: &FrameHeader) {
        let FrameHeader { spatial, temporal, number, .. } = *header;
        if header.keyframe {
            self.current = Some(spatial);
            self.got.clear();
        }
        assert_eq!(self.current, Some(spatial), "layers change at a keyframe");
        let got = self.got.entry(spatial).or_default();
        assert!(got.last().is_none_or(|&last| number > last), "in order");
        if !header.keyframe {
            let made = &self.made[usize::from(spatial)][..number as usize];
            let keyframe = made.iter().rposition(|&(_, keyframe, _)| keyframe).expect("after a keyframe");
            for (at, &(other, _, discardable)) in made.iter().enumerate().skip(keyframe) {
                let needed = !discardable && other <= temporal;
                assert!(!needed || got.contains(&(at as u64)), "frame {number} needs frame {at}");
            }
        }
        got.push(number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_player_gets_only_what_decodes_and_the_bounds_hold(
        acts in prop::collection::vec(act(), 1..300)
    ) {
        let limits = Limits::default();
        let publication = publication(vec![track(TrackKind::Video, 2, 3)]);
        let mut play = Play::new(at(0), publication.clone(), (SessionId(1), 1), &[], Waker::noop().clone());
        let (mut now, mut missed, mut wish) = (at(0), 0, TrackWish::all(0));
        let (mut decoder, mut sent, mut cut) = (Decoder::default(), 0, Cut::default());
        for act in acts {
            match act {
                Act::Push { spatial, temporal, keyframe, discardable, size, delivered } => {
                    let made = &mut decoder.made[usize::from(spatial)];
                    let header =
                        FrameHeader { spatial, temporal, discardable, ..header(made.len() as u64, keyframe) };
                    made.push((temporal, keyframe, discardable));
                    if delivered {
                        publication.push(now, 0, frame(header, size), missed).unwrap();
                        missed = 0;
                    } else {
                        missed += 1;
                    }
                }
                Act::Pass { ms } => now += Duration::from_millis(ms),
                Act::Poll { budget, rate } => {
                    let mut left = budget;
                    let link = Link { rate, rtt: Duration::from_millis(40), is_heard: true };
                    let admits = |left: &mut usize, size| {
                        let fits = size <= *left;
                        if fits { *left -= size }
                        fits
                    };
                    while let Step::Send(frame) = play.next(now, 0, link, |size| admits(&mut left, size)) {
                        prop_assert!(wish.wanted && !cut.video);
                        let header = frame.header();
                        let temporal_max = if cut.layers { wish.temporal_max.min(1) } else { wish.temporal_max };
                        prop_assert!(header.keyframe || header.temporal <= temporal_max);
                        prop_assert!(!(cut.discardable && header.discardable));
                        decoder.take(header);
                        sent += 1;
                    }
                    prop_assert_eq!(play.frames_sent(0), sent);
                }
                Act::Wish { wanted, spatial_max, temporal_max } => {
                    wish = TrackWish { track: 0, wanted, spatial_max, temporal_max };
                    play.set_wishes(now, &[wish]);
                }
                Act::Cut(now_cut) => {
                    cut = now_cut;
                    play.set_cut(now, cut);
                }
                Act::Stuck => play.decoder_stuck(now, 0, FAST),
            }
            prop_assert!(publication.cached_bytes() <= 2 * limits.cache_bytes_max);
        }
        // Whatever the state: with keyframes and room, it goes on.
        play.set_wishes(now, &[]);
        play.set_cut(now, Cut::default());
        for spatial in [0, 1] {
            now += OLD_GROUP_AGE_MAX;
            let header = FrameHeader { spatial, ..header(decoder.made[usize::from(spatial)].len() as u64, true) };
            publication.push(now, 0, frame(header, 1000), missed).unwrap();
        }
        prop_assert!(drain_layers(&mut play, now).iter().any(|&(spatial, _)| spatial == 1));
    }
}
