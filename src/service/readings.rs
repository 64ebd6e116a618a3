//! The adapters of the configuration, each as a task.
//!
//! They end when `stop` turns true; one that ends by itself is an error of ours, and is said.

use std::sync::Arc;

use adapter_api::{Adapter, Host};
use bytestring::ByteString;
use tokio::sync::watch;

use super::tasks::Tasks;
use crate::config::Loaded;

/// Every configured adapter, ready to run.
pub(super) fn adapters(loaded: &Loaded) -> Vec<Box<dyn Adapter>> {
    let modbus = loaded.modbus.iter().cloned().map(adapter_modbus::adapter);
    let serial = loaded.serial.iter().cloned().map(adapter_serial::adapter);
    let mqtt_sn = loaded.mqtt_sn.iter().cloned().map(adapter_mqtt_sn::adapter);
    modbus.chain(serial).chain(mqtt_sn).collect()
}

/// Filters of the topics on which adapters take what is to be written to a device.
pub(super) fn set_topics(loaded: &Loaded) -> Vec<ByteString> {
    let modbus = loaded.modbus.iter().map(|bus| format!("modbus/{}/+/+/set", bus.name));
    let serial = loaded.serial.iter().map(|line| format!("{}/set", line.topic));
    modbus.chain(serial).map(ByteString::from).collect()
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
