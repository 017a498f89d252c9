//! The promises under any sequence of inputs.
