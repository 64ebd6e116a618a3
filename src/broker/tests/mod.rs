//! The broker's tests: scripts in one text language, and a random simulation with its invariants.
//!
//! Nothing here waits or reads a clock; only the fresh seed of the simulation comes from outside.

mod model;
mod script;
mod speech;
mod connecting;
mod publishing;
mod subscribing;
mod keeping;
mod restarts;
mod clocks;
mod wills;
mod words;
mod limits;
mod shares;
mod bounds;
mod sharing;
mod leases;
mod members;
mod pacing;
mod absent;
mod handshake;
mod answers;
mod exchanges;
mod retaining;
mod version_3_1;
mod rights;
mod authenticating;
mod mounts;
mod rates;
mod sys;
mod random;
mod client;
mod simulation;
