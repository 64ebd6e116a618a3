//! The doors: where clients come in.
//!
//! Binds what the configuration names, tries again where a port is taken, and hands accepted streams to
//! the engine's poll loop. What is said on a stream is the engine's; nothing here reads from one.
//!
//! Invariant: a door that cannot be opened never stops the others, nor the start.

mod config;
mod bind;
mod door;
mod doors;
mod stream;

pub use bind::Bind;
pub use config::{Config, KEYS, Listener};
pub use doors::{Accepted, Board, Doors, Standing};
pub use stream::{Stream, StreamPeer};
