//! Modbus over TCP and RTU: points in, readings out, and never a wrong value.
//!
//! Pure: [`register`], [`value`], [`reading`], [`config`], [`checked`], [`plan`], [`schedule`], [`guard`].
//! Io: [`wire`], `line`, `session`, `health`, [`bus`]. tokio-modbus makes the requests and reads
//! the answers; between it and the line stands the guard, because over a serial line it would take a late
//! answer for the next one.

pub mod register;
pub mod value;
pub mod reading;
pub mod config;
pub mod checked;
pub mod plan;
pub mod schedule;
pub mod guard;
pub mod wire;
mod timer;
mod line;
mod session;
mod health;
pub mod bus;

pub use bus::{Modbus, adapter};
pub use checked::Bus;
pub use config::{Config, KEYS};
