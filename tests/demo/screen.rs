//! What the demo shows.
//!
//! Readings as the cloud gets them, the backlog of each route, and at the end the conservation line.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;
use tidegate::codec::{Packet, QoS};

use crate::stand::{Client, Cloud, Gateway, HANG, Options, monotonic};

/// The terminal or the plain lines.
pub struct Screen {
    terminal: bool,
    cloud: Client,
    arrived: u64,
    shown: u64,
}

impl Screen {
    /// Subscribes in the cloud.
    pub fn start(cloud: &Cloud, local_port: u16) -> Screen {
        let mut client = Client::connect(cloud.inside, &Options::kept("screen"));
        client.subscribe("sites/#", QoS::AtLeastOnce);
        println!(
            "The gateway's broker is on 127.0.0.1:{local_port}, the cloud on 127.0.0.1:{}.",
            cloud.inside
        );
        println!("Watch them with: mosquitto_sub -p PORT -t '#' -v\n");
        Screen { terminal: std::io::stdout().is_terminal(), cloud: client, arrived: 0, shown: 0 }
    }

    /// Whether somebody watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Begins a part.
    pub fn headline(&mut self, what: &str) {
        if self.terminal {
            println!("\r\x1b[K\n\x1b[1m{what}\x1b[0m");
        } else {
            println!("-- {what}");
        }
        self.shown = 0;
    }

    /// Shows what came within half a second, and gives the backlog.
    pub fn show(&mut self, gateway: &Gateway) -> u64 {
        let start = monotonic();
        let mut newest = None;
        while let Some(left) =
            Duration::from_millis(500).checked_sub(start.elapsed()).filter(|left| !left.is_zero())
        {
            if let Ok(Some(Packet::Publish(publish))) = self.cloud.next_within(left) {
                self.cloud.acknowledge(&publish);
                self.arrived += 1;
                newest = Some(publish);
            }
        }
        if let Some(publish) = newest.filter(|_| self.shown < READINGS_SHOWN) {
            self.shown += 1;
            self.line(&format!("   cloud: {} {}", publish.topic, String::from_utf8_lossy(&publish.payload)));
        }
        let status = gateway.status();
        let backlog = queued(&status);
        let state = status["bridges"][0]["state"].as_str().unwrap_or("?").to_string();
        let text = format!("   uplink {state}, backlog {backlog}, arrived in the cloud {}", self.arrived);
        if self.terminal {
            print!("\r\x1b[K{text}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}");
        }
        backlog
    }

    /// The conservation line of each route; the devices go on, so a few readings may be on their way.
    pub fn end(&mut self, gateway: &Gateway) {
        self.headline("in the end");
        let start = monotonic();
        while self.show(gateway) > UNDER_WAY && start.elapsed() < HANG {}
        println!();
        for route in gateway.status()["routes"].as_array().into_iter().flatten() {
            let dropped: u64 =
                route["dropped"].as_object().map_or(0, |by| by.values().filter_map(Value::as_u64).sum());
            println!(
                "route {}: received {} = delivered {} + queued {} + expired {} + dropped {dropped}",
                route["name"].as_str().unwrap_or("?"),
                route["received"],
                route["delivered"],
                route["queued"],
                route["expired"],
            );
        }
        println!("the gateway's resident memory: {} KB", gateway.resident());
    }

    fn line(&self, text: &str) {
        if self.terminal { println!("\r\x1b[K{text}") } else { println!("{text}") }
    }
}

fn queued(status: &Value) -> u64 {
    let routes = status["routes"].as_array().into_iter().flatten();
    routes.filter_map(|route| route["queued"].as_u64()).sum()
}

/// A backlog that is no backlog: readings that have just come.
pub const UNDER_WAY: u64 = 4;

/// Readings that one part shows, so that the backlog stays in view.
const READINGS_SHOWN: u64 = 8;
