//! How a call gets its connection: one attempt, joined by more while no answer comes.
//!
//! QUIC waits twice as long after every loss, so that where most packets are lost a single attempt may take
//! for ever. Attempts do not wait for each other. Each sends the whole first flight; the relay carries out
//! the join that comes first and refuses the others of the same login, and the attempt on which anything
//! comes that follows from a join is the one that the call goes on with. On a good link there is only the
//! first. Frames that come before the answer are received, and asked for, from the start.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parlor_transport::address::RelayAddress;
use parlor_transport::error::{Code, Coded, Refusal};
use parlor_transport::quic::inbound::Lanes;
use parlor_transport::quic::{
    Arrival, Connected, Early, Endpoint, Inbound, MessageReceiver, MessageSender, RecvError, Session,
};
use parlor_transport::units::Timestamp;
use parlor_transport::wire::control::{ClientMessage, Delivery, RelayMessage};
use tokio::sync::watch;

use super::shared::Shared;

/// How attempts follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The first attempt is alone for so long.
    alone: Duration,
    /// Then others follow at this distance.
    interval: Duration,
    /// Attempts in all, some 3 kB each.
    most: usize,
}

impl Pace {
    /// Alone for four round trips of a good mobile link, so that only bad and far links see a second attempt; then for
    /// five seconds as many as a link needs that loses most packets.
    pub(super) const JOIN: Pace =
        Pace { alone: Duration::from_millis(200), interval: Duration::from_millis(50), most: 96 };
    /// Four a second for ten seconds: so soon is it noticed that the network is back.
    pub(super) const RECONNECT: Pace =
        Pace { alone: Duration::from_millis(250), interval: Duration::from_millis(250), most: 40 };
}

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

/// Which attempts were made, and which of them live: when there is another, and when there is no hope.
struct Starts {
    /// For each address its living attempts by number, ascending.
    living: Vec<Vec<usize>>,
    /// For each address whether it was given up.
    given_up: Vec<bool>,
    started: usize,
    pace: Pace,
    /// Another attempt has joined: no more are made.
    raced: bool,
}

impl Starts {
    fn new(places: usize, pace: Pace) -> Self {
        let (living, given_up) = (vec![Vec::new(); places], vec![false; places]);
        Starts { living, given_up, started: 0, pace, raced: false }
    }

    /// Whether there may be another attempt.
    fn has_next(&self) -> bool {
        !self.raced && self.started < self.pace.most
    }

    /// Starts another: its number, its address, and how long it is the newest. Addresses take turns, without those
    /// given up.
    fn next(&mut self) -> (usize, usize, Duration) {
        let number = self.started;
        self.started += 1;
        let places = self.living.len();
        let turn = (0..places).map(|offset| (number + offset) % places).find(|&place| !self.given_up[place]);
        let place = turn.unwrap_or(number % places);
        self.living[place].push(number);
        (number, place, if number == 0 { self.pace.alone } else { self.pace.interval })
    }

    /// An attempt is over because another has joined.
    fn end_raced(&mut self, number: usize, place: usize) {
        self.living[place].retain(|&other| other != number);
        self.raced = true;
    }

    /// Nothing was heard of an attempt.
    fn end_unheard(&mut self, number: usize, place: usize) {
        self.living[place].retain(|&other| other != number);
    }

    /// An attempt has failed. What befell the oldest one of an address will befall those after it, which ask the same
    /// later; what befell a later one, a refusal in a busy moment say, says nothing about those before it.
    fn end_failed(&mut self, number: usize, place: usize) {
        self.given_up[place] |= self.living[place].first() == Some(&number);
        self.living[place].retain(|&other| other != number);
    }

    /// Whether no attempt can succeed any more.
    fn is_hopeless(&self) -> bool {
        let is_over = self.living.iter().all(Vec::is_empty) && !self.has_next();
        // After a race one of those that live has joined.
        is_over || !self.raced && self.given_up.iter().all(|given_up| *given_up)
    }
}

