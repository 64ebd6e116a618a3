//! What a message costs, measured on the real program: `bench PROGRAM [WHAT...]`.
//!
//! `make bench` runs `broker` and `durable`, both beside Debian's mosquitto; the suite of sizes runs
//! `backlog`, `flash` and `local` at a size fit for CI, or whole with `TIDEGATE_SIZE=proof`. Bytes and
//! counts are asserted at any size; times only at the whole one, with the optimised program.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that breaks should say where")]

#[path = "../stand/mod.rs"]
mod stand;

mod backlog;
mod broker;
mod durable;
mod flash;
mod local;
mod process;
mod publisher;
mod upstream;

use std::path::Path;

fn main() {
    let mut words = std::env::args().skip(1);
    let program = words.next().unwrap_or_else(|| "target/release/tidegate".into());
    let program = Path::new(&program);
    let named: Vec<String> = words.collect();
    let all = ["broker".into(), "durable".into()];
    for what in if named.is_empty() { &all[..] } else { &named } {
        match what.as_str() {
            "broker" => broker::run(program),
            "backlog" => backlog::run(program),
            "flash" => flash::run(program),
            "durable" => durable::run(program),
            "local" => local::run(program),
            other => panic!("no measurement is called {other}"),
        }
    }
}
