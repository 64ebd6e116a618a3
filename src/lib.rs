//! tidegate: a local MQTT broker that keeps messages on disk while the uplink is down.
//!
//! This table is the drawing of the house, and `tests/tidy.rs` holds the code against it: a room may use
//! only what its row names, and a pure room reads no clock, socket, file or random source.
//!
//! | room     | kind | may use |
//! |----------|------|---------|
//! | clock    | io   | record |
//! | codec    | pure | |
//! | record   | pure | codec |
//! | router   | pure | codec record |
//! | access   | pure | router |
//! | session  | pure | codec record |
//! | broker   | pure | access codec record router session |
//! | store    | io   | codec record |
//! | unstored | io   | record |
//! | auth     | io   | access |
//! | listener | io   | access broker clock codec record |
//! | engine   | io   | access auth broker clock codec listener record store unstored |
//! | field    | io   | clock engine |
//! | bridge   | io   | clock codec record store unstored |
//! | journal  | io   | |
//! | config   | io   | access auth bridge broker codec control engine journal listener store |
//! | control  | io   | |
//! | commands | io   | auth codec config control |
//! | service  | io   | auth bridge broker clock commands config control engine field journal listener record store unstored |

pub mod clock;
pub mod codec;
pub mod record;
pub mod router;
pub mod access;
pub mod session;
pub mod broker;
pub mod store;
pub mod unstored;
pub mod auth;
pub mod listener;
pub mod engine;
pub mod field;
pub mod bridge;
pub mod journal;
pub mod config;
pub mod control;
pub mod commands;
pub mod service;

#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
