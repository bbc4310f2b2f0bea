//! Every bound of the relay, each with its reason. Nothing here decides; the machines ask.
//!
//! What an operator may want to change is a field of [`Limits`] and stands in the configuration;
//! what only a change of code could justify is a constant.

use std::time::Duration;

use parlor_transport::wire::control::APP_MESSAGE_MAX;
use parlor_transport::wire::frame::OBJECT_MAX;

/// The bounds that the configuration can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. An idle one costs about 40 kB, so 10,000 take 400 MB.
    pub connections_max: usize,
    /// Of those, from one address (IPv6: one /64 network). Behind one address may be the people of a large office, or of
    /// a whole part of a mobile network, and each of them may be racing a few attempts; a tenth of the relay is what
    /// one who means harm can take away.
    pub connections_per_address_max: usize,
    /// Handshakes under way at once. One costs about 40 kB, so that 2,000 take 80 MB.
    pub handshakes_max: usize,
    /// Of those, from one address that was proved: two joins on links so bad that all their 96 attempts are under way.
    pub handshakes_per_address_max: usize,
    /// Handshakes under way of clients who have not proved their address, which may be anybody's. From then on they
    /// have to, which costs them a round trip. 10 MB; the people of 200 rooms who come in the same second and need a
    /// twentieth of one each are fewer.
    pub handshakes_unproven_max: usize,
    /// Such handshakes begun a second. 200 are some 5 % of a core.
    pub handshakes_unproven_per_second_max: u32,
    /// Handshakes begun a second of clients who have: some 30 % of a core. So many in ten seconds come back to a full
    /// relay that was started anew.
    pub handshakes_per_second_max: u32,
    /// Of those, from one address. One who races on a bad link begins 20 a second, so that five may do it behind one
    /// address, and many more for [`HANDSHAKE_SECONDS_AT_ONCE`].
    pub handshakes_per_address_per_second_max: u32,
    /// How long a handshake may take. Where seven packets in ten are lost both ways one in twenty takes longer, and
    /// there others race beside it.
    pub handshake_timeout: Duration,
    /// UDP packets a second that one connection may send on and on, or QUIC datagrams and pieces of QUIC streams in them if
    /// those are more; over that it is closed. 32 Mbit/s of frames with
    /// half as much again of redundancy are 5,500, reports and acknowledgements for 256 plays 2,000.
    pub packets_per_second_max: u32,
    /// Rooms at once. An empty room's books cost about 1 kB; as many as connections is never too few.
    pub rooms_max: usize,
    /// Users in one room. Every join is told to everyone, so this bounds the work of one event.
    pub users_per_room_max: usize,
    /// Streams that one user publishes at once: camera, screen and some to spare. Each may hold
    /// [`cache_bytes_max`](Self::cache_bytes_max) per track and layer.
    pub publish_max: u32,
    /// Bytes of frames that one user may publish a second on and on, all streams together: 32 Mbit/s, a camera in three
    /// sizes and a screen at the best quality in use, twice.
    pub publish_bytes_per_second_max: u32,
    /// Bytes of frames at once: eight of the largest frames, when all streams are asked for a keyframe together.
    pub publish_bytes_burst_max: u32,
    /// Requests a connection may make at once. Joining a room of 256 streams and playing them all takes half.
    pub requests_burst_max: u32,
    /// Requests per second a connection may make on and on: changing the wishes of 50 views twice a second.
    pub requests_per_second_max: u32,
    /// Bytes of one app message; at most [`APP_MESSAGE_MAX`], which the protocol lets nobody exceed.
    pub message_bytes_max: usize,
    /// What app messages of one user may cost at once: 1 for each, and 1 for each KiB begun. A hundred short ones, or a
    /// dozen of the largest; a room of 1,000 then has 200 MB to send at most.
    pub message_burst_max: u32,
    /// What they may cost a second on and on: 40 short messages, more than people type and enough for a pointer that is
    /// shown to others. A room of 1,000 turns it into 40,000 messages a second.
    pub message_cost_per_second_max: u32,
    /// Streams that one user plays at once: four pages of a grid of 8 x 8.
    pub play_max: u32,
    /// How many of the loudest voices are forwarded in a large room, beside whoever spoke last; 0 forwards all. More than
    /// three at once nobody follows, and each costs a packet to everybody every 20 ms.
    pub loudest_voices: usize,
    /// A room is large with more tracks of sound than this: fewer cost little, and leaving none out keeps the sound of
    /// the rooms themselves.
    pub loudest_voices_above: usize,
    /// Bytes of frames kept per track and layer: 4 s at 4 Mbit/s. At least one largest frame.
    pub cache_bytes_max: usize,
    /// Age of the oldest frame kept: older ones could not be caught up with in time anyway.
    pub cache_age_max: Duration,
    /// Least time between two keyframes asked of one publisher for one layer: a keyframe costs as much
    /// as many ordinary frames, and one serves everyone who waits.
    pub keyframe_interval_min: Duration,
    /// Frames of sound for a client that plays several streams wait so long for others to share a packet with: a lone small
    /// packet costs as much as ten that are one. Of what a voice may take on its way (150 ms) it is next to nothing.
    pub voice_window: Duration,
    /// A session whose connection is gone is kept for so long, for its client to come back. With the idle timeout of
    /// connections it makes up how long a ghost stays.
    pub session_grace: Duration,
    /// Who is sent frames and takes none for so long is sent away; zero: never. Longer than a connection lives that is
    /// silent altogether (6 s), so that it is those who acknowledge everything and read nothing, and long enough for a
    /// machine that stands still for a while.
    pub slow_subscriber_timeout: Duration,
    /// A user is told this long before the token expires: time enough to ask the app's server for another.
    pub token_notice: Duration,
    /// A user stays this long after the token expired: a renewal may be on its way over a bad link.
    pub token_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 10_000,
            connections_per_address_max: 1000,
            handshakes_max: 2000,
            handshakes_per_address_max: 200,
            handshakes_unproven_max: 250,
            handshakes_unproven_per_second_max: 200,
            handshakes_per_second_max: 1000,
            handshakes_per_address_per_second_max: 100,
            handshake_timeout: Duration::from_secs(10),
            packets_per_second_max: 10_000,
            rooms_max: 10_000,
            users_per_room_max: 10_000,
            publish_max: 16,
            publish_bytes_per_second_max: 4_000_000,
            publish_bytes_burst_max: 8 << 20,
            requests_burst_max: 600,
            requests_per_second_max: 100,
            message_bytes_max: APP_MESSAGE_MAX,
            message_burst_max: 200,
            message_cost_per_second_max: 80,
            play_max: 256,
            loudest_voices: 3,
            loudest_voices_above: 8,
            cache_bytes_max: 2 << 20,
            cache_age_max: Duration::from_secs(4),
            keyframe_interval_min: Duration::from_millis(500),
            voice_window: Duration::from_millis(4),
            session_grace: Duration::from_secs(4),
            slow_subscriber_timeout: Duration::from_secs(10),
            token_notice: Duration::from_secs(30),
            token_grace: Duration::from_secs(10),
        }
    }
}

