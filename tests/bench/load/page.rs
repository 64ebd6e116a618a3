//! The results as one page that needs nothing else: tables, and bars on a scale of powers of ten.
//!
//! It says on what machine and with what versions it was measured, and the command that measures again.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::brokers::MEMORY_FOR_FILTERS;
use super::results::{Results, counted, shown, times};
use super::rows::Part;
use crate::stand::figure_in;

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>tidegate: what a message costs</title>\n<style>{STYLE}</style>\n<h1>tidegate: what a message costs</h1>\n"
    );
    let _ = writeln!(
        page,
        "<p>Medians of {} in turns{}, with the least and the most; lines on the bars show the same. \
         Processor time is the broker's own, as the kernel counts it; with the generator's nothing is left out that one \
         side's time may pay for the other. Every message that is for somebody was checked, its topic, properties and \
         payload; where a session is away, it comes for them in the end. A run in which one was lost, doubled, \
         reordered on its topic or changed is void and has no figures. What was acknowledged at QoS 1 to nobody cannot \
         be checked, since nobody receives it.</p>\n\
         <p>tidegate runs as shipped, with the settings of its service, save for <code>max_memory = \"{}\"</code> at \
         100,000 filters, which also gives more room to what it remembers of topics, and \
         <code>max_queued_messages</code> and <code>max_queued_bytes</code> where a session is away. mosquitto has no \
         limit to its queues; no <code>max_inflight_messages</code> and no persistence where messages go from one client \
         to another, the latter also by the clock and idle; <code>set_tcp_nodelay</code> where acknowledgements \
         are timed, and by the clock. \u{201c}mosquitto, saving\u{201d} writes its whole database after each change \
         (<code>autosave_interval 1</code>, <code>autosave_on_changes true</code>): as durable as it can be made. The \
         floor copies bytes between clients and is no broker: one thread, topics looked up, no session, no check.</p>\n\
         <p>In the tables of messages a publisher sends on once half of what it may have under way has arrived, and the \
         generator looks at what has come a little later than it could, so that a broker reads much at once; throughput \
         is therefore what both together do. Where acknowledgements are timed, it looks at once. The first half second of a \
         flow is not measured, nor the first two seconds among filters, in which tidegate gets to know the topics.</p>",
        counted(results.rounds()),
        if results.is_short() { ", of fewer where it is said" } else { "" },
        MEMORY_FOR_FILTERS
    );
    let _ = writeln!(page, "<pre>{}</pre>", escaped(&circumstances()));
    for part in Part::ALL {
        let takers = results.takers(part);
        if takers.is_empty() {
            continue;
        }
        let figures = part.figures();
        let _ = writeln!(page, "<h2>{}</h2>", part.title());
        let _ = writeln!(page, "<p>{}, {}:</p>", figures[0].name, figures[0].unit);
        for broker in results.unable(part) {
            let _ = writeln!(page, "<p>{} cannot do this here.</p>", escaped(broker));
        }
        drawing(&mut page, results, part, &takers);
        table(&mut page, results, part, &takers);
    }
    let faults: Vec<String> = results.brokers.iter().flat_map(|broker| results.faults(broker)).collect();
    if !faults.is_empty() {
        let _ = writeln!(page, "<h2>Void runs</h2>\n<pre>{}</pre>", escaped(&faults.join("\n")));
    }
    page
}

/// Machine, versions, date, and how to measure again.
fn circumstances() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown");
        line.trim_matches(['\t', ' ', ':', '=', '"']).to_string()
    };
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.and_then(|text| text.lines().next().map(String::from)).unwrap_or("unknown".into())
    };
    let processor = read("/proc/cpuinfo");
    let cores = processor.lines().filter(|line| line.starts_with("processor")).count();
    let memory = figure_in(&read("/proc/meminfo"), "MemTotal").unwrap_or(0);
    let asked: String = ["ROWS", "ROUNDS", "SECS", "BESIDE"]
        .iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| format!(" {name}='{value}'")))
        .collect();
    format!(
        "measured {}\nmachine  {cores} cores {}, {} MB of memory, {}, Linux {}\ndisk     {}\nbrokers  tidegate {} ({}); {}\nagain    make bench{asked}",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        after(&processor, "model name"),
        memory / 1_024,
        after(&read("/etc/os-release"), "PRETTY_NAME"),
        read("/proc/sys/kernel/osrelease").trim(),
        said("findmnt", &["-no", "FSTYPE,SOURCE", "-T", "target/bench"]),
        env!("CARGO_PKG_VERSION"),
        said("git", &["describe", "--always", "--dirty"]),
        said("/usr/sbin/mosquitto", &["-h"]),
    )
}

