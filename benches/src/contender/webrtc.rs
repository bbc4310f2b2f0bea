//! WebRTC as str0m does it: RTP over UDP with NACK, retransmission (RTX), keyframe requests, and a bandwidth
//! estimate from transport-wide feedback that paces what is sent.
//!
//! str0m does no input or output and reads no clock: it is given packets and the time, here the simulation's.
//! Its receiver gives frames in order, so a frame here is complete when all before it are, too.
//! ICE and DTLS are over before anything is measured. One link only: what stands between two would be a
//! conference server, which str0m is not.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parlor_client::Timestamp;
use parlor_transport::clock::Clock;
use parlor_transport::sim::{Host, Sim};
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use str0m::bwe::{Bitrate, BweKind};
use str0m::media::{Direction, KeyframeRequestKind, MediaData, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};

use super::call::{Arrivals, Camera, GRACE, in_virtual_time};
use super::meter::Hosts;
use super::{Contender, Run};
use crate::cell::Cell;

/// str0m's peer connection, one sending and one receiving.
#[derive(Debug, Clone, Copy)]
pub struct WebRtc;

/// ICE and DTLS take a few round trips of a clean link.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// The estimate begins with so many times the media rate. With the customary 300 kbit/s a source that keeps its
/// rate waits in the pacer for the first seconds, and that would be most of what is measured.
const ESTIMATE_INITIAL: u64 = 2;
/// The rate asked for, in media rates, so that the estimate may rise above what is needed.
const ESTIMATE_WANTED: u64 = 4;
/// UDP payload bytes of a packet, as everybody's.
const MTU: usize = 1_200;

impl Contender for WebRtc {
    fn name(&self) -> String {
        "webrtc-str0m".to_owned()
    }

    fn run(&self, cell: &Cell) -> Result<Run, String> {
        if cell.publisher.is_some() == cell.subscriber.is_some() {
            return Err("webrtc-str0m runs over one link".to_owned());
        }
        // Source numbers and identifiers; the generator is this thread's, as the whole simulation is.
        fastrand::seed(cell.seed);
        in_virtual_time(cell, async |sim| Box::pin(run_in(&sim, cell)).await)
    }
}

async fn run_in(sim: &Sim, cell: &Cell) -> Result<Run, String> {
    let hosts = Hosts::new(sim, cell);
    let clock = sim.clock();
    let estimate = cell.shape.bitrate * ESTIMATE_INITIAL;
    let mut sender = Peer::new(&hosts.publisher, clock, estimate)?;
    let mut receiver = Peer::new(&hosts.subscriber, clock, estimate)?;
    let mid = negotiate(&mut sender, &mut receiver).map_err(|error| error.to_string())?;
    sender.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::from(cell.shape.bitrate * ESTIMATE_WANTED));

    let connected_by = clock.now() + CONNECT_MAX;
    let mut call = Call { sender, receiver, mid, arrivals: Arrivals::of(cell) };
    call.drain()?;
    while !(call.sender.rtc.is_connected() && call.receiver.rtc.is_connected()) {
        if clock.now() >= connected_by {
            return Err("webrtc-str0m: no connection".to_owned());
        }
        call.until(clock.now() + Duration::from_millis(10)).await?;
    }
    let meter = hosts.measure(cell);
    let mut camera = Camera::new(cell, clock.now());
    for captured in camera.due() {
        call.until(captured).await?;
        if std::mem::take(&mut call.sender.keyframe_wanted) {
            camera.force_keyframe();
        }
        let (frame, _) = camera.capture(captured, Some(call.sender.estimate), None);
        call.send(&frame, captured)?;
    }
    call.until(clock.now() + GRACE).await?;
    let mut run = camera.into_run();
    meter.read(&mut run);
    call.arrivals.read(&mut run);
    Ok(run)
}

/// Offer and answer, outside the network: a signalling server is no part of what is measured.
fn negotiate(sender: &mut Peer, receiver: &mut Peer) -> Result<Mid, RtcError> {
    let mut change = sender.rtc.sdp_api();
    let mid = change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    let Some((offer, pending)) = change.apply() else {
        return Err(RtcError::NotReceivingDirection);
    };
    let answer = receiver.rtc.sdp_api().accept_offer(offer)?;
    sender.rtc.sdp_api().accept_answer(pending, answer)?;
    Ok(mid)
}

/// Both ends and what came.
struct Call {
    sender: Peer,
    receiver: Peer,
    mid: Mid,
    arrivals: Arrivals,
}

impl Call {
    /// Lets both ends work until `deadline`.
    async fn until(&mut self, deadline: Timestamp) -> Result<(), String> {
        let clock = self.sender.clock.clone();
        while clock.now() < deadline {
            let next = self.sender.due.min(self.receiver.due).min(deadline);
            tokio::select! {
                biased;
                packet = self.sender.receive() => self.sender.take(&packet),
                packet = self.receiver.receive() => self.receiver.take(&packet),
                () = clock.sleep_until(next) => {
                    for peer in [&mut self.sender, &mut self.receiver] {
                        peer.expire()?;
                    }
                    Ok(())
                }
            }?;
            self.drain()?;
        }
        Ok(())
    }

