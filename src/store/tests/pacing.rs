//! Commit triggers, by counts, through the real thread: a gate holds the sync, the test turns the clock.
//!
//! No test here waits for a clock.

use std::sync::mpsc::SyncSender;

use super::*;

/// A store whose first syncs wait for the test.
struct Held {
    trial: Trial,
    /// A commit has come to its sync.
    arrived: Receiver<()>,
    /// Lets it go on.
    proceed: SyncSender<()>,
}

fn held(config: Config) -> Held {
    let (arrive, arrived) = channel();
    let (proceed, gate) = std::sync::mpsc::sync_channel(1_000);
    let gate: Gate = Box::new(move |stage| {
        if stage == Stage::BeforeSync {
            arrive.send(()).unwrap_or_default();
            gate.recv().unwrap_or_default();
        }
        Ok(())
    });
    let trial = Terms { gate: Some(gate), config, ..Terms::default() }.open();
    let mut held = Held { trial, arrived, proceed };
    // The route's own row.
    held.trial.status();
    held.trial.time.fetch_add(1_000, Ordering::SeqCst);
    held.trial.opened.handle.status(|_| ());
    held.sync();
    held.trial.next_ticket();
    held
}

impl Held {
    fn sync(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("a commit begins");
        self.proceed.send(()).unwrap();
    }

    fn hurried(&mut self, batch: Vec<Write>) {
        self.trial.written += batch.len() as u64;
        self.trial.opened.handle.write(batch, true);
    }
}

fn quiet() -> Config {
    Config { min_free_disk: "0B".into(), ..Config::default() }
}

#[test]
fn a_publisher_with_a_window_of_one_waits_for_a_sync_and_no_timer() {
    let mut held = held(quiet());
    let (route, before) = (held.trial.route(), held.trial.status().commits);
    for seq in 1..=5 {
        // The clock stands still: only the hurry can make the commit due.
        held.hurried(vec![put(seq, &[route])]);
        held.sync();
        assert_eq!(held.trial.next_ticket(), Ticket(seq));
    }
    assert_eq!(held.trial.status().commits, before + 5);
}

#[test]
fn what_comes_while_one_commit_syncs_makes_one_more() {
    let mut held = held(quiet());
    let (route, before) = (held.trial.route(), held.trial.status().commits);
    held.hurried(vec![put(1, &[route])]);
    held.arrived.recv_timeout(PATIENCE).unwrap();
    for seq in 2..=100 {
        held.hurried(vec![put(seq, &[route])]);
    }
    held.proceed.send(()).unwrap();
    assert_eq!(held.trial.next_ticket(), Ticket(1));
    held.sync();
    assert_eq!(held.trial.next_ticket(), Ticket(100));
    assert_eq!(held.trial.status().commits, before + 2);
}

#[test]
fn without_a_hurry_a_message_waits_for_company() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit(vec![put(1, &[route])]);
    let before = trial.status().commits;
    trial.write((2..=64).map(|seq| put(seq, &[route])).collect());
    assert_eq!(trial.status().commits, before);
    trial.turn_clock(19);
    assert_eq!(trial.status().commits, before);
    trial.turn_clock(1);
    trial.wait_committed();
    // Sixty-four do not wait.
    trial.write((65..=128).map(|seq| put(seq, &[route])).collect());
    trial.wait_committed();
    assert_eq!(trial.status().commits, before + 2);
}

#[test]
fn with_the_flash_budget_spent_commits_are_as_rare_as_allowed() {
    let config = Config { flash_budget: "1B".into(), ..quiet() };
    let mut trial = Terms { config, ..Terms::default() }.open();
    let route = trial.route();
    trial.status();
    trial.turn_clock(1_000);
    trial.next_ticket();
    let before = trial.status().commits;
    for round in 0..3 {
        for seq in 1..=10 {
            trial.written += 1;
            trial.opened.handle.write(vec![put(round * 10 + seq, &[route])], true);
        }
        trial.status();
        trial.turn_clock(999);
        assert_eq!(trial.status().commits, before + round);
        trial.turn_clock(1);
        trial.wait_committed();
    }
    assert_eq!(trial.status().commits, before + 3);
}

#[test]
fn a_thousand_settles_do_not_wait_for_the_second() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit((1..=1_000).map(|seq| put(seq, &[route])).collect());
    let before = trial.status().commits;
    trial.opened.handle.settle(route, (1..1_000).map(Seq).collect());
    assert_eq!(trial.status().commits, before);
    trial.opened.handle.settle(route, vec![Seq(1_000)]);
    trial.next_ticket();
    assert_eq!(trial.assert_conserved().readers[&route].delivered, 1_000);
}
