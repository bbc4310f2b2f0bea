//! The one table of numeric codes: what they mean, whether trying again can help, what to do next.
//!
//! Every error that Parlor shows has a [`Code`]. Codes travel in control messages and as the
//! application code of a closed QUIC connection or stopped QUIC stream. They are stable: a
//! number is never given a second meaning. `docs/protocol.md` lists them.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $retry:ident, $text:literal;)*) => {
        /// A stable numeric code. Codes of newer peers are kept as [`Code::Other`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A code that this version does not know.
            Other(u32),
        }

        impl Code {
            /// Every code of the table, in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self {
                    $(Code::$name => $number,)*
                    Code::Other(number) => number,
                }
            }

            /// The code with this number.
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Code::$name,)*
                    other => Code::Other(other),
                }
            }

            /// Whether the same request may succeed later without being changed.
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(Code::$name => codes!(@$retry),)*
                    Code::Other(_) => false,
                }
            }

            /// What happened and what to do next, for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                    Code::Other(_) => "a code of a newer version; see the log of the other side, or update this one",
                }
            }
        }
    };
    (@retry) => { true };
    (@final) => { false };
}

codes! {
    /// Nothing went wrong: the orderly end of a connection.
    Ok = 0, final, "no error";

    // 1000–1999: connection, session, room.
    /// No protocol version in common.
    VersionMismatch = 1001, final, "no protocol version in common; update the older side";
    /// A message that cannot be read, or at a place where it may not stand.
    ProtocolViolation = 1002, final, "the peer broke the protocol; update the older side, and report it if both are current";
    /// A message, frame or list beyond its bound.
    TooLarge = 1003, final, "beyond the size limit; send less at once";
    /// An identifier with a wrong length or character.
    BadId = 1004, final, "an identifier is not valid; see the rules for ids";
    /// A request that needs a room before one was joined.
    NotJoined = 1005, final, "no room was joined on this connection; join first";
    /// A second join on one connection.
    AlreadyJoined = 1006, final, "this connection has joined a room already; use a second one for another room";
    /// The room holds as many users as it may.
    RoomFull = 1007, retry, "the room is full; try later or ask for a larger limit";
    /// The relay holds as many rooms or connections as it may.
    RelayFull = 1008, retry, "the relay is full; try later or another relay";
    /// The same user joined again elsewhere; the newer session stays.
    RepeatedLogin = 1009, final, "the same user joined from elsewhere and took over; leave there before joining here";
    /// Put out of the room.
    Kicked = 1010, final, "removed from the room by a moderator or the server";
    /// The room was closed by the server.
    RoomClosed = 1011, final, "the room was closed by the server";
    /// No connection could be made.
    ConnectFailed = 1012, retry, "the relay could not be reached; check address, port and firewall (UDP)";
    /// No answer in time.
    ConnectTimeout = 1013, retry, "no answer from the relay; check address, port and firewall (UDP)";
    /// The connection was there and went away.
    ConnectionLost = 1014, retry, "the connection to the relay was lost";
    /// The relay's certificate is not the expected one.
    CertificateMismatch = 1015, final, "the relay's certificate is not the expected one; copy the address anew from the relay's start-up lines";
    /// The app is not known to the relay.
    UnknownApp = 1016, final, "the relay does not know this app; check the app id or the relay's configuration";
    /// The relay is going away.
    RelayShutdown = 1017, retry, "the relay is shutting down; join again shortly";
    /// More requests than allowed in the time.
    TooManyRequests = 1018, retry, "too many requests; slow down";
    /// Nothing was heard for too long.
    HeartbeatTimeout = 1019, retry, "nothing was heard for too long";
    /// The address is not one.
    BadAddress = 1020, final, "not an address; it looks like parlor://host:4433/room#sha256=…";
    /// The peer does not take what is sent to it.
    PeerTooSlow = 1021, retry, "the peer did not read its control stream in time";
    /// Already left, or the engine was closed.
    Closed = 1022, final, "the room was left or the engine closed; join again";
    /// Another connection of the same login has joined.
    LoginRaced = 1023, final, "another connection of the same login has joined; go on with that one";
    /// The app asks for a token and none came.
    TokenMissing = 1024, final, "this app asks for a token; get one from the app's server and join with it";
    /// A token that is none, or that no key of the app vouches for.
    TokenInvalid = 1025, final, "the token is not valid; get a new one that is signed with a key of this app";
    /// The token's time is over.
    TokenExpired = 1026, final, "the token has expired; get a new one from the app's server";
    /// The token's time has not come.
    TokenNotYetValid = 1027, final, "the token is not valid yet; wait until it is, or check the clocks of the app's server and the relay";
    /// The token was made for another app, room or user.
    TokenForOther = 1028, final, "the token is for another app, room or user; get one for this";
    /// The token does not let its user join.
    JoinForbidden = 1029, final, "the token does not let its user join; get one that does";
    /// There is nothing to resume.
    SessionGone = 1030, final, "the session is over; join again";
    /// The token does not let its user moderate.
    ModerateForbidden = 1040, final, "the token does not let its user moderate; get one that does and renew";
    /// There is no such room, or no such user in it.
    NotFound = 1041, final, "there is no such room or user; look who is there";
    /// More app messages than one user may send in the time.
    TooManyMessages = 1050, retry, "too many messages at once; slow down";
    /// A message for somebody who is not in the room.
    UnknownUser = 1051, final, "a user that the message is for is not in the room; leave them out";
    /// As many keys as the room's info may have.
    TooManyKeys = 1052, final, "the room's info has as many keys as it may; remove one first";
    /// What only a user whom others see may do.
    Unseen = 1053, final, "an unseen user can neither publish nor send messages; join again to be seen";
    /// One address has as many connections as it may.
    TooManyConnections = 1060, retry, "too many connections from this address; close some or raise the relay's limit";
    /// More handshakes than the relay takes.
    RelayBusy = 1061, retry, "the relay takes no more connections at the moment; try again shortly";
    /// More packets than one connection may send.
    TooManyPackets = 1062, retry, "too many packets on one connection; send less";
    /// The relay's machine is too slow for more users.
    RelayOverloaded = 1064, retry, "the relay's machine is too slow for more users; try again shortly or join at another relay";

    // 2000–2999: publishing.
    /// As many streams as one user may publish.
    TooManyStreams = 2001, final, "too many streams; unpublish one first or raise the relay's limit";
    /// This user publishes that stream already.
    AlreadyPublishing = 2002, final, "this stream is being published already; unpublish it first";
    /// The list of tracks is not valid.
    BadTracks = 2003, final, "the track list is not valid; tracks are numbered from 0 without gaps, with 1–4 spatial and 1–4 temporal layers";
    /// Another user of the app publishes a stream with this id.
    StreamTaken = 2004, final, "the stream id is published by another user; choose another stream id";
    /// There is no such publication.
    NotPublishing = 2005, final, "this stream is not being published";
    /// A frame that does not fit the publication.
    BadFrame = 2006, final, "a frame does not fit its publication; check track, layers and size";
    /// The token does not let its user publish.
    PublishForbidden = 2007, final, "the token does not let its user publish; get one that does and renew";
    /// The token does not name this stream.
    StreamNotAllowed = 2008, final, "the token does not allow this stream id; choose one that it allows, or get another token and renew";
    /// A moderator or the server ended the stream.
    StreamRemoved = 2020, final, "the stream was removed by a moderator or the server; it may be published again";
    /// A moderator or the server lets the user publish nothing.
    PublishBanned = 2021, final, "a moderator or the server has forbidden this user to publish; ask them";
    /// More bytes of frames than one user may publish in the time.
    TooManyBytes = 2030, final, "more bytes a second than one user may publish; lower the bitrate or raise the relay's limit";

    // 3000–3999: playing.
    /// As many streams as one user may play.
    TooManyPlays = 3001, final, "too many streams played at once; stop one first or raise the relay's limit";
    /// This stream is being played already.
    AlreadyPlaying = 3002, final, "this stream is being played already; change its view instead";
    /// There is no such player.
    NotPlaying = 3003, final, "this stream is not being played";

    // 4000–4999: media and files on the client.
    /// A device, file or codec cannot be used.
    MediaFailed = 4001, final, "a device, file or codec cannot be used";

    // 5000–5999: our own faults.
    /// A broken promise of our own.
    Internal = 5001, retry, "an internal error; the log says more, please report it";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.number())
    }
}

/// Errors that can say their code.
pub trait Coded {
    /// The stable code.
    fn code(&self) -> Code;
    /// Whether the same request may succeed later without being changed.
    fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// A refusal as it travels: a code and a text that names the things concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What happened, for people; at most [`Refusal::TEXT_MAX`] bytes.
    pub text: String,
}

impl Refusal {
    /// The most bytes of text that travel.
    pub const TEXT_MAX: usize = 512;

    /// A refusal with its own words, cut at [`Refusal::TEXT_MAX`].
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let mut text = text.into();
        let mut end = text.len().min(Self::TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Refusal { code, text }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Refusal::new(code, code.text())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.number())
    }
}

impl std::error::Error for Refusal {}

impl Coded for Refusal {
    fn code(&self) -> Code {
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_ascending_and_read_back() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        for &code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), code);
        }
        assert_eq!(Code::from_number(999_999), Code::Other(999_999));
        assert_eq!(Code::Other(77).number(), 77);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let refusal = Refusal::new(Code::Internal, "ä".repeat(400));
        assert!(refusal.text.len() <= Refusal::TEXT_MAX);
        assert!(refusal.text.chars().all(|c| c == 'ä'));
    }
}
