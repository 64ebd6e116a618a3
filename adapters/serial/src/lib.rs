//! Serial lines: bytes in, frames out, readings published.
//!
//! Pure: [`config`], [`checked`], [`framer`], [`reading`]. Io: `line`, `reporter`, [`serial`]. A
//! device that is absent or unplugged is reported and tried again; a line that is torn, overlong or
//! unreadable is counted and never published.

pub mod config;
pub mod checked;
pub mod framer;
pub mod reading;
mod line;
mod reporter;
pub mod serial;
pub mod fuzz;

pub use checked::Checked;
pub use config::{Config, KEYS};
pub use serial::{Serial, adapter};
