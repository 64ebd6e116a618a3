//! Registers to values: types, byte orders, scale.
//!
//! Pure arithmetic on what the guard let through. A float that is no number is no value: it becomes
//! [`Value::Nothing`], which a reading shows as quality `bad`, never as text that is not JSON.

use serde::Serialize;

/// What a point's registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One coil or discrete input.
    Bool,
    /// One register, unsigned.
    U16,
    /// One register, two's complement.
    I16,
    /// Two registers, unsigned.
    U32,
    /// Two registers, two's complement.
    I32,
    /// Four registers, unsigned.
    U64,
    /// Four registers, two's complement.
    I64,
    /// Two registers, IEEE 754.
    F32,
    /// Four registers, IEEE 754.
    F64,
}

/// In which order the bytes of a value stand, A the highest. For 64 bits the words or bytes turn alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Highest word first, high byte first: what the standard has.
    Abcd,
    /// Lowest word first, high byte first.
    Cdab,
    /// Highest word first, low byte first.
    Badc,
    /// Lowest word first, low byte first.
    Dcba,
}

/// A point's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A bit.
    Bool(bool),
    /// A whole number.
    Unsigned(u64),
    /// A whole number.
    Signed(i64),
    /// A finite number.
    Float(f64),
    /// The device gave something that is no number.
    Nothing,
}

impl Type {
    /// The words of the configuration, in the order of [`Type`].
    pub const WORDS: [&'static str; 9] = ["bool", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"];

    /// The type of a word of the configuration.
    pub fn parse(word: &str) -> Option<Type> {
        Some(match word {
            "bool" => Type::Bool,
            "u16" => Type::U16,
            "i16" => Type::I16,
            "u32" => Type::U32,
            "i32" => Type::I32,
            "u64" => Type::U64,
            "i64" => Type::I64,
            "f32" => Type::F32,
            "f64" => Type::F64,
            _ => return None,
        })
    }

    /// How many addresses a value takes: registers, or one bit.
    pub fn addresses(self) -> u16 {
        match self {
            Type::Bool | Type::U16 | Type::I16 => 1,
            Type::U32 | Type::I32 | Type::F32 => 2,
            Type::U64 | Type::I64 | Type::F64 => 4,
        }
    }
}

impl Order {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 4] = ["abcd", "cdab", "badc", "dcba"];

    /// The order of a word of the configuration.
    pub fn parse(word: &str) -> Option<Order> {
        Some(match word {
            "abcd" => Order::Abcd,
            "cdab" => Order::Cdab,
            "badc" => Order::Badc,
            "dcba" => Order::Dcba,
            _ => return None,
        })
    }
}

/// The value in `words`, which are as many as the type takes; fewer give [`Value::Nothing`].
pub fn decode(words: &[u16], kind: Type, order: Order, scale: Option<f64>) -> Value {
    if words.len() != usize::from(kind.addresses()) {
        return Value::Nothing;
    }
    let raw = assemble(words, order);
    let value = match kind {
        Type::Bool => Value::Bool(raw != 0),
        Type::U16 | Type::U32 | Type::U64 => Value::Unsigned(raw),
        Type::I16 => Value::Signed(sign_extended(raw, 16)),
        Type::I32 => Value::Signed(sign_extended(raw, 32)),
        Type::I64 => Value::Signed(sign_extended(raw, 64)),
        Type::F32 => float(shortest(f32::from_bits(u32::try_from(raw).unwrap_or(u32::MAX)))),
        Type::F64 => float(f64::from_bits(raw)),
    };
    match scale {
        Some(scale) => scaled(value, scale),
        None => value,
    }
}

/// The registers as one number, as many bits as they have.
fn assemble(words: &[u16], order: Order) -> u64 {
    let push = |sum: u64, word: &u16| {
        let word = match order {
            Order::Abcd | Order::Cdab => *word,
            Order::Badc | Order::Dcba => word.swap_bytes(),
        };
        (sum << 16) | u64::from(word)
    };
    match order {
        Order::Abcd | Order::Badc => words.iter().fold(0, push),
        Order::Cdab | Order::Dcba => words.iter().rev().fold(0, push),
    }
}