/// Connects, sends what the call has to say, and returns once the relay has answered to it.
///
/// # Errors
/// The last attempt's, when every address was given up.
pub(super) async fn run(shared: &Shared, endpoint: &Endpoint, pace: Pace) -> Result<Chosen, Refusal> {
    let address = shared.look(|_, call| call.request().address.clone());
    let places = resolve(&address.host, address.port).await?;
    let (flight, heard) = watch::channel(Arc::<Flight>::default());
    let mut attempts = FuturesUnordered::new();
    let mut starts = Starts::new(places.len(), pace);
    let mut next = shared.clock.timer();
    loop {
        if next.deadline().is_none() && starts.has_next() {
            let (number, place, interval) = starts.next();
            let to = (places[place], &address);
            let attempt = attempt(shared, endpoint, to, &flight, heard.clone(), number == 0);
            attempts.push(Box::pin(async move { (number, place, attempt.await) }));
            next.reset(Some(shared.clock.now() + interval));
        }
        tokio::select! {
            biased;
            Some((number, place, ended)) = attempts.next(), if !attempts.is_empty() => match ended {
                Attempt::Answered(mut chosen) => {
                    shared.act(|_, call| call.handle_chosen(chosen.sent));
                    let flight = flight.borrow().clone();
                    chosen.follow(&flight).await?;
                    return Ok(*chosen);
                }
                Attempt::Raced => {
                    starts.end_raced(number, place);
                    if starts.is_hopeless() {
                        return Err(Code::ConnectFailed.into());
                    }
                }
                Attempt::Failed(why) => {
                    // Where most packets are lost, or all for a while, the next one may get through.
                    match why.code {
                        Code::ConnectTimeout | Code::HeartbeatTimeout => starts.end_unheard(number, place),
                        _ => starts.end_failed(number, place),
                    }
                    if starts.is_hopeless() {
                        return Err(why);
                    }
                }
            },
            () = next.expired(), if starts.has_next() => {}
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

/// One connection, up to the answer to its join. Only the first of a race speaks before its handshake is over: what the
/// relay carries out on a connection whose handshake then gets lost keeps all others waiting.
async fn attempt(
    shared: &Shared,
    endpoint: &Endpoint,
    (place, address): (SocketAddr, &RelayAddress),
    flight: &watch::Sender<Arc<Flight>>,
    mut heard: watch::Receiver<Arc<Flight>>,
    is_first: bool,
) -> Attempt {
    let (host, trust) = (&address.host, address.trust());
    let connected = match is_first {
        true => endpoint.connect_early(place, host, trust).await,
        false => {
            let session = endpoint.connect(place, host, trust).await;
            session.map(|session| Connected { session, early: None })
        }
    };
    let Connected { session, early } = match connected {
        Ok(connected) => connected,
        Err(error) => {
            return Attempt::Failed(Refusal::new(error.code(), format!("{place}: {}", error.text)));
        }
    };
    let mut outcome = begin(shared, flight, session.clone(), &mut heard, early).await;
    if matches!(outcome, Ok(None)) {
        // The relay does not know the ticket any more, and took nothing of what came before the handshake.
        outcome = begin(shared, flight, session.clone(), &mut heard, None).await;
    }
    match outcome {
        Ok(Some((chosen, true))) => Attempt::Answered(Box::new(chosen)),
        Ok(_) => {
            session.close(Code::Ok, "another connection of the same login has joined");
            Attempt::Raced
        }
        Err(why) => Attempt::Failed(why),
    }
}

/// Sends the first flight and hears what comes of it; `None` if the relay declined what was sent `early`.
async fn begin(
    shared: &Shared,
    flight: &watch::Sender<Arc<Flight>>,
    session: Session,
    heard: &mut watch::Receiver<Arc<Flight>>,
    early: Option<Early>,
) -> Result<Option<(Chosen, bool)>, Refusal> {
    let (requests, answers) = session.open_requests().await.map_err(|ended| refusal(&ended))?;
    shared.act(|now, call| call.handle_connected(now));
    extend(shared, flight);
    let sent = shared.clock.now();
    let (inbound, lanes) = session.inbound();
    let (came, arrived, position) = (Vec::new(), None, Position::default());
    let mut chosen = Chosen { session, requests, answers, inbound, lanes, came, arrived, sent, position };
    let outcome = match early {
        None => chosen.hear_out(heard).await,
        Some(early) => {
            let mut accepted = pin!(early.accepted());
            let mut hearing = pin!(chosen.hear_out(heard));
            tokio::select! {
                biased;
                accepted = &mut accepted => match accepted {
                    true => hearing.await,
                    false => return Ok(None),
                },
                // Whatever fails before the handshake is over may fail because the relay declined.
                outcome = &mut hearing => match outcome {
                    Err(_) if !accepted.await => return Ok(None),
                    outcome => outcome,
                },
            }
        }
    };
    outcome.map(|is_the_one| Some((chosen, is_the_one)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_attempt_that_fails_leaves_the_earlier_ones_their_chance() {
        let mut starts = Starts::new(1, Pace::JOIN);
        for number in 0..3 {
            assert_eq!(starts.next().0, number);
        }
        starts.end_failed(1, 0);
        starts.end_failed(2, 0);
        assert!(!starts.is_hopeless() && starts.has_next());
        starts.next();
        starts.end_failed(0, 0);
        assert!(starts.is_hopeless(), "what befell the first will befall the fourth");
    }

    #[test]
    fn every_address_has_its_turn_until_it_is_given_up() {
        let mut starts = Starts::new(3, Pace::JOIN);
        let places: Vec<_> = (0..4).map(|_| starts.next().1).collect();
        assert_eq!(places, [0, 1, 2, 0]);
        starts.end_failed(1, 1);
        assert_eq!((starts.next().1, starts.next().1), (2, 2), "4 would have been for 1");
        starts.end_failed(0, 0);
        assert!(!starts.is_hopeless());
        starts.end_failed(2, 2);
        assert!(starts.is_hopeless());
    }

    #[test]
    fn after_the_last_attempt_and_after_a_race_nothing_is_left_to_wait_for() {
        let mut starts = Starts::new(1, Pace::JOIN);
        (0..Pace::JOIN.most).for_each(|_| _ = starts.next());
        assert!(!starts.has_next() && !starts.is_hopeless());

        let mut starts = Starts::new(1, Pace::JOIN);
        (0..3).for_each(|_| _ = starts.next());
        starts.end_raced(1, 0);
        assert!(!starts.has_next() && !starts.is_hopeless(), "the first one may have joined");
        starts.end_failed(0, 0);
        assert!(!starts.is_hopeless(), "or the third");
        starts.end_raced(2, 0);
        assert!(starts.is_hopeless());
    }
}
