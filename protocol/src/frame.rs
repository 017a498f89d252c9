//! Bytes to frames and back: a machine, not a socket.
//!
//! ```text
//!  u32 length (little-endian, counts kind and body) | u16 kind | body
//! ```
//! A length is refused before anything is allocated for it. After an error the reader is poisoned: the stream has
//! lost its frames, and the session must end.

/// Largest length of a frame, in bytes: large enough for any message (long texts go by file), small enough that 1,000
/// sessions with a full buffer each stay below 1 GiB.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

const HEADER_BYTES: usize = 4;
const KIND_BYTES: usize = 2;

/// One frame: what it is and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: u16,
    /// The encoded message.
    pub body: Vec<u8>,
}

/// Why the stream holds no frame. All of them end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is larger than the limit, so it was not believed.
    #[error("a frame of {0} bytes is larger than the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The length has no room for the kind.
    #[error("a frame of {0} bytes has no room for its kind")]
    TooShort(usize),
    /// An earlier error stands.
    #[error("the stream is broken since an earlier bad frame")]
    Poisoned,
}

/// The bytes of a frame, ready to be written.
///
/// # Errors
/// [`FrameError::TooLarge`] when kind and body together pass the limit.
pub fn encode(kind: u16, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = KIND_BYTES + body.len();
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(length));
    }
    let length = u32::try_from(length).map_err(|_| FrameError::TooLarge(usize::MAX))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + KIND_BYTES + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Takes bytes as they arrive and gives frames as they become whole.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
    poisoned: bool,
}

impl FrameReader {
    /// A reader without bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.poisoned {
            return;
        }
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` while more bytes are needed.
    ///
    /// # Errors
    /// See [`FrameError`]; after the first error every call fails.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.poisoned {
            return Err(FrameError::Poisoned);
        }
        let waiting = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if let Err(error) = check(length) {
            self.poisoned = true;
            self.buffer = Vec::new();
            self.taken = 0;
            return Err(error);
        }
        let Some((kind, body)) = rest.get(..length).and_then(<[u8]>::split_first_chunk::<KIND_BYTES>) else {
            return Ok(None);
        };
        let frame = Frame { kind: u16::from_le_bytes(*kind), body: body.to_vec() };
        self.taken += HEADER_BYTES + length;
        Ok(Some(frame))
    }

    /// Whether the stream ended inside a frame.
    pub fn is_mid_frame(&self) -> bool {
        self.taken < self.buffer.len()
    }
}

fn check(length: usize) -> Result<(), FrameError> {
    if length > FRAME_BYTES_MAX {
        Err(FrameError::TooLarge(length))
    } else if length < KIND_BYTES {
        Err(FrameError::TooShort(length))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..200));
        proptest::collection::vec(frame.prop_map(|(kind, body)| Frame { kind, body }), 0..8)
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(frames in frames(), cuts in proptest::collection::vec(1usize..50, 1..40)) {
            let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f.kind, &f.body).unwrap()).collect();
            let mut reader = FrameReader::new();
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                reader.push(now);
                rest = later;
                while let Some(frame) = reader.next_frame().unwrap() { seen.push(frame); }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!reader.is_mid_frame());
        }

        #[test]
        fn a_truncated_stream_is_never_a_whole_frame(body in proptest::collection::vec(any::<u8>(), 0..100), lost in 1usize..100) {
            let mut bytes = encode(7, &body).unwrap();
            bytes.truncate(bytes.len().saturating_sub(lost));
            let mut reader = FrameReader::new();
            reader.push(&bytes);
            prop_assert_eq!(reader.next_frame(), Ok(None));
            prop_assert_eq!(reader.is_mid_frame(), !bytes.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = FrameReader::new();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }

    #[test]
    fn a_hostile_length_is_refused_before_it_is_allocated() {
        for length in [0u32, 1, 1024 * 1024 + 1, u32::MAX] {
            let mut reader = FrameReader::new();
            reader.push(&length.to_le_bytes());
            assert!(reader.next_frame().is_err(), "{length}");
            reader.push(&[0; 64]);
            assert_eq!(reader.next_frame(), Err(FrameError::Poisoned));
            assert_eq!(reader.buffer.capacity(), 0);
        }
    }

    #[test]
    fn the_largest_frame_passes() {
        let body = vec![0; FRAME_BYTES_MAX - KIND_BYTES];
        let mut reader = FrameReader::new();
        reader.push(&encode(1, &body).unwrap());
        assert_eq!(reader.next_frame().unwrap().map(|f| f.body.len()), Some(body.len()));
        assert_eq!(encode(1, &vec![0; FRAME_BYTES_MAX - 1]), Err(FrameError::TooLarge(FRAME_BYTES_MAX + 1)));
    }
}
