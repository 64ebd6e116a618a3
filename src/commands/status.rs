//! `tidegate status`: what the running service says of itself, as a table or as JSON.
//!
//! JSON is passed on as it came, with what a newer service may say besides; the table shows what it knows.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use adapter_api::units::{show_duration, show_size};
use clap::Args;

use super::{ConfigArgs, Failure, say};
use crate::config;
use crate::control::{self, Ask, BridgeStatus, Conservation, GoneRoute, Status};

/// `tidegate status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The folder of the service's control socket, instead of the one that the configuration names
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub run_dir: Option<PathBuf>,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Asks the service and prints what it says.
pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    let run_dir = match &args.run_dir {
        Some(run_dir) => run_dir.clone(),
        None => config::run_dir(args.config.config.as_deref()).map_err(Failure::Configuration)?,
    };
    let answer = control::ask(&run_dir, Ask::Status).map_err(Failure::failed)?;
    if args.json {
        return say(&format!("{answer:#}\n"));
    }
    let status: Status =
        serde_json::from_value(answer).map_err(|_| Failure::failed(control::AskError::Nonsense))?;
    say(&render(&status, adapter_api::clock::wall().millis))
}

/// The table; `now` in milliseconds since 1970.
pub fn render(status: &Status, now: u64) -> String {
    let mut out = String::new();
    let up = age(Duration::from_secs(status.uptime_s));
    // Writing to a String does not fail.
    let _ = writeln!(out, "{}  tidegate {}, up {up}", status.gateway, status.version);
    for warning in &status.warnings {
        let _ = writeln!(out, "  ! {warning}");
    }
    render_local(status, &mut out);
    render_bridges(status, now, &mut out);
    render_routes(status, &mut out);
    // What bridges report like adapters do stands above already.
    let parts = || status.adapters.iter().filter(|(path, _)| !path.starts_with("bridge/"));
    if parts().next().is_some() {
        let _ = writeln!(out, "adapters");
        let width = widest(parts().map(|(path, _)| path));
        for (path, part) in parts() {
            let since = since(part.since, now);
            let reason = part.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let _ =
                writeln!(out, "  {path:width$}  {}{since}{reason}{}", part.state, counters(&part.counters));
        }
    }
    out
}

fn render_local(status: &Status, out: &mut String) {
    let _ = writeln!(out, "listeners");
    let width = widest(status.listeners.iter().map(|listener| &listener.name));
    for listener in &status.listeners {
        let word = if listener.open { "TROUBLE" } else { "NOT OPEN" };
        let error = listener.error.as_ref().map(|error| format!("  {word}: {error}")).unwrap_or_default();
        let _ = writeln!(out, "  {:width$}  {}{error}", listener.name, listener.address);
    }
    let broker = &status.broker;
    let _ = writeln!(
        out,
        "broker\n  clients {}, sessions {}, subscriptions {}, retained {}, messages in {}, out {}",
        broker.clients,
        broker.sessions,
        broker.subscriptions,
        broker.retained,
        broker.messages_received,
        broker.messages_sent
    );
    for (part, reason) in &broker.turned_away {
        let _ = writeln!(out, "  TROUBLE: {part} is not let in: {reason}");
    }
    let _ = match &status.store {
        Some(store) => writeln!(
            out,
            "store\n  {} of {}{}, {} commits, {} written{}{}",
            size(store.size),
            size(store.max_size),
            if store.full { ", FULL" } else { "" },
            store.commits,
            size(store.written),
            match &store.put_aside_as {
                None => String::new(),
                Some(path) => format!("\n  DAMAGED before: {} put aside, {path}", size(store.put_aside)),
            },
            store.trouble.as_ref().map(|trouble| format!("\n  TROUBLE: {trouble}")).unwrap_or_default()
        ),
        None => writeln!(out, "store\n  TROUBLE: it does not answer"),
    };
}

fn render_bridges(status: &Status, now: u64, out: &mut String) {
    if !status.bridges.is_empty() {
        let _ = writeln!(out, "bridges");
    }
    let width = widest(status.bridges.iter().map(|bridge| &bridge.name));
    for bridge in &status.bridges {
        let (name, state, url) = (&bridge.name, &bridge.state, &bridge.url);
        let since = since(bridge.since, now);
        let _ = writeln!(out, "  {name:width$}  {state}{since} {url}{}", trouble(bridge, now));
        let counts = &bridge.counts;
        let _ = writeln!(
            out,
            "  {:width$}  sent {}, acknowledged {}, in flight {}, received {}, connects {}, failures {}",
            "",
            counts.sent,
            counts.acknowledged,
            counts.in_flight,
            counts.received,
            counts.connects,
            counts.failures
        );
        let amiss = [
            ("refused for now", counts.refused_for_now),
            ("given up", counts.given_up),
            ("received and too large", counts.too_large),
            ("received for no route", counts.unrouted),
            ("received and denied", counts.denied),
        ];
        let amiss = amiss.iter().filter(|(_, count)| *count > 0);
        let amiss: Vec<String> = amiss.map(|(what, count)| format!("{what} {count}")).collect();
        if !amiss.is_empty() {
            let _ = writeln!(out, "  {:width$}  {}", "", amiss.join(", "));
        }
        for subscription in
            bridge.subscriptions.iter().filter(|subscription| subscription.answer != "granted")
        {
            let _ = writeln!(out, "  {:width$}  {}: {}", "", subscription.filter, subscription.answer);
        }
    }
}

