//! Answers as pictures for people and as JSON for scripts. Pure: text in, text out.

pub(super) mod json;
pub(super) mod story;
pub(super) mod tables;

#[cfg(test)]
mod samples;
