//! What can be wrong with a bot's long poll: the fault, what the operator should do, and the growing pause. Pure.

use super::api::ApiError;
use std::time::Duration;

/// Longest obedience to a server that asks to wait, for polling: a wait beyond an hour is a server's error, and a bot that
/// stays deaf for it would look dead.
const FLOOD_PAUSE_MAX: Duration = Duration::from_hours(1);

/// Why updates are not coming in. Every fault is retried for ever; none ends the poll.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PollFault {
    /// Another program polls with the same token (409).
    #[error("another program is polling this bot: {0}")]
    Conflict(String),
    /// A webhook is set, which excludes polling (409).
    #[error("a webhook is set for this bot: {0}")]
    Webhook(String),
    /// The token is not known to the server (401, 404).
    #[error("the bot token is refused: {0}")]
    Unauthorized(String),
    /// Too many requests (429).
    #[error("Telegram asks to wait{}", .0.map(|after| format!(" {} s", after.as_secs())).unwrap_or_default())]
    Flood(Option<Duration>),
    /// Telegram, or what stands before it, is out of order (5xx).
    #[error("the server failed: {0}")]
    Server(String),
    /// Something that is not the Bot API answered.
    #[error("{0}")]
    NotApi(String),
    /// No connection, or one that was cut, or no answer in time.
    #[error("{0}")]
    Network(String),
    /// The Bot API refuses the request itself.
    #[error("the server refuses to be polled: {0}")]
    Rejected(String),
    /// A batch without a single update that could be counted: it comes again until the server drops it.
    #[error("{count} updates without a number, such as {sample}")]
    Malformed {
        /// How many there were.
        count: u32,
        /// The beginning of the first.
        sample: String,
    },
    /// The ledger did not commit a batch; it stays with Telegram and is asked for again.
    #[error("the updates could not be recorded")]
    NotCommitted,
}

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Whether it passes by itself, or a person must act.
    pub needs_operator: bool,
    /// One sentence for the operator.
    pub text: &'static str,
}

impl PollFault {
    /// The fault that `error` amounts to.
    pub(super) fn from_api(error: ApiError) -> Self {
        match error {
            ApiError::NotSent(_) | ApiError::Cut(_) | ApiError::Timeout(_) => Self::Network(error.to_string()),
            ApiError::NotJson { status, .. } if status >= 500 => Self::Server(error.to_string()),
            ApiError::NotJson { .. } | ApiError::TooLong { .. } => Self::NotApi(error.to_string()),
            ApiError::Refused { code, text, retry_after, migrate_to: _ } => match code {
                // A malformed token makes a path that the server does not know: 404.
                401 | 404 => Self::Unauthorized(text),
                409 if text.to_lowercase().contains("webhook") => Self::Webhook(text),
                409 => Self::Conflict(text),
                429 => Self::Flood(retry_after.map(Duration::from_secs)),
                500.. => Self::Server(text),
                _ => Self::Rejected(text),
            },
        }
    }

    /// The stable name, for records and counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "conflict",
            Self::Webhook(_) => "webhook",
            Self::Unauthorized(_) => "unauthorized",
            Self::Flood(_) => "flood",
            Self::Server(_) => "server",
            Self::NotApi(_) => "not_api",
            Self::Network(_) => "network",
            Self::Rejected(_) => "rejected",
            Self::Malformed { .. } => "malformed",
            Self::NotCommitted => "not_committed",
        }
    }

    /// What the operator should do.
    pub const fn advice(&self) -> Advice {
        let (needs_operator, text) = match self {
            Self::Conflict(_) => (
                true,
                "stop the other program that uses this bot, or give it a bot of its own; a token that leaked is replaced with /revoke at @BotFather",
            ),
            Self::Webhook(_) => (
                true,
                "remove the webhook (call deleteWebhook with this token once no other program needs it), or use another bot",
            ),
            Self::Unauthorized(_) => (
                true,
                "check token_file or token_env and api_root; @BotFather shows the valid token under /mybots, then reload",
            ),
            Self::Flood(_) => (false, "nothing: it passes when the wait is over"),
            Self::Server(_) => {
                (false, "nothing: it passes when the server is back; with a self-hosted api_root, look there")
            }
            Self::NotApi(_) => {
                (true, "check api_root and any proxy: a web page, a login portal or a block page answers in its place")
            }
            Self::Network(_) => (false, "check the network, DNS and any firewall if it lasts"),
            Self::Rejected(_) => (true, "read the server's reason; with a self-hosted api_root, update it"),
            Self::Malformed { .. } => (true, "check api_root: a Bot API server numbers every update"),
            Self::NotCommitted => (true, "check the disk that holds state_dir: updates wait at Telegram for 24 hours"),
        };
        Advice { needs_operator, text }
    }
}

