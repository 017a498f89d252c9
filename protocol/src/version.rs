//! One number for the wire, and by name what each version brought.

/// The first wire: hello, configure, begin, steer, interrupt; ready, begun, started, progress, finished.
pub const FIRST: u16 = 1;

/// The protocol that this build speaks.
pub const PROTOCOL: u16 = FIRST;

/// The build, as told in the hello: the package version.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
