//! A file that is read again once it has changed.
//!
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
    /// What was said last.
    trouble: Option<String>,
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
        Watched { path: path.into(), seen: None, trouble: None }
    }

    /// Reads the file if it has changed since it was last read; `None` where all is as it was.
    ///
    /// # Errors
    /// Once for each trouble.
    pub(super) fn refresh<T>(
        &mut self,
        parse: impl FnOnce(&Path, &str) -> Result<T, AuthError>,
    ) -> Result<Option<T>, AuthError> {
        // Before the file is read, so that one that changes meanwhile is read again.
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp == self.seen {
            return Ok(None);
        }
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
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let data = fs::metadata(path).ok()?;
        Some(Stamp { inode: data.ino(), length: data.len(), changed: (data.ctime(), data.ctime_nsec()) })
    }
}

fn read(path: &Path) -> Result<String, AuthError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| AuthError::Unreadable { path: path.to_owned(), source })?;
    Ok(text)
}

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
        let mut look = || {
            let wrong = |path: &Path| AuthError::WrongLine { path: path.to_owned(), line: 1 };
            watched.refresh(|path, text| if text == "bad" { Err(wrong(path)) } else { Ok(text.to_owned()) })
        };
        assert!(matches!(look(), Err(AuthError::Unreadable { .. })));
        assert!(matches!(look(), Ok(None)));
        fs::create_dir(&path).unwrap();
        assert!(look().is_err(), "another trouble");
        assert!(matches!(look(), Ok(None)));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "good").unwrap();
        assert_eq!(look().unwrap().as_deref(), Some("good"));
        assert!(matches!(look(), Ok(None)));
        for _ in 0..2 {
            fs::write(&path, "bad").unwrap();
            assert!(matches!(look(), Err(AuthError::WrongLine { .. })));
            assert!(matches!(look(), Ok(None)));
            fs::write(&path, "good again").unwrap();
            assert_eq!(look().unwrap().as_deref(), Some("good again"));
        }
    }
}
