//! Durations (`90s`, `1h30m`) and sizes (`512M`) as text, both ways.

use std::time::Duration;

/// Milliseconds of each unit, largest first: a text names each at most once, in this order.
const DURATIONS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of each unit, largest first.
const SIZES: [(&str, u64); 5] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("B", 1)];

/// Why a text is no duration or no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUnits {
    /// Digits and nothing after them.
    #[error("the unit is missing")]
    NoUnit,
    /// No digits where a number begins.
    #[error("a whole number is expected before each unit")]
    NoNumber,
    /// Letters that are no unit.
    #[error("the unit is unknown")]
    UnknownUnit,
    /// `30m1h`, `1m1m`.
    #[error("each unit may stand once, the largest first")]
    Order,
    /// More than 64 bits hold.
    #[error("the number is too large")]
    TooLarge,
}

/// Reads `90s`, `10m`, `1h30m`; the units are `w d h m s ms`.
pub fn parse_duration(text: &str) -> Result<Duration, BadUnits> {
    sum(text, |unit| DURATIONS.iter().position(|(name, _)| *name == unit), |i| DURATIONS[i].1)
        .map(Duration::from_millis)
}

/// Reads `512M`, `2G`, `1G512M`; the units are `B K M G T` in powers of 1,024, each also as `KB` or `KiB`.
pub fn parse_size(text: &str) -> Result<u64, BadUnits> {
    let place = |unit: &str| {
        let short =
            unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B').filter(|s| !s.is_empty())).unwrap_or(unit);
        SIZES.iter().position(|(name, _)| *name == short).filter(|_| unit != "BB" && unit != "BiB")
    };
    sum(text, place, |i| SIZES[i].1)
}

fn sum(text: &str, place: impl Fn(&str) -> Option<usize>, scale: impl Fn(usize) -> u64) -> Result<u64, BadUnits> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last: Option<usize> = None;
    while last.is_none() || !rest.is_empty() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        if digits.is_empty() {
            return Err(BadUnits::NoNumber);
        }
        if unit.is_empty() {
            return Err(BadUnits::NoUnit);
        }
        let at = place(unit).ok_or(BadUnits::UnknownUnit)?;
        if last.is_some_and(|before| before >= at) {
            return Err(BadUnits::Order);
        }
        let number: u64 = digits.parse().map_err(|_| BadUnits::TooLarge)?;
        total = number.checked_mul(scale(at)).and_then(|n| total.checked_add(n)).ok_or(BadUnits::TooLarge)?;
        last = Some(at);
        rest = tail;
    }
    Ok(total)
}

/// The shortest text that [`parse_duration`] reads back, to the millisecond.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATIONS, "0s")
}

/// The shortest text that [`parse_size`] reads back.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "0B")
}

fn show(mut rest: u64, units: &[(&str, u64)], zero: &str) -> String {
    let mut text = String::new();
    for (name, scale) in units {
        if rest >= *scale {
            text.extend([(rest / scale).to_string().as_str(), name]);
            rest %= scale;
        }
    }
    if text.is_empty() { zero.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        let ms = Duration::from_millis;
        for (text, want) in [
            ("90s", Ok(ms(90_000))),
            ("10m", Ok(ms(600_000))),
            ("1h30m", Ok(ms(5_400_000))),
            ("1s500ms", Ok(ms(1_500))),
            ("0s", Ok(ms(0))),
            ("2w1d", Ok(ms(15 * 86_400_000))),
            ("", Err(BadUnits::NoNumber)),
            ("90", Err(BadUnits::NoUnit)),
            ("s", Err(BadUnits::NoNumber)),
            ("-1s", Err(BadUnits::NoNumber)),
            ("1.5h", Err(BadUnits::UnknownUnit)),
            ("1 h", Err(BadUnits::UnknownUnit)),
            ("1min", Err(BadUnits::UnknownUnit)),
            ("30m1h", Err(BadUnits::Order)),
            ("1m1m", Err(BadUnits::Order)),
            ("1h30", Err(BadUnits::NoUnit)),
            ("99999999999999999999s", Err(BadUnits::TooLarge)),
            ("99999999999999999w", Err(BadUnits::TooLarge)),
        ] {
            assert_eq!(parse_duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, want) in [
            ("512M", Ok(512 << 20)),
            ("2G", Ok(2 << 30)),
            ("2GiB", Ok(2 << 30)),
            ("2GB", Ok(2 << 30)),
            ("64K", Ok(64 << 10)),
            ("7B", Ok(7)),
            ("1G512M", Ok(1536 << 20)),
            ("512", Err(BadUnits::NoUnit)),
            ("512m", Err(BadUnits::UnknownUnit)),
            ("1BB", Err(BadUnits::UnknownUnit)),
            ("1BiB", Err(BadUnits::UnknownUnit)),
            ("99999999999T", Err(BadUnits::TooLarge)),
        ] {
            assert_eq!(parse_size(text), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(n in any::<u64>()) {
            prop_assert_eq!(parse_size(&show_size(n)), Ok(n));
            prop_assert_eq!(parse_duration(&show_duration(Duration::from_millis(n))), Ok(Duration::from_millis(n)));
        }

        #[test]
        fn what_begins_with_no_digit_is_refused(text in ".{0,40}") {
            let digits = text.chars().next().is_some_and(|c| c.is_ascii_digit());
            prop_assert!(digits || parse_size(&text).is_err() && parse_duration(&text).is_err());
        }
    }
}
