//! The poll loop that owns every socket, every codec and the broker.

mod inbox;

pub use inbox::{Input, Inputs, EngineGone};
