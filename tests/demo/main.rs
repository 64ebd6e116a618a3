//! The demo: simulated devices, the gateway, and a cloud whose link drops every so often.
//!
//! `make run` starts it. A Modbus meter, a scale on a serial line and an MQTT-SN sensor are simulated;
//! the gateway is the real program; the cloud is Debian's mosquitto over TLS behind a link that opens
//! and closes. On a terminal it runs until Ctrl-C; without one it shows two outages and ends by itself.
//! Both end with what was received and delivered, per route.

#![allow(unreachable_pub, reason = "nothing is reached from outside a program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a demo that breaks should say where")]

#[path = "../stand/mod.rs"]
mod stand;

mod devices;
mod screen;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devices::{Meter, Scale, Sensor};
use screen::Screen;
use stand::{Certificates, Cloud, Gateway, Link, Proxy, Security, monotonic};

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::args().nth(1).unwrap_or_else(|| "target/release/tidegate".into());
    let authority = Certificates::new(folder.path(), "authority");
    let cloud = Cloud::start(folder.path(), &Security::Tls(&authority.server("cloud.example")));
    let proxy = Proxy::start(cloud.port, Link::Open);
    let meter = Meter::start();
    let scale = Scale::start(folder.path());
    let sensor_port = stand::free_udp_port();
    let configuration = include_str!("../../config/demo.toml")
        .replace("@CLOUD@", &format!("127.0.0.1:{}", proxy.port))
        .replace("@CA@", &authority.ca().to_string_lossy())
        .replace("@METER@", &format!("127.0.0.1:{}", meter.port))
        .replace("@SCALE@", &scale.wire.device.to_string_lossy())
        .replace("@SENSOR@", &format!("127.0.0.1:{sensor_port}"));
    let mut gateway = Gateway::start(Path::new(&program), &folder.path().join("gateway"), &configuration);
    let _sensor = Sensor::start(sensor_port);

    let interrupted = on_interrupt();
    let mut screen = Screen::start(&cloud, gateway.port());
    let outages = if screen.is_terminal() { u32::MAX } else { 2 };
    for outage in 1..=outages {
        phase(&mut screen, &gateway, "the link is up", Duration::from_secs(6), &interrupted);
        proxy.set(Link::Closed);
        phase(
            &mut screen,
            &gateway,
            &format!("outage {outage}: the link is down"),
            Duration::from_secs(10),
            &interrupted,
        );
        proxy.set(Link::Open);
        drain(&mut screen, &gateway, &interrupted);
        if interrupted.load(Ordering::SeqCst) {
            break;
        }
    }
    proxy.set(Link::Open);
    screen.end(&gateway);
    gateway.stop();
}

/// Shows what comes for so long.
fn phase(screen: &mut Screen, gateway: &Gateway, what: &str, span: Duration, interrupted: &AtomicBool) {
    screen.headline(what);
    let start = monotonic();
    while start.elapsed() < span && !interrupted.load(Ordering::SeqCst) {
        screen.show(gateway);
    }
}

/// Shows the backlog going down until it is empty.
fn drain(screen: &mut Screen, gateway: &Gateway, interrupted: &AtomicBool) {
    screen.headline("the link is back: the backlog drains");
    let start = monotonic();
    while screen.show(gateway) > screen::UNDER_WAY
        && start.elapsed() < stand::HANG
        && !interrupted.load(Ordering::SeqCst)
    {}
}

fn on_interrupt() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let set = interrupted.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            set.store(true, Ordering::SeqCst);
        }
    });
    interrupted
}
