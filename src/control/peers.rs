//! Who may speak over the control socket: root, the service's own user, and the group tidegate.
//!
//! The socket's mode says the same; this is the second wall. Groups are read from the system's files,
//! so users of a directory service come in by their primary group alone.

use std::fs;

/// The group whose members may ask.
const GROUP: &str = "tidegate";

/// Whether a peer may speak to a service that runs as user `own`.
pub(super) fn may_speak(own: u32, peer_user: u32, peer_group: u32) -> bool {
    if peer_user == 0 || peer_user == own {
        return true;
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    is_member(&groups, &users, peer_user, peer_group)
}

/// The number of the group tidegate, where the system has such a group.
pub fn group() -> Option<u32> {
    Group::find(&fs::read_to_string("/etc/group").ok()?).map(|group| group.number)
}

fn is_member(groups: &str, users: &str, user: u32, primary: u32) -> bool {
    let Some(group) = Group::find(groups) else { return false };
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then_some(name)
    });
    group.number == primary || name.is_some_and(|name| group.members.split(',').any(|member| member == name))
}

struct Group<'a> {
    number: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn find(groups: &'a str) -> Option<Group<'a>> {
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != GROUP {
                return None;
            }
            Some(Group { number: fields.nth(1)?.parse().ok()?, members: fields.next()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_comes_in_and_strangers_do_not() {
        let groups = "root:x:0:\ntidegate:x:990:anna,bert\nother:x:991:carl\n";
        let users = "anna:x:1001:1001::/home/anna:/bin/sh\ncarl:x:1003:1003::/:/bin/sh\n";
        assert!(is_member(groups, users, 1001, 1001), "by the list");
        assert!(is_member(groups, users, 4711, 990), "by the primary group");
        assert!(!is_member(groups, users, 1003, 1003));
        assert!(!is_member("", users, 1001, 1001), "no such group");
        assert!(may_speak(500, 0, 0) && may_speak(500, 500, 1));
    }
}
