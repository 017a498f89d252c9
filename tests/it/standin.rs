//! Every script of the stand-ins, driven once by the real client.

mod bot_api;
mod codex_exec;
mod command;
mod model_door;
