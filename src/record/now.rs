//! A moment, on both clocks.
//!
//! Pure rooms are handed the time as an argument; deadlines use `mono`, what leaves the house `wall`.

/// One reading of the monotonic and the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since the process started; never goes back.
    pub mono: u64,
    /// Milliseconds since 1970-01-01 UTC; may jump.
    pub wall: u64,
}
