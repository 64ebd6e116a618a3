//! Every session and the router as one state machine.

mod effect;

pub use effect::{ConnectionId, Copy, Effect, Event, Note, Peer, Trust};
