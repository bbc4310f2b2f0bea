//! The handle of a joined room, and the readers of its events.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parlor_transport::error::{Code, Refusal};
use parlor_transport::id::{RoomId, StreamId, UserId};
use parlor_transport::quic::Session;
use parlor_transport::token::Token;

use super::answer::Answer;
use super::player::Player;
use super::publisher::Publisher;
use super::shared::Shared;
use crate::error::{InfoError, MessageError, PlayError, PublishError, RenewError};
use crate::options::{JoinRequest, PlayOptions, PublishOptions};
use crate::room::feed::Reader;
use crate::room::{Recipients, RoomEvent, RoomReason, RoomState, RoomStatus, RoomView};
use crate::stats::RoomStats;

/// A room that was joined, or is being joined. Dropping it leaves, which ends its publishers and players.
pub struct Room {
    shared: Arc<Shared>,
}

impl Room {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Room { shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn request(&self) -> JoinRequest {
        self.shared.look(|_, call| call.request().clone())
    }

    /// Leaves, and waits until that is done or took too long.
    pub(super) async fn end(&self) {
        self.shared.act(|now, call| call.leave(now));
        self.shared.finished().await;
    }

    /// The room's id.
    pub fn id(&self) -> RoomId {
        self.shared.look(|_, call| call.request().room.clone())
    }

    /// Who we are in it.
    pub fn user(&self) -> UserId {
        self.shared.look(|_, call| call.request().user.clone())
    }

    /// State, reason and error as they are now; [`events`](Self::events) tells of changes.
    pub fn status(&self) -> RoomStatus {
        self.shared.look(|_, call| call.status().clone())
    }

    /// Waits until the relay let us in.
    ///
    /// # Errors
    /// Why it did not, or why the room has ended since.
    pub async fn joined(&self) -> Result<(), Refusal> {
        self.shared
            .when(|call| match call.status().state {
                RoomState::Connecting => None,
                RoomState::Connected => Some(Ok(())),
                RoomState::Disconnected => Some(Err(error_of(call.status()))),
            })
            .await
    }

    /// A reader of everything that happens, beginning with what is: state, users, streams. Messages are read from
    /// here on: a reader made right after the join misses none. Any number of readers can be had at any time, each
    /// with its own place.
    pub fn events(&self) -> RoomEvents {
        let reader = self.shared.look(|_, call| call.reader());
        RoomEvents { shared: Arc::clone(&self.shared), reader }
    }

    /// The other users and their streams as they are now; `None` before the relay has told.
    pub fn view(&self) -> Option<RoomView> {
        self.shared.look(|_, call| call.mirror().place().map(|_| call.mirror().others(&call.request().user)))
    }

    /// Waits until the relay has told who and what is in the room.
    ///
    /// # Errors
    /// Why the room ended before that.
    pub async fn snapshot(&self) -> Result<RoomView, Refusal> {
        self.shared
            .when(|call| match call.mirror().place() {
                Some(_) => Some(Ok(call.mirror().others(&call.request().user))),
                None if call.is_over() => Some(Err(error_of(call.status()))),
                None => None,
            })
            .await
    }

    /// The room's epoch and position in the relay's history; `None` before the relay has told.
    ///
    /// Two clients at the same place see the same room, unless one of them is
    /// [uninterested](crate::JoinOptions::uninterested) in users.
    pub fn place(&self) -> Option<(u64, u64)> {
        self.shared.look(|_, call| call.mirror().place())
    }

    /// Publishes a stream of frames that the app encodes itself. May be called before the room is joined.
    ///
    /// # Errors
    /// [`PublishError`] when the options are not valid or the room has ended. What the relay says of it shows
    /// in [`Publisher::status`].
    pub fn publish(&self, options: PublishOptions) -> Result<Publisher, PublishError> {
        let request = options.check()?;
        let lane = self.shared.act(|_, call| call.publish(request.clone()))?;
        Ok(Publisher::new(Arc::clone(&self.shared), lane, request))
    }

    /// Plays a stream, now or as soon as somebody publishes it. May be called before the room is joined.
    ///
    /// # Errors
    /// [`PlayError`] when the id is not valid or the room has ended. What the relay says of it shows in
    /// [`Player::status`].
    pub fn play(&self, stream: impl AsRef<str>, options: PlayOptions) -> Result<Player, PlayError> {
        let stream = StreamId::new(stream)?;
        let lane = self.shared.act(|_, call| call.play(stream.clone(), options.wishes()))?;
        Ok(Player::new(Arc::clone(&self.shared), lane, stream))
    }

