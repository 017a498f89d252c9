//! Every script of the stand-ins, driven once by the real client.

mod codex_exec;
