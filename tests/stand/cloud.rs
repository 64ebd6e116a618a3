//! Debian's mosquitto in the cloud's place.
//!
//! It keeps everything for a subscriber that is away, without limit, so that what is missing was lost
//! by the gateway.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{HANG, monotonic};

/// A running mosquitto.
pub struct Cloud {
    child: Child,
    /// Its TLS port, or the plain one where it has no TLS.
    pub port: u16,
    /// A plain port for the test's own subscribers.
    pub inside: u16,
    /// Its log.
    pub log: PathBuf,
}

/// How clients reach it.
pub enum Security<'a> {
    /// Without TLS.
    Plain,
    /// With this certificate and key.
    Tls(&'a (PathBuf, PathBuf)),
    /// With TLS, and a user name and password.
    Password(&'a (PathBuf, PathBuf), &'a str, &'a str),
    /// Without TLS, with a password file and an ACL file; anonymous clients are welcome.
    Rules(&'a Path, &'a Path),
}

impl Cloud {
    /// Starts it in the folder; ports are free ones.
    pub fn start(folder: &Path, security: &Security) -> Cloud {
        let folder = folder.join(format!("cloud-{}", free_port()));
        fs::create_dir_all(&folder).unwrap();
        let start = monotonic();
        loop {
            let (port, inside) = (free_port(), free_port());
            let log = folder.join("log");
            fs::write(folder.join("mosquitto.conf"), configuration(&folder, security, port, inside)).unwrap();
            let mut child = Command::new(program())
                .arg("-c")
                .arg(folder.join("mosquitto.conf"))
                .stdout(fs::File::create(&log).unwrap())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .expect("mosquitto is installed by tests/setup");
            loop {
                if TcpStream::connect(("127.0.0.1", port)).is_ok()
                    && TcpStream::connect(("127.0.0.1", inside)).is_ok()
                {
                    return Cloud { child, port, inside, log };
                }
                if child.try_wait().unwrap().is_some() {
                    break; // A port was taken between the look and the start: try others.
                }
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
            assert!(
                start.elapsed() < HANG,
                "mosquitto does not start: {}",
                fs::read_to_string(&log).unwrap()
            );
        }
    }
}

impl Cloud {
    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, security: &Security, port: u16, inside: u16) -> String {
    let mut text = String::from("per_listener_settings true\nmax_inflight_messages 100\npersistence false\n");
    // Without this limit mosquitto 2.0.11 hangs up on whoever publishes what a rule denies.
    if !matches!(security, Security::Rules(..)) {
        text.push_str("max_queued_messages 0\n");
    }
    // 2.0.11 gives one copy for all subscriptions that overlap, at the QoS of any; later versions do this.
    text.push_str("allow_duplicate_messages true\n");
    // Else each answer that follows another waits for the delayed acknowledgement of the first.
    text.push_str("set_tcp_nodelay true\n");
    // Started as root it would become a user that may not read the keys.
    text.push_str("user root\n");
    let _ = writeln!(text, "listener {inside} 127.0.0.1\nallow_anonymous true\nlistener {port} 127.0.0.1");
    if let Security::Tls((certificate, key)) | Security::Password((certificate, key), ..) = security {
        let _ = writeln!(text, "certfile {}\nkeyfile {}", certificate.display(), key.display());
    }
    match security {
        Security::Password(_, user, password) => {
            let file = folder.join("passwd");
            let made = Command::new("mosquitto_passwd")
                .args(["-b", "-c"])
                .arg(&file)
                .args([user, password])
                .status();
            assert!(made.unwrap().success());
            let _ = writeln!(text, "allow_anonymous false\npassword_file {}", file.display());
        }
        Security::Rules(passwords, rules) => {
            let (passwords, rules) = (passwords.display(), rules.display());
            let _ = writeln!(text, "allow_anonymous true\npassword_file {passwords}\nacl_file {rules}");
        }
        Security::Plain | Security::Tls(_) => text.push_str("allow_anonymous true\n"),
    }
    text
}

fn program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

/// A port that was free a moment ago, for programs that cannot bind port 0.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
