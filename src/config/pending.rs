//! Stand-ins for the tables of rooms that have not landed.

use adapter_api::schema::{Key, Kind, Problem};
use figment::value::Dict;

pub(super) type Pending = Dict;

pub(super) const LIMITS: &[Key] = &[
    Key::optional("max_connections", Kind::Integer(1, 1_000_000)),
    Key::optional("max_inflight", Kind::Integer(1, 65_535)),
];
pub(super) const STORE: &[Key] = &[
    Key::optional("max_size", Kind::Size(1_000_000, u64::MAX)),
    Key::optional("commit_interval", Kind::Duration(1, 10_000)),
];
pub(super) const MODBUS: &[Key] = &[Key::required("name", Kind::Text)];
pub(super) const SERIAL: &[Key] = &[Key::required("name", Kind::Text)];
pub(super) const MQTT_SN: &[Key] =
    &[Key::optional("bind", Kind::Text), Key::optional("predefined", Kind::Map)];

pub(super) fn accept(raw: &Pending) -> Result<Pending, Vec<Problem>> {
    Ok(raw.clone())
}
