//! The verdict on a call that has come to rest: everybody is there who should be, sees what the relay has, and gets
//! what the others send.

use parlor_client::room::RoomState;
use parlor_client::{StreamId, Timestamp, UserId};
use parlor_transport::wire::control::{StreamExtra, TrackState};

use super::checker::compare;
use super::device::{Device, stream_id, user_id};
use super::scenario::PEOPLE;
use super::world::World;

/// Every player has got a frame that is no older than this.
const FRESH: std::time::Duration = std::time::Duration::from_secs(1);

/// Looks at everything.
pub(super) fn judge(world: &mut World, now: Timestamp) {
    let Some(room) = world.relay.room() else {
        return world.fault("there is no room".to_owned());
    };
    let mut faults = Vec::new();
    let users: Vec<_> = room.users.iter().map(|user| user.user.to_string()).collect();
    if users != (0..PEOPLE).map(user_id).collect::<Vec<_>>() {
        faults.push(format!("in the room are {users:?}"));
    }
    // What the ten want to be seen, as a model of the room.
    let mut streams = Vec::new();
    let (mut states, mut infos) = (Vec::new(), Vec::new());
    for (who, seat) in world.seats.iter().enumerate() {
        streams.push(stream_id(who, 0));
        streams.extend(seat.wanted.screen.then(|| stream_id(who, 1)));
        states.extend(seat.wanted.muted.then(|| (stream_id(who, 0), TrackState::Muted)));
        infos.extend((!seat.wanted.info.is_empty()).then(|| (stream_id(who, 0), seat.wanted.info.clone())));
    }
    let published: Vec<_> = room.streams.iter().map(|stream| stream.stream.to_string()).collect();
    if published != streams {
        faults.push(format!("published are {published:?}, not {streams:?}"));
    }
    let told: Vec<_> =
        room.extras.track_states.iter().map(|status| (status.stream.to_string(), status.state)).collect();
    if told != states {
        faults.push(format!("the states of tracks are {told:?}, not {states:?}"));
    }
    let info = |extra: &StreamExtra| (extra.stream.to_string(), extra.info.clone());
    let told: Vec<_> = room.extras.stream_infos.iter().map(info).collect();
    if told != infos {
        faults.push(format!("the infos of streams are {told:?}, not {infos:?}"));
    }

    let mut in_room: Vec<&Device> = Vec::new();
    for (who, seat) in world.seats.iter().enumerate() {
        match &seat.devices[..] {
            [device] => in_room.push(device),
            devices => {
                let states: Vec<_> =
                    devices.iter().map(|device| format!("{} {:?}", device.name(), device.status())).collect();
                faults.push(format!("p{who} has {} devices in the call: {states:?}", devices.len()));
            }
        }
    }
    for device in &in_room {
        if device.status().state != RoomState::Connected {
            faults.push(format!("{} is not in the room: {:?}", device.name(), device.status()));
            continue;
        }
        if let Some(barred) = device.barred {
            faults.push(format!("{} is in the room, out of which it was put at {barred:?}", device.name()));
        }
        if device.has_published_again() {
            faults.push(format!("{} publishes what a moderator had ended", device.name()));
        }
        let me = UserId::new(user_id(device.person)).expect("a valid user id");
        let view = device.room.view();
        let compared = compare(&room, &me, &device.status(), device.room.place(), view.as_ref());
        faults.extend(compared.into_iter().map(|fault| format!("{} {fault}", device.name())));
        if view.as_ref() != Some(device.follower.view()) {
            faults.push(format!("{}: its events do not add up to its room", device.name()));
        }
        for stream in &streams {
            let of: usize = stream[1..].split('-').next().and_then(|of| of.parse().ok()).unwrap_or(PEOPLE);
            if of == device.person {
                continue;
            }
            let id = StreamId::new(stream).expect("a valid stream id");
            let is_muted = room.extras.track_states.iter().any(|status| status.stream == id);
            match device.played(stream) {
                Some((_, Some(newest))) if newest + FRESH >= now => {}
                Some((status, _)) if is_muted && status.contains("Playing") => {}
                played => faults.push(format!("{} does not get {stream}: {played:?}", device.name())),
            }
        }
        for other in in_room.iter().filter(|other| other.person != device.person) {
            let other = UserId::new(user_id(other.person)).expect("a valid user id");
            let heard = device.follower.heard(&other);
            if heard != ["good night"] {
                faults.push(format!("{} heard {heard:?} of {other}", device.name()));
            }
        }
    }
    faults.into_iter().for_each(|fault| world.fault(fault));
}