fn render_routes(status: &Status, out: &mut String) {
    if !status.routes.is_empty() {
        let _ = writeln!(out, "routes");
    }
    let width = widest(status.routes.iter().map(|route| &route.name));
    for route in &status.routes {
        if route.unknown {
            let _ = writeln!(out, "  {:width$}  not known: the store does not answer", route.name);
            continue;
        }
        let refused = match (route.not_accepted, route.full) {
            (0, false) => String::new(),
            (0, true) => "; FULL".to_owned(),
            (count, full) => format!("; refused {count}{}", if full { ", FULL" } else { "" }),
        };
        let _ = writeln!(out, "  {:width$}  {}", route.name, sums(&route.line(), &refused));
    }
    // Of one that had nothing left nobody misses anything; it stands in the JSON.
    let lost = |route: &&GoneRoute| route.line.queued > 0 || route.line.dropped.contains_key("purged");
    let gone: Vec<&GoneRoute> = status.routes_gone.iter().filter(lost).collect();
    if !gone.is_empty() {
        let _ = writeln!(out, "routes gone");
    }
    let width = widest(gone.iter().map(|route| &route.name));
    for route in gone {
        let _ = writeln!(out, "  {:width$}  {}", route.name, sums(&route.line, ""));
    }
}

/// A conservation line, and what else is to be said of its reader.
fn sums(line: &Conservation, more: &str) -> String {
    let reasons: Vec<String> =
        line.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let wrong = if line.is_conserved() { "" } else { "  DOES NOT ADD UP" };
    let Conservation { received, delivered, queued, expired, .. } = line;
    let dropped = line.dropped_in_all();
    format!(
        "received {received} = delivered {delivered} + queued {queued} + expired {expired} + dropped {dropped}{reasons}{more}{wrong}"
    )
}

/// Why a bridge is not connected, and when it is tried again.
fn trouble(bridge: &BridgeStatus, now: u64) -> String {
    let reason = bridge.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let wait = bridge.next_attempt.and_then(|next| millis(next).checked_sub(now));
    let next =
        wait.map(|wait| format!("; next try in {}", age(Duration::from_millis(wait)))).unwrap_or_default();
    reason + &next
}

/// The counters that have counted; all of them stand in the JSON.
fn counters(value: &serde_json::Value) -> String {
    let pairs = value.as_object().into_iter().flatten().filter(|(_, value)| value.as_u64() != Some(0));
    let shown: Vec<String> = pairs.map(|(name, value)| format!("{name} {value}")).collect();
    if shown.is_empty() { String::new() } else { format!("  [{}]", shown.join(", ")) }
}

fn widest<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

/// ` for 3h`; nothing where no time is given.
fn since(since: f64, now: u64) -> String {
    match millis(since) {
        0 => String::new(),
        since => format!(" for {}", age(Duration::from_millis(now.saturating_sub(since)))),
    }
}

/// A time in milliseconds; 0 where it is none.
fn millis(seconds: f64) -> u64 {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    u64::try_from((time + Duration::from_micros(500)).as_millis()).unwrap_or(0)
}

/// A duration in the largest unit of which it has at least two.
fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = [86_400, 3_600, 60].into_iter().find(|unit| seconds >= 2 * unit).unwrap_or(1);
    if seconds == 0 { "0s".to_owned() } else { show_duration(Duration::from_secs(seconds / unit * unit)) }
}

