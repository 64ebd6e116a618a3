//! The doors: where clients come in.
//!
//! Binds what the configuration names, tries again where a port is taken, and hands accepted streams to
//! the engine's poll loop, after the handshake where TLS is spoken. What MQTT says on a stream is the
//! engine's; nothing here decodes a packet.
//!
//! Invariant: a door that cannot be opened never stops the others, nor the start.

mod config;
mod bind;
mod guests;
mod door;
mod doors;
mod stream;
mod tls;
mod certificate;
mod keeper;
mod handshakes;
mod secured;
mod websocket;
mod limiter;

pub use bind::Bind;
pub use config::{Config, KEYS, Listener, Protocol};
pub use doors::{Accepted, Admitted, Board, Doors, Knock, Standing};
pub use guests::{Address, Guests, Objection, Stay, Way};
pub use handshakes::{HandshakeCounts, HandshakeLimits, Outcome};
pub use limiter::Limiter;
pub use secured::Secured;
pub use stream::{Received, Stream, StreamPeer};
pub use tls::{Flaw, Identity, Tls, TlsConfig};
pub use websocket::WebSocket;

#[cfg(test)]
pub(crate) mod testing;
