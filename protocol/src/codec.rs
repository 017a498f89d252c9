//! Values to bytes and back. The only file that names bincode.
//!
//! The configuration is bincode's legacy one (fixed-width integers), because two maintained crates read the same
//! bytes: bincode itself has no successor, and this file can be rewritten without a change on the wire.

use crate::frame::FRAME_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not hold such a value, or it would pass the frame limit.
    #[error("the body does not hold this message: {0}")]
    Malformed(String),
    /// Bytes were left after the value.
    #[error("{0} bytes are left over after the message")]
    Trailing(usize),
}

fn rules() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<FRAME_BYTES_MAX>()
}

/// The bytes of a value.
///
/// # Errors
/// [`CodecError::Malformed`] when the value passes the frame limit.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, rules()).map_err(|e| CodecError::Malformed(e.to_string()))
}

/// The value that `bytes` hold, and nothing else.
///
/// # Errors
/// See [`CodecError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, rules()).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32).unwrap();
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn a_hostile_length_is_an_error_and_no_allocation() {
        let bytes = (1u64 << 62).to_le_bytes();
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(CodecError::Malformed(_))));
    }
}