/// A bar for each row and broker, of the part's first figure.
fn drawing(page: &mut String, results: &Results, part: Part, takers: &[usize]) {
    let middles = |row: usize| takers.iter().map(move |broker| (*broker, results.middle(row, *broker, 0)));
    let all: Vec<[f64; 3]> =
        results.rows_of(part).flat_map(|row| middles(row).filter_map(|(_, middle)| middle)).collect();
    let positive = || all.iter().flatten().copied().filter(|figure| *figure > 0.0);
    if positive().next().is_none() {
        return;
    }
    // From the power of ten below the least to the one above the most.
    let low = positive().fold(f64::MAX, f64::min).log10().floor();
    let high = positive().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let across = |figure: f64| LEFT + (figure.max(10f64.powf(low)).log10() - low) / (high - low) * WIDTH;
    let rows: Vec<usize> = results.rows_of(part).collect();
    let each = BAR * takers.len() as f64 + GAP;
    let bottom = each * rows.len() as f64;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {} {}\" role=\"img\">", LEFT + WIDTH + 80.0, bottom + 40.0);
    for power in low as i32..=high as i32 {
        let x = across(10f64.powi(power));
        let _ = writeln!(
            page,
            "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom}\" class=\"grid\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 14.0,
            tick(power)
        );
    }
    for (place, row) in rows.iter().enumerate() {
        let top = each * place as f64 + GAP / 2.0;
        let middle = top + (each - GAP) / 2.0 + 4.0;
        let _ = writeln!(
            page,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            results.rows[*row].title
        );
        for (index, (broker, figures)) in middles(*row).enumerate() {
            let Some([figure, least, most]) = figures else { continue };
            let (y, end) = (top + BAR * index as f64, across(figure));
            let (from, to, line) = (across(least), across(most), y + BAR / 2.0 - 0.5);
            let _ = writeln!(
                page,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" class=\"b{broker}\"/><line x1=\"{from:.1}\" y1=\"{line:.1}\" x2=\"{to:.1}\" y2=\"{line:.1}\" class=\"range\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                (end - LEFT).max(1.0),
                BAR - 1.0,
                end.max(to) + 4.0,
                y + BAR - 3.0,
                shown(figure)
            );
        }
    }
    for (index, broker) in takers.iter().enumerate() {
        let x = LEFT + 160.0 * index as f64;
        let _ = writeln!(
            page,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" class=\"b{broker}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            bottom + 24.0,
            x + 18.0,
            bottom + 34.0,
            escaped(&results.brokers[*broker])
        );
    }
    page.push_str("</svg>\n");
}

fn tick(power: i32) -> String {
    let decimals = usize::try_from(-power).unwrap_or(0);
    if power > 3 {
        format!("10<tspan dy=\"-4\" font-size=\"8\">{power}</tspan>")
    } else {
        format!("{:.decimals$}", 10f64.powi(power))
    }
}

/// Every figure of the part, with its range and its ratio to the first broker's.
fn table(page: &mut String, results: &Results, part: Part, takers: &[usize]) {
    page.push_str("<table>\n<tr><th></th>");
    takers.iter().for_each(|broker| _ = write!(page, "<th>{}</th>", escaped(&results.brokers[*broker])));
    page.push_str("</tr>\n");
    for (number, figure) in part.figures().iter().enumerate() {
        let _ = writeln!(
            page,
            "<tr><td class=\"figure\" colspan=\"{}\">{}, {}</td></tr>",
            takers.len() + 1,
            figure.name,
            figure.unit
        );
        for row in results.rows_of(part) {
            let _ = write!(page, "<tr><td>{}</td>", results.rows[row].title);
            for broker in takers {
                let short = results.short(row, *broker);
                let short = short.map(|sound| format!("{sound} of {} rounds", results.rounds()));
                let Some([middle, least, most]) = results.middle(row, *broker, number) else {
                    let short = short.map_or(String::new(), |short| format!("<small>{short}</small>"));
                    let _ = write!(page, "<td>–{short}</td>");
                    continue;
                };
                let short = short.map_or(String::new(), |short| format!(", {short}"));
                let ratio = results.ratio(row, *broker, number);
                let ratio = ratio.map_or(String::new(), |found| format!(" <b>×{}</b>", times(found)));
                let (middle, least, most) = (shown(middle), shown(least), shown(most));
                let _ = write!(page, "<td>{middle}{ratio}<small>{least} to {most}{short}</small></td>");
            }
            page.push_str("</tr>\n");
        }
    }
    page.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const LEFT: f64 = 220.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 12.0;
const GAP: f64 = 8.0;
const STYLE: &str = "
body { font: 15px/1.4 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
svg { width: 100%; font: 11px sans-serif }
.grid { stroke: #ddd } .range { stroke: #000; stroke-opacity: .6 }
.b0 { fill: #8a8f98 } .b1 { fill: #c3a46b } .b2 { fill: #1f77b4 } .b3 { fill: #9ccb8a } .b4 { fill: #d98cb3 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #eee }
td:first-child { text-align: left } .figure { font-weight: bold; padding-top: .8rem }
small { display: block; color: #777 } pre { background: #f5f5f5; padding: .6rem; overflow-x: auto }
";
