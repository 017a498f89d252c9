//! Reads when a usage limit ends out of prose in local time. Pure: the wall clock and the offset are arguments.
//!
//! ```text
//!  "... try again at 2:45 AM."                    the next 2:45 in local time
//!  "... try again at Nov 25th, 2026 2:45 AM."     that moment in local time
//!  "... try again in 3 days 4 hours 5 minutes."   from now
//! ```

/// The wall clock at some moment, and where local time lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wall {
    /// Unix milliseconds.
    pub(super) ms: u64,
    /// Local time minus UTC, in seconds.
    pub(super) utc_offset_s: i32,
}

const DAY_S: i64 = 86_400;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Largest pause that is believed, in seconds: a plan's longest window is a month.
const PAUSE_S_MAX: i64 = 40 * DAY_S;

/// When the limit that `text` tells of ends, in Unix seconds.
pub(super) fn resets_at(text: &str, wall: Wall) -> Option<u64> {
    let text = text.to_lowercase();
    let now = i64::try_from(wall.ms / 1000).ok()?;
    let at = if let Some((_, tail)) = text.split_once("try again at ") {
        local(tail, now + i64::from(wall.utc_offset_s))? - i64::from(wall.utc_offset_s)
    } else {
        now + span(text.split_once("try again in ")?.1)?
    };
    (at > now && at - now <= PAUSE_S_MAX).then(|| u64::try_from(at).ok()).flatten()
}

/// A moment in local seconds, from words like `2:45 am` or `nov 25th, 2026 2:45 am`.
fn local(tail: &str, now: i64) -> Option<i64> {
    let words: Vec<&str> = tail.split([' ', ',']).filter(|word| !word.is_empty()).take(5).collect();
    let month = words.first().and_then(|word| MONTHS.iter().position(|m| word.starts_with(m)));
    let (day, time) = match month {
        Some(month) => {
            let day: i64 = words.get(1)?.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().ok()?;
            let year: i64 = words.get(2)?.parse().ok()?;
            let sane = (1..=31).contains(&day) && (1970..10_000).contains(&year);
            let month = i64::try_from(month).ok()? + 1;
            (sane.then(|| days_from_civil(year, month, day))?, words.get(3..)?)
        }
        None => (now.div_euclid(DAY_S), words.as_slice()),
    };
    let seconds = clock(time)?;
    let at = day * DAY_S + seconds;
    Some(if month.is_none() && at <= now { at + DAY_S } else { at })
}

/// Seconds since midnight of `2:45 am`.
fn clock(words: &[&str]) -> Option<i64> {
    let (hour, minute) = words.first()?.split_once(':')?;
    let hour: i64 = hour.parse().ok()?;
    let minute: i64 = minute.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    let half = words.get(1).map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphabetic()));
    let hour = match half {
        Some("am") => hour % 12,
        Some("pm") => hour % 12 + 12,
        _ => hour,
    };
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some(hour * 3600 + minute * 60)
}

/// Seconds of `3 days 4 hours 5 minutes` or `1.898s`.
fn span(tail: &str) -> Option<i64> {
    let mut sum = None;
    let mut words = tail.split([' ', ',']).filter(|word| !word.is_empty()).take(8);
    while let Some(word) = words.next() {
        let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let Some(number) = word.get(..digits).and_then(|number| number.parse::<i64>().ok()) else {
            break;
        };
        let unit = word.get(digits..).filter(|unit| !unit.is_empty()).or_else(|| words.next()).unwrap_or("");
        let unit = unit.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let seconds = match unit.get(..1) {
            Some("d") => DAY_S,
            Some("h") => 3600,
            Some("m") => 60,
            Some("s") => 1,
            _ => break,
        };
        // Rounded up: a second too late is a try less.
        sum = Some(
            sum.unwrap_or(0_i64)
                .saturating_add(number.saturating_mul(seconds))
                .saturating_add(i64::from(word.contains('.'))),
        );
    }
    sum
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // 2026-11-21 01:49:36 UTC.
    const NOW: i64 = 1_795_225_776;

    fn read(text: &str, utc_offset_s: i32) -> Option<i64> {
        let wall = Wall { ms: u64::try_from(NOW).expect("positive") * 1000, utc_offset_s };
        resets_at(text, wall).map(|at| i64::try_from(at).expect("small") - NOW)
    }

    #[test]
    fn the_forms_that_codex_uses() {
        for (text, offset, pause) in [
            ("usage limit. Upgrade to Pro or try again at 2:45 AM.", 0, Some(3324)),
            ("or try again at 2:45 AM.", 3600, Some(DAY_S + 3324 - 3600)),
            ("or try again at 2:45 PM.", 0, Some(3324 + 12 * 3600)),
            ("or try again at 12:10 AM.", 0, Some(DAY_S - (3600 + 49 * 60 + 36) + 600)),
            ("or try again at Nov 25th, 2026 2:45 AM.", 0, Some(4 * DAY_S + 3324)),
            ("or try again at Nov 25th, 2026 2:45 AM.", -7200, Some(4 * DAY_S + 3324 + 7200)),
            ("or try again at Nov 20th, 2026 2:45 AM.", 0, None),
            ("or try again at Dec 1st, 2099 2:45 AM.", 0, None),
            ("Try again in 3 days 4 hours 5 minutes.", 0, Some(3 * DAY_S + 4 * 3600 + 300)),
            ("Please try again in 1.898s. Visit", 0, Some(2)),
            ("try again in 20s", 0, Some(20)),
            ("try again later", 0, None),
            ("try again at noon", 0, None),
            ("try again at 99:99 XM", 0, None),
        ] {
            assert_eq!(read(text, offset), pause, "{text} {offset}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,60}", ms in any::<u64>(), offset in -90_000_i32..90_000) {
            let wall = Wall { ms, utc_offset_s: offset };
            let _ = resets_at(&format!("try again at {text}"), wall);
            let _ = resets_at(&format!("try again in {text}"), wall);
            let _ = resets_at(&format!("try again at Nov {text}"), wall);
        }
    }
}
