//! Who we say we are to upstream: user name, and the password from its file.
//!
//! The file is read for every connect, so that a new password needs no restart.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::config::Checked;
use super::trouble::Trouble;

/// User name and password. Reads a file: for a helper thread.
pub(super) fn read(bridge: &Checked) -> Result<Option<(String, String)>, Trouble> {
    let Some(username) = bridge.username.clone() else { return Ok(None) };
    let Some(file) = &bridge.password_file else { return Ok(Some((username, String::new()))) };
    Ok(Some((username, password(file)?)))
}

/// The password in this file, or in the credential of this name.
pub(super) fn password(file: &Path) -> Result<String, Trouble> {
    let path = place(file, env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    let text = fs::read_to_string(&path)
        .map_err(|error| Trouble::File { file: path.display().to_string(), error: error.to_string() })?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

/// A relative path is a systemd credential where there are credentials.
fn place(file: &Path, credentials: Option<PathBuf>) -> PathBuf {
    match credentials {
        Some(folder) if file.is_relative() => folder.join(file),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_password_file_is_a_credential_under_systemd() {
        let credentials = || Some(PathBuf::from("/run/credentials/tidegate.service"));
        let at = |file: &str, folder| place(Path::new(file), folder).display().to_string();
        assert_eq!(at("cloud", credentials()), "/run/credentials/tidegate.service/cloud");
        assert_eq!(at("/etc/cloud", credentials()), "/etc/cloud");
        assert_eq!(at("cloud", None), "cloud");
    }
}