/// Handshakes at once, in seconds of their rate: people come together, at the full hour or when a network is back.
pub const HANDSHAKE_SECONDS_AT_ONCE: u32 = 4;
/// Attempts a second that are asked to prove their address; more are not answered. One takes some 10 µs, so that a flood
/// of them takes a tenth of a core, and what is sent is a twelfth of what came.
pub const RETRIES_PER_SECOND_MAX: u32 = 10_000;
/// A publisher is over its limit until nothing was dropped for so long: longer than the slowest keyframe interval in use
/// is apart from the next, shorter than people take to try again.
pub const PUBLISH_OVER_FORGET: Duration = Duration::from_secs(3);
/// Who is over the limit for so long loses a stream: time enough for an encoder to be told and to be slower.
pub const PUBLISH_OVER_MAX: Duration = Duration::from_secs(10);
/// A publisher over its limit is told so often.
pub const PUBLISH_OVER_TELL_INTERVAL: Duration = Duration::from_secs(2);
/// How often the packets of a connection are counted.
pub const PACKETS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Packets at once, in seconds of their rate: a path that stood still delivers what it held.
pub const PACKET_SECONDS_AT_ONCE: u32 = 3;
/// The most that [`Limits::voice_window`] may be: beyond it the delay is heard before it saves much.
pub const VOICE_WINDOW_MOST: Duration = Duration::from_millis(20);
/// Ended sessions remembered with the reason, for clients that come back to them: those of a relay's worth of users.
pub const FAREWELLS_MAX: usize = 10_000;
/// Publications that others ended, of which a session is told again when its client comes back: what it publishes at most,
/// twice. The newest count.
pub const TAKEN_MAX: usize = 32;
/// The smallest [`Limits::cache_bytes_max`]: below it the largest frame would not fit.
pub const CACHE_BYTES_LEAST: usize = OBJECT_MAX;

