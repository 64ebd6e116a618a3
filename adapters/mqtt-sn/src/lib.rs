//! MQTT-SN 1.2 over UDP: battery sensors as in-process clients of the broker.
//!
//! `codec` and `gateway` are pure: octets to messages, and every client as one state machine that is
//! told what came and what time it is. `runner` owns the one socket and a port for each client. Nothing
//! here keeps a message: a QoS 1 publish is acknowledged when the broker says that it holds it, and
//! what waits for a client, also for one that sleeps, waits in the broker save for a few.

pub mod codec;
mod config;
mod gateway;
mod runner;
mod fuzz;

pub use config::{Checked, Config, KEYS, QosMinusOne};
pub use fuzz::fuzz;
pub use runner::adapter;
