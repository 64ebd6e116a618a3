//! Passwords are compared on a thread of their own, since a comparison takes a tenth of a second.
//!
//! Pairs that were compared a moment ago are answered at once, whoever else waits, so a crowd of devices
//! that comes back does not burn the processor. The others wait in a short queue: beyond it a client is
//! turned away and tries again. Who fails too often is not compared until some time has passed. The files
//! of passwords and of access rules are read again here: a disk may be slow. The steps of SCRAM, which are
//! cheap, come the same way.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use adapter_api::units::Rate;
use bytes::Bytes;
use bytestring::ByteString;
use rustix::process::nice;
use tracing::{info, warn};

use super::queue::Queue;
use super::scram::{self, Step};
use super::{Input, Inputs};
use crate::access::Rules;
use crate::auth::{Failures, Freshness, Known, Memory, Moment, Pair, PasswordFile, RulesFile, Scram};
use crate::broker::{ConnectionId, Verdict};
use crate::clock::Clock;
use crate::listener::Address;
use crate::record::Now;

/// A way to the thread; it ends when this is dropped.
pub(super) struct Verifier {
    tray: Arc<Tray>,
}

/// The files that say who may come in and what he may do.
#[derive(Debug, Default)]
pub struct AuthFiles {
    /// Against which passwords are compared; without one none fits.
    pub passwords: Option<PasswordFile>,
    /// From which the broker's rules were read.
    pub rules: Option<RulesFile>,
    /// Where the secret is kept by which unknown users are answered.
    pub secret: Option<PathBuf>,
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

/// What lies before the thread's door.
struct Tray {
    letters: Mutex<Letters>,
    arrived: Condvar,
}

struct Letters {
    questions: Queue<Question>,
    steps: Queue<Step>,
    /// The files are to be looked at now.
    look: bool,
    ended: bool,
}

/// What the thread has before it.
pub(super) struct Desk {
    pub(super) files: AuthFiles,
    pub(super) memory: Memory,
    pub(super) failures: Failures<Address>,
    pub(super) scram: Scram,
    waiting: Queue<(Pair, Question)>,
    /// When the files are to be looked at again; monotonic milliseconds.
    look_at: u64,
    /// What was last told to be wrong with them.
    told: Vec<String>,
}

/// To whom, and what.
type Answer = (ConnectionId, Verdict, Effort);

impl Verifier {
    /// Starts the thread. `failures` is how many wrong passwords one address may try.
    pub(super) fn start(
        files: AuthFiles,
        failures: Option<Rate>,
        clock: Clock,
        inputs: Inputs,
    ) -> io::Result<Verifier> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
        let scram = scram::server(files.secret.as_deref())?;
        let desk = Desk::new(files, Memory::new(key), scram, failures);
        let letters = Letters::new();
        let tray = Arc::new(Tray { letters: Mutex::new(letters), arrived: Condvar::new() });
        let taken = tray.clone();
        thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || work(desk, &taken, clock, &inputs))?;
        Ok(Verifier { tray })
    }

    /// Asks; [`Input::Verified`] is the answer. Who finds no room for his question, this client or
    /// another, comes back.
    pub(super) fn ask(&self, question: Question) -> Option<ConnectionId> {
        let turned_away = self.tray.lock().questions.push(question.address, question);
        self.tray.arrived.notify_one();
        turned_away.map(|question| question.connection)
    }

    /// Has a step of SCRAM taken; [`Input::Authenticated`] is the answer. Who finds no room comes back, as above.
    pub(super) fn go_on(&self, step: Step) -> Option<ConnectionId> {
        let turned_away = self.tray.lock().steps.push(step.address, step);
        self.tray.arrived.notify_one();
        turned_away.map(|step| step.connection)
    }

    /// Has the files looked at now; other rules come as [`Input::Rules`].
    pub(super) fn look(&self) {
        self.tray.lock().look = true;
        self.tray.arrived.notify_one();
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.tray.lock().ended = true;
        self.tray.arrived.notify_one();
    }
}

impl Letters {
    fn new() -> Letters {
        let (questions, steps) = (Queue::new(QUESTIONS_MAX), Queue::new(QUESTIONS_MAX));
        Letters { questions, steps, look: false, ended: false }
    }

    /// Whether nobody has asked for anything.
    fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.steps.is_empty()
    }
}

