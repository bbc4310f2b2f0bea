//! How much redundancy, and when: the rules of repair as pure functions of what is known of the link.
//! Figures behind them are in `docs/decisions/`.

use std::time::Duration;

use crate::rate::Estimate;

/// Below this share of lost packets no parity is sent: feedback alone is cheaper and as good.
const LOSS_MIN: f64 = 0.003;
/// Below this share parity is so cheap that there may be twice as much of it.
const LOSS_LOW: f64 = 0.02;
/// Loss beyond this is not believed; the rate controller bounds what it may cost anyway.
const LOSS_MAX: f64 = 0.8;
/// Parity per expected loss where one round of feedback fits the deadline.
const FACTOR: f64 = 2.0;
/// The same for frames that others build on for long, and on links that lose in bursts.
const FACTOR_HIGH: f64 = 4.0;
/// The same where a round of feedback is too long.
const FACTOR_HASTE: f64 = 5.4;
/// The same on ways so long that one round of feedback takes longer than [`BUDGET`].
const FACTOR_FAR: f64 = 4.7;
/// One round of feedback may take so long; on a longer way parity has to do.
const BUDGET: Duration = Duration::from_millis(150);
/// The most parity symbols for each symbol of media.
const PARITY_MAX: f64 = 3.0;
/// Below this share of lost packets sound is repaired by feedback alone.
const VOICE_LOSS_MIN: f64 = 0.01;
/// Redundancy of a voice packet: so much, and so much for each packet lost. A symbol of it costs more than the sound
/// itself, its headers included.
const VOICE: (f64, f64) = (0.2, 2.5);
/// More would be a second stream.
const VOICE_MAX: f64 = 3.0;
/// Where more is lost, so are reports and what answers them.
const LOSS_HEAVY: f64 = 0.4;
/// A gap within a frame is reported, and the repair queued, within a round trip and this.
const REPORTED_WITHIN: Duration = Duration::from_millis(15);
/// Frames that one parity symbol of video looks back over.
pub const WINDOW_VIDEO: usize = 4;
/// Up to this many symbols the odds are computed exactly, beyond it by the normal approximation.
const EXACT_MAX: usize = 32;
/// The last try for a frame fails in one case of a thousand …
const MISS: f64 = 0.001;
/// … up to this loss. Beyond, certainty would cost more than a link carries (10 symbols for one at 50 %) …
const MISS_LOSS: f64 = 0.3;
/// … and ten times as many cases are let go with each of these steps, …
const MISS_STEP: f64 = 0.1;
/// … up to one in thirty.
const MISS_MAX: f64 = 0.03;
/// A frame that is late already is one of few, and holds up all that follow: it fails in no more cases than this.
const MISS_LATE: f64 = 0.01;
/// The last try for a voice packet may fail as often: no other needs it, and one costs as much as many symbols.
const MISS_VOICE: f64 = 0.1;
/// Voice of which a second repair would come later than this is concealed by then: with the link's own delay it would
/// be later than people talk well with (ITU-T G.114).
const VOICE_AGE_MAX: Duration = Duration::from_millis(120);

/// What a frame's repair may take at most, where nothing is lost: so many symbols for each of its own, and so many
/// more. An honest receiver needs a few; one that claims for ever that nothing came would be sent a stream as large as
/// the rate grows by being sent it.
const REPAIRS_MAX: (usize, usize) = (2, 8);

/// Repair goes on for at least this long after the deadline: a host that was busy for a moment has
/// lost nothing.
const REPAIR_MIN: Duration = Duration::from_millis(400);

/// And for no longer than this after it was handed in, whatever the peer makes of the round trip.
pub const REPAIR_MAX: Duration = Duration::from_secs(2);

/// How much redundancy a stream is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Haste {
    /// One round of feedback is soon enough.
    Usual,
    /// As few frames as possible wait for feedback.
    High,
}

/// What the rules need to know of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// Its mean deviation.
    pub rtt_var: Duration,
    /// Share of packets lost without a queue, 0 to 1.
    pub loss: f64,
    /// Mean number of neighbouring packets lost together.
    pub run: f64,
}

impl Default for Link {
    /// Before anything was measured.
    fn default() -> Self {
        Link { srtt: Duration::from_millis(100), rtt_var: Duration::from_millis(25), loss: 0.0, run: 1.0 }
    }
}