/// How long to pause between tries. Injected, so that tests need not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long the server may hold an empty poll.
    pub poll_timeout: Duration,
    /// What a poll and its answer may take beyond that.
    pub grace: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub first: Duration,
    /// The longest pause after faults that may pass at any moment.
    pub longest: Duration,
    /// The pause where only a person can help.
    pub slow: Duration,
    /// The pause after an empty answer, against a server that does not hold the poll.
    pub empty: Duration,
}

impl Pace {
    /// The pace for Telegram.
    pub const TELEGRAM: Self = Self {
        // Telegram holds a poll for 50 s at most; each second less is a request more per bot and minute.
        poll_timeout: Duration::from_secs(50),
        grace: Duration::from_secs(10),
        // Short, for most network faults are a single cut connection.
        first: Duration::from_millis(500),
        // A network that came back is noticed within half a minute, and an outage costs two requests a minute.
        longest: Duration::from_secs(30),
        // A refused token is not tried more than once a minute, for Telegram counts such tries.
        slow: Duration::from_mins(1),
        // Five requests a second at worst; once in 50 s in the lawful case, where nobody notices it.
        empty: Duration::from_millis(200),
    };

    /// The pause before try number `streak + 1`, after `streak` failures in a row (at least one). `seed` spreads the bots.
    pub(super) fn pause(&self, fault: &PollFault, streak: u32, seed: u64) -> Duration {
        let slow = matches!(fault, PollFault::Unauthorized(_) | PollFault::Rejected(_));
        if let PollFault::Flood(Some(after)) = fault {
            return (*after).min(FLOOD_PAUSE_MAX);
        }
        // A try after a refused token is cheap to get wrong once: the first pause is short all the same.
        let top = if slow { self.slow } else { self.longest };
        let doublings = streak.saturating_sub(1).min(16);
        let grown = self.first.saturating_mul(1 << doublings).min(top);
        // Between a half and the whole, so that bots that fell together do not come back together.
        let permille = 500 + mix(seed ^ u64::from(streak)) % 501;
        grown.mul_f64(f64::from(u32::try_from(permille).unwrap_or(1000)) / 1000.0)
    }
}

/// A number that depends on `name` alone, for jitter that a seed reproduces.
pub(super) fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One step of splitmix64.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64, text: &str, retry_after: Option<u64>) -> PollFault {
        PollFault::from_api(ApiError::Refused { code, text: text.into(), retry_after, migrate_to: None })
    }

    #[test]
    fn codes_become_faults() {
        assert_eq!(refused(409, "Conflict: terminated by other getUpdates request", None).name(), "conflict");
        assert_eq!(
            refused(409, "Conflict: can't use getUpdates method while webhook is active", None).name(),
            "webhook"
        );
        assert_eq!(refused(401, "Unauthorized", None).name(), "unauthorized");
        assert_eq!(refused(404, "Not Found", None).name(), "unauthorized");
        assert_eq!(refused(429, "", Some(17)), PollFault::Flood(Some(Duration::from_secs(17))));
        assert_eq!(refused(502, "Bad Gateway", None).name(), "server");
        assert_eq!(refused(400, "Bad Request", None).name(), "rejected");
        let page = |status| PollFault::from_api(ApiError::NotJson { status, html: true, head: "<html>".into() });
        assert_eq!((page(502).name(), page(200).name(), page(403).name()), ("server", "not_api", "not_api"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ_by_bot() {
        let pace = Pace::TELEGRAM;
        let network = PollFault::Network(String::new());
        for streak in [1, 2, 3, 7, 50, u32::MAX] {
            let pause = pace.pause(&network, streak, 1);
            assert!(pause >= pace.first / 2 && pause <= pace.longest, "{streak}: {pause:?}");
        }
        assert!(pace.pause(&network, 20, 1) >= pace.longest / 2);
        assert!(pace.pause(&PollFault::Unauthorized(String::new()), 20, 1) >= pace.slow / 2);
        assert_ne!(pace.pause(&network, 9, seed_of("a")), pace.pause(&network, 9, seed_of("b")));
        let flood = PollFault::Flood(Some(Duration::from_secs(33)));
        assert_eq!(pace.pause(&flood, 5, 1), Duration::from_secs(33));
    }
}
