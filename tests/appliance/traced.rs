//! The acknowledgement leaves after the sync that covers it, as the kernel saw it.
//!
//! A kill keeps the page cache, so it cannot tell a synced row from a written one. Under strace every
//! PUBACK must be preceded by an fdatasync or fsync of the WAL which began after the row was written
//! and returned 0.

use std::fs;

use crate::program;
use crate::stand::{Client, Gateway, Options};
use tidegate::codec::QoS;

const MESSAGES: usize = 100;

#[test]
fn each_puback_leaves_after_a_sync_of_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut gateway = Gateway::start_under(
        program(),
        folder.path(),
        "",
        &[
            "strace",
            "-f",
            "-qq",
            "-y",
            "-xx",
            "-s",
            "64",
            "-e",
            "trace=pwrite64,write,fdatasync,fsync,sendto,writev,sendmsg",
            "-o",
            &trace.to_string_lossy(),
        ],
    );
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("traced/#", QoS::AtLeastOnce);
    absent.disconnect();
    let mut client = Client::connect(gateway.port(), &Options::new("publisher"));
    for number in 0..MESSAGES {
        client.publish_acknowledged("traced/x", format!("row-{number}"));
    }
    client.disconnect();
    gateway.kill();

    let acknowledged = check_trace(&fs::read_to_string(&trace).unwrap());
    assert!(acknowledged >= MESSAGES, "the trace shows {acknowledged} PUBACKs of {MESSAGES}");
    println!("measured: {acknowledged} PUBACKs, each after a sync of its row");
}

/// Walks the trace; panics at the first PUBACK before which no sync both began after the last write to
/// the WAL and ended well. Gives the number of PUBACKs.
fn check_trace(trace: &str) -> usize {
    let mut dirty = false; // Something in the WAL is written and not synced.
    let mut syncing: Option<(String, bool)> = None; // A sync under way: thread, and whether a write came since.
    let mut pubacks = 0;
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or(("", line));
        let call = call.trim_start();
        let wal = is_wal(call);
        if call.starts_with("pwrite64(") && wal {
            dirty = true;
            if let Some((_, written_since)) = &mut syncing {
                *written_since = true;
            }
        } else if is_sync(call) && wal && call.contains("unfinished") {
            syncing = Some((thread.to_string(), false));
        } else if is_sync(call) && wal {
            dirty &= !call.ends_with("= 0");
        } else if is_resumed_sync(call) {
            if let Some((by, written_since)) = syncing.take_if(|(by, _)| by == thread) {
                let _ = by;
                dirty = if call.ends_with("= 0") { written_since } else { true };
            }
        } else if is_puback(call) {
            pubacks += 1;
            assert!(!dirty && syncing.is_none(), "PUBACK {pubacks} left before its row was synced: {line}");
        }
    }
    pubacks
}

fn is_sync(call: &str) -> bool {
    call.starts_with("fdatasync(") || call.starts_with("fsync(")
}

fn is_resumed_sync(call: &str) -> bool {
    call.starts_with("<... fdatasync resumed") || call.starts_with("<... fsync resumed")
}

/// With `-y -xx` file names are printed in hex too.
fn is_wal(call: &str) -> bool {
    let hex: String = "-wal".bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    call.contains("-wal>") || call.contains(&format!("{hex}>"))
}

/// A send on a TCP socket that begins with the four bytes of a 3.1.1 PUBACK.
fn is_puback(call: &str) -> bool {
    let sends = ["write(", "sendto(", "writev(", "sendmsg("].iter().any(|name| call.starts_with(name));
    sends && call.contains("\"\\x40\\x02\\x")
}
