//! A file that is read again once it has changed.
//!
//! Another state of it counts once it has stood for a second, since it may be seen half written: by what the
//! file says of its last change, and where the wall clock cannot be right, by two looks a second apart.
//! What is wrong with a new one is said once, and what was read before stays in force. What could not be
//! read at all may be readable the next time as it is, so that is tried at every look.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::AuthError;

/// One file, and how it was last seen.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
    /// What it may become, and since when; monotonic milliseconds.
    settling: Option<(Stamp, u64)>,
    is_new: bool,
    /// What was said last.
    trouble: Option<String>,
}

/// When a file is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// Milliseconds since the start; never goes back.
    pub mono: u64,
    /// Milliseconds since 1970; may jump.
    pub wall: u64,
}

#[cfg(test)]
impl Moment {
    /// So many milliseconds after the start, by a machine without a wall clock.
    pub(crate) fn at(mono: u64) -> Moment {
        Moment { mono, wall: 0 }
    }
}

/// What tells two states of a file apart, and whether it may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Watched {
    /// Names the file; nothing is read yet.
    pub(super) fn at(path: impl Into<PathBuf>) -> Watched {
        Watched { path: path.into(), seen: None, settling: None, is_new: true, trouble: None }
    }

    /// Reads the file the first time, and if it has changed since it was last read and then no more for a
    /// second; `None` where all is as it was.
    ///
    /// # Errors
    /// Once for each trouble.
    pub(super) fn refresh<T>(
        &mut self,
        now: &Moment,
        parse: impl FnOnce(&Path, &str) -> Result<T, AuthError>,
    ) -> Result<Option<T>, AuthError> {
        // Before the file is read, so that one that changes meanwhile is read again.
        let stamp = Stamp::of(&self.path);
        if stamp.is_some_and(|stamp| Some(stamp) == self.seen || !self.is_settled(stamp, now)) {
            return Ok(None);
        }
        self.is_new = false;
        let result = read(&self.path).and_then(|text| parse(&self.path, &text));
        let may_pass = matches!(result, Err(AuthError::Unreadable { .. }));
        self.seen = stamp.filter(|_| !may_pass);
        let trouble = result.as_ref().err().map(ToString::to_string);
        let is_news = trouble != self.trouble;
        self.trouble = trouble;
        match result {
            Err(_) if !is_news => Ok(None),
            result => result.map(Some),
        }
    }

    /// Whether another look is wanted soon: what was seen last is not yet taken.
    pub(super) fn is_settling(&self) -> bool {
        self.settling.is_some_and(|(stamp, _)| Some(stamp) != self.seen)
    }

    /// Whether it has been like this for long enough.
    fn is_settled(&mut self, stamp: Stamp, now: &Moment) -> bool {
        let since = self.settling.filter(|(seen, _)| *seen == stamp).map_or(now.mono, |(_, since)| since);
        self.settling = Some((stamp, since));
        self.is_new || now.mono >= since + SETTLED || stamp.stands_since() + SETTLED <= now.wall
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let data = fs::metadata(path).ok()?;
        Some(Stamp { inode: data.ino(), length: data.len(), changed: (data.ctime(), data.ctime_nsec()) })
    }

    /// When the file last changed; milliseconds since 1970, rounded up.
    fn stands_since(&self) -> u64 {
        let (seconds, nanos) = self.changed;
        u64::try_from(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000 + 1)).unwrap_or(0)
    }
}

fn read(path: &Path) -> Result<String, AuthError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| AuthError::Unreadable { path: path.to_owned(), source })?;
    Ok(text)
}

/// Milliseconds for which a file stays as it is once nobody writes it.
const SETTLED: u64 = 1_000;

/// A file beyond this is cut, and then its last line is wrong: 100,000 users fit.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_and_what_cannot_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watched = Watched::at(&path);
        let mut now = Moment::default();
        let mut look = || {
            now.mono += SETTLED;
            let wrong = |path: &Path| AuthError::WrongRules { path: path.to_owned(), mistakes: "bad".into() };
            watched.refresh(
                &now,
                |path, text| if text == "bad" { Err(wrong(path)) } else { Ok(text.to_owned()) },
            )
        };
        assert!(matches!(look(), Err(AuthError::Unreadable { .. })));
        assert!(matches!(look(), Ok(None)));
        fs::create_dir(&path).unwrap();
        assert!(matches!(look(), Ok(None)));
        assert!(look().is_err(), "another trouble");
        assert!(matches!(look(), Ok(None)));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "good").unwrap();
        assert!(matches!(look(), Ok(None)));
        assert_eq!(look().unwrap().as_deref(), Some("good"));
        assert!(matches!(look(), Ok(None)));
        for _ in 0..2 {
            fs::write(&path, "bad").unwrap();
            assert!(matches!(look(), Ok(None)));
            assert!(matches!(look(), Err(AuthError::WrongRules { .. })));
            assert!(matches!(look(), Ok(None)));
            fs::write(&path, "good again").unwrap();
            assert!(matches!(look(), Ok(None)));
            assert_eq!(look().unwrap().as_deref(), Some("good again"));
        }
    }

    #[test]
    fn a_file_that_is_being_written_is_not_taken_before_it_has_been_whole_for_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "whole").unwrap();
        let mut watched = Watched::at(&path);
        let mut look = |mono| {
            let text = watched.refresh(&Moment::at(mono), |_, text| Ok(text.to_owned())).unwrap();
            (text, watched.is_settling())
        };
        assert_eq!(look(0), (Some("whole".to_owned()), false), "the first time it is read at once");
        fs::write(&path, "").unwrap();
        assert_eq!(look(10), (None, true));
        fs::write(&path, "an").unwrap();
        assert_eq!((look(500), look(1_499)), ((None, true), (None, true)));
        fs::write(&path, "another").unwrap();
        assert_eq!((look(1_500), look(2_499)), ((None, true), (None, true)));
        assert_eq!(look(2_500), (Some("another".to_owned()), false));
        assert_eq!(look(9_000), (None, false));
    }

    #[test]
    fn a_file_that_has_stood_for_a_second_is_taken_at_the_first_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::at(&path);
        let mut look = |wall| {
            let now = Moment { wall, ..Moment::default() };
            watched.refresh(&now, |_, text| Ok(text.to_owned())).unwrap()
        };
        assert_eq!(look(0).as_deref(), Some("one"));
        fs::write(&path, "another").unwrap();
        let written = Stamp::of(&path).unwrap().stands_since();
        assert_eq!(look(written), None, "it may be half written");
        assert_eq!(look(written + SETTLED).as_deref(), Some("another"));
    }
}
