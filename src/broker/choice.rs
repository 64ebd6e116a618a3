//! Which member of a shared subscription takes a message: the next in turn that is connected, may read
//! it, has room and takes a packet of that size.
//!
//! A member that was found to have no room is not looked at again until it may have some, so the usual
//! choice looks at one or two, however many there are. Only where somebody has room and none of these can
//! take the message is everybody asked why.

use super::Broker;
use super::client::{Client, ClientKey, Clients};
use super::share::Group;
use crate::codec::QoS;
use crate::record::Message;
use crate::session::GroupId;

/// Who takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// This member.
    Member(ClientKey),
    /// Nobody for now.
    Nobody,
    /// This one, that is away: none that is here may read it.
    Away(ClientKey),
    /// None of the members may read it.
    Barred,
    /// It is too large for each that is there.
    TooLarge,
}

impl Broker {
    /// Who takes a message of QoS 1 or 2.
    pub(super) fn pick(&mut self, id: GroupId, message: &Message, qos: QoS) -> Pick {
        let restricted = self.restricted;
        let Broker { groups, clients, .. } = self;
        let Some(group) = groups.get_mut(id) else { return Pick::Nobody };
        let (mut found, mut without_room, mut some_have_room) = (None, Vec::new(), false);
        for key in group.in_turn() {
            let Some((client, _)) = with_room(clients, key) else {
                without_room.push(key);
                continue;
            };
            some_have_room = true;
            let readable = !restricted || client.may_draw(&group.filter, &message.topic);
            if readable && group.fits(key, client, message, qos) {
                found = Some(key);
                break;
            }
        }
        for key in without_room {
            group.has_no_room(key);
        }
        match found {
            Some(key) => Pick::Member(key),
            None if some_have_room => self.why_nobody(id, message, qos),
            None => Pick::Nobody,
        }
    }

    /// Why none of those who have room takes it.
    fn why_nobody(&self, id: GroupId, message: &Message, qos: QoS) -> Pick {
        let Some(group) = self.groups.get(id) else { return Pick::Nobody };
        let (mut there, mut takes, mut away, mut barred) = (false, false, None, false);
        for key in group.members.keys() {
            group.look();
            let Some(client) = self.clients.get(*key) else { continue };
            if self.restricted && !client.may_draw(&group.filter, &message.topic) {
                barred = true;
            } else if client.outlet.is_none() {
                away = away.or(Some(*key));
            } else {
                there = true;
                takes |= group.fits(*key, client, message, qos);
            }
        }
        match (there, takes, away) {
            (true, false, _) => Pick::TooLarge,
            (true, true, _) => Pick::Nobody,
            (false, _, Some(key)) if barred => Pick::Away(key),
            (false, _, _) if barred => Pick::Barred,
            (false, _, _) => Pick::Nobody,
        }
    }

    /// Whether a member can take a message.
    pub(super) fn has_room_in_group(&mut self, id: GroupId) -> bool {
        let Broker { groups, clients, .. } = self;
        let Some(group) = groups.get_mut(id) else { return false };
        loop {
            let next = group.in_turn().next();
            let Some(key) = next else { return false };
            if with_room(clients, key).is_some() {
                return true;
            }
            group.has_no_room(key);
        }
    }

    /// How many messages the members can take together, as far as that matters.
    pub(super) fn room_of_group(&self, id: GroupId, most: u32) -> u32 {
        let Some(group) = self.groups.get(id) else { return 0 };
        let mut room: u32 = 0;
        for key in group.in_turn() {
            room = room.saturating_add(with_room(&self.clients, key).map_or(0, |(_, room)| room));
            if room >= most {
                return most;
            }
        }
        room
    }
}

impl Group {
    /// Whether a packet of this size is one that the member takes.
    fn fits(&self, key: ClientKey, client: &Client, message: &Message, qos: QoS) -> bool {
        let (Some(member), Some(outlet)) = (self.members.get(&key), &client.outlet) else { return false };
        outlet.takes(message, qos.min(member.qos), member.identifier.as_slice())
    }
}

/// A client that can take a message now, and how many.
fn with_room(clients: &Clients, key: ClientKey) -> Option<(&Client, u32)> {
    let client = clients.get(key)?;
    let outlet = client.outlet.as_ref().filter(|outlet| outlet.has_room(&client.session.flight))?;
    Some((client, outlet.room(&client.session.flight)))
}
