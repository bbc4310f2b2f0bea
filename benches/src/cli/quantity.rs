//! Quantities as people type them.

/// Bits per second: `600k`, `10m`, `1.5m`, `0`, or a plain number of kbit/s.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 1e6),
        None => (text.strip_suffix('k').unwrap_or(&text), 1e3),
    };
    let value = number.parse::<f64>().ok().filter(|value| (0.0..=100_000.0).contains(value));
    let value = value.ok_or_else(|| "give a rate such as 600k or 10m (bits per second)".to_owned())?;
    Ok((value * unit).round() as u64)
}

/// A share of packets, in percent.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let value = text.trim().trim_end_matches('%').parse::<f64>().ok();
    let value = value.filter(|value| (0.0..100.0).contains(value));
    value.map(|value| value / 100.0).ok_or_else(|| "give a percentage from 0 to below 100".to_owned())
}

/// The mean length of a run of lost packets.
pub(super) fn burst(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| (1.0..=1000.0).contains(value));
    value.ok_or_else(|| "give a number of packets from 1 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_read_and_others_refused() {
        assert_eq!(
            [rate("600k"), rate("10m"), rate("1.5M"), rate("250"), rate("0")].map(Result::unwrap),
            [600_000, 10_000_000, 1_500_000, 250_000, 0]
        );
        assert!(rate("fast").is_err() && rate("-1k").is_err() && rate("1e9m").is_err());
        assert_eq!((percent("5"), percent("0.5%")), (Ok(0.05), Ok(0.005)));
        assert!(percent("100").is_err() && percent("x").is_err());
        assert_eq!((burst("1"), burst("2.5")), (Ok(1.0), Ok(2.5)));
        assert!(["0", "-1", "NaN", "inf"].iter().all(|text| burst(text).is_err()));
    }
}
