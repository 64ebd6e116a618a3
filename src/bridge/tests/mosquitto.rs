//! Against Debian's mosquitto over TLS: up and down, with a kept session, in both protocols.
//!
//! What two programs of different hands agree on is the protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use adapter_api::Qos;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::certificates::{Authority, Identity, Valid};
use super::host::House;
use super::shelf::{Leaves, Shelf, reading};
use super::{Running, config, receive, with_ca};
use crate::bridge::Supply;
use crate::record::ReaderId;

const READER: ReaderId = ReaderId(7);

/// A mosquitto of the test's own.
struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    async fn start(folder: &Path, identity: &Identity, port: u16) -> Mosquitto {
        Mosquitto::start_with(folder, identity, port, "allow_anonymous true").await
    }

    async fn start_with(folder: &Path, identity: &Identity, port: u16, access: &str) -> Mosquitto {
        let file = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\n{access}\ncertfile {}\nkeyfile {}\nuser root\n\
             persistence true\npersistence_location {}/\nmax_queued_messages 0\n",
            identity.cert.display(),
            identity.key.display(),
            folder.display(),
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("Debian's mosquitto is installed");
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::task::yield_now().await;
        }
        Mosquitto { child, port }
    }

    /// Ends it as an operator would, so that it writes its sessions down.
    fn end(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(&pid).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of mosquitto's clients against it.
fn client(program: &str, port: u16, ca: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "localhost", "-p", &port.to_string(), "--cafile"]).arg(ca).args(args);
    command
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// [MQTT311-7.0.0-1] [MQTT311-7.1.2-1]
#[tokio::test]
async fn mosquitto_over_tls_gets_every_message_and_commands_of_an_outage_arrive_after_it() {
    for protocol in [4, 5] {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new(folder.path(), "right");
        let identity = authority.issue("localhost", &Valid::Now);
        let port = free_port();
        let mut cloud = Mosquitto::start(folder.path(), &identity, port).await;
        let listens = ["-t", "sites/#", "-q", "1", "-c", "-i", "listener", "-E"];
        assert!(client("mosquitto_sub", port, &authority.file, &listens).status().unwrap().success());

        let shelf = Shelf::new(Leaves::AtSettle, Default::default());
        let mut config = with_ca(config(&format!("mqtts://localhost:{port}"), protocol), &authority.file);
        config.receive = vec![receive("commands/{gateway}/#", "commands/{1}")];
        let house = House::new();
        let numbers = |range: std::ops::Range<u32>| range.map(|n| reading("sensors/a", n.to_string()));
        shelf.put(READER, numbers(0..300));
        let start = || Running::start(&config, vec![Supply::Stored(READER)], shelf.handle.clone(), &house);
        let mut running = start();
        running.until("half there", |status| status.counts.acknowledged == 300).await;
        running.stop().await;

        // The outage: a command at QoS 1 while we are away, and a restart of the cloud.
        let command = ["-t", "commands/barn-7/valve", "-m", "open", "-q", "1"];
        assert!(client("mosquitto_pub", port, &authority.file, &command).status().unwrap().success());
        cloud.end();
        let mut running = start();
        shelf.put(READER, numbers(300..600));
        running.until("refused", |status| status.trouble == Some("refused")).await;
        let cloud = Mosquitto::start(folder.path(), &identity, cloud.port).await;
        running.until("all there", |status| status.counts.acknowledged == 300).await;
        house.until("the command", |state| !state.published.is_empty()).await;
        let expected = ("commands/valve".to_owned(), "open".to_owned(), Qos::AtLeastOnce);
        assert_eq!(house.state().published, [expected]);
        assert_eq!(running.status.borrow().session_present, Some(true));
        running.stop().await;

        let takes = ["-t", "sites/#", "-q", "1", "-c", "-i", "listener", "-C", "600", "-W", "30"];
        let output = client("mosquitto_sub", cloud.port, &authority.file, &takes).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let came: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(came, (0..600).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn mosquitto_refuses_a_wrong_password_and_is_quoted() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "right");
    let identity = authority.issue("localhost", &Valid::Now);
    let users = folder.path().join("users");
    let made =
        Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&users).args(["barn", "right"]).status();
    assert!(made.unwrap().success());
    let access = format!("allow_anonymous false\npassword_file {}", users.display());
    let cloud = Mosquitto::start_with(folder.path(), &identity, free_port(), &access).await;
    let password = folder.path().join("password");
    for protocol in [4, 5] {
        let url = format!("mqtts://localhost:{}", cloud.port);
        let mut config = with_ca(config(&url, protocol), &authority.file);
        config.username = Some("barn".to_owned());
        config.password_file = Some(password.clone());
        std::fs::write(&password, "wrong\n").unwrap();
        let shelf = Shelf::new(Leaves::AtSettle, Default::default());
        shelf.put(READER, [reading("sensors/a", "x")]);
        let supplies = vec![Supply::Stored(READER)];
        let mut running = Running::start(&config, supplies, shelf.handle.clone(), &House::new());
        let status = running.until("turned away", |status| status.trouble == Some("not_authorized")).await;
        let reason = status.reason.unwrap_or_default();
        assert!(reason.contains("not authorized") && reason.contains("password_file"), "{reason}");
        assert_eq!(status.counts.sent, 0);
        // A new password needs no restart.
        std::fs::write(&password, "right\n").unwrap();
        running.until("arrived", |status| status.counts.acknowledged == 1).await;
        running.stop().await;
    }
}
