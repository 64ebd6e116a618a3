//! Dead devices, broken lines, peers that speak something else: what can go on goes on.
//!
//! In virtual time, over pipes whose other ends the test holds.

#![allow(clippy::indexing_slicing, reason = "a test that panics has failed, as it should")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Adapter, State};
use adapter_modbus::{Config, Modbus};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use world::broker::Broker;
use world::server::{Account, Framing, Question, Server};
use world::wires::{Noted, Sent, Wires};

/// An adapter at work over pipes; the test holds their other ends.
struct Bench {
    broker: Arc<Broker>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    ends: Vec<DuplexStream>,
}

impl Bench {
    fn new(link: &str, units: &[u8], wires: usize) -> Bench {
        let broker = Broker::new();
        let (stop, stopped) = watch::channel(false);
        let (ours, ends): (Vec<_>, Vec<_>) = (0..wires).map(|_| tokio::io::duplex(4_096)).unzip();
        let wires = ours.into_iter().map(|wire| Noted { wire, sent: Sent::default() }).collect();
        let bus = config(link, units).check().expect("a good configuration");
        let adapter = Box::new(Modbus::over(bus, Wires(wires)));
        let running = tokio::spawn(adapter.run(broker.clone(), stopped));
        Bench { broker, stop, running, ends }
    }

    /// Serves one end for so long, truly but only for these units.
    async fn serve(&mut self, framing: Framing, units: &[u8], span: Duration) -> Account {
        let decide = |question: &Question| {
            units.contains(&question.unit).then(|| question.truth(framing)).into_iter().collect()
        };
        let end = self.ends.remove(0);
        let take = || world::readings(&self.broker);
        Server { framing, decide, take, polls: u64::MAX, limit: None, span }.serve(end).await
    }

    async fn stop(self) -> Arc<Broker> {
        self.stop.send(true).expect("the adapter listens");
        self.running.await.expect("the adapter ends");
        self.broker
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_device_does_not_stall_the_others() {
    let mut bench = Bench::new(SERIAL, &[3, 4], 1);
    let account = bench.serve(Framing::Rtu, &[3], Duration::from_secs(300)).await;
    let broker = bench.stop().await;
    assert_eq!(account.wrong, [""; 0]);
    let good = account.good.len();
    // Ten a second; three timeouts of half a second and what waits with them are lost once.
    assert!(good >= 2_900, "{good} of 3000");
    let health = broker.health("modbus/line/4").expect("it is reported");
    assert_eq!((health.state, health.reason.as_deref()), (State::Down, Some("no answer")));
    assert_eq!(broker.health("modbus/line/3").map(|health| health.state), Some(State::Up));
    assert!(broker.counter("modbus/line/4", "polls") >= 8, "it is still probed");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_breaks_is_opened_again() {
    for (link, framing) in [(SERIAL, Framing::Rtu), (TCP, Framing::Tcp)] {
        let mut bench = Bench::new(link, &[3], 2);
        let before = bench.serve(framing, &[3], Duration::from_secs(4)).await;
        sleep(Duration::from_millis(100)).await;
        let health = bench.broker.health("modbus/line").expect("it is reported");
        assert_eq!(health.state, State::Down);
        assert!(health.reason.is_some_and(|reason| reason.contains("unexpected end of file")));
        let device = bench.broker.health("modbus/line/3").expect("it is reported");
        assert_eq!((device.state, device.reason.as_deref()), (State::Down, Some("the line is not open")));
        let after = bench.serve(framing, &[3], Duration::from_secs(3)).await;
        let broker = bench.stop().await;
        assert!(
            before.good.len() >= 15 && after.good.len() >= 15,
            "{} {}",
            before.good.len(),
            after.good.len()
        );
        assert_eq!(broker.counter("modbus/line", "opened"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tcp_connection_on_which_nothing_is_heard_is_made_anew() {
    let mut bench = Bench::new(TCP, &[3], 2);
    let first = bench.ends.remove(0);
    let started = Instant::now();
    let mut black_hole = first;
    let mut bytes = [0; 64];
    while timeout(Duration::from_secs(60), black_hole.read(&mut bytes))
        .await
        .expect("it is closed")
        .expect("read")
        > 0
    {}
    assert!(
        started.elapsed() >= Duration::from_millis(3 * 3 * 500),
        "not before late answers had their time"
    );
    let account = bench.serve(Framing::Tcp, &[3], Duration::from_secs(5)).await;
    assert!(account.good.len() >= 30, "{}", account.good.len());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_was_owed_over_a_serial_line_is_waited_for() {
    let started = Instant::now();
    let mut bench = Bench::new(SERIAL, &[3], 1);
    let mut question = [0; 8];
    bench.ends[0].read_exact(&mut question).await.expect("a question");
    assert!(started.elapsed() >= Duration::from_millis(1_500));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_over_a_serial_line_is_owed_after_it_was_opened_again() {
    let mut bench = Bench::new(SERIAL, &[3], 2);
    let mut first = bench.ends.remove(0);
    let mut question = [0; 8];
    first.read_exact(&mut question).await.expect("a question");
    let asked = Instant::now();
    drop(first);
    let mut second = bench.ends.remove(0);
    second.read_exact(&mut question).await.expect("a question");
    assert!(asked.elapsed() >= Duration::from_millis(1_500), "not asked before the late answer had its time");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_modbus_is_left() {
    use tokio::io::AsyncWriteExt;
    let mut bench = Bench::new(TCP, &[3], 1);
    let mut end = bench.ends.remove(0);
    end.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
    sleep(Duration::from_millis(100)).await;
    let reason = bench.broker.health("modbus/line").and_then(|health| health.reason);
    assert!(reason.is_some_and(|reason| reason.contains("does not speak Modbus TCP")));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_adapter_whose_line_cannot_be_opened_says_so_and_stops_when_told() {
    let bench = Bench::new(SERIAL, &[3], 0);
    sleep(Duration::from_secs(60)).await;
    let health = bench.broker.health("modbus/line").expect("it is reported");
    assert_eq!(health.state, State::Down);
    assert_eq!(health.reason.as_deref(), Some("pipe: the test has no more wires"));
    let told = Instant::now();
    bench.stop().await;
    assert!(told.elapsed() < Duration::from_secs(1));
}

fn config(link: &str, units: &[u8]) -> Config {
    let devices: Vec<String> = units
        .iter()
        .map(|unit| {
            let register = u16::from(*unit) * 100;
            format!(
                r#"{{"name": "{unit}", "unit": {unit}, "point":
                    [{{"name": "{register}", "register": "holding:{register}", "type": "u32", "every": "100ms"}}]}}"#
            )
        })
        .collect();
    let devices = devices.join(", ");
    let text = format!(r#"{{"name": "line", {link}, "timeout": "500ms", "device": [{devices}]}}"#);
    serde_json::from_str(&text).expect("a configuration")
}

const SERIAL: &str = r#""serial": {"device": "pipe", "baud": 115200}"#;

const TCP: &str = r#""tcp": "pipe:1""#;
