//! The broker's tests: scripts in one text language, and a random simulation with its invariants.

mod model;
mod script;
mod speech;
mod connecting;
mod publishing;
mod subscribing;
mod keeping;
mod wills;
mod pacing;
