//! A secret of this gateway that stays from one start to the next, in a file that only it can read.
//!
//! By it unknown users are answered; were it another after every start, a name whose salt stays would be known
//! as a user's. Made once; a file that is cut is made anew.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::{fs, process};

use super::Key;

/// What the file holds, or a fresh one that is then kept there.
///
/// # Errors
/// Where the kernel gives no random numbers. A disk that keeps nothing is only told: the secret is one of
/// this start then.
pub fn kept_secret(path: &Path) -> io::Result<Key> {
    if let Some(secret) = fs::read(path).ok().and_then(|bytes| Key::try_from(bytes).ok()) {
        return Ok(secret);
    }
    let secret = fresh_secret()?;
    if let Err(error) = keep(path, &secret) {
        tracing::warn!("cannot write {}: {error}; another secret is made at the next start", path.display());
    }
    Ok(secret)
}

/// One that nobody knows.
///
/// # Errors
/// Where the kernel gives no random numbers.
pub fn fresh_secret() -> io::Result<Key> {
    let mut secret = Key::default();
    getrandom::fill(&mut secret).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(secret)
}

/// Writes it whole or not at all.
fn keep(path: &Path, secret: &Key) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(secret).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What is left of it says nothing.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once_for_nobody_else_to_read_and_anew_only_where_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = kept_secret(&path).unwrap();
        assert_eq!(kept_secret(&path).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "cut").unwrap();
        let other = kept_secret(&path).unwrap();
        assert!(other != secret && kept_secret(&path).unwrap() == other);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let nowhere = folder.path().join("none/secret");
        assert_ne!(kept_secret(&nowhere).unwrap(), kept_secret(&nowhere).unwrap());
    }
}
