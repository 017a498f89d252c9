//! TOML text to a [`Config`] that cannot be invalid.
//!
//! ```text
//!  paths.rs    which file
//!     v
//!  load.rs     bytes -> text -> TOML with spans         files.rs: small ordinary files only
//!     v
//!  read.rs     known keys, right types                   keys.rs: the one table; value.rs, units.rs: what a text means
//!     v
//!  resolve.rs  defaults, policy, references              section.rs: own table -> [defaults] -> keys.rs
//!     |        agents.rs users.rs routes.rs telegram.rs jobs.rs   release.rs: what this release does not do
//!     v
//!  Config, or a Report of everything that is wrong       report.rs, mask.rs
//! ```
//!
//! Promises: all errors come at once, each with its place; no report holds a token; no input makes it panic or wait.

mod agents;
mod files;
mod jobs;
mod keys;
mod load;
mod mask;
mod model;
mod paths;
mod read;
mod release;
mod report;
mod resolve;
mod routes;
mod section;
mod telegram;
mod template;
mod units;
mod users;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use keys::{Absent, KEYS, Key, Kind, markdown_table};
pub use load::{FILE_BYTES_MAX, Loaded};
pub use model::{
    Agent, Alerts, Bot, Cgroup, Config, Deliver, Job, Limits, Log, Provider, RuntimeFrom, SOCKET_PATH_BYTES_MAX, Secret,
};
pub use paths::{Environment, NoConfig, find, places};
pub use report::{PROBLEMS_SHOWN_MAX, Problem, Report, Severity};
pub use template::template;
pub use units::{BadUnits, parse_duration, parse_size, show_duration, show_size};
pub use users::User;
pub use words::{Approval, Auth, Catchup, Home, LogFormat, OnUncertain, Overlap, QueueMode, Reviewer, Sandbox};
