//! Opus with what a call needs: redundancy against loss (FEC), pauses that cost nothing (DTX), concealment (PLC).

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Decoder, Encoder, Signal};

use super::{AudioDecode, AudioError};
use crate::frame::{AUDIO_FRAME, AUDIO_FRAME_SAMPLES, EncodedAudio, MediaTime, SAMPLE_RATE, Samples};
use crate::level::VoiceDetector;

/// The largest packet asked of libopus, bytes: 20 ms at its maximum of 510 kbit/s.
const PACKET_MAX: usize = 1_275;

/// 120 ms, the most one packet can hold (RFC 6716, 3.2.5), in samples per channel.
const PACKET_SAMPLES_MAX: usize = 5_760;

/// A packet this short only says "still silent" (RFC 6716, 2.1.9).
const DTX_BYTES: usize = 2;

/// What an [`OpusEncoder`] is to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusConfig {
    /// 1 (default) or 2.
    pub channels: u8,
    /// Target in bits/s, 6,000..=510,000. Speech is good from 24,000.
    pub bitrate: u32,
    /// Loss to prepare for, 0..=100 %. Above 0, packets carry a rough copy of the one before (FEC).
    pub loss_percent: u8,
    /// Marks packets in pauses as not worth sending.
    pub dtx: bool,
    /// CPU against quality, 0..=10. 9 costs 0.3 ms a block, 5 half of that.
    pub complexity: u8,
}

impl Default for OpusConfig {
    /// Mono speech at 32 kbit/s, FEC for 10 % loss, DTX, complexity 9.
    fn default() -> OpusConfig {
        OpusConfig { channels: 1, bitrate: 32_000, loss_percent: 10, dtx: true, complexity: 9 }
    }
}

/// Encodes the sound of one stream in blocks of 20 ms.
///
/// ```
/// use parlor_media::audio::{AudioDecode, OpusConfig, OpusDecoder, OpusEncoder};
/// use parlor_media::frame::MediaTime;
/// use parlor_media::pattern::Tone;
///
/// let mut encoder = OpusEncoder::new(OpusConfig::default())?;
/// let mut decoder = OpusDecoder::new(1)?;
/// let packet = encoder.encode(&Tone::new(440.0, 0.5).samples(960, MediaTime::ZERO))?;
/// assert_eq!(decoder.decode(&packet)?.len(), 960);
/// # Ok::<(), parlor_media::audio::AudioError>(())
/// ```
pub struct OpusEncoder {
    encoder: Encoder,
    config: OpusConfig,
    voice: VoiceDetector,
}

impl OpusEncoder {
    /// An encoder.
    ///
    /// # Errors
    /// [`AudioError::Setting`] for a value out of range, [`AudioError::Codec`] if libopus does not start.
    pub fn new(config: OpusConfig) -> Result<OpusEncoder, AudioError> {
        check("complexity", config.complexity.into(), 0..=10, "0 to 10")?;
        check_loss(config.loss_percent)?;
        check_bitrate(config.bitrate)?;
        let channels = channels(config.channels)?;
        let start = || -> opus::Result<Encoder> {
            let mut encoder = Encoder::new(SAMPLE_RATE, channels, Application::Voip)?;
            encoder.set_bitrate(Bitrate::Bits(config.bitrate as i32))?;
            encoder.set_complexity(config.complexity.into())?;
            encoder.set_dtx(config.dtx)?;
            if config.channels == 1 {
                encoder.set_signal(Signal::Voice)?;
            }
            Ok(encoder)
        };
        let encoder = start().map_err(codec("starting the encoder"))?;
        let mut this = OpusEncoder { encoder, config, voice: VoiceDetector::new() };
        this.set_loss_percent(this.config.loss_percent)?;
        Ok(this)
    }

    /// The settings in force.
    pub fn config(&self) -> &OpusConfig {
        &self.config
    }

    /// Encodes one block of 20 ms: 960 samples per channel.
    ///
    /// # Errors
    /// [`AudioError::Block`] for another length or number of channels, [`AudioError::Codec`].
    pub fn encode(&mut self, samples: &Samples) -> Result<EncodedAudio, AudioError> {
        let expected = self.config.channels;
        if samples.len() != AUDIO_FRAME_SAMPLES || samples.channels() != expected {
            return Err(AudioError::Block { samples: samples.len(), channels: samples.channels(), expected });
        }
        let mut packet = [0; PACKET_MAX];
        let length = self.encoder.encode(samples.data(), &mut packet).map_err(codec("encoding"))?;
        let (level, voice) = self.voice.level_and_voice(samples);
        Ok(EncodedAudio {
            data: Bytes::copy_from_slice(&packet[..length]),
            time: samples.time(),
            duration: AUDIO_FRAME,
            level,
            voice,
            dtx: self.config.dtx && length <= DTX_BYTES,
        })
    }

