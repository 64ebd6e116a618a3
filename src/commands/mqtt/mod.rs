//! `tidegate pub` and `tidegate sub`: mosquitto's two clients by the same letters, on our own codec.
//!
//! They speak to any broker over TCP, TLS, WebSocket or a unix socket. One thread reads the socket, one the
//! standard input where it is asked for; what they read meets in one bounded queue, and all sense is
//! made of it by one thread.

mod options;
mod url;
mod stream;
mod websocket;
mod link;
mod publish;
mod subscribe;

pub use options::ClientArgs;
pub(super) use options::not_yet;
pub use publish::{PubArgs, publish};
pub use subscribe::{SubArgs, subscribe};

#[cfg(test)]
mod tests;
