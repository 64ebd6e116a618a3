//! What no room can see alone: one setting against another room's.
//!
//! A contradiction is refused; what is allowed and perhaps not meant becomes a warning, shown by `check`
//! and at every start.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bytestring::ByteString;

use super::Loaded;
use super::place::Report;
use crate::access::Rules;
use crate::auth::{self, Moment, PasswordFile};
use crate::bridge;
use crate::broker::is_house_user;
use crate::codec::QoS;
use crate::control;
use crate::listener::{self, Bind, Listener};

/// Whether the house's folders are folders, or can be made, and have room for the control socket: what is in the
/// way may go, and the surroundings may have chosen, so it keeps the service from nothing but its store or that socket.
pub(super) fn folders(folders: &[PathBuf; 2], report: &mut Report) {
    let mut told = None;
    for (key, folder) in ["data_dir", "run_dir"].into_iter().zip(folders) {
        let standing = folder.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
        let Some((path, _)) = standing.filter(|(_, metadata)| !metadata.is_dir()) else { continue };
        // Where one folder lies in the other, one file is in the way of both.
        if told.replace(path) != Some(path) {
            let (folder, path) = (folder.display(), path.display());
            report.unready(
                &format!("gateway.{key}"),
                format!("found {folder}, expected a folder: {path} is a file; name another, or move it away"),
            );
        }
    }
    let [_, run_dir] = folders;
    if !control::fits(run_dir) {
        let shown = run_dir.display();
        report.unready(
            "gateway.run_dir",
            format!(
                "found {shown} for the control socket, whose path may have 107 bytes; expected a shorter one"
            ),
        );
    }
}

/// No two listeners may claim one address; what is open to the network is warned of.
pub(super) fn listeners(listeners: &[(String, Listener)], report: &mut Report) {
    for (index, (path, listener)) in listeners.iter().enumerate() {
        if let Some(warning) = listener.warning() {
            report.warn(&format!("{path}.allow_anonymous"), warning);
        }
        let before = listeners.iter().take(index);
        let Some((first, _)) = before.into_iter().find(|(_, other)| collide(&other.bind, &listener.bind))
        else {
            continue;
        };
        let place = report.place(&format!("{first}.bind"));
        report
            .wrong(&format!("{path}.bind"), format!("{} is taken: {place} claims it already", listener.bind));
    }
}

/// Whether the files of TLS can be used. They may come later, as after a mount, so none keeps the service
/// from starting.
pub(super) fn certificates(listeners: &[(String, listener::Config)], report: &mut Report) {
    let wall = adapter_api::clock::wall().millis;
    for (path, listener) in listeners {
        let (flaws, doubts) = listener.examine(wall);
        for flaw in flaws {
            report.unready(&format!("{path}.{}", flaw.key), flaw.text);
        }
        for doubt in doubts {
            report.warn(&format!("{path}.{}", doubt.key), doubt.text);
        }
    }
}

/// No two lines may claim one serial device: each would read what the other was told.
pub(super) fn devices(
    modbus: &[(String, adapter_modbus::Bus)],
    serial: &[(String, adapter_serial::Checked)],
    report: &mut Report,
) {
    let buses = modbus.iter().filter_map(|(path, bus)| match &bus.link {
        adapter_modbus::checked::Link::Serial(line) => {
            Some((format!("{path}.serial.device"), line.device.as_str()))
        }
        adapter_modbus::checked::Link::Tcp(_) => None,
    });
    let lines = serial.iter().map(|(path, line)| (format!("{path}.device"), line.device.as_str()));
    let mut claimed: BTreeMap<&str, String> = BTreeMap::new();
    for (path, device) in buses.chain(lines) {
        if let Some(first) = claimed.get(device) {
            let place = report.place(first);
            report.wrong(&path, format!("{device} is taken: {place} claims it already"));
        } else {
            claimed.insert(device, path);
        }
    }
}

/// What a bridge does with messages and secrets that the operator may not expect.
pub(super) fn bridges(bridges: &[(String, bridge::Checked)], report: &mut Report) {
    for (index, (path, bridge)) in bridges.iter().enumerate() {
        // Two of one name are complained of already.
        let twin =
            bridges.iter().take(index).filter(|(_, other)| other.name != bridge.name).find(|(_, other)| {
                (other.url.host(), other.url.port(), &other.client_id)
                    == (bridge.url.host(), bridge.url.port(), &bridge.client_id)
            });
        if let Some((first, _)) = twin {
            let place = report.place(&format!("{first}.client_id"));
            let (id, url, name) = (&bridge.client_id, &bridge.url, &bridge.name);
            report.wrong(
                &format!("{path}.client_id"),
                format!(
                    "\"{id}\" at {url} is taken: {place} claims it already, and upstream keeps only one of two clients with one id: give each bridge its own client_id, such as \"{{gateway}}-{name}\""
                ),
            );
        }
        let is_idle = bridge.forwards.is_empty() && bridge.receives.is_empty();
        // What was wrong with its routes is told already.
        if is_idle && !["forward", "receive"].iter().any(|key| report.is_blamed(&format!("{path}.{key}"))) {
            report.warn(path, "without [[bridge.forward]] and [[bridge.receive]] it carries nothing");
        }
        let host = bridge.url.host();
        let is_here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if bridge.password_file.is_some() && !bridge.url.is_secure() && !is_here {
            report.warn(
                &format!("{path}.password_file"),
                format!(
                    "the password crosses the network unencrypted to {host}: an mqtts:// URL would hide it"
                ),
            );
        }
        for (index, forward) in bridge.forwards.iter().enumerate() {
            if forward.store && forward.qos == QoS::AtMostOnce {
                report.warn(
                    &format!("{path}.forward[{index}].qos"),
                    "qos = 0 counts a message as delivered when it is written to the socket, so a lost link can lose what was acknowledged",
                );
            }
        }
    }
}