impl From<Estimate> for Link {
    fn from(estimate: Estimate) -> Self {
        Link {
            srtt: estimate.srtt,
            rtt_var: estimate.rtt_var,
            loss: estimate.loss_random.clamp(0.0, LOSS_MAX),
            run: estimate.loss_run.max(1.0),
        }
    }
}

impl Link {
    /// How long after it was handed in a frame should be whole at the other end: as if one round
    /// of feedback were needed.
    pub fn deadline(&self) -> Duration {
        self.srtt / 2 + self.srtt + Duration::from_millis(15)
    }

    /// When repair of a frame ends: a keyframe serves the viewer better then. Where more is lost, repair
    /// needs more rounds, and so would a keyframe.
    pub fn give_up(&self) -> Duration {
        let rounds = (self.srtt * 2).max(REPAIR_MIN).div_f64(1.0 - self.loss.clamp(0.0, LOSS_MAX));
        (self.deadline() + rounds).min(REPAIR_MAX)
    }

    /// A packet that was sent longer ago than this and was not reported is lost, or its report is.
    pub fn horizon(&self) -> Duration {
        self.srtt + (self.rtt_var * 4).max(Duration::from_millis(3))
    }

    /// Whether losses come in bursts.
    fn is_bursty(&self) -> bool {
        // Independent losses have runs of 1 / (1 − p).
        self.run * (1.0 - self.loss) > 1.5
    }

    /// Parity symbols, not whole, that a frame of `symbols` earns.
    pub fn parity(&self, symbols: usize, is_keyframe: bool, haste: Haste) -> f64 {
        if self.loss < LOSS_MIN {
            return 0.0;
        }
        let base = if is_keyframe || self.loss < LOSS_LOW { FACTOR_HIGH } else { FACTOR };
        let factor = match haste {
            Haste::High => FACTOR_HASTE,
            Haste::Usual if self.deadline() > BUDGET => FACTOR_FAR,
            Haste::Usual if self.is_bursty() => FACTOR_HIGH,
            Haste::Usual => base,
        };
        // More parity than media would only push out what it is to protect.
        (factor * self.odds()).min(PARITY_MAX) * symbols as f64
    }

    /// Of a frame that takes so long to leave, the share whose losses are reported only after all of it has left. Where most is
    /// lost, reports and what answers them are, too, and nothing is asked for in time.
    pub fn unasked_share(&self, drain: Duration) -> f64 {
        let round = self.srtt + REPORTED_WITHIN;
        if drain <= round || self.loss > LOSS_HEAVY { 1.0 } else { round.as_secs_f64() / drain.as_secs_f64() }
    }

    /// Redundant symbols that a voice packet earns, not whole, and the frames that they look back over.
    pub fn voice_redundancy(&self) -> (f64, usize) {
        if self.loss < VOICE_LOSS_MIN {
            return (0.0, 0);
        }
        let window = if self.loss < 0.1 { 4 } else { 6 };
        ((VOICE.0 + VOICE.1 * self.loss).min(VOICE_MAX), window)
    }

    /// What repair of all kinds is expected to add to the media, as a share of it.
    pub fn overhead(&self) -> f64 {
        let parity = if self.loss < LOSS_MIN { 0.0 } else { FACTOR * self.odds() };
        parity + self.odds()
    }

    /// The share of the rate that repair may take.
    pub fn repair_share(&self) -> f64 {
        (1.3 * self.loss).max(0.5)
    }

    /// How many symbols to send for a frame that needs `need` more and was handed in `age` ago. Of voice
    /// no other frame needs it, and conceals what is missing.
    pub fn repair(&self, need: usize, age: Duration, is_voice: bool) -> usize {
        let at_least = if self.loss < 0.1 { need } else { (need as f64 / (1.0 - self.loss)).ceil() as usize };
        if is_voice && age > VOICE_AGE_MAX.max(self.srtt * 3 / 2) {
            return 0;
        }
        let in_time = self.deadline().saturating_sub(self.srtt / 2);
        let round = self.srtt + Duration::from_millis(6);
        // With time for another round no more is sent than the loss asks for; otherwise this has to get through. A frame that is
        // late by more than a round has missed its time, but where most is lost the next round would stop the picture.
        let is_late = age > in_time + round && (is_voice || self.loss <= MISS_LOSS);
        if age + round <= in_time || is_late {
            at_least
        } else {
            let miss = if age > in_time { self.miss().min(MISS_LATE) } else { self.miss() };
            surely(need, self.loss, if is_voice { miss.max(MISS_VOICE) } else { miss })
        }
    }