impl Tray {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come, perhaps after a wait of at most so long; `None` at the end.
    fn take(&self, wait: Duration) -> Option<Letters> {
        let idle = |letters: &mut Letters| letters.is_empty() && !letters.look && !letters.ended;
        let waited = self.arrived.wait_timeout_while(self.lock(), wait, idle);
        let (mut letters, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if letters.ended {
            return None;
        }
        Some(std::mem::replace(&mut *letters, Letters::new()))
    }
}

fn work(mut desk: Desk, tray: &Tray, clock: Clock, inputs: &Inputs) {
    // Strangers decide how much there is to compare, so it steps back where a processor is short. Where that is
    // forbidden it goes on as it is.
    let _ = nice(NICE);
    let tell = |answer: Option<Answer>| match answer {
        Some((connection, verdict, effort)) => {
            inputs.send_blocking(Input::Verified { connection, verdict, effort }).is_ok()
        }
        None => true,
    };
    loop {
        let rest = if desk.waiting.is_empty() { desk.look_at.saturating_sub(clock.now().mono) } else { 0 };
        let Some(mut letters) = tray.take(Duration::from_millis(rest)) else { return };
        let Now { mono: now, wall, .. } = clock.now();
        // Who logs in has them looked at, so that a change is seen as soon as it matters.
        if letters.look || !letters.is_empty() || desk.look_at <= now {
            let rules = desk.look(&Moment { mono: now, wall }).map(Input::Rules);
            let troubles = desk.new_troubles().map(Input::FileTroubles);
            if rules.into_iter().chain(troubles).any(|news| inputs.send_blocking(news).is_err()) {
                return;
            }
        }
        while let Some(step) = letters.steps.pop() {
            let outcome = desk.answer(&step, now);
            if inputs.send_blocking(Input::Authenticated { connection: step.connection, outcome }).is_err() {
                return;
            }
        }
        // Everything that has come, before the next comparison: most of it may be known.
        while let Some(question) = letters.questions.pop() {
            if !tell(desk.take(question, now)) {
                return;
            }
        }
        if !tell(desk.compare(clock.now().mono)) {
            return;
        }
    }
}

impl Desk {
    pub(super) fn new(files: AuthFiles, memory: Memory, scram: Scram, failures: Option<Rate>) -> Desk {
        let (failures, waiting) = (Failures::new(failures), Queue::new(WAITING_MAX));
        Desk { files, memory, failures, scram, waiting, look_at: 0, told: Vec::new() }
    }

    /// Reads the files again that have changed; other rules come back.
    pub(super) fn look(&mut self, now: &Moment) -> Option<Arc<Rules>> {
        let AuthFiles { passwords, rules, .. } = &mut self.files;
        let mut troubled = false;
        match passwords.as_mut().map(|file| file.refresh(now)) {
            None | Some(Ok(Freshness::Same)) => {}
            Some(Ok(Freshness::Changed { users })) => {
                self.memory.forget(&users);
                // At the start they are not new.
                if self.look_at > 0 {
                    info!("the new passwords are in force");
                }
            }
            Some(Err(error)) => {
                warn!("cannot {error}; {PASSWORDS_STAY}");
                troubled = true;
            }
        }
        let fresh = rules.as_mut().map_or(Ok(None), |file| file.refresh(now)).unwrap_or_else(|error| {
            warn!("cannot {error}; {RULES_STAY}");
            troubled = true;
            None
        });
        // What is being written, or was wrong, may soon be another.
        let is_settling = passwords.as_ref().is_some_and(PasswordFile::is_settling)
            || rules.as_ref().is_some_and(RulesFile::is_settling);
        self.look_at = now.mono + if is_settling || troubled { LOOK_AGAIN } else { LOOK_EVERY };
        fresh
    }

    /// What is wrong with the files as they stand now.
    fn troubles(&self) -> Vec<String> {
        let AuthFiles { passwords, rules, .. } = &self.files;
        let passwords = passwords.as_ref().and_then(PasswordFile::trouble).map(|why| (why, PASSWORDS_STAY));
        let rules = rules.as_ref().and_then(RulesFile::trouble).map(|why| (why, RULES_STAY));
        passwords.into_iter().chain(rules).map(|(why, what)| format!("cannot {why}; {what}")).collect()
    }

    /// What is wrong with the files, where that is another than it was when this was last asked.
    fn new_troubles(&mut self) -> Option<Vec<String>> {
        let troubles = self.troubles();
        (troubles != self.told).then(|| {
            self.told.clone_from(&troubles);
            troubles
        })
    }

    /// Answers what is known, and lets the rest wait. The answer may be another's.
    fn take(&mut self, question: Question, now: u64) -> Option<Answer> {
        let pair = self.memory.pair(&question.username, &question.password);
        if let Some(known) = self.memory.recall(pair, now) {
            return Some((question.connection, verdict(known), Effort::Remembered));
        }
        let (_, turned_away) = self.waiting.push(question.address, (pair, question))?;
        Some((turned_away.connection, Verdict::Busy, Effort::Spared))
    }