/// Events kept for members who read slowly. Past it (or [`EVENT_LOG_BYTES_MAX`]) they get a fresh snapshot,
/// which for rooms of a few thousand users is no larger.
pub const EVENT_LOG_EVENTS_MAX: usize = 4096;
/// See [`EVENT_LOG_EVENTS_MAX`]: three per room, two of them without most users, so that those of a thousand rooms take 3 GiB
/// when all are full.
pub const EVENT_LOG_BYTES_MAX: usize = 1 << 20;
/// Events in one batch: keeps the room's lock short (a millisecond), and is what a room of any size sees in a window.
pub const EVENT_BATCH_MAX: usize = 1024;
/// From so many events on a batch tells only what they come to. Who is less behind hears of each as it happened: of a
/// leave the user's streams are told one by one, for instance.
pub const COALESCE_EVENTS_MIN: usize = 16;
/// Batches kept for others at the same place: those of one group at a time, and of a few who just came.
pub const BATCHES_MAX: usize = 8;
/// Bytes of them, beside the log itself: three of the largest batches of ordinary users. One is kept whatever its size.
pub const BATCHES_BYTES_MAX: usize = 128 * 1024;
/// A snapshot serves everyone who needs one until the events after it are more than one for so many users: to send those
/// along is cheaper than to make another snapshot.
pub const SNAPSHOT_USERS_PER_EVENT: usize = 32;
/// From so many members on what happens waits for the room's window; below, telling all takes 2 ms at most.
pub const PACE_MEMBERS_MIN: usize = 64;
/// Members of one room told a second: at 25 µs each (wake-up, packet, acknowledgement) a quarter of a core. It sets the
/// window: members divided by this.
pub const PACE_PER_SECOND: u64 = 10_000;
/// What happens in a room waits no longer than this while the machine has time: people take it for at once. In rooms so
/// large that this would be more members a second than [`PACE_PER_SECOND_MAX`], it does.
pub const WINDOW_MAX: Duration = Duration::from_millis(250);
/// Members of one room told a second in any case: by the same reckoning 0.6 of a core.
pub const PACE_PER_SECOND_MAX: u64 = 25_000;
/// The longest window of all: of a room of any size, and when the machine is full.
pub const WINDOW_FULL_MAX: Duration = Duration::from_secs(1);
/// The machine is full when members are told so much later than they were to be: several times what timers and other
/// tasks cost otherwise.
pub const PACE_LATE_MAX: Duration = Duration::from_millis(10);
/// How often the relay looks how late it is woken: 50 times a second are nothing, and a dozen make a quarter of a second.
pub const OVERLOAD_HEARTBEAT: Duration = Duration::from_millis(20);
/// What is left out is decided so often: two frames of sound late are noticed within a few of these.
pub const OVERLOAD_ROUND: Duration = Duration::from_millis(250);
/// And not after fewer looks than this, of which the worst does not count.
pub const OVERLOAD_SAMPLES_MIN: u32 = 4;
/// The machine is too slow when tasks are woken so late in the mean of a round. A frame passes five of them, so that it is
/// late by three frames of sound then. Timers alone are late by 1 to 2 ms, and on two cores for which nine other tasks
/// compete by 3 ms (6 at most).
pub const OVERLOAD_LATE_MAX: Duration = Duration::from_millis(10);
/// It keeps up when they are not later than this.
pub const OVERLOAD_CALM_LATE_MAX: Duration = Duration::from_millis(5);
/// It keeps up for so long before something less is left out: keyframes have come by then and made their work.
pub const OVERLOAD_CALM_MIN: Duration = Duration::from_secs(2);
/// The same, doubled each time that less was too little, up to this.
pub const OVERLOAD_CALM_MAX: Duration = Duration::from_secs(60);
/// When tasks are woken so late although all is left out, nobody may join any more. To refuse somebody is worse than to leave
/// out video, and without any the machine does what it can: sound is late by a tenth of a second then, which is where people
/// begin to talk into each other.
pub const OVERLOAD_FULL_LATE_MIN: Duration = Duration::from_millis(20);
/// But not before it was so for this long: what was left out helps within a few rounds.
pub const OVERLOAD_FULL_MAX: Duration = Duration::from_secs(5);
/// Clients told of another level at each look: 10,000 a second, as many as are told of events in one room.
pub const OVERLOAD_TOLD_PER_BEAT: usize = 200;

/// Bytes of the room's history under way to one member. One who has not acknowledged them gets no more: it has a position
/// instead of a queue, and is told later what it all came to, or the whole room. On a good link of 100 ms that is 5 Mbit/s,
/// on one of 256 kbit/s what it hears is 2 s old at most.
pub const EVENTS_UNDER_WAY_MAX: usize = 64 * 1024;
/// Bytes of users, streams, states and infos on one snapshot page. A single entry has at most about 2 kB, so that a page
/// stays below the largest message with room to spare.
pub const PAGE_BYTES_MAX: usize = 16 * 1024;

/// Keys of one room's info: a whiteboard, a topic, who presents, and much to spare. With keys and values of the
/// largest size a room's info then takes 37 kB, three pages of a snapshot.
pub const ROOM_INFO_KEYS_MAX: usize = 32;

