//! The whole appliance as a process, against real peers.
//!
//! Each module is one promise of the product: what a publisher was told is true, an outage is crossed,
//! a refused uplink says why. Sizes are for CI; `TIDEGATE_SIZE=proof` asks for the full ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks should say where")]

#[path = "../stand/mod.rs"]
mod stand;

mod absent;
mod access;
mod clients;
mod commits;
mod doors;
mod felt;
mod hostile;
mod kept;
mod matrix;
mod motes;
mod operator;
mod outage;
mod rounds;
mod rules;
mod scram;
mod serial;
mod siege;
mod sync;
mod traced;
mod uplink;

use std::path::Path;

/// The program under test.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidegate"))
}
