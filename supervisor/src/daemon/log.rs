//! What the supervisor writes about itself: to standard error, for the journal or a terminal.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Levels if the configured filter cannot be read.
const FILTER_DEFAULT: &str = "info";

/// Begins to write. `RUST_LOG` wins over the configuration, as in every Rust program.
pub(super) fn begin(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&log.filter))
        .unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let begun = match log.format {
        LogFormat::Text => builder.with_target(false).finish().try_init(),
        LogFormat::Json => builder.json().finish().try_init(),
    };
    if let Err(error) = begun {
        // Somebody embeds us and writes a log already.
        tracing::debug!(%error, "the log had begun");
    }
}
