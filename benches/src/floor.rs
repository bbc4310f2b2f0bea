//! What this machine cannot do for less: sealing the packets of a fan-out and handing them to the kernel.
//!
//! AES-128-GCM and header protection for every packet, and one send for all packets of a frame (UDP GSO), to as many
//! sockets as there are subscribers: nothing else. A relay does this and everything a relay is for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parlor_transport::clock::Clock;
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{self, quic};

use crate::cpu;
use crate::source::{Shape, Source};

/// UDP payload of a full packet, as QUIC sends them here.
const PACKET: usize = 1_200;
/// What QUIC and authentication take of it: short header with a connection id of 4 bytes and a packet number of 2, tag.
const HEADER: usize = 7;
const TAG: usize = 16;
/// The largest UDP payload that the kernel takes at once.
const SEND_MAX: usize = 65_000;

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Floor {
    /// How many sockets get every frame.
    pub subscribers: usize,
    /// The frames.
    pub shape: Shape,
    /// For how long.
    pub length: Duration,
}

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Frames handed to the kernel, over all receivers.
    pub frames: u64,
    /// Their packets.
    pub packets: u64,
    /// Packets that receivers got.
    pub received: u64,
    /// CPU time of the sending thread, the kernel's part included.
    pub cpu: Duration,
}

impl Outcome {
    /// CPU time for one frame to one receiver.
    pub fn cpu_per_frame(&self) -> Duration {
        self.cpu.div_f64(self.frames.max(1) as f64)
    }

    /// CPU time for one packet.
    pub fn cpu_per_packet(&self) -> Duration {
        self.cpu.div_f64(self.packets.max(1) as f64)
    }
}

/// The fewest packets that carry `bytes` of a frame.
pub fn packets(bytes: usize) -> usize {
    bytes.div_ceil(PACKET - HEADER - TAG).max(1)
}

impl Floor {
    /// Runs it on this thread; receivers read on another.
    ///
    /// # Errors
    /// When sockets cannot be had, or this system does not tell CPU times.
    #[expect(
        clippy::disallowed_methods,
        reason = "what a machine takes is measured on the machine's own clock"
    )]
    pub fn run(&self) -> io::Result<Outcome> {
        let receivers = Receivers::start(self.subscribers)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(false)?;
        let mut sealer = Sealer::new()?;
        let mut source = Source::new(self.shape);
        let mut outcome = Outcome { frames: 0, packets: 0, received: 0, cpu: Duration::ZERO };
        let mut buffer = Vec::with_capacity(SEND_MAX);
        let segments_max = state.max_gso_segments().clamp(1, SEND_MAX / PACKET);
        let start = Instant::now();
        let before = cpu::thread().ok_or_else(cpu::unknown)?;
        for number in 0_u32.. {
            let due = self.shape.interval() * number;
            if due >= self.length {
                break;
            }
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let frame = source.make().payload;
            for &destination in &receivers.addresses {
                outcome.frames += 1;
                for part in frame.chunks(segments_max * (PACKET - HEADER - TAG)) {
                    buffer.clear();
                    for content in part.chunks(PACKET - HEADER - TAG) {
                        sealer.seal(content, &mut buffer)?;
                        outcome.packets += 1;
                    }
                    let transmit = Transmit {
                        destination,
                        ecn: None,
                        contents: &buffer,
                        segment_size: (buffer.len() > PACKET).then_some(PACKET),
                        src_ip: None,
                    };
                    state.try_send(UdpSockRef::from(&socket), &transmit)?;
                }
            }
        }
        outcome.cpu = cpu::thread().ok_or_else(cpu::unknown)?.saturating_sub(before);
        outcome.received = receivers.stop();
        Ok(outcome)
    }
}

/// Seals packets as QUIC does.
struct Sealer {
    key: aead::LessSafeKey,
    mask: quic::HeaderProtectionKey,
    number: u64,
}

impl Sealer {
    fn new() -> io::Result<Self> {
        let unusable = |_| io::Error::other("AES-128-GCM cannot be set up");
        Ok(Sealer {
            key: aead::LessSafeKey::new(
                aead::UnboundKey::new(&aead::AES_128_GCM, &[7; 16]).map_err(unusable)?,
            ),
            mask: quic::HeaderProtectionKey::new(&quic::AES_128, &[9; 16]).map_err(unusable)?,
            number: 0,
        })
    }

    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let failed = |_| io::Error::other("a packet could not be sealed");
        self.number += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        let at = out.len();
        out.extend_from_slice(&[0x41; HEADER]);
        out.extend_from_slice(content);
        let (header, body) = out[at..].split_at_mut(HEADER);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(&*header),
                body,
            )
            .map_err(failed)?;
        out.extend_from_slice(tag.as_ref());
        let (header, body) = out[at..].split_at_mut(HEADER);
        let mut sample = [0; 16];
        // A short last packet is sampled as far as it goes.
        let length = body.len().min(16);
        sample[..length].copy_from_slice(&body[..length]);
        let mask = self.mask.new_mask(&sample).map_err(failed)?;
        header[0] ^= mask[0] & 0x1f;
        header[5..].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
        Ok(())
    }
}

