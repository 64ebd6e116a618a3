//! The adapters of the configuration, each as a task.
//!
//! They end when `stop` turns true; one that ends by itself is an error of ours, and is said.

use std::sync::Arc;

use adapter_api::{Adapter, Host};
use tokio::sync::watch;

use super::tasks::Tasks;
use crate::config::Loaded;
use crate::record::Message;

/// Every configured adapter, ready to run.
pub(super) fn adapters(loaded: &Loaded) -> Vec<Box<dyn Adapter>> {
    let modbus = loaded.modbus.iter().cloned().map(adapter_modbus::adapter);
    let serial = loaded.serial.iter().cloned().map(adapter_serial::adapter);
    let mqtt_sn = loaded.mqtt_sn.iter().cloned().map(adapter_mqtt_sn::adapter);
    modbus.chain(serial).chain(mqtt_sn).collect()
}

/// Topics under which an earlier run has left the state of a part that is no longer configured.
pub(super) fn stale_states(loaded: &Loaded, retained: &[Arc<Message>]) -> Vec<String> {
    let is_configured = |path: &str| {
        let mut parts = path.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("modbus"), Some(bus), device) => loaded.modbus.iter().any(|found| {
                found.name == bus
                    && device.is_none_or(|name| found.devices.iter().any(|device| device.name == name))
            }),
            (Some("serial"), Some(line), None) => loaded.serial.iter().any(|found| found.name == line),
            (Some("bridge"), Some(name), None) => loaded.bridges.iter().any(|found| found.name == name),
            (Some("mqtt-sn"), None, None) => loaded.mqtt_sn.is_some(),
            _ => false,
        }
    };
    let path = |topic: &str| Some(topic.strip_prefix("tidegate/")?.strip_suffix("/state")?.to_owned());
    let stale =
        retained.iter().filter(|message| path(&message.topic).is_some_and(|path| !is_configured(&path)));
    stale.map(|message| message.topic.to_string()).collect()
}

/// Starts them.
pub(super) fn start(
    adapters: Vec<Box<dyn Adapter>>,
    host: &Arc<dyn Host>,
    stop: &watch::Receiver<bool>,
    tasks: &mut Tasks,
) {
    for adapter in adapters {
        let name = adapter.name();
        let (run, stop) = (adapter.run(host.clone(), stop.clone()), stop.clone());
        tasks.start(name.clone(), async move {
            run.await;
            if !*stop.borrow() {
                tracing::error!(adapter = name, "an adapter has ended by itself");
            }
        });
    }
}
