//! Passwords are compared on a thread of their own, since a comparison takes a tenth of a second.
//!
//! Pairs that were compared a moment ago are answered at once, whoever else waits, so a crowd of devices
//! that comes back does not burn the processor. The others wait in a short queue: beyond it a client is
//! turned away and tries again. Who fails too often is not compared until some time has passed. The steps
//! of SCRAM, which are cheap, come the same way.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::{io, thread};

use adapter_api::units::Rate;
use bytes::Bytes;
use bytestring::ByteString;
use tracing::warn;

use super::guests::Address;
use super::scram::{self, Step};
use super::{Input, Inputs};
use crate::auth::{Failures, Freshness, Known, Memory, Pair, PasswordFile, Scram};
use crate::broker::{ConnectionId, Verdict};
use crate::clock::Clock;

/// A way to the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Verifier {
    questions: SyncSender<Asked>,
}

/// What the thread is asked for.
pub(super) enum Asked {
    /// To compare a password.
    Password(Question),
    /// To go on with SCRAM.
    Scram(Step),
}

/// One password to compare. Not to be shown.
pub(super) struct Question {
    pub(super) connection: ConnectionId,
    pub(super) address: Option<Address>,
    pub(super) username: ByteString,
    pub(super) password: Bytes,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// The password was compared.
    Compared,
    /// The pair was remembered.
    Remembered,
    /// Nothing was looked at.
    Spared,
}

/// What the thread has before it.
pub(super) struct Desk {
    pub(super) file: PasswordFile,
    memory: Memory,
    pub(super) failures: Failures<Address>,
    pub(super) scram: Scram,
    waiting: VecDeque<(Pair, Question)>,
}

/// To whom, and what.
type Answer = (ConnectionId, Verdict, Effort);

impl Verifier {
    /// Starts the thread. `failures` is how many wrong passwords one address may try.
    pub(super) fn start(
        file: PasswordFile,
        failures: Option<Rate>,
        clock: Clock,
        inputs: Inputs,
    ) -> io::Result<Verifier> {
        let (questions, receiver) = sync_channel(QUESTIONS_MAX);
        let desk = Desk::new(file, failures)?;
        thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || work(desk, &receiver, clock, &inputs))?;
        Ok(Verifier { questions })
    }

    /// Asks; [`Input::Verified`] or [`Input::Authenticated`] is the answer. Whether there was room for it.
    pub(super) fn ask(&self, asked: Asked) -> bool {
        self.questions.try_send(asked).is_ok()
    }
}

