//! The service's end of the control socket.
//!
//! It is bound beside its place and moved in when its mode is right, so nobody finds it open too wide,
//! and one that a dead service left is replaced. A client may hold a connection only as long as it
//! asks; everything it can do is bounded. Where all places are taken, who has done nothing for longest
//! gives way to the newest.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Ask, QUESTION_MAX, SOCKET, VERSION, peers};

/// What the service will answer to one question.
pub type Answer = Pin<Box<dyn Future<Output = Value> + Send>>;

/// The bound socket. Dropping it takes it away.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    own_user: u32,
}

/// Why the socket does not stand.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another service answers there.
    #[error("open {0}: another tidegate answers there")]
    Taken(PathBuf),
    /// The disk.
    #[error("open {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Socket {
    /// Binds the socket in `run_dir`, which is made where it is missing. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// Where another service answers there, and where the folder cannot be written.
    pub fn bind(run_dir: &Path) -> Result<Socket, SocketError> {
        let path = run_dir.join(SOCKET);
        let io = |source| SocketError::Io { path: path.clone(), source };
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(SocketError::Taken(path));
        }
        fs::create_dir_all(run_dir).map_err(io)?;
        let beside = super::beside(run_dir);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(io)?;
        let own_user = fs::metadata(&beside).map_err(io)?.uid();
        if let Some(group) = peers::group() {
            // A user who is not in the group may not give it the socket, and then needs no group.
            let _ = chown(&beside, None, Some(group));
        }
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o660)).map_err(io)?;
        fs::rename(&beside, &path).map_err(io)?;
        Ok(Socket { listener, path, own_user })
    }

    /// Answers until it is dropped. `answer` gives the value that stands under the question's word.
    pub async fn serve(&self, answer: impl Fn(Ask) -> Answer + Send + Sync + 'static) {
        let answer: Arc<dyn Fn(Ask) -> Answer + Send + Sync> = Arc::new(answer);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let idlers = Idlers::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let allowed =
                stream.peer_cred().is_ok_and(|peer| peers::may_speak(self.own_user, peer.uid(), peer.gid()));
            let Some(place) = idlers.make_room(&places).await else { return };
            let (answer, guest) = (answer.clone(), idlers.guest());
            tokio::spawn(async move {
                let _place = place;
                let talk = async {
                    match allowed {
                        true => converse(stream, &*answer, &guest).await,
                        false => guest.idle(refuse(stream)).await,
                    }
                };
                tokio::select! {
                    // Who has just asked does not leave.
                    biased;
                    // A client that hangs up in the middle is its own affair.
                    _ = talk => {}
                    () = guest.leave.notified() => {}
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn refuse(mut stream: UnixStream) -> io::Result<()> {
    let text = "permission denied: expected root, the service's user or a member of group tidegate";
    write(&mut stream, &json!({"v": VERSION, "error": text})).await
}

async fn converse(
    stream: UnixStream,
    answer: &(dyn Fn(Ask) -> Answer + Send + Sync),
    guest: &Guest,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut question = Vec::new();
        let limit = u64::try_from(QUESTION_MAX).unwrap_or(u64::MAX);
        let mut limited = (&mut stream).take(limit);
        let reading = limited.read_until(b'\n', &mut question);
        let read = guest.idle(timeout(QUESTION_TIMEOUT, reading)).await??;
        if read == 0 {
            return Ok(());
        }
        if question.last() != Some(&b'\n') && read >= QUESTION_MAX {
            let refusal = json!({"v": VERSION, "error": "the question is too long"});
            return guest.idle(write(stream.get_mut(), &refusal)).await;
        }
        let reply = match understand(&question) {
            Ok(ask) => match timeout(ANSWER_TIMEOUT, answer(ask)).await {
                Ok(value) => json!({"v": VERSION, ask.as_str(): value}),
                Err(_) => json!({"v": VERSION, "error": "the service did not answer in time"}),
            },
            Err(error) => json!({"v": VERSION, "error": error}),
        };
        guest.idle(write(stream.get_mut(), &reply)).await?;
    }
}

fn understand(question: &[u8]) -> Result<Ask, String> {
    let question: Value = serde_json::from_slice(question).map_err(|_| "expected one JSON object a line")?;
    match question.get("v").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        found => {
            let found = found.map_or("no version".to_owned(), |version| format!("version {version}"));
            return Err(format!("found {found}, expected version {VERSION}"));
        }
    }
    let word = question.get("ask").and_then(Value::as_str).unwrap_or_default();
    Ask::from_word(word).ok_or_else(|| "this service knows no such question".to_owned())
}

/// Connections for which the service does nothing: they have not asked, or do not read their answer.
#[derive(Clone, Default)]
struct Idlers(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    since: Mutex<Since>,
    /// One more waits.
    news: Notify,
}

/// Who waits, by the order in which they began to.
#[derive(Default)]
struct Since {
    last: u64,
    leave: BTreeMap<u64, Arc<Notify>>,
}

/// One connection among them.
struct Guest {
    idlers: Idlers,
    leave: Arc<Notify>,
}

/// Its waiting, which ends with this.
struct Turn<'a> {
    idlers: &'a Idlers,
    number: u64,
}

impl Idlers {
    fn guest(&self) -> Guest {
        Guest { idlers: self.clone(), leave: Arc::default() }
    }

    /// A place for one more. Where there is none who has waited for longest leaves; while all are being answered,
    /// the one more waits.
    async fn make_room(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        loop {
            let idlest = self.since().leave.pop_first();
            if let Some((_, leave)) = idlest {
                leave.notify_one();
                return places.clone().acquire_owned().await.ok();
            }
            tokio::select! {
                place = places.clone().acquire_owned() => return place.ok(),
                () = self.0.news.notified() => {}
            }
        }
    }

    fn since(&self) -> MutexGuard<'_, Since> {
        self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Waits for the client, and may be sent away meanwhile.
    async fn idle<T>(&self, client: impl Future<Output = T>) -> T {
        let _turn = self.begin();
        client.await
    }

    fn begin(&self) -> Turn<'_> {
        let mut since = self.idlers.since();
        since.last += 1;
        let number = since.last;
        since.leave.insert(number, self.leave.clone());
        drop(since);
        self.idlers.0.news.notify_one();
        Turn { idlers: &self.idlers, number }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.idlers.since().leave.remove(&self.number);
    }
}

