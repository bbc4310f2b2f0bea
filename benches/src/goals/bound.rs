//! The least redundancy with which frames survive: what no code can do without, given one round of feedback that is
//! never lost. Every symbol sent counts for any that is missing, and symbols are sent twice at most: some with the frame,
//! some for what the report says is still lacking.

/// Redundancy over media at which a frame of `symbols` is whole after one round in all but a share `miss` of cases, where
/// a share `loss` (below 1) of packets is lost.
///
/// Both decisions, how many symbols to send with the frame and how many for each deficit, are made together by what a
/// missed frame is said to cost; the least cost at which few enough are missed gives the bound.
pub(super) fn redundancy_least(symbols: usize, loss: f64, miss: f64) -> f64 {
    // A miss costs from one symbol to a million, in steps of 2 %, which change the bound by less than 0.1 points.
    let costs = (0..700).map(|step| 1.02f64.powi(step));
    let mut plans = costs.map(|cost| Plan::best(symbols, loss, cost)).filter(|plan| plan.missed <= miss);
    plans.next().map_or(f64::INFINITY, |plan| plan.sent / symbols as f64 - 1.0)
}

/// What is to be expected of a frame.
#[derive(Clone, Copy)]
struct Plan {
    /// Symbols sent for it.
    sent: f64,
    /// The probability that it is not whole in the end.
    missed: f64,
}

impl Plan {
    fn best(symbols: usize, loss: f64, cost: f64) -> Plan {
        let price = |plan: &Plan| plan.sent + cost * plan.missed;
        let cheapest = |plans: &mut dyn Iterator<Item = Plan>| {
            plans.min_by(|one, other| price(one).total_cmp(&price(other))).unwrap_or(NOTHING)
        };
        // Ten times the symbols and twenty more are beyond anything that pays below 50 % loss.
        let most = 10 * symbols + 20;
        let answers: Vec<Plan> = (0..=symbols)
            .map(|deficit| {
                cheapest(&mut (0..most).map(|sent| {
                    let missed = (0..deficit).map(|came| arrive(came, sent, loss)).sum();
                    Plan { sent: sent as f64, missed }
                }))
            })
            .collect();
        cheapest(&mut (symbols..most).map(|sent| {
            let mut plan = Plan { sent: sent as f64, missed: 0.0 };
            for came in 0..symbols {
                let answer = answers[symbols - came];
                let odds = arrive(came, sent, loss);
                plan.sent += odds * answer.sent;
                plan.missed += odds * answer.missed;
            }
            plan
        }))
    }
}

/// A frame that is given up before it is sent.
const NOTHING: Plan = Plan { sent: 0.0, missed: 1.0 };

/// The probability that exactly `came` of `sent` arrive.
fn arrive(came: usize, sent: usize, loss: f64) -> f64 {
    if came > sent {
        return 0.0;
    }
    let ways: f64 = (0..came).map(|at| (sent - at) as f64 / (at + 1) as f64).product();
    ways * (1.0 - loss).powi(came as i32) * loss.powi((sent - came) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_exact_programme() {
        // Worked out apart from this, rounded to whole percent, for frames of 4 and of 9 packets.
        for (loss, of_4, of_9) in
            [(0.01, 1.0, 1.0), (0.05, 10.0, 10.0), (0.1, 27.0, 21.0), (0.2, 53.0, 44.0), (0.3, 86.0, 71.0)]
        {
            for (symbols, percent) in [(4, of_4), (9, of_9)] {
                let least = redundancy_least(symbols, loss, 1e-3) * 100.0;
                assert!((least - percent).abs() <= 0.55, "{symbols} at {loss}: {least} beside {percent}");
            }
        }
        let odds: f64 = (0..=7).map(|came| arrive(came, 7, 0.3)).sum();
        assert!((odds - 1.0).abs() < 1e-12);
    }
}