/// Whether the files of bridges can be used, and what they hold stays secret. They may come later, so none
/// keeps the service from starting.
pub(super) fn secrets(bridges: &[(String, bridge::Config)], report: &mut Report) {
    for (path, bridge) in bridges {
        for flaw in bridge.examine() {
            let path = format!("{path}.{}", flaw.key);
            // Only the service is given credentials; whoever checks by hand is not.
            if flaw.may_be_credential {
                report.warn(
                    &path,
                    format!("cannot {}, unless the service is given it as a credential", flaw.trouble),
                );
            } else {
                report.unready(&path, format!("cannot {}", flaw.trouble));
            }
        }
    }
}

/// Whether those who need a password can have one.
pub(super) fn passwords(auth: Option<&auth::Config>, listeners: &[(String, Listener)], report: &mut Report) {
    let Some(auth) = auth else { return };
    match &auth.password_file {
        Some(path) => {
            if let Err(error) = PasswordFile::at(path).refresh(&Moment::default()) {
                let text = format!("cannot {error}, so nobody can log in by password");
                report.warn("auth.password_file", text);
            }
        }
        // A wrong one was meant, and is told already.
        None if report.is_blamed("auth.password_file") => {}
        None => {
            for (path, listener) in listeners.iter().filter(|(_, listener)| listener.wants_passwords()) {
                let text = format!(
                    "nobody can come in at {}: it wants passwords and there is no [auth] password_file",
                    listener.bind
                );
                report.warn(path, text);
            }
        }
    }
}

/// Whether those whom the rules name can come by their names. A certificate can name them too.
pub(super) fn rules(rules: Option<&Rules>, auth: Option<&auth::Config>, report: &mut Report) {
    let unchecked = auth.is_some_and(|auth| auth.password_file.is_none());
    if unchecked && rules.is_some_and(Rules::names_users) && !report.is_blamed("auth.password_file") {
        report.warn(
            "auth.acl_file",
            "it names users and there is no [auth] password_file: a user name that nobody checks counts as none",
        );
    }
}

/// Commands for devices that the rules as they are now let no bridge give.
pub(super) fn commands(loaded: &Loaded, report: &mut Report) {
    for (index, bridge) in loaded.bridges.iter().enumerate() {
        let user = ByteString::from(format!("bridge:{}", bridge.name));
        let access = loaded.rules.as_ref().map(|rules| rules.of_adapter(&user, &user));
        for (route, receive) in bridge.receives.iter().enumerate() {
            let landing = loaded.set_topics().into_iter().find_map(|topics| receive.lands_on(&topics));
            let Some(landing) = landing else { continue };
            let may = match &access {
                // Which of many topics a message will be for is not known here.
                Some(access) => landing.contains(['+', '#']) || access.may_set(&landing),
                None => false,
            };
            if !may {
                report.warn(
                    &format!("bridge[{index}].receive[{route}].to"),
                    format!(
                        "what comes as {landing} is denied: a device is written only by who has a line for its set topic in [auth] acl_file, here \"user {user}\" and \"topic write {landing}\""
                    ),
                );
            }
        }
    }
}

/// Names by which access rules know the house and its adapters are not for sensors.
pub(super) fn users(mqtt_sn: Option<&adapter_mqtt_sn::Checked>, report: &mut Report) {
    let Some(user) = mqtt_sn.and_then(|mqtt_sn| mqtt_sn.user.as_deref()) else { return };
    if is_house_user(user) {
        report.wrong(
            "mqtt_sn.user",
            format!("found \"{user}\", which is a name of tidegate's own: choose another"),
        );
    }
}

/// Whether the kernel would refuse the second of the two.
fn collide(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Unix(one), Bind::Unix(other)) => one == other,
        (Bind::Tcp(one), Bind::Tcp(other)) => {
            let wild = |address: &SocketAddr| address.ip().is_unspecified();
            let same_family = one.is_ipv4() == other.is_ipv4();
            // Port 0 takes a free port each time.
            one.port() != 0
                && one.port() == other.port()
                && same_family
                && (one.ip() == other.ip() || wild(one) || wild(other))
        }
        _ => false,
    }
}