fn work(mut desk: Desk, questions: &Receiver<Asked>, clock: Clock, inputs: &Inputs) {
    let tell = |answer: Option<Answer>| match answer {
        Some((connection, verdict, effort)) => {
            inputs.send_blocking(Input::Verified { connection, verdict, effort }).is_ok()
        }
        None => true,
    };
    loop {
        // What has come, before the next comparison: most of it may be known. Whoever asks without end does
        // not keep the others from being compared.
        for _ in 0..QUESTIONS_MAX {
            let question = if desk.waiting.is_empty() {
                questions.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                questions.try_recv()
            };
            match question {
                Ok(Asked::Scram(step)) => {
                    let outcome = desk.answer(&step, clock.now().mono);
                    let connection = step.connection;
                    if inputs.send_blocking(Input::Authenticated { connection, outcome }).is_err() {
                        return;
                    }
                }
                Ok(Asked::Password(question)) => {
                    if !tell(desk.take(question, clock.now().mono)) {
                        return;
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        if !tell(desk.compare(clock.now().mono)) {
            return;
        }
    }
}

impl Desk {
    pub(super) fn new(file: PasswordFile, failures: Option<Rate>) -> io::Result<Desk> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
        Ok(Desk {
            file,
            memory: Memory::new(key),
            failures: Failures::new(failures),
            scram: scram::server()?,
            waiting: VecDeque::new(),
        })
    }

    /// Reads the file again if it has changed.
    pub(super) fn refresh(&mut self) {
        match self.file.refresh() {
            Ok(Freshness::Same) => {}
            Ok(Freshness::Changed) => self.memory.clear(),
            Err(error) => {
                self.memory.clear();
                warn!("cannot {error}");
            }
        }
    }

    /// Answers what is known, and lets the rest wait.
    fn take(&mut self, question: Question, now: u64) -> Option<Answer> {
        self.refresh();
        let pair = self.memory.pair(&question.username, &question.password);
        if let Some(known) = self.memory.recall(pair, now) {
            return Some((question.connection, verdict(known), Effort::Remembered));
        }
        if self.waiting.len() >= WAITING_MAX {
            return Some((question.connection, Verdict::Busy, Effort::Spared));
        }
        self.waiting.push_back((pair, question));
        None
    }

    /// Compares the first that waits.
    fn compare(&mut self, now: u64) -> Option<Answer> {
        let (pair, question) = self.waiting.pop_front()?;
        let Question { connection, address, username, password } = question;
        // Others with the same pair may have been first.
        if let Some(known) = self.memory.recall(pair, now) {
            return Some((connection, verdict(known), Effort::Remembered));
        }
        if !self.failures.begin(address, now) {
            return Some((connection, Verdict::TooManyFailures, Effort::Spared));
        }
        let known = match self.file.verify(&username, &password) {
            true => Known::Fits,
            false => Known::Fails,
        };
        if known == Known::Fits {
            self.failures.succeeded(address);
        }
        self.memory.remember(pair, known, now);
        Some((connection, verdict(known), Effort::Compared))
    }
}

fn verdict(known: Known) -> Verdict {
    match known {
        Known::Fits => Verdict::Accepted,
        Known::Fails => Verdict::Wrong,
    }
}

/// Questions on their way to the thread.
const QUESTIONS_MAX: usize = 1_024;

/// Passwords that wait to be compared, some seconds' work; the client of a further one is turned away.
const WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::auth::hash;

    const THREE: Rate = Rate { count: 3, per: Duration::from_secs(60) };

    fn desk(path: &Path) -> Desk {
        Desk::new(PasswordFile::at(path), Some(THREE)).unwrap()
    }

    fn write(path: &Path, password: &[u8]) {
        std::fs::write(path, format!("anna:{}\n", hash(password).unwrap())).unwrap();
    }

    fn question(slot: u32, host: u8, password: &str) -> Question {
        Question {
            connection: ConnectionId { slot, generation: 0 },
            address: Some(Address::of(IpAddr::from([192, 0, 2, host]))),
            username: "anna".into(),
            password: Bytes::copy_from_slice(password.as_bytes()),
        }
    }

    /// The answer to one question, with nobody else there.
    fn ask(desk: &mut Desk, host: u8, password: &str, now: u64) -> (Verdict, Effort) {
        let answer = desk.take(question(0, host, password), now).or_else(|| desk.compare(now));
        answer.map(|(_, verdict, effort)| (verdict, effort)).unwrap()
    }

    #[test]
    fn a_crowd_with_one_password_costs_one_comparison() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        let mut answers: Vec<Answer> =
            (0..50).filter_map(|slot| desk.take(question(slot, 1, "one"), 0)).collect();
        while let Some(answer) = desk.compare(0) {
            answers.push(answer);
        }
        assert!(answers.iter().all(|answer| answer.1 == Verdict::Accepted));
        let compared = answers.iter().filter(|answer| answer.2 == Effort::Compared).count();
        assert_eq!((answers.len(), compared), (50, 1));
        assert_eq!(ask(&mut desk, 9, "one", 1_000), (Verdict::Accepted, Effort::Remembered));
    }

    #[test]
    fn a_changed_file_voids_what_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Accepted, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "two", 0), (Verdict::Wrong, Effort::Compared));
        let beside = folder.path().join("new");
        write(&beside, b"two");
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Wrong, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "two", 0), (Verdict::Accepted, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "two", 0), (Verdict::Accepted, Effort::Remembered));
    }

    #[test]
    fn who_fails_too_often_is_not_compared_and_those_who_are_known_come_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Accepted, Effort::Compared));
        for guess in ["a", "b", "c"] {
            assert_eq!(ask(&mut desk, 1, guess, 0), (Verdict::Wrong, Effort::Compared));
        }
        assert_eq!(ask(&mut desk, 1, "d", 0), (Verdict::TooManyFailures, Effort::Spared));
        assert_eq!(ask(&mut desk, 1, "a", 0), (Verdict::Wrong, Effort::Remembered));
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Accepted, Effort::Remembered));
        assert_eq!(ask(&mut desk, 2, "d", 0), (Verdict::Wrong, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "e", 20_000), (Verdict::Wrong, Effort::Compared));
    }

    #[test]
    fn beyond_the_queue_clients_are_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = desk(&folder.path().join("none"));
        let answers: Vec<Answer> =
            (0..100).filter_map(|slot| desk.take(question(slot, 1, &format!("{slot}")), 0)).collect();
        assert_eq!((desk.waiting.len(), answers.len()), (WAITING_MAX, 100 - WAITING_MAX));
        assert!(answers.iter().all(|answer| (answer.1, answer.2) == (Verdict::Busy, Effort::Spared)));
    }
}
