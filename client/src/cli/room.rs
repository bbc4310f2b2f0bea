//! `parlor room`: who and what is in a room.

use parlor_client::room::RoomView;
use parlor_client::{Scenario, StreamInfo, TrackInfo, TrackKind};
use serde_json::{Value, json};

use super::args::Room;
use super::table::Table;
use super::{Failure, engine, join};

/// Joins, prints and leaves.
pub(crate) async fn run(args: Room) -> Result<(), Failure> {
    let engine = engine(&args.common, Scenario::VoiceCall)?;
    let room = join(&engine, &args.common)?;
    let view = tokio::select! {
        biased;
        view = room.snapshot() => view.map_err(Failure::call)?,
        () = super::stopped(&engine, None) => {
            engine.close().await;
            return Ok(());
        }
    };
    if args.json {
        let json = as_json(room.id().as_str(), &view);
        println!("{json:#}");
    } else {
        as_text(room.id().as_str(), &view).iter().for_each(|line| println!("{line}"));
    }
    engine.close().await;
    Ok(())
}

fn as_json(room: &str, view: &RoomView) -> Value {
    let track = |track: &TrackInfo| {
        json!({
            "kind": kind(track.kind),
            "codec": track.codec,
            "spatial_layers": track.spatial_layers,
            "temporal_layers": track.temporal_layers,
        })
    };
    let stream = |stream: &StreamInfo| {
        json!({
            "id": stream.stream.as_str(),
            "user": stream.user.as_str(),
            "tracks": stream.tracks.iter().map(track).collect::<Vec<_>>(),
        })
    };
    json!({
        "room": room,
        "users": view.users.values().map(|u| json!({ "id": u.user.as_str(), "name": u.name.as_str() })).collect::<Vec<_>>(),
        "streams": view.streams.values().map(stream).collect::<Vec<_>>(),
    })
}

fn as_text(room: &str, view: &RoomView) -> Vec<String> {
    let mut lines =
        vec![format!("room {room}, others: {}, streams: {}", view.users.len(), view.streams.len())];
    if !view.users.is_empty() {
        let mut table = Table::new(&["user", "name", "streams"]);
        for (id, user) in &view.users {
            let count = view.streams.values().filter(|stream| stream.user == *id).count();
            table.row([id.to_string(), user.name.to_string(), count.to_string()]);
        }
        lines.extend(table.lines());
    }
    if !view.streams.is_empty() {
        let mut table = Table::new(&["stream", "user", "tracks"]);
        for (id, stream) in &view.streams {
            let tracks: Vec<_> =
                stream.tracks.iter().map(|track| format!("{} ({})", kind(track.kind), track.codec)).collect();
            table.row([id.to_string(), stream.user.to_string(), tracks.join(", ")]);
        }
        lines.extend(table.lines());
    }
    lines
}

fn kind(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Audio => "audio",
        TrackKind::Video => "video",
        TrackKind::Data => "data",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_client::{Delivery, StreamId, UserId, UserInfo, UserName};

    fn view() -> RoomView {
        let user = UserId::new("ann").unwrap();
        let info = UserInfo { user: user.clone(), name: UserName::new("Ann").unwrap() };
        let track =
            TrackInfo { kind: TrackKind::Audio, codec: "opus".into(), spatial_layers: 1, temporal_layers: 1 };
        let id = StreamId::new("ann-cam").unwrap();
        let stream = StreamInfo {
            stream: id.clone(),
            user: user.clone(),
            tracks: vec![track],
            delivery: Delivery::QuicStream,
        };
        RoomView { users: [(user, info)].into(), streams: [(id, stream)].into(), ..RoomView::default() }
    }

    #[test]
    fn a_room_is_printed_for_people_and_for_programs() {
        let text = as_text("standup", &view()).join("\n");
        assert!(
            text.starts_with("room standup, others: 1, streams: 1\nuser  name  streams\nann    Ann        1")
        );
        assert!(text.ends_with("audio (opus)"), "{text}");
        let json = as_json("standup", &view());
        assert_eq!(json["users"][0]["name"], "Ann");
        assert_eq!(json["streams"][0]["tracks"][0]["codec"], "opus");
        assert_eq!(as_text("empty", &RoomView::default()), ["room empty, others: 0, streams: 0"]);
    }
}
