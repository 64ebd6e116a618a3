//! Bytes to MQTT packets and back, versions 3.1, 3.1.1 and 5.0.
//!
//! [`Decoder`] is fed bytes as they come and hands out packets as they complete; an incomplete packet is
//! not an error but a wait. Text and payloads are slices of what was fed. [`encode()`] and
//! [`encode_publish`] append to a buffer. Nothing here reads a socket or knows a session; the largest
//! packet is fixed when the decoder is made, so a peer cannot make us hold more.
//!
//! A clause tag such as `[MQTT5-3.1.2-3]` names the normative statement that a line obeys.

mod packet;
mod properties;
mod property;
mod reason;
mod aliases;
mod brief;
mod decoder;
mod decode;
mod encode;
mod malformed;
mod plain;
mod reader;
pub(crate) mod octets;
mod writer;

pub use aliases::{Alias, Aliases};
pub use brief::{Brief, Word};
pub use decoder::{Decoder, Side};
pub use encode::{PublishParts, encode, encode_publish, publish_size};
pub use malformed::Malformed;
pub use packet::*;
pub use plain::Plain;
pub use properties::Properties;
pub use property::{Carrier, Property};
pub use reason::Reason;
pub use writer::Unwritable;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tables;
