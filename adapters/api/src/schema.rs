//! The rules for configuration keys, as tables that a walk over the file can follow.
//!
//! Each room and adapter states its keys in one declarative table of [`Key`]s, beside the `Config` that
//! serde fills. The walk reports every wrong key, with its line, before serde sees the file; a key of
//! the product's contract whose feature is not built stands with [`Kind::NotYet`] and is refused so.

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether the table is wrong without it.
    pub required: bool,
    /// Of a key that is not built: the other one for which it stands, which is then not missed.
    pub instead_of: Option<&'static str>,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// The path of a file, never empty.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// true or false.
    Boolean,
    /// A whole number, lowest and highest.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// A duration text, lowest and highest in milliseconds.
    Duration(u64, u64),
    /// A duration text or the word.
    DurationOr(&'static str),
    /// A size text, lowest and highest in bytes.
    Size(u64, u64),
    /// A size text or the word.
    SizeOr(&'static str),
    /// A rate text or the word.
    RateOr(&'static str),
    /// A list of texts.
    Texts,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
    /// A table of any keys, each a text.
    Map,
    /// In the contract, not in this version.
    NotYet,
}

impl Key {
    /// A key that may be left out.
    pub const fn optional(name: &'static str, kind: Kind) -> Key {
        Key { name, kind, required: false, instead_of: None }
    }

    /// A key that must be given.
    pub const fn required(name: &'static str, kind: Kind) -> Key {
        Key { name, kind, required: true, instead_of: None }
    }

    /// A key that is not in this version, and that stands where another one is expected.
    pub const fn not_yet_instead(name: &'static str, other: &'static str) -> Key {
        Key { name, kind: Kind::NotYet, required: false, instead_of: Some(other) }
    }
}

/// One thing wrong with a checked value, found by the room that owns the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path below the room's own table, `device[0].point[2].register`.
    pub key: String,
    /// What was found and what was expected, a lower-case fragment.
    pub text: String,
}