/// Sockets that somebody reads.
struct Receivers {
    addresses: Vec<SocketAddr>,
    stopped: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    reading: std::thread::JoinHandle<()>,
}

impl Receivers {
    fn start(count: usize) -> io::Result<Self> {
        let sockets: Vec<UdpSocket> =
            (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let (stopped, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, count) = (Arc::clone(&stopped), Arc::clone(&received));
        let reading = std::thread::Builder::new().name("floor-receivers".to_owned()).spawn(move || {
            let clock = Clock::system();
            runtime.block_on(async {
                for socket in sockets {
                    tokio::spawn(read(socket, Arc::clone(&count)));
                }
                while !stop.load(Ordering::Relaxed) {
                    clock.sleep(Duration::from_millis(20)).await;
                }
            });
        })?;
        Ok(Receivers { addresses, stopped, received, reading })
    }

    #[expect(clippy::disallowed_methods, reason = "a thread of its own, outside any runtime")]
    fn stop(self) -> u64 {
        // What is in buffers now is read on the way.
        std::thread::sleep(Duration::from_millis(50));
        self.stopped.store(true, Ordering::Relaxed);
        _ = self.reading.join();
        self.received.load(Ordering::Relaxed)
    }
}

async fn read(socket: UdpSocket, received: Arc<AtomicU64>) {
    let state = UdpSocketState::new(UdpSockRef::from(&socket));
    let socket = socket.set_nonblocking(true).and_then(|()| tokio::net::UdpSocket::from_std(socket));
    let (Ok(state), Ok(socket)) = (state, socket) else { return };
    let mut buffers = vec![vec![0; 65_536]; BATCH_SIZE.min(4)];
    loop {
        let read = socket
            .async_io(tokio::io::Interest::READABLE, || {
                let mut slices: Vec<_> =
                    buffers.iter_mut().map(|buffer| io::IoSliceMut::new(buffer)).collect();
                let mut metas = vec![RecvMeta::default(); slices.len()];
                let count = state.recv(UdpSockRef::from(&socket), &mut slices, &mut metas)?;
                Ok(metas[..count]
                    .iter()
                    .map(|meta| meta.len.div_ceil(meta.stride.max(1)) as u64)
                    .sum::<u64>())
            })
            .await;
        match read {
            Ok(packets) => _ = received.fetch_add(packets, Ordering::Relaxed),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, the floor that relays are compared with is not what a fan-out needs at least.
    #[test]
    fn every_packet_of_every_frame_is_sealed_and_sent() {
        let shape = Shape { bitrate: 2_000_000, ..Shape::default() };
        let floor = Floor { subscribers: 3, shape, length: Duration::from_millis(290) };
        let Ok(outcome) = floor.run() else { return }; // This system does not tell CPU times.
        let mut source = Source::new(shape);
        let due: u64 = (0..9).map(|_| packets(source.make().payload.len()) as u64).sum();
        assert_eq!((outcome.frames, outcome.packets), (27, 3 * due));
        assert!(outcome.received <= outcome.packets);
        assert!(outcome.received > outcome.packets / 2, "{outcome:?}");
    }

    #[test]
    fn a_frame_is_as_many_packets_as_it_needs() {
        assert_eq!((packets(1), packets(1_177), packets(1_178)), (1, 1, 2));
    }

    #[test]
    fn sealed_packets_open_again() {
        let mut sealer = Sealer::new().unwrap();
        let mut out = Vec::new();
        sealer.seal(&[1; 700], &mut out).unwrap();
        assert_eq!(out.len(), HEADER + 700 + TAG);
        let mask = sealer.mask.new_mask(&out[HEADER..HEADER + 16]).unwrap();
        out[0] ^= mask[0] & 0x1f;
        out[5..HEADER].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
        let (header, body) = out.split_at_mut(HEADER);
        let mut nonce = [0; 12];
        nonce[11] = 1;
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let opened = sealer.key.open_in_place(nonce, aead::Aad::from(&*header), body).unwrap();
        assert_eq!(opened, [1; 700]);
    }
}
