//! Stand-ins for the tables of rooms that have not landed: their keys, and values that nobody checks.

use adapter_api::schema::{Key, Kind, Problem};
use figment::value::Dict;

pub(super) type Pending = Dict;

pub(super) const SERIAL: &[Key] = &[
    Key::required("name", Kind::Text),
    Key::required("device", Kind::Text),
    Key::optional("baud", Kind::Integer(50, 4_000_000)),
    Key::optional("data_bits", Kind::Integer(5, 8)),
    Key::optional("parity", Kind::Choice(&["none", "even", "odd"])),
    Key::optional("stop_bits", Kind::Integer(1, 2)),
    Key::optional("frame", Kind::Table(FRAME)),
    Key::optional("checksum", Kind::Table(&[Key::optional("kind", Kind::Choice(&["none"]))])),
    Key::optional("parse", Kind::Table(PARSE)),
    Key::optional("topic", Kind::Text),
];

const FRAME: &[Key] = &[
    Key::optional("kind", Kind::Choice(&["line"])),
    Key::optional("end", Kind::Text),
    Key::optional("max", Kind::Integer(1, 65_536)),
];

const PARSE: &[Key] = &[Key::optional("kind", Kind::Text), Key::optional("pattern", Kind::Text)];

pub(super) fn accept(raw: &Pending) -> Result<Pending, Vec<Problem>> {
    Ok(raw.clone())
}
