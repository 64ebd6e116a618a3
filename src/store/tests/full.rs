//! A disk that is really full: a small memory disk, under a burst that nobody drains.
//!
//! Mounting one needs root. Without it the same burst meets a gate that refuses to sync once the folder
//! has grown to that size, so that the way out is taken either way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::record::DropReason;

/// A disk of a few megabytes.
struct SmallDisk {
    mounted: Option<PathBuf>,
    dir: Arc<tempfile::TempDir>,
    size: u64,
}

impl SmallDisk {
    fn new(megabytes: u64) -> SmallDisk {
        let dir = Arc::new(folder());
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success()).then(|| dir.path().to_path_buf());
        println!("a disk of {megabytes} MB, mounted: {}", mounted.is_some());
        SmallDisk { mounted, dir, size: megabytes << 20 }
    }

    fn gate(&self) -> Option<Gate> {
        if self.mounted.is_some() {
            return None;
        }
        let (path, mut ceiling) = (self.dir.path().to_path_buf(), self.size);
        Some(Box::new(move |stage| {
            let files = std::fs::read_dir(&path).unwrap();
            let taken: u64 = files.map(|file| file.unwrap().metadata().map_or(0, |data| data.len())).sum();
            if stage == Stage::BeforeSync && taken > ceiling {
                // Files that have grown stay so: only what grows further is refused again.
                ceiling = taken;
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }))
    }

    fn terms(&self, config: Config) -> Terms {
        Terms { dir: self.dir.clone(), config, gate: self.gate(), ..Terms::default() }
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("another-tenant");
        let mut file = std::fs::File::create(&path).unwrap();
        if self.mounted.is_some() {
            for step in [1 << 16, 4_096, 1] {
                while std::io::Write::write(&mut file, &vec![7; step]).is_ok_and(|written| written == step) {}
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

impl Trial {
    /// Waits for everything, while the clock goes on so that failed commits are tried again. Returns how
    /// often it had to go on.
    fn wait_while_time_passes(&mut self) -> u32 {
        let mut waits = 0;
        let mut reached = Ticket(0);
        while reached < Ticket(self.written) {
            match self.tickets.recv_timeout(Duration::from_millis(100)) {
                Ok(ticket) => reached = ticket,
                Err(_) => {
                    waits += 1;
                    assert!(waits < 300, "the store is stuck: {:?}", self.status());
                    self.turn_clock(500);
                }
            }
        }
        waits
    }
}

/// A burst of so many messages, a few hundred at a time, for a route and a session that take nothing.
fn burst(trial: &mut Trial, from: u64, count: u64, size: usize) {
    let readers = [trial.route(), ReaderId(9)];
    for start in (from..from + count).step_by(400) {
        let end = (start + 400).min(from + count);
        trial.write((start..end).map(|seq| sized(seq, size, &readers)).collect());
        trial.opened.handle.write(Vec::new(), true);
        trial.wait_while_time_passes();
        trial.assert_conserved();
    }
}

fn config(max_size: &str, min_free_disk: &str) -> Config {
    Config { max_size: max_size.into(), min_free_disk: min_free_disk.into(), ..Config::default() }
}

/// The newest row is there, for both, and what went was counted.
fn assert_newest_kept(trial: &Trial, last: u64) {
    let status = trial.assert_conserved();
    for reader in [trial.route(), ReaderId(9)] {
        let line = &status.readers[&reader];
        assert_eq!(line.received, last);
        assert_eq!(line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0) + line.queued, last);
        let wanted = trial.wanted(reader);
        assert_eq!(wanted, (last - line.queued + 1..=last).collect::<Vec<_>>(), "{reader:?}");
    }
}

#[test]
fn a_burst_on_a_small_disk_never_gets_stuck() {
    let disk = SmallDisk::new(20);
    let mut trial = disk.terms(config("1GB", "0B")).open();
    trial.commit(vec![session(ReaderId(9))]);
    burst(&mut trial, 1, 40_000, 1_000);
    assert_newest_kept(&trial, 40_000);
    let queued = trial.status().readers[&ReaderId(9)].queued;
    assert!(queued > 2_000, "most of the disk is used");
    let again = trial.killed().open();
    assert_eq!(again.wanted(ReaderId(9)).last(), Some(&40_000));
}

#[test]
fn a_disk_that_another_tenant_fills_does_not_stop_it() {
    let disk = SmallDisk::new(24);
    let mut trial = disk.terms(config("8MB", "0B")).open();
    trial.commit(vec![session(ReaderId(9))]);
    burst(&mut trial, 1, 4_000, 500);
    let tenant = disk.fill();
    burst(&mut trial, 4_001, 12_000, 500);
    assert_newest_kept(&trial, 16_000);
    std::fs::remove_file(tenant).unwrap();
    burst(&mut trial, 16_001, 4_000, 500);
    trial.turn_clock(2_000);
    assert_newest_kept(&trial, 20_000);
    assert_eq!(trial.status().trouble, None);
}

#[test]
fn a_small_max_size_drops_the_oldest_and_stays_small() {
    let mut trial = Terms { config: config("2MB", "0B"), ..Terms::default() }.open();
    trial.commit(vec![session(ReaderId(9))]);
    for round in 0..20 {
        burst(&mut trial, round * 400 + 1, 400, 900);
        let status = trial.status();
        assert!(status.size <= 2_000_000 + 300_000, "{} bytes", status.size);
    }
    assert_newest_kept(&trial, 8_000);
}

#[test]
fn a_disk_that_is_short_lowers_the_store_to_what_it_keeps_anyway() {
    let mut trial = Terms { config: config("1GB", "900000GB"), ..Terms::default() }.open();
    trial.commit(vec![session(ReaderId(9))]);
    burst(&mut trial, 1, 16_000, 1_000);
    let status = trial.status();
    assert!(status.size > 3_000_000 && status.size < 14_000_000, "{} bytes", status.size);
    let warning = status.warning.expect("a word of it");
    assert!(warning.contains("min_free_disk = \"900TB\" cannot be kept"), "{warning}");
    assert_newest_kept(&trial, 16_000);
}

#[test]
fn what_is_to_stay_free_of_a_disk_stays_free_while_the_store_fills_it() {
    let disk = SmallDisk::new(60);
    // Without a mounted disk there is no room that could be measured: the floor is one below which everything is.
    let floor = if disk.mounted.is_some() { 30_000_000 } else { 0 };
    let mut trial = disk.terms(config("1GB", &format!("{floor}B"))).open();
    trial.commit(vec![session(ReaderId(9))]);
    let mut least = u64::MAX;
    for round in 0..100 {
        burst(&mut trial, round * 4 + 1, 4, 100_000);
        least = least.min(Files::within(disk.dir.path()).free_disk().unwrap());
    }
    println!("measured: {least} bytes stayed free of {floor}");
    // A commit is written before it is known what it takes.
    assert!(least + 1_000_000 > floor, "{least} bytes");
    let status = trial.status();
    assert_eq!(status.warning, None, "it is kept");
    assert!(disk.mounted.is_none() || status.size > 10_000_000, "what may be used is: {} bytes", status.size);
    assert_newest_kept(&trial, 400);
}

#[test]
fn it_starts_on_a_full_disk_and_serves_what_it_has() {
    let disk = SmallDisk::new(16);
    let mut trial = disk.terms(config("4MB", "0B")).open();
    trial.commit(vec![session(ReaderId(9))]);
    burst(&mut trial, 1, 1_000, 500);
    trial.close();
    disk.fill();
    let mut again = disk.terms(config("4MB", "0B")).open();
    assert_eq!(again.wanted(ReaderId(9)).len(), 1_000);
    again.written = 0;
    let readers = [again.route(), ReaderId(9)];
    again.write(vec![sized(1_001, 500, &readers)]);
    again.opened.handle.write(Vec::new(), true);
    again.wait_while_time_passes();
    assert_eq!(again.wanted(ReaderId(9)).last(), Some(&1_001));
    again.assert_conserved();
}

#[test]
fn a_sync_that_failed_before_takes_no_row_when_the_disk_is_full_once() {
    let other = std::io::ErrorKind::Other;
    let mut failures = vec![std::io::ErrorKind::StorageFull, other, other];
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = failing.clone();
    let gate: Gate = Box::new(move |stage| {
        if stage != Stage::BeforeSync || !switch.load(Ordering::SeqCst) {
            return Ok(());
        }
        failures.pop().map_or(Ok(()), |kind| Err(kind.into()))
    });
    let mut trial = Terms { gate: Some(gate), ..Terms::default() }.open();
    let up = trial.route();
    trial.commit((1..=5).map(|seq| put(seq, &[up])).collect());
    failing.store(true, Ordering::SeqCst);
    trial.commit(vec![put(6, &[up])]);
    assert_eq!(trial.assert_conserved().readers[&up].dropped, BTreeMap::new());
    assert_eq!(trial.wanted(up), [1, 2, 3, 4, 5, 6]);
}
