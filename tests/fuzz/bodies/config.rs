//! What must hold for any text that an operator writes.
//!
//! It is a configuration or a list of mistakes, never a panic; each mistake stands on a line that the
//! text has, and the same text has the same mistakes.

use tidegate::config::{Place, examine};

/// Panics where a promise of the configuration is broken.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let wrongs = examine(&text);
    let lines = text.split('\n').count();
    for wrong in &wrongs {
        assert!(!wrong.text.is_empty());
        if let Place::Line(_, line) = &wrong.place {
            assert!((1..=lines).contains(line), "{wrong}");
        }
    }
    assert_eq!(examine(&text), wrongs);
}
