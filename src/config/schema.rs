//! The whole configuration as one schema, put together from the tables of the rooms.
//!
//! A room or adapter is plugged in by one row here and one line in [`super::check`].

use adapter_api::schema::{Key, Kind};

use super::{gateway, pending};
use crate::{auth, bridge, journal, listener};

/// The keys at the root of the file.
pub const ROOT: &[Key] = &[
    Key::optional("gateway", Kind::Table(gateway::KEYS)),
    Key::optional("listener", Kind::Tables(listener::KEYS)),
    Key::optional("auth", Kind::Table(auth::KEYS)),
    Key::optional("limits", Kind::Table(pending::LIMITS)),
    Key::optional("store", Kind::Table(pending::STORE)),
    Key::optional("bridge", Kind::Tables(bridge::KEYS)),
    Key::optional("modbus", Kind::Tables(pending::MODBUS)),
    Key::optional("serial", Kind::Tables(pending::SERIAL)),
    Key::optional("mqtt_sn", Kind::Table(pending::MQTT_SN)),
    Key::optional("http", Kind::NotYet),
    Key::optional("log", Kind::Table(journal::KEYS)),
];
