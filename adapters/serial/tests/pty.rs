//! The adapter over a pty, with a broker of the test in the appliance's place.
//!
//! The device's path is a link, as under `/dev/serial/by-id`: unplugging takes it away, replugging leads
//! it to a new pty. Time is virtual, so that waiting to reopen costs none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks should say where")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use adapter_api::{Acknowledgement, FromPort, Health, Hello, Host, Port, State, ToPort};
use adapter_serial::{Config, adapter};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_serial::{SerialPort, SerialStream};

const SCALE: &str = r#"
    frame = { kind = "line", end = "\r\n", max = 20 }
    parse = { kind = "regex", pattern = '(?<status>ST|US),\w+,(?<weight>[-+\d.]+)\s*(?<unit>\w+)' }
"#;

#[tokio::test(start_paused = true)]
async fn readings_arrive_with_value_unit_and_time() {
    let mut world = World::new(SCALE);
    world.plug().await;
    world.say("\r\nST,GS,+12.05 kg\r\nUS,GS,-0.10 kg\r\n").await;
    assert_eq!(
        world.published().await,
        ["serial/scale", r#"{"v":12.05,"u":"kg","t":T,"q":"good","status":"ST"}"#]
    );
    assert_eq!(
        world.published().await,
        ["serial/scale", r#"{"v":-0.1,"u":"kg","t":T,"q":"good","status":"US"}"#]
    );
    let counters = world.counters(|counters| counters["published"] == 2).await;
    assert_eq!((&counters["lines"], &counters["waiting"]), (&2.into(), &0.into()));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_and_overlong_lines_are_counted_and_never_published() {
    let mut world = World::new(SCALE);
    world.plug().await;
    let long = format!("ST,GS,+12.05 kg{}ST,GS,+99.99 kg\r\n", "x".repeat(300));
    world.say("\r\nhello\r\n").await;
    world.say(&long).await;
    world.say("ST,GS,\u{0}12.05 kg\r\n\r\nST,GS,+1.00 kg\r\n").await;
    assert_eq!(world.published().await[1], r#"{"v":1.0,"u":"kg","t":T,"q":"good","status":"ST"}"#);
    let counters = world.counters(|counters| counters["published"] == 1).await;
    let told = |name: &str| counters[name].as_u64().unwrap();
    assert_eq!((told("overlong"), told("unmatched"), told("not_text"), told("lines")), (1, 1, 1, 3));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unplugged_device_is_down_and_goes_on_once_it_is_plugged_in_again() {
    let mut world = World::new(SCALE);
    let health = world.health(|health| health.state == State::Down).await;
    assert!(health.reason.unwrap().starts_with("cannot open the device: "));
    world.plug().await;
    world.say("\r\nST,GS,+1.00 kg\r\nST,GS,+2").await;
    world.published().await;
    world.unplug();
    let health = world.health(|health| health.state == State::Down).await;
    assert!(health.reason.unwrap().starts_with("the device was "));
    world.plug().await;
    world.say("\r\nST,GS,+3.00 kg\r\n").await;
    assert_eq!(world.published().await[1], r#"{"v":3.0,"u":"kg","t":T,"q":"good","status":"ST"}"#);
    let counters = world.counters(|counters| counters["published"] == 2).await;
    assert_eq!(counters["opened"], 2);
    world.stop().await;
}

/// A line with its adapter, and the broker's side of it.
struct World {
    folder: TempDir,
    /// The device's end of the wire, and ours, kept open so that the pty lives.
    wire: Option<(SerialStream, SerialStream)>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    health: watch::Receiver<Health>,
    published: mpsc::Receiver<[String; 2]>,
}

type Ends = (mpsc::Receiver<FromPort>, mpsc::Sender<ToPort>);

/// Hands each port to the broker of the test.
struct TestHost {
    ports: mpsc::Sender<Ends>,
    health: watch::Sender<Health>,
}

impl Host for TestHost {
    fn open(&self, hello: Hello) -> Port {
        assert_eq!(hello.user.as_deref(), Some("serial:scale"));
        let (sender, from_port) = mpsc::channel(4);
        let (to_port, receiver) = mpsc::channel(200);
        self.ports.try_send((from_port, to_port)).unwrap();
        Port { sender, receiver }
    }

    fn report(&self, path: &str, health: Health) {
        assert_eq!(path, "serial/scale");
        self.health.send_replace(health);
    }
}

impl World {
    fn new(keys: &str) -> World {
        let folder = TempDir::new().unwrap();
        let device = folder.path().join("device");
        let config = format!("name = 'scale'\ndevice = '{}'\n{keys}", device.display());
        let config: Config = toml::from_str(&config).unwrap();
        let (ports_sender, ports) = mpsc::channel(20);
        let starting = Health { state: State::Starting, reason: None, counters: serde_json::Value::Null };
        let (health_sender, health) = watch::channel(starting);
        let host = Arc::new(TestHost { ports: ports_sender, health: health_sender });
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(adapter(config.check().unwrap()).run(host, stopped));
        let (publish, published) = mpsc::channel(20);
        tokio::spawn(serve(ports, publish));
        World { folder, wire: None, stop, running, health, published }
    }

    fn device(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    async fn plug(&mut self) {
        let (wire, near) = SerialStream::pair().unwrap();
        let path = near.name().unwrap();
        self.wire = Some((wire, near));
        symlink(path, self.device()).unwrap();
        self.health(|health| health.state == State::Up).await;
    }

    fn unplug(&mut self) {
        std::fs::remove_file(self.device()).unwrap();
        self.wire = None;
    }

    async fn say(&mut self, text: &str) {
        self.wire.as_mut().unwrap().0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn published(&mut self) -> Vec<String> {
        self.published.recv().await.unwrap().into()
    }

    async fn health(&mut self, is_so: impl FnMut(&Health) -> bool) -> Health {
        self.health.wait_for(is_so).await.unwrap().clone()
    }

    async fn counters(&mut self, mut are_so: impl FnMut(&serde_json::Value) -> bool) -> serde_json::Value {
        self.health(|health| are_so(&health.counters)).await.counters
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

/// A broker that takes everything, one port after the other.
async fn serve(mut ports: mpsc::Receiver<Ends>, publish: mpsc::Sender<[String; 2]>) {
    while let Some((mut from_port, to_port)) = ports.recv().await {
        to_port.send(ToPort::Connected { session_present: false }).await.unwrap();
        while let Some(FromPort::Publish { id, topic, payload, .. }) = from_port.recv().await {
            publish.send([topic, timeless(&payload)]).await.unwrap();
            to_port.send(ToPort::Published(Acknowledgement { id, result: Ok(()) })).await.unwrap();
        }
    }
}

/// The payload with its time taken out, once that is a time.
fn timeless(payload: &[u8]) -> String {
    let text = std::str::from_utf8(payload).unwrap();
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let time = json["t"].to_string();
    assert!(json["t"].as_f64().unwrap() > 1_767_225_600.0, "{text}");
    text.replace(&format!("\"t\":{time}"), "\"t\":T")
}
