//! The link between the gateway and the cloud, which can be open, closed or silent.
//!
//! Silent is the black hole: connections are accepted and nothing is forwarded. A cut ends what is
//! connected, at once or after so many more bytes upward, so that messages are sent and not acknowledged.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Forwards.
    Open = 0,
    /// Refuses and hangs up.
    Closed = 1,
    /// Accepts, forwards nothing.
    Silent = 2,
}

/// A TCP proxy in a thread.
pub struct Proxy {
    /// Where the gateway connects to.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    link: AtomicU8,
    target: u16,
    connections: Mutex<Vec<TcpStream>>,
    /// Bytes upward until the next cut or hold; negative: none is planned.
    until_act: AtomicI64,
    /// What happens then.
    hold: AtomicBool,
    held: AtomicBool,
    cuts: AtomicU64,
    upward: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    /// In front of this port of the loopback.
    pub fn start(target: u16, link: Link) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            link: AtomicU8::new(link as u8),
            target,
            connections: Mutex::new(Vec::new()),
            until_act: AtomicI64::new(-1),
            hold: AtomicBool::new(false),
            held: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            upward: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let serve = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if serve.ended.load(Ordering::SeqCst) {
                    return;
                }
                serve.accept(socket);
            }
        });
        Proxy { port, shared }
    }

    /// Changes how the link is; what is connected is hung up where it closes, and goes silent where it
    /// turns silent.
    pub fn set(&self, link: Link) {
        self.shared.link.store(link as u8, Ordering::SeqCst);
        if link == Link::Closed {
            self.shared.hang_up();
        }
    }

    /// Hangs up what is connected; new connections are accepted.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts once so many more bytes went upward.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.hold.store(false, Ordering::SeqCst);
        self.shared.until_act.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    /// Holds everything back once so many more bytes went upward, so that the test can act in the
    /// middle of them; [`Proxy::release`] ends it.
    pub fn hold_after(&self, bytes: u64) {
        self.shared.hold.store(true, Ordering::SeqCst);
        self.shared.until_act.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Forwards again.
    pub fn release(&self) {
        self.shared.held.store(false, Ordering::SeqCst);
    }

    /// Cuts that took place.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Bytes that went upward.
    pub fn upward(&self) -> u64 {
        self.shared.upward.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.hang_up();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn link(&self) -> Link {
        match self.link.load(Ordering::SeqCst) {
            0 => Link::Open,
            1 => Link::Closed,
            _ => Link::Silent,
        }
    }

    fn accept(self: &Arc<Self>, near: TcpStream) {
        match self.link() {
            Link::Closed => {}
            Link::Silent => self.connections.lock().unwrap().push(near),
            Link::Open => {
                let Ok(far) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
                let mut connections = self.connections.lock().unwrap();
                connections.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                drop(connections);
                let (near_read, far_read) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (up, down) = (self.clone(), self.clone());
                thread::spawn(move || up.pump(near_read, far, true));
                thread::spawn(move || down.pump(far_read, near, false));
            }
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, upward: bool) {
        let mut buffer = [0; 4_096];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 {
                break;
            }
            while self.held.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
                thread::park_timeout(Duration::from_millis(2));
            }
            if self.link() == Link::Silent {
                continue; // The black hole swallows it.
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            if upward {
                self.count(count);
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn count(&self, bytes: usize) {
        self.upward.fetch_add(bytes as u64, Ordering::SeqCst);
        let bytes = i64::try_from(bytes).unwrap();
        let planned = self.until_act.load(Ordering::SeqCst);
        if planned < 0 {
            return;
        }
        if planned > bytes {
            self.until_act.fetch_sub(bytes, Ordering::SeqCst);
            return;
        }
        self.until_act.store(-1, Ordering::SeqCst);
        if self.hold.load(Ordering::SeqCst) {
            self.held.store(true, Ordering::SeqCst);
        } else {
            self.cut();
        }
    }

    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.hang_up();
    }

    fn hang_up(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
