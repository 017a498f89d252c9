//! One number for the wire, and by name what each version brought.

use std::sync::OnceLock;

/// The first wire: hello, configure, begin, steer, interrupt; ready, begun, started, progress, finished.
pub const FIRST: u16 = 1;

/// The protocol that this build speaks.
pub const PROTOCOL: u16 = FIRST;

/// The build, as told in the hello: the package version.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What a process says of itself in its hello, and what another is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The number of the wire.
    pub protocol: u16,
    /// The build, for people.
    pub build: String,
}

static RELEASE: OnceLock<Release> = OnceLock::new();

impl Release {
    /// The release that this source is.
    pub fn of_source() -> Self {
        Self { protocol: PROTOCOL, build: BUILD.to_owned() }
    }

    /// The release that this process is.
    pub fn current() -> &'static Self {
        RELEASE.get_or_init(Self::of_source)
    }

    /// Makes this the release of this process: its program says so before anything else, once. A later word is not
    /// heard.
    pub fn begin(self) {
        // Whoever came first has been told to others.
        drop(RELEASE.set(self));
    }
}
