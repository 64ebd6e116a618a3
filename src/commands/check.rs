//! `tidegate check`: everything that is wrong with the configuration, or what it amounts to.
//!
//! It reads what the service would read, and opens neither the database nor a device.

use super::{ConfigArgs, Failure, say};
use crate::config::{self, Loaded, Refused};

/// Reads the configuration as the service would, and runs nothing.
pub fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = config::load(args.config.as_deref()).map_err(Failure::Configuration)?;
    if !loaded.unready.is_empty() {
        return Err(Failure::Configuration(Refused { wrongs: loaded.unready, warnings: loaded.warnings }));
    }
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    say(&format!("{}\n", summary(&loaded)))
}

fn summary(loaded: &Loaded) -> String {
    let routes: usize =
        loaded.bridges.iter().map(|bridge| bridge.forwards.len() + bridge.receives.len()).sum();
    let mut parts = vec![counted(loaded.listeners.len(), "listener", "listeners")];
    if !loaded.bridges.is_empty() {
        let routes = counted(routes, "route", "routes");
        parts.push(format!("{} with {routes}", counted(loaded.bridges.len(), "bridge", "bridges")));
    }
    for (count, one, many) in [
        (loaded.modbus.len(), "Modbus line", "Modbus lines"),
        (loaded.serial.len(), "serial line", "serial lines"),
        (usize::from(loaded.mqtt_sn.is_some()), "MQTT-SN gateway", "MQTT-SN gateways"),
    ] {
        if count > 0 {
            parts.push(counted(count, one, many));
        }
    }
    let gateway = &loaded.gateway;
    format!("ok: gateway {}, data in {}: {}", gateway.id, gateway.data_dir.display(), parts.join(", "))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
