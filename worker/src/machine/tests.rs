//! The machine driven as its driver drives it: frames and facts in, effects out.

use super::*;
