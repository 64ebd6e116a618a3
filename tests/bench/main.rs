//! What a message costs, measured on the real program: `bench PROGRAM [WHAT...]`.
//!
//! `make bench` runs `load`, beside Debian's mosquitto; the suite of sizes runs the same loads as `loads` at
//! a size fit for CI, and `backlog`, `flash` and `local`, which are whole with `TIDEGATE_SIZE=proof`. Bytes
//! and counts are asserted at any size; times only at the whole one, with the optimised program. `bench floor PORT`
//! is what the brokers are measured beside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that breaks should say where")]

#[path = "../stand/mod.rs"]
mod stand;

mod backlog;
mod flash;
mod load;
mod local;
mod process;
mod publisher;
mod upstream;

use std::path::Path;

fn main() {
    let mut words = std::env::args().skip(1);
    let program = words.next().unwrap_or_else(|| "target/release/tidegate".into());
    if program == load::floor::NAME {
        let port = words.next().and_then(|port| port.parse().ok()).expect("floor PORT");
        return load::floor::serve(port);
    }
    let program = Path::new(&program);
    let named: Vec<String> = words.collect();
    let all = ["load".into()];
    for what in if named.is_empty() { &all[..] } else { &named } {
        match what.as_str() {
            "load" => load::run(program),
            "loads" => load::check(program),
            "backlog" => backlog::run(program),
            "flash" => flash::run(program),
            "local" => local::run(program),
            other => panic!("no measurement is called {other}"),
        }
    }
}
