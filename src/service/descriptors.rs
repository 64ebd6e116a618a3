//! How many clients the kernel lets the process have, each of which is an open file.
//!
//! What the service itself needs is kept back, so that with every place taken the database, the uplink,
//! the devices and `status` still find theirs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// So many connections at once, of those that are wanted; and what is to be said where they are fewer.
pub(super) fn connections(wanted: usize) -> (usize, Option<String>) {
    let needed = as_limit(wanted).saturating_add(RESERVED);
    allowed(wanted, raised(needed))
}

/// The limit of open files, raised as far as it is needed and may be.
fn raised(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < needed) else {
        return current.unwrap_or(u64::MAX);
    };
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    }
}

fn allowed(wanted: usize, files: u64) -> (usize, Option<String>) {
    let room = usize::try_from(files.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(1);
    if room >= wanted {
        return (wanted, None);
    }
    let needed = as_limit(wanted).saturating_add(RESERVED);
    let warning = format!(
        "the system lets the service open {files} files: {room} clients at once, not the {wanted} of \
         [limits] max_connections, for which LimitNOFILE={needed} is needed"
    );
    (room, Some(warning))
}

fn as_limit(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Files, sockets and devices beside the clients'.
const RESERVED: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_keeps_back_what_it_needs_itself() {
        assert_eq!(allowed(10_000, 20_000), (10_000, None));
        assert_eq!(allowed(10_000, 10_128), (10_000, None));
        let (room, warning) = allowed(10_000, 1_024);
        assert_eq!(room, 896);
        let warning = warning.expect("a warning");
        assert!(warning.contains("896 clients") && warning.contains("LimitNOFILE=10128"), "{warning}");
        assert_eq!(allowed(5, 64).0, 1, "somebody may come in any case");
    }
}
