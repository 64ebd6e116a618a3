//! The program under test, as a process.
//!
//! It is started with a configuration text, found by its control socket, killed as a power cut would,
//! or asked to stop. Its log goes to a file and is shown where a test panics.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::memory::{figure_in, status_of};
use super::{HANG, wait_for};

/// A running gateway.
pub struct Gateway {
    child: Option<Child>,
    program: PathBuf,
    folder: PathBuf,
    wrapper: Vec<String>,
    port: u16,
}

impl Gateway {
    /// Starts `program` in a folder that keeps its data. `[gateway]` and one listener on port 0 are
    /// given; `configuration` comes after them.
    pub fn start(program: &Path, folder: &Path, configuration: &str) -> Gateway {
        Gateway::start_under(program, folder, configuration, &[])
    }

    /// The same under a wrapper, such as strace and its options.
    pub fn start_under(program: &Path, folder: &Path, configuration: &str, wrapper: &[&str]) -> Gateway {
        fs::create_dir_all(folder).unwrap();
        let data = folder.join("data");
        let text = format!(
            "[gateway]\nid = \"barn-7\"\ndata_dir = {data:?}\nrun_dir = {:?}\n[[listener]]\nname = \"lan\"\nbind = \"127.0.0.1:0\"\n{configuration}",
            folder.join("run"),
        );
        fs::write(folder.join("tidegate.toml"), text).unwrap();
        let wrapper = wrapper.iter().map(|word| (*word).to_string()).collect();
        let mut gateway = Gateway {
            child: None,
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            wrapper,
            port: 0,
        };
        gateway.start_again();
        gateway
    }

    /// Starts it after it was killed or stopped.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut words = self.wrapper.clone();
        words.push(self.program.to_string_lossy().into_owned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["run", "--config"])
            .arg(self.folder.join("tidegate.toml"))
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .envs(service_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // An interrupt from the terminal is for the stand, which then ends it in order.
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.port = wait_for("the listener", || {
            self.assert_running();
            let address =
                self.try_status()?["listeners"][0]["address"].as_str()?.parse::<SocketAddr>().ok()?;
            Some(address.port()).filter(|port| *port != 0)
        });
    }

    /// Where its listener is.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the listener of this name is.
    pub fn port_of(&self, name: &str) -> u16 {
        let status = self.status();
        let listeners = status["listeners"].as_array().unwrap();
        let listener = listeners.iter().find(|listener| listener["name"] == name).expect("the listener");
        listener["address"].as_str().unwrap().parse::<SocketAddr>().unwrap().port()
    }

    /// The number of its process (of the wrapper's, where there is one).
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its resident memory in KB, as the kernel counts it.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// The most that was resident since its start, in KB.
    pub fn most_resident(&self) -> u64 {
        self.memory("VmHWM")
    }

    fn memory(&self, name: &str) -> u64 {
        status_of(self.pid()).and_then(|status| figure_in(&status, name)).expect("it runs")
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        if !self.wrapper.is_empty() {
            // The wrapper would leave the program behind.
            let _ = Command::new("pkill").args(["-KILL", "-P", &child.id().to_string()]).status();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("it runs");
        let target = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &target]).status().unwrap().success());
        let status = wait_for("the end after SIGTERM", || self.child.as_mut()?.try_wait().unwrap());
        self.child = None;
        status
    }

    /// What `status --json` would print.
    pub fn status(&self) -> Value {
        wait_for("status", || {
            self.assert_running();
            self.try_status()
        })
    }

    /// Waits until the status fulfils something.
    pub fn until(&self, what: &str, mut fulfils: impl FnMut(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(&mut fulfils))
    }

    /// The numbers of the one route whose name contains `name`.
    pub fn route(&self, name: &str) -> Value {
        let status = self.status();
        let routes = status["routes"].as_array().unwrap();
        routes
            .iter()
            .find(|route| route["name"].as_str().unwrap().contains(name))
            .cloned()
            .expect("the route")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn try_status(&self) -> Option<Value> {
        let mut socket = UnixStream::connect(self.folder.join("run/control.sock")).ok()?;
        socket.set_read_timeout(Some(HANG)).ok()?;
        socket.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
        socket.write_all(b"{\"v\":1,\"ask\":\"status\"}\n").ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        answer.get("status").cloned()
    }

    fn assert_running(&self) {
        let id = self.pid();
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let running = !state.is_empty() && !state.contains(") Z ");
        assert!(running, "the gateway has ended:\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the gateway's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The variables that its service is started with.
fn service_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../systemd/tidegate.service").lines();
    let variables =
        lines.filter_map(|line| line.strip_prefix("Environment=")).flat_map(str::split_whitespace);
    variables.filter_map(|variable| variable.split_once('='))
}