    /// Compares the first that waits.
    fn compare(&mut self, now: u64) -> Option<Answer> {
        let (pair, question) = self.waiting.pop()?;
        let Question { connection, address, username, password } = question;
        // Others with the same pair may have been first.
        if let Some(known) = self.memory.recall(pair, now) {
            return Some((connection, verdict(known), Effort::Remembered));
        }
        let user = self.memory.user(&username);
        // Nobody who guesses has that one, so it costs nobody's allowance.
        let has_fitted = self.memory.has_fitted(pair, now);
        if !has_fitted && !self.failures.begin(address, user, now) {
            return Some((connection, Verdict::TooManyFailures, Effort::Spared));
        }
        let known = match self.files.passwords.as_ref().is_some_and(|file| file.verify(&username, &password))
        {
            true => Known::Fits,
            false => Known::Fails,
        };
        if known == Known::Fits && !has_fitted {
            self.failures.succeeded(address, user);
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

/// What holds while a new password file is wrong.
const PASSWORDS_STAY: &str = "the passwords before are used on";

/// What holds while a new ACL file is wrong.
const RULES_STAY: &str = "the rules before are used on";

/// Questions on their way to the thread.
const QUESTIONS_MAX: usize = 1_024;

/// Passwords that wait to be compared, some seconds' work; beyond it one client is turned away.
const WAITING_MAX: usize = 64;

/// A tenth of another thread's share of a processor, where both want all of it.
const NICE: i32 = 10;

/// Milliseconds between two looks at the files where nobody logs in.
const LOOK_EVERY: u64 = 30_000;

/// Milliseconds after one was seen to have changed, or was wrong.
const LOOK_AGAIN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::auth::hash;

    const THREE: Rate = Rate { count: 3, per: Duration::from_secs(60) };

    fn desk(path: &Path) -> Desk {
        let passwords = Some(PasswordFile::at(path));
        let files = AuthFiles { passwords, ..AuthFiles::default() };
        Desk::new(files, Memory::new([7; 32]), Scram::new([7; 32]), Some(THREE))
    }

    /// Every user of the file has this password.
    fn write(path: &Path, password: &[u8]) {
        let hash = hash(password).unwrap();
        std::fs::write(path, format!("anna:{hash}\nplc:{hash}\n")).unwrap();
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
        desk.look(&Moment::at(now));
        let answer = desk.take(question(0, host, password), now).or_else(|| desk.compare(now));
        answer.map(|(_, verdict, effort)| (verdict, effort)).unwrap()
    }

    #[test]
    fn a_crowd_with_one_password_costs_one_comparison() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        desk.look(&Moment::at(0));
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
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Accepted, Effort::Remembered), "not yet");
        assert_eq!(desk.look_at, LOOK_AGAIN);
        assert_eq!(ask(&mut desk, 1, "one", 1_000), (Verdict::Wrong, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "two", 1_000), (Verdict::Accepted, Effort::Compared));
        assert_eq!(ask(&mut desk, 1, "two", 1_000), (Verdict::Accepted, Effort::Remembered));
        assert_eq!(desk.look_at, 1_000 + LOOK_EVERY);
        // What is wrong is looked at again soon; another's line changes nothing of this user.
        let anna = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
        for (text, at, rest) in [("nonsense".to_owned(), 2_000, LOOK_AGAIN), (anna, 4_000, LOOK_EVERY)] {
            std::fs::write(&path, text).unwrap();
            desk.look(&Moment::at(at));
            assert_eq!(ask(&mut desk, 1, "two", at + 1_000), (Verdict::Accepted, Effort::Remembered));
            assert_eq!(desk.look_at, at + 1_000 + rest);
        }
        assert_eq!(desk.files.passwords.as_ref().map(|file| file.verify("plc", b"two")), Some(false));
    }