async fn write(stream: &mut UnixStream, value: &Value) -> io::Result<()> {
    let line = format!("{value}\n");
    timeout(WRITE_TIMEOUT, stream.write_all(line.as_bytes())).await?
}

/// Commands that speak at one time.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may think about its question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the service may think about its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may leave the answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to accept where the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{AskError, ask};

    fn answer(_: Ask) -> Answer {
        Box::pin(async { json!({"gateway": "barn-7"}) })
    }

    /// Binds a socket in `folder`, serves it, and runs `client` on a thread of its own meanwhile.
    fn with_service<T: Send + 'static>(folder: &Path, client: impl FnOnce() -> T + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = Socket::bind(folder).expect("bound");
            tokio::select! {
                () = socket.serve(answer) => panic!("it serves for ever"),
                result = tokio::task::spawn_blocking(client) => result.expect("the client does not panic"),
            }
        })
    }

    #[test]
    fn a_question_is_answered_under_its_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().join("run");
        let (status, mode) = with_service(&run_dir.clone(), move || {
            let mode = fs::metadata(run_dir.join(SOCKET)).expect("there").permissions().mode();
            (ask(&run_dir, Ask::Status).expect("answered"), mode & 0o777)
        });
        assert_eq!(status, json!({"gateway": "barn-7"}));
        assert_eq!(mode, 0o660);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().to_owned();
        let dead = std::os::unix::net::UnixListener::bind(run_dir.join(SOCKET)).expect("bound");
        drop(dead);
        assert!(matches!(ask(&run_dir, Ask::Status), Err(AskError::NotRunning { .. })));
        let handle = move || tokio::runtime::Handle::current().block_on(async { Socket::bind(&run_dir) });
        assert!(matches!(with_service(folder.path(), handle), Err(SocketError::Taken(_))));
        assert!(!folder.path().join(SOCKET).exists(), "a service that ends takes its socket away");
    }

    #[test]
    fn what_is_no_question_is_refused_in_words() {
        let check = |question: &str, expected: &str| {
            assert_eq!(understand(question.as_bytes()).map_err(|text| text.contains(expected)), Err(true));
        };
        check("hello", "one JSON object");
        check(r#"{"ask":"status"}"#, "expected version 1");
        check(r#"{"v":2,"ask":"status"}"#, "found version 2");
        check(r#"{"v":1,"ask":"stop"}"#, "no such question");
        assert_eq!(understand(br#"{"v":1,"ask":"status"}"#), Ok(Ask::Status));
    }

    #[test]
    fn who_asks_is_answered_however_many_hold_a_connection_and_do_not() {
        use std::io::{Read as _, Write as _};
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().to_owned();
        let (status, left, stays) = with_service(folder.path(), move || {
            let connect =
                || std::os::unix::net::UnixStream::connect(run_dir.join(SOCKET)).expect("connected");
            let mut idle: Vec<_> = (0..100).map(|_| connect()).collect();
            // One that was answered, and asks no more, is idle like the others.
            idle[99].write_all(b"{\"v\":1,\"ask\":\"status\"}\n").expect("written");
            idle[99].read_exact(&mut [0; 8]).expect("answered");
            let status = ask(&run_dir, Ask::Status).expect("answered");
            // The others need not wait until these have run out of time.
            idle[90].set_nonblocking(true).expect("set");
            let stays = idle[90].read(&mut [0; 8]).map_err(|error| error.kind());
            (status, idle[0].read(&mut [0; 8]).expect("closed"), stays)
        });
        assert_eq!((status, left, stays), (json!({"gateway": "barn-7"}), 0, Err(io::ErrorKind::WouldBlock)));
    }

    #[test]
    fn a_question_without_end_is_cut() {
        use std::io::{Read as _, Write as _};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(SOCKET);
        let reply = with_service(folder.path(), move || {
            let mut stream = std::os::unix::net::UnixStream::connect(path).expect("connected");
            stream.write_all(&vec![b'x'; QUESTION_MAX]).expect("written");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).expect("read to the end");
            reply
        });
        assert!(reply.contains("too long"), "{reply}");
    }
}