/// How long frames of the group before the newest keyframe stay: a subscriber that far behind
/// skips to the keyframe instead.
pub const OLD_GROUP_AGE_MAX: Duration = Duration::from_millis(500);
/// A late joiner reaches live within this time, or a fresh keyframe is asked for.
pub const CATCH_UP_MAX: Duration = Duration::from_millis(500);
/// A subscriber whose next frame is further than this behind the newest skips to a keyframe.
pub const LATENESS_MAX: Duration = Duration::from_millis(500);
/// Frames that nobody needs are skipped when they are further than this behind the newest.
pub const LATENESS_DISCARDABLE_MAX: Duration = Duration::from_millis(150);
/// One subscriber's slowness asks for a keyframe at most this often: keyframes are what a slow link
/// can least afford.
pub const SLOW_KEYFRAME_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// How often it is looked whether a player takes what it is sent: several reports come in that time on any link.
pub const PATIENCE_INTERVAL: Duration = Duration::from_secs(1);
/// A layer without a frame for this long is not on offer: twice the slowest frame rate in use (1/s).
pub const LAYER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// Notices waiting to be written to one connection. A room of 60 that ends makes about 120 at once.
pub const NOTICES_MAX: usize = 1024;
/// Room for answers that must be free before the next request is read.
pub const ANSWERS_PER_REQUEST_MAX: usize = 256;
/// App messages waiting for one receiver: ten users' bursts. One who lets more wait does not read.
pub const MESSAGES_WAITING_MAX: usize = 1024;
/// Bytes of them: 6 s at 2 Mbit/s. Receivers share the bytes, so that a room of slow ones holds little more than one.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 3 << 19;
/// Lossy messages are dropped when so many wait: later ones will say what is true then.
pub const LOSSY_WAITING_MAX: usize = 32;
/// The same in bytes: a quarter of a second at 2 Mbit/s.
pub const LOSSY_WAITING_BYTES_MAX: usize = 64 * 1024;
/// A connection that has not joined a room this long after it came, or after it left one, is closed.
pub const UNJOINED_MAX: Duration = Duration::from_secs(10);
/// How long a connection that the relay ends may take to hear why.
pub const CLOSING_MAX: Duration = Duration::from_secs(1);
/// How long a shutdown waits for connections to end in order.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(3);
/// How long a relay that was asked to end waits for its users to go elsewhere, unless the configuration says
/// otherwise: as long as a client probes for another path before it gives up a session.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Users who may publish nothing for a time that a moderator or the operator set: about 300 B each.
pub const BANS_MAX: usize = 10_000;
/// Of those, in one room: one room's moderators cannot use up what all rooms have.
pub const BANS_PER_ROOM_MAX: usize = 256;
/// HTTP connections at once: a few collectors of metrics and administrators. More wait to be accepted.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// How long one HTTP connection may take, from its first byte to its last: each carries one request, and the largest
/// answer is about 1 MB.
pub const HTTP_EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// Bytes of an HTTP request's head. A bearer token has at most 1 kB, three ids 0.5 kB.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an HTTP request's body: one small JSON object.
pub const HTTP_BODY_BYTES_MAX: usize = 4 * 1024;
/// Entries in one answer of the admin API; longer lists take several.
pub const ADMIN_PAGE_MAX: usize = 1000;
/// Events that wait for the app's server: at some 300 B each 3 MB. The oldest go first.
pub const WEBHOOK_QUEUE_MAX: usize = 10_000;
/// How long the app's server may take to answer one post.
pub const WEBHOOK_ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long is waited before a post that failed is tried again; doubled each time, up to [`WEBHOOK_WAIT_MAX`].
pub const WEBHOOK_WAIT_MIN: Duration = Duration::from_millis(250);
/// See [`WEBHOOK_WAIT_MIN`].
pub const WEBHOOK_WAIT_MAX: Duration = Duration::from_secs(30);
/// An event that was tried for this long is given up, so that one which the server never takes does not stop all.
pub const WEBHOOK_AGE_MAX: Duration = Duration::from_secs(600);
/// Keys of one app, and so the most signatures that are checked for one token: the key in use, the one
/// before and the one after for each algorithm, and two to spare. A check takes 5 to 100 µs.
pub const KEYS_PER_APP_MAX: usize = 8;
/// How many requests a token that is looked at counts for: with [`KEYS_PER_APP_MAX`] keys a check may take a
/// millisecond, during which nobody else is served, so that one connection may ask for 12 at once and 2 a second.
pub const TOKEN_CHECK_COST: u32 = 50;
/// How much the clock of an app's server may be ahead of ours before its tokens are not valid yet.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);
/// A client is told of a token's end no sooner than this after it showed the token, and no sooner than half of
/// the time that was left then: one that renews with the same token, or one as short, is told some five times.
pub const TOKEN_NOTICE_WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait before a token is compared with the date again, which may have been set meanwhile.
pub const TOKEN_RECHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the certificate's files are looked at for a change.
pub const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The most bytes of a client's own description that go to the log.
pub const AGENT_BYTES_MAX: usize = 128;
