//! TOML text to a [`Config`] that cannot be invalid.

mod model;
mod words;

pub use model::*;
pub use words::*;