fn sign_extended(raw: u64, bits: u32) -> i64 {
    let shift = 64 - bits;
    (raw << shift).cast_signed() >> shift
}

/// The decimal that a person would write for this float: 23.4, not 23.399999618530273.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

fn float(value: f64) -> Value {
    if value.is_finite() { Value::Float(value) } else { Value::Nothing }
}

fn scaled(value: Value, scale: f64) -> Value {
    match value {
        Value::Unsigned(whole) => float(tidy(whole as f64 * scale)),
        Value::Signed(whole) => float(tidy(whole as f64 * scale)),
        Value::Float(number) => float(tidy(number * scale)),
        Value::Bool(_) | Value::Nothing => value,
    }
}

/// Fifteen significant digits, all that a scaled value can have: 234 times 0.1 is 23.4.
fn tidy(value: f64) -> f64 {
    format!("{value:.14e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[u16], kind: &str, order: &str, scale: Option<f64>, shown: &str) {
        let kind = Type::parse(kind).expect("a type");
        let order = Order::parse(order).expect("an order");
        let value = decode(words, kind, order, scale);
        assert_eq!(serde_json::to_string(&value).expect("JSON"), shown);
    }

    #[test]
    fn whole_numbers_keep_every_digit() {
        check(&[0xFFFF], "u16", "abcd", None, "65535");
        check(&[0xFFFF], "i16", "abcd", None, "-1");
        check(&[0x8000, 0x0001], "u32", "abcd", None, "2147483649");
        check(&[0x8000, 0x0001], "i32", "abcd", None, "-2147483647");
        check(&[0xFFFF; 4], "u64", "abcd", None, "18446744073709551615");
        check(&[0x8000, 0, 0, 0], "i64", "abcd", None, "-9223372036854775808");
        check(&[1], "bool", "abcd", None, "true");
    }

    #[test]
    fn each_order_finds_the_same_value() {
        check(&[0x1122, 0x3344], "u32", "abcd", None, "287454020");
        check(&[0x3344, 0x1122], "u32", "cdab", None, "287454020");
        check(&[0x2211, 0x4433], "u32", "badc", None, "287454020");
        check(&[0x4433, 0x2211], "u32", "dcba", None, "287454020");
        check(&[0x2211], "u16", "badc", None, "4386");
        check(&[0x2211], "u16", "dcba", None, "4386");
        check(&[0x1122], "u16", "cdab", None, "4386");
        check(&[0x0001, 0x0002, 0x0003, 0x0004], "u64", "abcd", None, "281483566841860");
        check(&[0x0400, 0x0300, 0x0200, 0x0100], "u64", "dcba", None, "281483566841860");
        check(&[0x0004, 0x0003, 0x0002, 0x0001], "u64", "cdab", None, "281483566841860");
    }

    #[test]
    fn floats_read_as_people_write_them() {
        let bits = 23.4_f32.to_bits();
        let words =
            [u16::try_from(bits >> 16).expect("16 bits"), u16::try_from(bits & 0xFFFF).expect("16 bits")];
        check(&words, "f32", "abcd", None, "23.4");
        check(&words, "f32", "abcd", Some(10.0), "234.0");
        check(&[234], "u16", "abcd", Some(0.1), "23.4");
        check(&[0xFFFE], "i16", "abcd", Some(0.01), "-0.02");
        check(&[0x4037, 0x6666, 0x6666, 0x6666], "f64", "abcd", None, "23.4");
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        check(&[0x7FC0, 0], "f32", "abcd", None, "null");
        check(&[0x7F80, 0], "f32", "abcd", Some(2.0), "null");
        check(&[0xFFF0, 0, 0, 0], "f64", "abcd", None, "null");
        check(&[0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF], "f64", "abcd", Some(1e10), "null");
        check(&[1], "u32", "abcd", None, "null");
    }
}