    /// Changes the target, bits/s.
    ///
    /// # Errors
    /// [`AudioError::Setting`] out of 6,000..=510,000; [`AudioError::Codec`].
    pub fn set_bitrate(&mut self, bitrate: u32) -> Result<(), AudioError> {
        check_bitrate(bitrate)?;
        self.encoder.set_bitrate(Bitrate::Bits(bitrate as i32)).map_err(codec("changing the bitrate"))?;
        self.config.bitrate = bitrate;
        Ok(())
    }

    /// Says how much loss to prepare for; 0 turns FEC off.
    ///
    /// # Errors
    /// [`AudioError::Setting`] above 100; [`AudioError::Codec`].
    pub fn set_loss_percent(&mut self, percent: u8) -> Result<(), AudioError> {
        check_loss(percent)?;
        // libopus adds redundancy only if both are set.
        self.encoder
            .set_inband_fec(percent > 0)
            .and_then(|()| self.encoder.set_packet_loss_perc(percent.into()))
            .map_err(codec("changing the expected loss"))?;
        self.config.loss_percent = percent;
        Ok(())
    }
}

/// Decodes one stream.
pub struct OpusDecoder {
    decoder: Decoder,
    channels: u8,
}

impl OpusDecoder {
    /// A decoder that gives 1 or 2 channels, whatever was encoded.
    ///
    /// # Errors
    /// [`AudioError::Setting`] for other channels, [`AudioError::Codec`] if libopus does not start.
    pub fn new(count: u8) -> Result<OpusDecoder, AudioError> {
        let decoder = Decoder::new(SAMPLE_RATE, channels(count)?).map_err(codec("starting the decoder"))?;
        Ok(OpusDecoder { decoder, channels: count })
    }

    /// Decodes into a block of at most `samples_max` per channel. An empty `packet` conceals.
    fn run(
        &mut self,
        packet: &[u8],
        fec: bool,
        samples_max: usize,
        time: MediaTime,
    ) -> Result<Samples, AudioError> {
        let mut pcm = vec![0; samples_max * usize::from(self.channels)];
        let samples = self.decoder.decode(packet, &mut pcm, fec).map_err(codec("decoding"))?;
        pcm.truncate(samples * usize::from(self.channels));
        Ok(Samples::new(pcm, self.channels, time)?)
    }
}

impl AudioDecode for OpusDecoder {
    fn channels(&self) -> u8 {
        self.channels
    }

    fn decode(&mut self, packet: &EncodedAudio) -> Result<Samples, AudioError> {
        if packet.data.is_empty() {
            // libopus would take it for "lost" and guess.
            return Err(AudioError::Codec { operation: "decoding", reason: "the packet is empty".into() });
        }
        self.run(&packet.data, false, PACKET_SAMPLES_MAX, packet.time)
    }

    fn recover(&mut self, next: &EncodedAudio) -> Result<Samples, AudioError> {
        if next.data.is_empty() {
            return Err(AudioError::Codec { operation: "recovering", reason: "the packet is empty".into() });
        }
        self.run(&next.data, true, AUDIO_FRAME_SAMPLES, next.time - AUDIO_FRAME)
    }

    fn conceal(&mut self, time: MediaTime) -> Samples {
        self.run(&[], false, AUDIO_FRAME_SAMPLES, time).unwrap_or_else(|_| silence(self.channels, time))
    }
}

/// 20 ms of nothing, for the case that even guessing fails.
fn silence(channels: u8, time: MediaTime) -> Samples {
    Samples::new(vec![0; AUDIO_FRAME_SAMPLES * usize::from(channels)], channels, time)
        .expect("the channels were checked when the decoder was made")
}

fn channels(count: u8) -> Result<Channels, AudioError> {
    check("channels", count.into(), 1..=2, "1 or 2")?;
    Ok(if count == 1 { Channels::Mono } else { Channels::Stereo })
}

fn check_bitrate(bitrate: u32) -> Result<(), AudioError> {
    check("bitrate", bitrate.into(), 6_000..=510_000, "6000 to 510000 bits/s")
}

fn check_loss(percent: u8) -> Result<(), AudioError> {
    check("loss_percent", percent.into(), 0..=100, "0 to 100")
}

fn check(
    setting: &'static str,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
    allowed: &'static str,
) -> Result<(), AudioError> {
    if range.contains(&value) { Ok(()) } else { Err(AudioError::Setting { setting, value, allowed }) }
}

fn codec(operation: &'static str) -> impl FnOnce(opus::Error) -> AudioError {
    move |error| AudioError::Codec { operation, reason: error.to_string() }
}