    /// How many symbols a frame of `symbols` is ever repaired with, whatever the peer says that it lacks: where much is
    /// lost, as many more as are lost on the way.
    pub fn repairs_max(&self, symbols: usize) -> usize {
        let (each, more) = REPAIRS_MAX;
        ((each * symbols + more) as f64 / (1.0 - self.loss)).ceil() as usize
    }

    /// The share of last tries that may fail.
    fn miss(&self) -> f64 {
        let steps = (self.loss - MISS_LOSS).max(0.0) / MISS_STEP;
        (MISS * 10f64.powf(steps)).min(MISS_MAX)
    }

    fn odds(&self) -> f64 {
        self.loss / (1.0 - self.loss)
    }
}

/// The smallest number of symbols of which at least `need` arrive, but for a share `miss` of cases.
fn surely(need: usize, loss: f64, miss: f64) -> usize {
    if need > EXACT_MAX {
        // Three standard deviations and some are one case in a thousand, 1.3 are one in ten.
        let margin = (-0.9 * miss.log10() + 0.4) * (need as f64 * loss).sqrt();
        return ((need as f64 + margin) / (1.0 - loss)).ceil() as usize;
    }
    let arrive = 1.0 - loss;
    let most = need * 4 + 16;
    (need..most).find(|&sent| fewer_than(need, sent, arrive) <= miss).unwrap_or(most)
}

/// The probability that fewer than `need` of `sent` arrive.
fn fewer_than(need: usize, sent: usize, arrive: f64) -> f64 {
    if arrive >= 1.0 {
        return if sent < need { 1.0 } else { 0.0 };
    }
    let mut term = (1.0 - arrive).powi(sent as i32);
    let mut sum = 0.0;
    for came in 0..need {
        sum += term;
        term *= (sent - came) as f64 / (came + 1) as f64 * arrive / (1.0 - arrive);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(loss: f64) -> Link {
        let (srtt, rtt_var) = (Duration::from_millis(50), Duration::from_millis(1));
        Link { srtt, rtt_var, loss, run: 1.0 / (1.0 - loss) }
    }

    #[test]
    fn the_last_try_is_made_sure_and_others_cost_no_more_than_the_loss() {
        let ms = Duration::from_millis;
        assert_eq!(link(0.05).repair(1, ms(55), false), 3, "one round left, 5 %");
        assert_eq!(link(0.20).repair(1, ms(55), false), 5, "one round left, 20 %");
        assert_eq!(link(0.05).repair(1, ms(5), false), 1, "two rounds left");
        assert_eq!(link(0.20).repair(4, ms(200), false), 5, "too late for the deadline");
        assert_eq!(link(0.50).repair(1, ms(200), false), 7, "too late, but the picture stands still");
        let large = link(0.05).repair(300, ms(55), false);
        assert!((320..360).contains(&large), "{large} for 300");
        assert_eq!([ms(70), ms(125)].map(|age| link(0.2).repair(1, age, true)), [2, 0], "voice");
    }

    #[test]
    fn parity_follows_loss_and_stops_when_there_is_none() {
        assert_eq!(link(0.001).parity(4, false, Haste::Usual), 0.0);
        assert!((link(0.05).parity(19, false, Haste::Usual) - 2.0).abs() < 0.01);
        assert!((link(0.05).parity(19, true, Haste::Usual) - 4.0).abs() < 0.01);
        assert!((link(0.20).overhead() - 0.75).abs() < 0.01);
    }

    #[test]
    fn what_is_asked_for_in_time_needs_no_parity() {
        let shares = [0, 65, 130, 650].map(|ms| link(0.05).unasked_share(Duration::from_millis(ms)));
        assert_eq!(shares, [1.0, 1.0, 0.5, 0.1]);
        assert_eq!(link(0.5).unasked_share(Duration::from_secs(1)), 1.0);
    }

    #[test]
    fn binomial_tails_are_right() {
        assert!((fewer_than(1, 3, 0.95) - 0.05f64.powi(3)).abs() < 1e-12);
        assert!((fewer_than(2, 2, 0.9) - (1.0 - 0.81)).abs() < 1e-12);
        assert_eq!(fewer_than(2, 2, 1.0), 0.0);
    }
}
