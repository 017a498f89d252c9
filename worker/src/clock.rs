//! The only reader of time.

use crate::machine::io::Tick;
use jiff::tz::TimeZone;
use std::cell::OnceCell;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Where the host keeps its time zones, and its own.
const ZONES: &str = "/usr/share/zoneinfo";
const OWN_ZONE: &str = "/etc/localtime";

/// The clocks of this process: one that only goes forward, the wall's, and local time.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// The name of its zone; `None`: the host's.
    zone_name: Option<String>,
    /// Read when it is first asked for: most workers never tell a local time.
    zone: OnceCell<TimeZone>,
}

impl Clock {
    /// A clock that begins at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn start() -> Self {
        Self { origin: Instant::now(), zone_name: None, zone: OnceCell::new() }
    }

    /// Milliseconds since the start of the clock.
    pub fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When `tick` is, for a sleep. Beyond a year it is a year.
    pub fn instant(&self, tick: Tick) -> Instant {
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        self.origin + Duration::from_millis(tick.0.min(self.now().0 + YEAR_MS))
    }

    /// Sets the zone in which Codex tells times: the child's `TZ`, else the system's.
    pub fn set_zone(&mut self, name: Option<&str>) {
        self.zone_name = name.map(|name| name.trim_start_matches(':').to_owned());
        self.zone = OnceCell::new();
    }

    /// How far local time is ahead of UTC, in seconds.
    pub fn utc_offset_s(&self) -> i32 {
        let zone = self.zone.get_or_init(|| zone(self.zone_name.as_deref()));
        let at = jiff::Timestamp::from_millisecond(i64::try_from(wall_ms()).unwrap_or(0)).unwrap_or_default();
        zone.to_offset(at).seconds()
    }
}

/// The zone of that name, else the host's. Its file is read directly where there is one: jiff reads the names of all
/// zones first and keeps them, which is more memory than all else that an idle worker holds.
fn zone(name: Option<&str>) -> TimeZone {
    let read = |path: &Path| TimeZone::tzif("", &std::fs::read(path).ok()?).ok();
    let plain = |name: &&str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match name {
        Some(name) => Some(name)
            .filter(plain)
            .and_then(|name| read(&Path::new(ZONES).join(name)))
            .or_else(|| TimeZone::get(name).ok())
            .unwrap_or_else(TimeZone::system),
        None => read(Path::new(OWN_ZONE)).unwrap_or_else(TimeZone::system),
    }
}

/// Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_follows_the_zone_of_the_child() {
        let mut clock = Clock::start();
        clock.set_zone(Some("Asia/Kolkata"));
        assert_eq!(clock.utc_offset_s(), 19_800);
        clock.set_zone(Some("UTC"));
        assert_eq!(clock.utc_offset_s(), 0);
        clock.set_zone(Some(":Asia/Kolkata"));
        assert_eq!(clock.utc_offset_s(), 19_800);
    }

    #[test]
    fn a_zone_without_a_file_is_still_found_and_a_wrong_name_is_the_hosts() {
        let here = zone(None).to_offset(jiff::Timestamp::UNIX_EPOCH);
        for wrong in ["", "/etc/passwd", "../../../etc/passwd", "No/Where"] {
            assert_eq!(zone(Some(wrong)).to_offset(jiff::Timestamp::UNIX_EPOCH), here, "{wrong}");
        }
        // Names are the same in any case only to jiff, whose own zones come last.
        assert_eq!(zone(Some("asia/kolkata")).to_offset(jiff::Timestamp::UNIX_EPOCH).seconds(), 19_800);
    }

    #[test]
    fn a_far_deadline_is_no_overflow() {
        let clock = Clock::start();
        assert!(clock.instant(Tick(u64::MAX)) > clock.instant(Tick(1)));
    }
}