    #[test]
    fn a_file_with_a_mistake_is_told_as_long_as_it_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, acl) = (folder.path().join("passwd"), folder.path().join("acl"));
        let none = Rules::parse("").unwrap();
        write(&path, b"one");
        std::fs::write(&acl, "").unwrap();
        let mut desk = desk(&path);
        desk.files.rules = Some(RulesFile::at(&acl, Arc::new(none)));
        let mut now = 0;
        let mut look = |desk: &mut Desk| {
            for _ in 0..2 {
                now += LOOK_AGAIN;
                desk.look(&Moment::at(now));
            }
            desk.new_troubles()
        };
        assert_eq!(look(&mut desk), None);
        std::fs::write(&acl, "topic read a\ntopics b\n").unwrap();
        std::fs::write(&path, "nonsense\n").unwrap();
        let told = look(&mut desk).unwrap();
        for (told, file, line, stays) in
            [(&told[0], &path, "line 1 ", PASSWORDS_STAY), (&told[1], &acl, "line 2: ", RULES_STAY)]
        {
            let named = told.contains(&file.display().to_string()) && told.contains(line);
            assert!(named && told.ends_with(stays), "{told}");
        }
        assert_eq!(look(&mut desk), None, "it is the same");
        write(&path, b"two");
        assert_eq!(look(&mut desk), Some(told[1..].to_vec()));
        std::fs::write(&acl, "topic read b\n").unwrap();
        assert_eq!(look(&mut desk), Some(Vec::new()));
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
    fn who_has_come_in_before_is_not_shut_out_by_what_others_fail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        let plc = |desk: &mut Desk, password: &str, now| {
            let asked = Question { username: "plc".into(), ..question(0, 1, password) };
            desk.take(asked, now).or_else(|| desk.compare(now)).map(|answer| answer.1).unwrap()
        };
        desk.look(&Moment::at(0));
        assert_eq!(plc(&mut desk, "one", 0), Verdict::Accepted);
        // Long after its password was last compared.
        let later = 86_400_000;
        for guess in ["a", "b", "c"] {
            assert_eq!(ask(&mut desk, 1, guess, later), (Verdict::Wrong, Effort::Compared));
        }
        assert_eq!(ask(&mut desk, 1, "d", later).0, Verdict::TooManyFailures);
        assert_eq!(plc(&mut desk, "one", later), Verdict::Accepted);
        // Its own failures are its own, and no more than anybody's.
        for guess in ["a", "b", "c"] {
            assert_eq!(plc(&mut desk, guess, later), Verdict::Wrong);
        }
        assert_eq!(plc(&mut desk, "d", later), Verdict::TooManyFailures);
    }

    #[test]
    fn a_password_that_has_fitted_is_compared_again_whatever_others_try_as_the_same_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        write(&path, b"one");
        let mut desk = desk(&path);
        assert_eq!(ask(&mut desk, 1, "one", 0), (Verdict::Accepted, Effort::Compared));
        for day in 1..4 {
            let later = day * 86_400_000;
            for guess in 0..3 {
                let guess = format!("{day}/{guess}");
                assert_eq!(ask(&mut desk, 1, &guess, later), (Verdict::Wrong, Effort::Compared));
            }
            assert_eq!(ask(&mut desk, 1, "x", later), (Verdict::TooManyFailures, Effort::Spared));
            assert_eq!(ask(&mut desk, 1, "one", later), (Verdict::Accepted, Effort::Compared));
            assert_eq!(ask(&mut desk, 1, "x", later), (Verdict::TooManyFailures, Effort::Spared));
        }
        // Others may have it by now.
        std::fs::write(&path, format!("anna:{}\n", hash(b"another").unwrap())).unwrap();
        let later = 4 * 86_400_000;
        desk.look(&Moment::at(later - 1_000));
        for guess in ["a", "b", "c"] {
            assert_eq!(ask(&mut desk, 1, guess, later).0, Verdict::Wrong);
        }
        assert_eq!(ask(&mut desk, 1, "one", later).0, Verdict::TooManyFailures);
    }

    #[test]
    fn one_address_that_fills_the_queue_keeps_nobody_else_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = desk(&folder.path().join("none"));
        for slot in 0..100 {
            desk.take(question(slot, 1, &format!("{slot}")), 0);
        }
        let answer = desk.take(question(200, 2, "x"), 0);
        let pushed_out = answer.map(|answer| (answer.0.slot < 100, answer.1));
        assert_eq!(pushed_out, Some((true, Verdict::Busy)), "one of the crowd gives way");
        let next_two = [desk.compare(0), desk.compare(0)].map(|answer| answer.unwrap().0.slot);
        assert!(next_two.contains(&200), "it does not wait for all of the crowd: {next_two:?}");
    }

    #[test]
    fn beyond_the_queue_clients_are_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = desk(&folder.path().join("none"));
        let answers: Vec<Answer> =
            (0..100).filter_map(|slot| desk.take(question(slot, 1, &format!("{slot}")), 0)).collect();
        assert_eq!(answers.len(), 100 - WAITING_MAX);
        assert!(answers.iter().all(|answer| (answer.1, answer.2) == (Verdict::Busy, Effort::Spared)));
    }
}