/// A size in the largest unit of which it has at least ten.
fn size(bytes: u64) -> String {
    let unit = [1_000_000_000, 1_000_000, 1_000].into_iter().find(|unit| bytes >= 10 * unit).unwrap_or(1);
    show_size(bytes / unit * unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_plain_lines() {
        let status: Status = serde_json::from_value(json!({
            "version": "0.1.0", "gateway": "barn-7", "uptime_s": 7_300,
            "listeners": [
                {"name": "lan", "address": "0.0.0.0:1883"},
                {"name": "x", "address": "192.0.2.1:1883", "error": "address not available"},
                {"name": "tls", "address": "0.0.0.0:8883", "open": true, "error": "cannot use a.pem: no"},
            ],
            "broker": {"clients": 2, "sessions": 3, "subscriptions": 4, "retained": 5,
                "messages_received": 100, "messages_sent": 90, "invented_later": 1,
                "turned_away": {"bridge:cloud": "client identifier not valid"}},
            "store": {"size": 12_345_678, "max_size": 1_000_000_000, "commits": 7, "written": 900, "put_aside": 3_000_000,
                "put_aside_as": "/var/lib/tidegate/tidegate.db.damaged-000000000001"},
            "bridges": [{"name": "cloud", "state": "down", "since": 1.0, "next_attempt": 304.25,
                "reason": "cannot connect: no route to host", "url": "mqtts://cloud.example.com:8883",
                "subscriptions": [{"filter": "a/#", "answer": "granted"}, {"filter": "b", "answer": "not authorized"}],
                "counts": {"sent": 9, "acknowledged": 8, "connects": 3, "failures": 2}}],
            "routes": [{"name": "cloud:sensors/#", "bridge": "cloud", "received": 10, "delivered": 5,
                "queued": 2, "expired": 1, "dropped": {"full": 2}}],
            "adapters": {"modbus/line-1/meter": {"state": "up", "since": 0, "counters": {"polls": 7, "late": 0}}},
        }))
        .expect("a status");
        let expected = "\
barn-7  tidegate 0.1.0, up 2h
listeners
  lan  0.0.0.0:1883
  x    192.0.2.1:1883  NOT OPEN: address not available
  tls  0.0.0.0:8883  TROUBLE: cannot use a.pem: no
broker
  clients 2, sessions 3, subscriptions 4, retained 5, messages in 100, out 90
  TROUBLE: bridge:cloud is not let in: client identifier not valid
store
  12MB of 1GB, 7 commits, 900B written
  DAMAGED before: 3MB put aside, /var/lib/tidegate/tidegate.db.damaged-000000000001
bridges
  cloud  down for 5m mqtts://cloud.example.com:8883: cannot connect: no route to host; next try in 3s
         sent 9, acknowledged 8, in flight 0, received 0, connects 3, failures 2
         b: not authorized
routes
  cloud:sensors/#  received 10 = delivered 5 + queued 2 + expired 1 + dropped 2 (full 2)
adapters
  modbus/line-1/meter  up  [polls 7]
";
        assert_eq!(render(&status, 301_000), expected);
    }

    #[test]
    fn what_goes_amiss_on_a_bridge_is_counted_in_plain_words() {
        let counts = control::BridgeCounts { refused_for_now: 3, unrouted: 2, ..Default::default() };
        let bridge = BridgeStatus { name: "cloud".to_owned(), counts, ..Default::default() };
        let told = render(&Status { bridges: vec![bridge], ..Status::default() }, 0);
        assert!(told.contains("\n         refused for now 3, received for no route 2\n"), "{told}");
    }

    #[test]
    fn a_route_that_does_not_add_up_says_so() {
        let route = control::RouteStatus { name: "r".to_owned(), received: 2, ..Default::default() };
        let status = Status { routes: vec![route], ..Status::default() };
        assert!(render(&status, 0).contains("DOES NOT ADD UP"));
    }

    #[test]
    fn figures_that_nobody_knows_are_not_told_as_zeros() {
        let route = control::RouteStatus { name: "r".to_owned(), unknown: true, ..Default::default() };
        let told = render(&Status { routes: vec![route], ..Status::default() }, 0);
        assert!(told.contains("  r  not known: the store does not answer\n"), "{told}");
    }

    #[test]
    fn what_is_full_and_what_was_refused_is_said() {
        let route = control::RouteStatus {
            name: "r".to_owned(),
            received: 2,
            queued: 2,
            not_accepted: 7,
            full: true,
            ..Default::default()
        };
        let store =
            control::StoreFigures { size: 20, max_size: 30, full: true, ..control::StoreFigures::default() };
        let told = render(&Status { routes: vec![route], store: Some(store), ..Status::default() }, 0);
        assert!(told.contains("20B of 30B, FULL, 0 commits"), "{told}");
        assert!(told.contains("queued 2 + expired 0 + dropped 0; refused 7, FULL\n"), "{told}");
    }

    #[test]
    fn a_route_that_drops_what_comes_is_full_though_it_refuses_nothing() {
        let route = control::RouteStatus { name: "r".to_owned(), full: true, ..Default::default() };
        let told = render(&Status { routes: vec![route], ..Status::default() }, 0);
        assert!(told.contains(" + dropped 0; FULL\n"), "{told}");
    }

    #[test]
    fn what_a_route_of_before_still_had_is_told() {
        let gone: Vec<GoneRoute> = serde_json::from_value(json!([
            {"name": "cloud:old/#", "received": 5, "delivered": 2, "dropped": {"purged": 3}},
            {"name": "cloud:done/#", "received": 5, "delivered": 5},
        ]))
        .expect("two routes");
        let told = render(&Status { routes_gone: gone, ..Status::default() }, 0);
        let line = "received 5 = delivered 2 + queued 0 + expired 0 + dropped 3 (purged 3)";
        assert!(told.ends_with(&format!("routes gone\n  cloud:old/#  {line}\n")), "{told}");
    }

    #[test]
    fn ages_and_sizes_are_rounded_down() {
        assert_eq!(age(Duration::from_secs(119)), "119s");
        assert_eq!(age(Duration::from_secs(121)), "2m");
        assert_eq!(age(Duration::from_secs(200_000)), "2d");
        assert_eq!(age(Duration::ZERO), "0s");
        assert_eq!(size(9_999), "9999B");
        assert_eq!(size(19_999), "19KB");
    }
}
