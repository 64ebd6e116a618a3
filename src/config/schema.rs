//! The whole configuration as one schema, put together from the tables of the rooms.
//!
//! A room or adapter is plugged in by one row here and one line in [`super::check`].

use adapter_api::schema::{Key, Kind};

use super::gateway;
use crate::{auth, bridge, broker, journal, listener, store};

/// The keys at the root of the file.
pub const ROOT: &[Key] = &[
    Key::optional("gateway", Kind::Table(gateway::KEYS)),
    Key::optional("listener", Kind::Tables(listener::KEYS)),
    Key::optional("auth", Kind::Table(auth::KEYS)),
    Key::optional("limits", Kind::Table(broker::LIMITS_KEYS)),
    Key::optional("store", Kind::Table(store::KEYS)),
    Key::optional("bridge", Kind::Tables(bridge::KEYS)),
    Key::optional("modbus", Kind::Tables(adapter_modbus::KEYS)),
    Key::optional("serial", Kind::Tables(adapter_serial::KEYS)),
    Key::optional("mqtt_sn", Kind::Table(adapter_mqtt_sn::KEYS)),
    Key::optional("http", Kind::NotYet),
    Key::optional("log", Kind::Table(journal::KEYS)),
];
