//! Whether a player takes what it is sent, and for how long it has not.
//!
//! A machine. What a player is too slow for its cursors skip, for as long as it takes anything at all. One that takes
//! nothing costs as much as one that does, and it comes back, if ever, to a picture of long ago: it is sent away.

use std::time::Duration;

use parlor_transport::quic::Reception;
use parlor_transport::units::Timestamp;

use crate::limits::PATIENCE_INTERVAL;

/// See the module's text.
#[derive(Default, Debug)]
pub struct Patience {
    last: Option<(Timestamp, Reception)>,
    /// For how long it was sent something and took nothing. What lies between, when there was nothing to send, is no
    /// part of it.
    deaf: Duration,
}

impl Patience {
    /// Whether it is time to look.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.last.is_none_or(|(at, _)| now.saturating_since(at) >= PATIENCE_INTERVAL)
    }

    /// Takes what the player has taken so far, and whether frames wait until it has taken more; to be called whenever there
    /// is something to send. False when it has taken nothing for `timeout` (for ever, if that is zero).
    pub fn look(&mut self, now: Timestamp, reception: Reception, waiting: bool, timeout: Duration) -> bool {
        if !self.is_due(now) {
            return true;
        }
        let Some((at, before)) = self.last.replace((now, reception)) else { return true };
        let passed = now.saturating_since(at);
        let has_sent = reception.packets > before.packets;
        let has_reported = has_sent && reception.silence < passed;
        // Little is sent to one who has never reported, and then nothing.
        let is_due = has_sent || waiting;
        let is_silent = is_due && reception.silence >= passed || reception.given_up > before.given_up;
        if has_reported || reception.delivered > before.delivered {
            self.deaf = Duration::ZERO;
        } else if is_silent {
            // Between two looks nothing was sent for most of the time, if they are far apart.
            self.deaf += passed.min(2 * PATIENCE_INTERVAL);
        }
        timeout.is_zero() || self.deaf < timeout
    }

    /// Whether it takes what it is sent, as far as is known.
    pub fn is_heard(&self) -> bool {
        self.deaf.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A player at 10 looks a second.
    #[derive(Default)]
    struct Player {
        patience: Patience,
        ms: u64,
        reception: Reception,
        waiting: bool,
    }

    impl Player {
        fn live(&mut self, ms: u64, mut change: impl FnMut(&mut Reception)) -> bool {
            let end = self.ms + ms;
            while self.ms < end {
                self.ms += 100;
                change(&mut self.reception);
                let now = Timestamp::from_micros(self.ms * 1000);
                if !self.patience.look(now, self.reception, self.waiting, TIMEOUT) {
                    return false;
                }
            }
            true
        }
    }

    fn reported(reception: &mut Reception) {
        reception.packets += 3;
        reception.silence = Duration::from_millis(40);
    }

    fn unanswered(reception: &mut Reception) {
        reception.packets += 1;
        reception.silence += Duration::from_millis(100);
    }

    #[test]
    fn who_takes_nothing_for_the_time_is_sent_away_and_who_takes_little_is_not() {
        let mut player = Player::default();
        assert!(player.live(60_000, reported) && player.patience.is_heard());
        assert!(player.live(9000, unanswered) && !player.patience.is_heard());
        assert!(player.live(1000, reported) && player.patience.is_heard());
        let start = player.ms;
        assert!(!player.live(60_000, unanswered));
        assert!((10_000..=12_000).contains(&(player.ms - start)), "{}", player.ms - start);
    }

    #[test]
    fn one_who_has_never_reported_and_for_whom_frames_wait_is_sent_away() {
        let mut player = Player::default();
        player.reception.packets = 30;
        let silent = |reception: &mut Reception| reception.silence += Duration::from_millis(100);
        assert!(player.live(100_000, silent), "nothing waits");
        player.waiting = true;
        assert!(!player.live(12_000, silent));
    }

    #[test]
    fn a_last_packet_without_a_report_counts_for_nothing_while_there_is_nothing_to_send() {
        let mut player = Player::default();
        assert!(player.live(1000, reported));
        // The report of the last packet was lost; looks go on, and an hour later so does the stream.
        player.reception.packets += 1;
        player.reception.silence = Duration::from_millis(1);
        assert!(player.live(3_600_000, |reception| reception.silence += Duration::from_millis(100)));
        player.reception.packets += 1;
        assert!(player.live(1000, |reception| reception.silence += Duration::from_millis(100)));
        assert!(player.live(60_000, reported) && player.patience.is_heard());
    }

    #[test]
    fn frames_on_quic_streams_count_by_whether_they_are_taken() {
        let mut player = Player::default();
        assert!(player.live(60_000, |reception| reception.delivered += 1));
        assert!(player.live(9000, |reception| reception.given_up += 1) && !player.patience.is_heard());
        assert!(player.live(60_000, |reception| {
            reception.given_up += 9;
            reception.delivered += 1;
        }));
        assert!(!player.live(12_000, |reception| reception.given_up += 1));
    }

    #[test]
    fn without_a_timeout_nobody_is_sent_away() {
        let mut patience = Patience::default();
        for second in 0..1000 {
            let reception =
                Reception { packets: second, silence: Duration::from_secs(second), ..Reception::default() };
            assert!(patience.look(
                Timestamp::from_micros(second * 1_000_000),
                reception,
                true,
                Duration::ZERO
            ));
        }
        assert!(!patience.is_heard());
    }
}
