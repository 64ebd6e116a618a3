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
mod cycles;
mod doors;
mod felt;
mod full;
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
use std::process::Command;
use std::sync::OnceLock;

use stand::proof;

/// The program under test.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidegate"))
}

/// The same; at full size the optimised one, which is what anybody runs.
fn optimised() -> &'static Path {
    static OPTIMISED: OnceLock<()> = OnceLock::new();
    if !proof() {
        return program();
    }
    OPTIMISED.get_or_init(|| {
        let build = ["build", "--release", "--locked", "--bin", "tidegate"];
        assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    });
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/tidegate"))
}