    /// Goes on with another token, for the same app, room and user, and waits for the relay's answer. From then
    /// on it is the new one that says what may be published. See [`RoomEvent::TokenWillExpire`].
    ///
    /// # Errors
    /// [`RenewError`]; the token before still holds, until it expires. A refused token is refused again: get
    /// another.
    pub async fn renew_token(&self, token: impl AsRef<str>) -> Result<(), RenewError> {
        struct Asked<'a>(&'a Shared, u32);
        impl Drop for Asked<'_> {
            fn drop(&mut self) {
                self.0.act(|_, call| call.release_renewal(self.1));
            }
        }
        let token = Token::new(token)?;
        let asked = Asked(&self.shared, self.shared.act(|_, call| call.renew_token(token))?);
        let answer = self.shared.when(|call| call.renewal(asked.1)).await;
        answer.map_err(|refusal| match self.status().state {
            RoomState::Disconnected => RenewError::Ended(refusal),
            _ => RenewError::Refused(refusal),
        })
    }

    /// Sends a message of at most 16 KiB to the others in the room, or to some of them, who get it as
    /// [`RoomEvent::Message`]: reliably, and in the order of sending. It has been sent when this returns, or is sent
    /// as soon as the room is joined; [`Answer::done`] waits until the relay has passed it on. The relay takes some
    /// 40 short messages a second of one user, 100 at once, and refuses more with code 1050.
    ///
    /// ```no_run
    /// # async fn chat(room: &parlor_client::Room) -> Result<(), Box<dyn std::error::Error>> {
    /// use parlor_client::room::Recipients;
    ///
    /// room.send_message(Recipients::Everyone, "hello, all")?;
    /// room.send_message(Recipients::users(["bob"])?, "and you, Bob")?.done().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] when it is too large, for nobody or for too many, or the room has ended. What the relay says
    /// of it is its [`Answer`].
    pub fn send_message(&self, to: Recipients, payload: impl Into<Bytes>) -> Result<Answer, MessageError> {
        self.say(to, payload.into(), false)
    }

    /// The same for what is of no use when it is late, such as the place of a pointer: the relay drops it on its way
    /// to somebody who takes less than is sent.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message).
    pub fn send_lossy_message(
        &self,
        to: Recipients,
        payload: impl Into<Bytes>,
    ) -> Result<Answer, MessageError> {
        self.say(to, payload.into(), true)
    }

    fn say(&self, to: Recipients, payload: Bytes, lossy: bool) -> Result<Answer, MessageError> {
        let request = self.shared.act(|_, call| call.send_message(to, payload, lossy))?;
        Ok(Answer::new(Arc::clone(&self.shared), request))
    }

    /// Attaches info to the room under a key (1 to 128 bytes): at most 1,024 bytes; an empty value removes the key.
    /// Everybody may write and hears of it as [`RoomEvent::RoomInfo`], those who come later from what is; the last
    /// write wins. A room has at most 32 keys.
    ///
    /// # Errors
    /// [`InfoError`] when key or value is too large or the room has ended. What the relay says of it is its
    /// [`Answer`].
    pub fn set_info(&self, key: impl Into<String>, value: impl Into<String>) -> Result<Answer, InfoError> {
        let (key, value) = (key.into(), value.into());
        let request = self.shared.act(|_, call| call.set_room_info(key, value))?;
        Ok(Answer::new(Arc::clone(&self.shared), request))
    }

    /// Round trip, what the link carries, clock error and join time.
    pub fn stats(&self) -> RoomStats {
        let session = self.shared.session();
        RoomStats {
            rtt: session.as_ref().map(Session::rtt),
            uplink: session.as_ref().map(Session::out_stats),
            ..self.shared.look(|now, call| call.stats(now))
        }
    }

    /// Leaves and waits for the relay's answer, at most the configured time. Publishers and players end.
    ///
    /// # Errors
    /// When the relay did not confirm it: it then finds out by itself. A room that had ended before is left
    /// already.
    pub async fn leave(self) -> Result<(), Refusal> {
        self.end().await;
        let status = self.status();
        if status.reason == RoomReason::LeaveFailed { Err(error_of(&status)) } else { Ok(()) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.act(|now, call| call.leave(now));
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("id", &self.id()).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Reads what happens in a room, from [`Room::events`]. Memory stays bounded however slowly it is read: a
/// reader that falls behind gets [`RoomEvent::Resync`].
pub struct RoomEvents {
    shared: Arc<Shared>,
    reader: Reader,
}

impl RoomEvents {
    /// The next event; `None` once the room has ended and everything was read. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<RoomEvent> {
        let reader = &mut self.reader;
        self.shared
            .when(|call| match call.next_event(reader) {
                Some(event) => Some(Some(event)),
                None => call.is_over().then_some(None),
            })
            .await
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<RoomEvent> {
        self.shared.look(|_, call| call.next_event(&mut self.reader))
    }
}

impl fmt::Debug for RoomEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomEvents").field("reader", &self.reader).finish_non_exhaustive()
    }
}

fn error_of(status: &RoomStatus) -> Refusal {
    status.error.clone().unwrap_or_else(|| Refusal::from(Code::Closed))
}
