//! What an adapter and the appliance agree on.
//!
//! An adapter turns a device's words into MQTT: it opens [`Port`]s on its [`Host`], each an in-process
//! client with a session of its own, and publishes, subscribes and acknowledges through them like any
//! network client; readings it puts into an [`Outbox`]. It never sees the broker, the store or the configuration file: what it needs of a
//! rule for its keys stands in [`schema`], what it needs of durations and sizes in [`units`].

mod port;
mod host;
mod outbox;
pub mod schema;
pub mod units;
pub mod clock;
pub mod reading;

pub use host::{Adapter, Health, Host, Running, State};
pub use outbox::{Counts, Outbox};
pub use port::{Acknowledgement, Delivery, FromPort, Hello, Port, PortClosed, Qos, Refusal, ToPort, Will};
