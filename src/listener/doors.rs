//! All doors together: opened at the start, tried again, accepted from in turn.
//!
//! At a limit (descriptors, memory of the kernel) accepting rests for a moment and those who knock wait in
//! the kernel's queue; nobody spins. Every change of a door is said once and stands on the [`Board`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mio::{Registry, Token};
use tracing::{info, warn};

use super::door::Door;
use super::guests::{Address, Stay, Way};
use super::handshakes::{Handshakes, Outcome};
use super::keeper::Keeper;
use super::{Bind, HandshakeCounts, HandshakeLimits, Listener, Protocol, Stream, StreamPeer};
use crate::broker::Trust;
use crate::clock::Clock;

/// Every configured listener, open or not.
#[derive(Debug)]
pub struct Doors {
    entries: Vec<Entry>,
    /// Where a listener speaks TLS.
    handshakes: Option<Handshakes>,
    board: Board,
}

#[derive(Debug)]
struct Entry {
    listener: Listener,
    /// Its certificates, where it speaks TLS.
    keeper: Option<Arc<Keeper>>,
    door: Option<Door>,
    /// Somebody may be waiting: edge-triggered, so it stays until accept says that nobody is.
    knocked: bool,
    /// When to open it again, or to accept again; monotonic milliseconds.
    again: Option<u64>,
    /// What was said last, so that it is said once.
    trouble: Option<String>,
}

/// One who knocked: he may be let in, or has a handshake before him.
#[derive(Debug)]
pub struct Knock {
    accepted: Accepted,
    keeper: Option<Arc<Keeper>>,
}

/// What became of one who knocked and was admitted.
#[derive(Debug)]
pub enum Admitted {
    /// He is in.
    In(Box<Accepted>),
    /// He shakes hands first.
    Shaking,
    /// Too many do; his stay is over.
    Dropped(Stay),
}

/// One who came in.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub stream: Stream,
    /// Who, for logs.
    pub peer: StreamPeer,
    /// How he counts among those who are inside, from his knock on.
    pub stay: Stay,
    /// By the listener's rules.
    pub trust: Trust,
    /// What it will speak, until the stream does.
    pub(super) protocol: Protocol,
    /// Of pages that are welcome, where it will speak WebSocket.
    pub(super) origins: Arc<[String]>,
    /// Which listener, by its place in the configuration.
    pub(super) door: usize,
    /// The listener's mount point.
    pub mount: Option<Arc<str>>,
}

/// How the listeners stand, for any thread to read.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Vec<Standing>>>);

/// How one listener stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// As configured.
    pub bind: Bind,
    /// Where it listens, with the port that was given for port 0; `None` while it cannot.
    pub bound: Option<Bind>,
    /// Why it does not listen or accept.
    pub trouble: Option<String>,
}

impl Accepted {
    /// Ready for what is spoken at its listener.
    pub(super) fn speaking(self) -> Accepted {
        Accepted { stream: self.stream.speaking(self.protocol, &self.origins), ..self }
    }
}

impl Knock {
    /// Who, for logs.
    pub fn peer(&self) -> StreamPeer {
        self.accepted.peer
    }

    /// At which listener, by its place in the configuration.
    pub fn door(&self) -> usize {
        self.accepted.door
    }

    /// Where he comes from, as limits see it.
    pub fn address(&self) -> Option<Address> {
        self.accepted.peer.address().map(Address::of)
    }

    /// What it takes to refuse him in MQTT's words.
    pub fn way(&self) -> Way {
        if self.keeper.is_some() { Way::Handshake } else { Way::Open }
    }
}

impl Doors {
    /// Opens what can be opened. Door n is polled under token `first_token + n`.
    pub fn open(listeners: Vec<Listener>, registry: &Registry, first_token: usize, now: u64) -> Doors {
        let entries = listeners.into_iter().map(|listener| {
            let keeper = listener.tls.clone().map(|tls| Arc::new(Keeper::new(&listener.name, tls)));
            Entry { listener, keeper, door: None, knocked: false, again: Some(now), trouble: None }
        });
        let mut doors = Doors { entries: entries.collect(), handshakes: None, board: Board::default() };
        for entry in &doors.entries {
            if let Some(warning) = entry.listener.warning() {
                warn!(listener = %entry.listener.name, "{warning}");
            }
        }
        doors.try_again(registry, first_token, now);
        doors
    }

    /// Starts the helper that shakes hands, where a listener speaks TLS. `deliver` takes what comes out of
    /// it, may wait, and says whether anybody wants more.
    ///
    /// # Errors
    /// Where the kernel gives no thread.
    pub fn shake_hands(
        &mut self,
        limits: HandshakeLimits,
        clock: Clock,
        deliver: impl FnMut(Outcome) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let keepers: Vec<_> = self.entries.iter().filter_map(|entry| entry.keeper.clone()).collect();
        if !keepers.is_empty() {
            self.handshakes = Some(Handshakes::start(keepers, limits, clock, deliver)?);
        }
        Ok(())
    }