    fn send(&mut self, frame: &[u8], captured: Timestamp) -> Result<(), String> {
        let wallclock = self.sender.clock.to_std(captured);
        let time = MediaTime::from_90khz(captured.as_micros() * 9 / 100);
        let writer = self.sender.rtc.writer(self.mid).ok_or("webrtc-str0m: nothing to write to")?;
        let format = writer.payload_params().next().ok_or("webrtc-str0m: no format agreed on")?.pt();
        writer.write(format, wallclock, time, frame).map_err(|error| error.to_string())?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), String> {
        self.sender.drain()?;
        self.receiver.drain()?;
        let mut broken = false;
        for media in std::mem::take(&mut self.receiver.frames) {
            broken |= !media.contiguous;
            self.arrivals.note(&media.data, self.receiver.clock.now());
        }
        if broken && let Some(mut writer) = self.receiver.rtc.writer(self.mid) {
            writer.request_keyframe(None, KeyframeRequestKind::Pli).map_err(|error| error.to_string())?;
            self.receiver.drain()?;
        }
        Ok(())
    }
}

/// One end.
struct Peer {
    rtc: Rtc,
    socket: Arc<dyn AsyncUdpSocket>,
    address: SocketAddr,
    clock: Clock,
    /// When it wants to hear the time.
    due: Timestamp,
    frames: Vec<MediaData>,
    keyframe_wanted: bool,
    estimate: u64,
}

/// A packet and where it is from.
type Packet = (SocketAddr, Vec<u8>);

impl Peer {
    fn new(host: &Host, clock: &Clock, estimate: u64) -> Result<Self, String> {
        let socket = host.socket(0).map_err(|error| error.to_string())?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let address = SocketAddr::new(host.ip(), port);
        let rtc = Rtc::builder()
            .clear_codecs()
            .enable_vp8(true)
            .enable_bwe(Some(Bitrate::from(estimate)))
            .set_mtu(MTU..=MTU)
            .build(clock.to_std(clock.now()));
        let mut peer = Peer {
            rtc,
            socket,
            address,
            clock: clock.clone(),
            due: clock.now(),
            frames: Vec::new(),
            keyframe_wanted: false,
            estimate,
        };
        let candidate = Candidate::host(address, Protocol::Udp).map_err(|error| error.to_string())?;
        peer.rtc.add_local_candidate(candidate);
        Ok(peer)
    }

    /// The next packet. Safe to drop: a packet is taken only when it is returned.
    async fn receive(&self) -> Packet {
        let mut buffer = vec![0; 2 * MTU];
        let mut meta = [RecvMeta::default()];
        poll_fn(|cx| match self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta) {
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
        buffer.truncate(meta[0].len);
        (meta[0].addr, buffer)
    }

    fn take(&mut self, (from, bytes): &Packet) -> Result<(), String> {
        let receive = Receive::new(Protocol::Udp, *from, self.address, bytes);
        let receive = receive.map_err(|error| error.to_string())?;
        let now = self.clock.to_std(self.clock.now());
        self.rtc.handle_input(Input::Receive(now, receive)).map_err(|error| error.to_string())
    }

    fn expire(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        if now < self.due {
            return Ok(());
        }
        self.rtc.handle_input(Input::Timeout(self.clock.to_std(now))).map_err(|error| error.to_string())
    }

    /// Takes everything out that it has to say.
    fn drain(&mut self) -> Result<(), String> {
        loop {
            match self.rtc.poll_output().map_err(|error| error.to_string())? {
                Output::Timeout(at) => {
                    // Rounded up to the clock's tick, or it would be asked again before that time has come.
                    self.due = self.clock.from_std(at) + TICK;
                    return Ok(());
                }
                Output::Transmit(packet) => {
                    let transmit = Transmit {
                        destination: packet.destination,
                        ecn: None,
                        contents: &packet.contents,
                        segment_size: None,
                        src_ip: None,
                    };
                    self.socket.try_send(&transmit).map_err(|error| error.to_string())?;
                }
                Output::Event(event) => self.heed(event),
            }
        }
    }

    fn heed(&mut self, event: Event) {
        match event {
            Event::MediaData(media) => self.frames.push(media),
            Event::KeyframeRequest(_) => self.keyframe_wanted = true,
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => self.estimate = estimate.as_u64(),
            _ => {}
        }
    }
}

/// The finest step of simulated time.
const TICK: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn without_loss_every_frame_comes_and_the_run_repeats() {
        let cell = Cell { length: Duration::from_secs(5), ..Cell::default() };
        let run = WebRtc.run(&cell).unwrap();
        let outcome = Outcome::new(&cell, std::slice::from_ref(&run));
        assert_eq!(outcome.complete.never(), 0);
        let p95 = outcome.complete.quantile(0.95).unwrap();
        assert!(p95 < Duration::from_millis(60), "{p95:?}");
        assert_eq!(WebRtc.run(&cell).unwrap(), run);
    }
}
