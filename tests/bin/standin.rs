//! Runs the stand-ins for a person.

fn main() {}