    /// Has the files of certificates looked at now, by the helper that shakes hands.
    pub fn look(&self) {
        if let Some(handshakes) = &self.handshakes {
            handshakes.look();
        }
    }

    /// Bytes that handshakes under way take, about.
    pub fn resting(&self) -> usize {
        self.handshakes.as_ref().map_or(0, Handshakes::resting)
    }

    /// What became of handshakes so far.
    pub fn handshakes(&self) -> HandshakeCounts {
        self.handshakes.as_ref().map_or_else(HandshakeCounts::default, Handshakes::counts)
    }

    /// Lets him in who was counted as inside, at once or by way of the handshake.
    pub fn admit(&self, knock: Knock, stay: Stay) -> Admitted {
        let Knock { mut accepted, keeper } = knock;
        accepted.stay = stay;
        let Some(keeper) = keeper else { return Admitted::In(Box::new(accepted.speaking())) };
        match &self.handshakes {
            Some(handshakes) if handshakes.begin(accepted, keeper) => Admitted::Shaking,
            _ => Admitted::Dropped(stay),
        }
    }

    /// Where others read how the listeners stand.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no listener at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that somebody knocks at a door.
    pub fn knock(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.knocked = true;
        }
    }

    /// Whether [`Doors::accept`] may find somebody.
    pub fn is_knocked(&self) -> bool {
        self.entries.iter().any(|entry| entry.knocked && entry.again.is_none())
    }

    /// When [`Doors::try_again`] is due; monotonic milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| entry.again).min()
    }

    /// Opens doors whose time has come, and ends rests.
    pub fn try_again(&mut self, registry: &Registry, first_token: usize, now: u64) {
        let mut changed = false;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.again.is_none_or(|again| again > now) {
                continue;
            }
            entry.again = None;
            if entry.door.is_none() {
                entry.open(registry, Token(first_token + index), now);
                changed = true;
            }
        }
        if changed {
            self.post();
        }
    }

    /// The next one who waits at any door; `None` where nobody does.
    pub fn accept(&mut self, now: u64) -> Option<Knock> {
        let entries = self.entries.iter_mut().enumerate();
        for (door, entry) in entries.filter(|(_, entry)| entry.knocked && entry.again.is_none()) {
            let Some(open) = &entry.door else { continue };
            match open.accept() {
                Ok((stream, peer)) => {
                    let recovered = entry.trouble.take().is_some();
                    let (trust, mount) = (entry.listener.trust.clone(), entry.listener.mount.clone());
                    let origins = entry.listener.origins.clone();
                    let (protocol, keeper) = (entry.listener.protocol, entry.keeper.clone());
                    if recovered {
                        self.post();
                    }
                    let stay = Stay::default();
                    let accepted = Accepted { stream, peer, stay, trust, protocol, origins, door, mount };
                    return Some(Knock { accepted, keeper });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => entry.knocked = false,
                // The one who knocked has left again, which is no trouble of ours.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    entry.again = Some(now + REST);
                    entry.complain(&format!("cannot accept clients: {error}"));
                    self.post();
                    return None;
                }
            }
        }
        None
    }

    /// Closes every door, and ends the handshakes under way.
    pub fn close(&mut self) {
        self.entries.clear();
        self.handshakes = None;
        self.post();
    }

    /// Writes on the board how they stand.
    pub fn post(&mut self) {
        let standings = self.entries.iter().map(Entry::standing).collect();
        *self.board.0.lock().unwrap_or_else(PoisonError::into_inner) = standings;
    }
}

impl Entry {
    fn open(&mut self, registry: &Registry, token: Token, now: u64) {
        // Who finds it closed tries again; who is let in and then cannot be served would not know why.
        if let Some(keeper) = &self.keeper
            && keeper.current().is_none()
        {
            self.again = Some(now + RETRY);
            let trouble = keeper.trouble().unwrap_or_default();
            return self.complain(&trouble);
        }
        match Door::open(&self.listener.bind, registry, token) {
            Ok(door) => {
                let bound = door.bound().unwrap_or_else(|_| self.listener.bind.clone());
                info!(listener = %self.listener.name, bound = %bound, "listening");
                self.trouble = None;
                // Somebody may have knocked between listen and register.
                self.knocked = true;
                self.door = Some(door);
            }
            Err(error) => {
                self.again = Some(now + RETRY);
                self.complain(&format!("cannot listen on {}: {error}", self.listener.bind));
            }
        }
    }

