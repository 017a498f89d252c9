//! Hostile bytes against every decoder that reads from outside: frames, both halves of the conversation, control, the
//! journal. Nothing may panic, and what decodes must encode to a frame again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::control::{Reply, Request};
use protocol::frame::FrameReader;
use protocol::{FromWorker, ToWorker, journal};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = FrameReader::new();
    // Two cuts, so that frames arrive in pieces.
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    for part in [first, rest] {
        reader.push(part);
        while let Ok(Some(frame)) = reader.next_frame() {
            if let Ok(Some(message)) = ToWorker::from_frame(&frame) {
                assert!(message.to_frame().is_ok());
            }
            if let Ok(Some(message)) = FromWorker::from_frame(&frame) {
                assert!(message.to_frame().is_ok());
            }
            if let Ok(Some(request)) = Request::from_frame(&frame) {
                assert!(request.to_frame().is_ok());
            }
            if let Ok(Some(reply)) = Reply::from_frame(&frame) {
                assert!(reply.to_frame().is_ok());
            }
        }
    }
    let reading = journal::read(bytes);
    assert_eq!(reading.whole_bytes + reading.torn_bytes, bytes.len());
});
