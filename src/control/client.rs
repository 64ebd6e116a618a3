//! A command's end of the control socket: asks one question and waits for the answer.
//!
//! It blocks, as a command may, and never longer than its timeout for each read.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{ANSWER_MAX, Ask, SOCKET, VERSION};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("reach the service at {path}: it does not run ({source})")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("reach the service at {path}: permission denied, expected root or a member of group tidegate")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It listens and does not answer.
    #[error("get an answer from the service: {0}")]
    NoAnswer(io::Error),
    /// It answers no.
    #[error("get an answer from the service: {0}")]
    Refused(String),
    /// What came is no answer.
    #[error("understand the service's answer")]
    Nonsense,
}

/// Asks the service that keeps its socket in `run_dir`.
///
/// # Errors
/// Where it does not run, does not let us in, or does not answer within ten seconds.
pub fn ask(run_dir: &Path, ask: Ask) -> Result<Value, AskError> {
    let path = run_dir.join(SOCKET);
    let stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Denied { path: path.clone() },
        _ => AskError::NotRunning { path: path.clone(), source },
    })?;
    let line = converse(stream, ask).map_err(AskError::NoAnswer)?;
    let mut answer: Value = serde_json::from_str(&line).map_err(|_| AskError::Nonsense)?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(AskError::Refused(error.to_owned()));
    }
    answer.get_mut(ask.as_str()).map(Value::take).ok_or(AskError::Nonsense)
}

fn converse(mut stream: UnixStream, ask: Ask) -> io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{}\n", json!({"v": VERSION, "ask": ask.as_str()})).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

/// How long the service may take.
const TIMEOUT: Duration = Duration::from_secs(10);
