//! Which release the binaries under test are: this source's, or the one that a test names.

use protocol::version::Release;

/// Names another release for a binary under test: `PROTOCOL BUILD`. Only these binaries read it, not the shipped ones.
pub const VARIABLE: &str = "COFFERDAM_TEST_RELEASE";

/// The release that the environment names, or this source's.
pub fn wanted() -> Release {
    let named = std::env::var(VARIABLE).ok();
    let parsed = named.as_deref().and_then(|text| {
        let (protocol, build) = text.split_once(' ')?;
        Some(Release { protocol: protocol.parse().ok()?, build: build.to_owned() })
    });
    parsed.unwrap_or_else(Release::of_source)
}
