//! How a call gets its connection: one attempt, joined by more while no answer comes.
//!
//! QUIC waits twice as long after every loss, so that where most packets are lost a single attempt may take
//! for ever. Attempts do not wait for each other. Each sends the whole first flight; the relay carries out
//! the join that comes first and refuses the others of the same login, and the attempt on which anything
//! comes that follows from a join is the one that the call goes on with. On a good link there is only the
//! first. Frames that come before the answer are received, and asked for, from the start.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::quic::inbound::Lanes;
use parlor_transport::quic::{
    Arrival, Endpoint, Inbound, MessageReceiver, MessageSender, RecvError, Session,
};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClientMessage, Delivery, RelayMessage};
use tokio::sync::watch;

use super::shared::Shared;

/// The first attempt is alone for so long: four round trips of a good mobile link, so that only bad and far
/// links see a second one.
const ATTEMPT_ALONE: Duration = Duration::from_millis(200);
/// Then others follow at this distance.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);
/// Attempts for one call, some 3 kB each; they begin within the first five seconds.
const ATTEMPTS_MAX: usize = 96;
/// Messages and lanes of the first flight; what an app asks for beyond goes out when the race is over.
const FLIGHT_MAX: usize = 256;

/// The connection that a call goes on with.
pub(super) struct Chosen {
    pub(super) session: Session,
    pub(super) requests: MessageSender,
    pub(super) answers: MessageReceiver,
    pub(super) inbound: Inbound,
    pub(super) lanes: Lanes,
    /// Answers that came so far.
    pub(super) came: Vec<RelayMessage>,
    /// What else came so far.
    pub(super) arrived: Option<Arrival>,
    /// When its first flight left.
    sent: Timestamp,
    /// How much of the flight has left on it.
    position: Position,
}

/// What all attempts send and expect, as far as the app has asked for it.
#[derive(Clone, Default)]
struct Flight {
    messages: Vec<ClientMessage>,
    lanes: Vec<(u32, Option<Delivery>)>,
}

/// How much of a [`Flight`] was dealt with.
#[derive(Clone, Copy, Default, PartialEq)]
struct Position {
    messages: usize,
    lanes: usize,
}

/// How one attempt ended.
enum Attempt {
    Answered(Box<Chosen>),
    /// Another attempt has joined, and its answer is on its way.
    Raced,
    Failed(Refusal),
}

/// Connects, sends what the call has to say, and returns once the relay has answered to it.
///
/// # Errors
/// The last attempt's, when every address failed.
pub(super) async fn run(shared: &Shared, endpoint: &Endpoint) -> Result<Chosen, Refusal> {
    let address = shared.look(|_, call| call.request().address.clone());
    let places = resolve(&address.host, address.port).await?;
    let (flight, heard) = watch::channel(Arc::<Flight>::default());
    let mut attempts = FuturesUnordered::new();
    let mut failed = vec![false; places.len()];
    let mut last = Refusal::from(Code::ConnectFailed);
    let (mut started, mut raced) = (0, false);
    let mut next = shared.clock.timer();
    loop {
        if next.deadline().is_none() && !raced && started < ATTEMPTS_MAX {
            let place = started % places.len();
            let attempt = attempt(shared, endpoint, places[place], &address, &flight, heard.clone());
            attempts.push(Box::pin(async move { (place, attempt.await) }));
            started += 1;
            let interval = if started == 1 { ATTEMPT_ALONE } else { ATTEMPT_INTERVAL };
            next.reset(Some(shared.clock.now() + interval));
        }
        if attempts.is_empty() && (raced || started == ATTEMPTS_MAX) {
            return Err(last);
        }
        tokio::select! {
            biased;
            Some((place, ended)) = attempts.next(), if !attempts.is_empty() => match ended {
                Attempt::Answered(mut chosen) => {
                    shared.act(|_, call| call.handle_chosen(chosen.sent));
                    let flight = flight.borrow().clone();
                    chosen.follow(&flight).await?;
                    return Ok(*chosen);
                }
                Attempt::Raced => raced = true,
                Attempt::Failed(why) => {
                    (failed[place], last) = (true, why);
                    // Where the first attempt heard nothing until it timed out, the later ones will not either.
                    if failed.iter().all(|failed| *failed) {
                        return Err(last);
                    }
                }
            },
            () = next.expired(), if !raced && started < ATTEMPTS_MAX => {}
            () = shared.messages.notified() => extend(shared, &flight),
            () = shared.media.notified() => extend(shared, &flight),
        }
    }
}

