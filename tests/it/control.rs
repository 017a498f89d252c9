//! What an operator orders, and what becomes of it: one agent alone, or everything, in any state.

mod exits;
mod leave;
mod reload;
mod shapes;
mod verbs;
mod wedged;
