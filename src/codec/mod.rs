//! Bytes to MQTT packets and back, versions 3.1, 3.1.1 and 5.0.

mod packet;
mod properties;
mod reason;

pub use packet::*;
pub use properties::{Properties, Property};
pub use reason::Reason;