/// Adds to the flight what the call has to say by now.
fn extend(shared: &Shared, flight: &watch::Sender<Arc<Flight>>) {
    flight.send_if_modified(|flight| {
        let before = flight.end();
        while flight.messages.len() < FLIGHT_MAX
            && let Some(message) = shared.look(|_, call| call.poll_message())
        {
            Arc::make_mut(flight).messages.push(message);
        }
        while flight.lanes.len() < FLIGHT_MAX
            && let Some(lane) = shared.look(|_, call| call.poll_lane())
        {
            Arc::make_mut(flight).lanes.push(lane);
        }
        flight.end() != before
    });
}

impl Flight {
    fn end(&self) -> Position {
        Position { messages: self.messages.len(), lanes: self.lanes.len() }
    }
}

/// One connection, up to the answer to its join.
async fn attempt(
    shared: &Shared,
    endpoint: &Endpoint,
    place: SocketAddr,
    address: &parlor_transport::address::RelayAddress,
    flight: &watch::Sender<Arc<Flight>>,
    mut heard: watch::Receiver<Arc<Flight>>,
) -> Attempt {
    let session = match endpoint.connect(place, &address.host, address.trust()).await {
        Ok(session) => session,
        Err(error) => return Attempt::Failed(Refusal::new(error.code(), format!("{place}: {}", error.text))),
    };
    let (requests, answers) = match session.open_requests().await {
        Ok(opened) => opened,
        Err(ended) => return Attempt::Failed(refusal(&ended)),
    };
    shared.act(|now, call| call.handle_connected(now));
    extend(shared, flight);
    let sent = shared.clock.now();
    let (inbound, lanes) = session.inbound();
    let (came, arrived, position) = (Vec::new(), None, Position::default());
    let mut chosen = Chosen { session, requests, answers, inbound, lanes, came, arrived, sent, position };
    let outcome = chosen.hear_out(&mut heard).await;
    match outcome {
        Ok(true) => Attempt::Answered(Box::new(chosen)),
        Ok(false) => {
            chosen.session.close(Code::Ok, "another connection of the same login has joined");
            Attempt::Raced
        }
        Err(why) => Attempt::Failed(why),
    }
}

impl Chosen {
    /// Sends the flight and listens until something decides: true if this connection is the one.
    async fn hear_out(&mut self, flight: &mut watch::Receiver<Arc<Flight>>) -> Result<bool, Refusal> {
        loop {
            let all = flight.borrow_and_update().clone();
            self.follow(&all).await?;
            tokio::select! {
                biased;
                answer = self.answers.recv::<RelayMessage>() => match answer {
                    Ok(Some(RelayMessage::Refused(refused))) if refused.refusal.code == Code::LoginRaced => {
                        return Ok(false);
                    }
                    Ok(Some(RelayMessage::Welcome(welcome))) if self.came.is_empty() => {
                        self.came.push(RelayMessage::Welcome(welcome));
                    }
                    // Joined, or a reason why not; whatever else it is, the call knows what to make of it.
                    Ok(Some(message)) => {
                        self.came.push(message);
                        return Ok(true);
                    }
                    Ok(None) => return Err(refusal(&self.session.closed().await)),
                    Err(RecvError::Ended(ended)) => return Err(refusal(&ended)),
                    Err(RecvError::Wire(wire)) => return Err(Refusal::new(wire.code(), wire.to_string())),
                },
                // Only who has joined is sent events and frames.
                arrival = self.inbound.next() => {
                    self.arrived = Some(arrival.map_err(|ended| refusal(&ended))?);
                    return Ok(true);
                }
                Ok(()) = flight.changed() => {}
            }
        }
    }

    /// Does what the flight holds beyond what was done.
    async fn follow(&mut self, flight: &Flight) -> Result<(), Refusal> {
        for &(lane, delivery) in &flight.lanes[self.position.lanes..] {
            match delivery {
                Some(delivery) => self.lanes.open(lane, delivery),
                None => self.lanes.close(lane),
            }
        }
        self.position.lanes = flight.lanes.len();
        for message in &flight.messages[self.position.messages..] {
            self.position.messages += 1;
            self.requests.send(message).await.map_err(|ended| refusal(&ended))?;
        }
        Ok(())
    }
}

/// What an end says, without its code, which is shown beside it.
pub(super) fn refusal(ended: &(impl Coded + std::fmt::Display)) -> Refusal {
    let text = ended.to_string();
    let code = format!(" ({})", ended.code().number());
    Refusal::new(ended.code(), text.strip_suffix(&code).unwrap_or(&text))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let failed = |why: &dyn std::fmt::Display| {
        let text = format!("no address is known for the host {host:?}: {why}; check the address");
        Refusal::new(Code::ConnectFailed, text)
    };
    let found: Vec<_> =
        tokio::net::lookup_host((host, port)).await.map_err(|error| failed(&error))?.collect();
    if found.is_empty() { Err(failed(&"the name has none")) } else { Ok(found) }
}