    fn complain(&mut self, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            warn!(listener = %self.listener.name, "{trouble}; trying again");
            self.trouble = Some(trouble.to_owned());
        }
    }

    fn standing(&self) -> Standing {
        Standing {
            name: self.listener.name.clone(),
            bind: self.listener.bind.clone(),
            bound: self.door.as_ref().and_then(|door| door.bound().ok()),
            trouble: self.trouble.clone().or_else(|| self.keeper.as_ref()?.trouble()),
        }
    }
}

impl Board {
    /// How they stand now.
    pub fn read(&self) -> Vec<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Milliseconds until a door that would not open is tried again.
const RETRY: u64 = 2_000;

/// Milliseconds for which accepting rests where descriptors or kernel memory ran out.
const REST: u64 = 500;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use mio::{Events, Poll};

    use super::*;
    use crate::listener::Config;
    use crate::listener::testing::{Authority, secure_listener};

    fn listener(bind: &str) -> Listener {
        Config { bind: bind.to_owned(), ..Config::default() }.check().unwrap()
    }

    fn address(board: &Board) -> std::net::SocketAddr {
        match board.read().first().and_then(|standing| standing.bound.clone()) {
            Some(Bind::Tcp(address)) => address,
            other => panic!("not bound: {other:?}"),
        }
    }

    #[test]
    fn a_taken_port_does_not_stop_the_start_and_is_tried_again() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = taken.local_addr().unwrap().to_string();
        let poll = Poll::new().unwrap();
        let mut doors = Doors::open(vec![listener(&bind), listener("127.0.0.1:0")], poll.registry(), 1, 0);
        let [first, second] = &doors.board().read()[..] else { panic!("two listeners") };
        assert!(first.bound.is_none() && first.trouble.as_ref().unwrap().contains(&bind));
        assert!(second.bound.is_some());

        drop(taken);
        assert_eq!(doors.deadline(), Some(RETRY));
        doors.try_again(poll.registry(), 1, RETRY);
        assert_eq!(address(&doors.board()).to_string(), bind);
        assert_eq!(doors.board().read()[0].trouble, None);
        assert_eq!(doors.deadline(), None);
    }

    #[test]
    fn who_knocks_is_let_in_by_the_rules_of_the_door() {
        let mut poll = Poll::new().unwrap();
        let mut doors = Doors::open(vec![listener("127.0.0.1:0")], poll.registry(), 7, 0);
        let client = TcpStream::connect(address(&doors.board())).unwrap();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, None).unwrap();
        assert_eq!(events.iter().next().unwrap().token(), Token(7));
        doors.knock(0);
        let knock = doors.accept(0).unwrap();
        let Admitted::In(accepted) = doors.admit(knock, Stay::default()) else { panic!("in at once") };
        assert_eq!(accepted.trust, Trust::Anonymous);
        assert_eq!(accepted.peer, StreamPeer::Tcp(client.local_addr().unwrap()));
        let Stream::Tcp(stream) = &accepted.stream else { panic!("TCP") };
        assert!(stream.nodelay().unwrap(), "inherited from the listening socket");
        assert!(doors.accept(0).is_none() && !doors.is_knocked());
    }

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_a_used_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let bind = format!("unix:{}/mqtt.sock", folder.path().display());
        let poll = Poll::new().unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("mqtt.sock")).unwrap());
        let mut first = Doors::open(vec![listener(&bind)], poll.registry(), 1, 0);
        assert!(first.board().read()[0].bound.is_some());
        let second = Doors::open(vec![listener(&bind)], poll.registry(), 2, 0);
        assert!(second.board().read()[0].trouble.is_some());
        first.close();
        assert!(!folder.path().join("mqtt.sock").exists());
    }

    #[test]
    fn a_door_whose_certificate_is_missing_stays_closed_until_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let server = authority.issue("server", &["localhost"], 1);
        let away = folder.path().join("away");
        std::fs::rename(&server.key, &away).unwrap();
        let listeners = vec![secure_listener(server.tls()), listener("127.0.0.1:0")];
        let poll = Poll::new().unwrap();
        let mut doors = Doors::open(listeners, poll.registry(), 1, 0);
        let [secure, plain] = &doors.board().read()[..] else { panic!("two listeners") };
        assert!(secure.bound.is_none() && secure.trouble.as_ref().unwrap().contains("server.key"));
        assert!(plain.bound.is_some());

        std::fs::rename(&away, &server.key).unwrap();
        // The helper does this at its own pace.
        doors.entries[0].keeper.as_ref().unwrap().look();
        doors.try_again(poll.registry(), 1, RETRY);
        assert!(doors.board().read()[0].bound.is_some() && doors.board().read()[0].trouble.is_none());
    }
}
