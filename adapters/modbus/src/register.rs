//! A register's place: its kind and its address, in every notation that people write.
//!
//! Devices' manuals count registers from 1 with a leading digit for the kind (`30001`, `400017`), the
//! protocol counts them from 0. The off-by-one between the two is the classic error of Modbus, so a
//! register can be written either way and is echoed back in all of them.

use std::fmt;

/// Where a value stands in a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register {
    /// Which of the four tables.
    pub kind: Kind,
    /// Address in the protocol, counted from 0.
    pub address: u16,
}

/// The four tables of a Modbus device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One bit that can be written, function 1, numbers 00001 and up.
    Coil,
    /// One bit that is read only, function 2, numbers 10001 and up.
    Discrete,
    /// 16 bits that are read only, function 4, numbers 30001 and up.
    Input,
    /// 16 bits that can be written, function 3, numbers 40001 and up.
    Holding,
}

impl Kind {
    /// The function code that reads it.
    pub fn function(self) -> u8 {
        match self {
            Kind::Coil => 1,
            Kind::Discrete => 2,
            Kind::Holding => 3,
            Kind::Input => 4,
        }
    }

    /// Whether an address holds a bit rather than 16.
    pub fn is_bit(self) -> bool {
        matches!(self, Kind::Coil | Kind::Discrete)
    }

    /// The most that one request may read: 2,000 bits or 125 registers (Modbus application protocol 6.1, 6.3).
    pub fn quantity_max(self) -> u16 {
        if self.is_bit() { 2_000 } else { 125 }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Coil => "coil",
            Kind::Discrete => "discrete",
            Kind::Input => "input",
            Kind::Holding => "holding",
        }
    }

    fn digit(self) -> u8 {
        match self {
            Kind::Coil => 0,
            Kind::Discrete => 1,
            Kind::Input => 3,
            Kind::Holding => 4,
        }
    }

    fn of_word(word: &str) -> Option<Kind> {
        ALL.into_iter().find(|kind| kind.word() == word)
    }

    fn of_digit(digit: u32) -> Option<Kind> {
        ALL.into_iter().find(|kind| u32::from(kind.digit()) == digit)
    }
}

impl Register {
    /// Reads `input:0`, `holding:0x10`, `30001`, `400017`, `coil:5` or `discrete:2`.
    pub fn parse(text: &str) -> Result<Register, NotARegister> {
        match text.split_once(':') {
            Some((word, address)) => Register::parse_address(word, address),
            None => Register::parse_number(text),
        }
    }

    fn parse_address(word: &str, address: &str) -> Result<Register, NotARegister> {
        let kind = Kind::of_word(word).ok_or(NotARegister::Notation)?;
        let (digits, radix) = match address.strip_prefix("0x") {
            Some(hex) => (hex, 16),
            None => (address, 10),
        };
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(NotARegister::Notation);
        }
        let address = u16::from_str_radix(digits, radix).map_err(|_| NotARegister::Beyond)?;
        Ok(Register { kind, address })
    }

    fn parse_number(text: &str) -> Result<Register, NotARegister> {
        if !matches!(text.len(), 5 | 6) || !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotARegister::Notation);
        }
        let (digit, number) = text.split_at_checked(1).ok_or(NotARegister::Notation)?;
        let kind = digit.parse().ok().and_then(Kind::of_digit).ok_or(NotARegister::Notation)?;
        let number: u32 = number.parse().map_err(|_| NotARegister::Notation)?;
        let address = number.checked_sub(1).ok_or(NotARegister::Zero)?;
        let address = u16::try_from(address).map_err(|_| NotARegister::Beyond)?;
        Ok(Register { kind, address })
    }
}

impl fmt::Display for Register {
    /// All notations: `holding:16 (0x10, 40017, 400017)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, digit) = (self.kind.word(), self.kind.digit());
        let number = u32::from(self.address) + 1;
        write!(f, "{word}:{} ({:#x}, ", self.address, self.address)?;
        if number <= 9_999 {
            write!(f, "{digit}{number:04}, ")?;
        }
        write!(f, "{digit}{number:05})")
    }
}

/// The text names no register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARegister {
    /// In no notation that is known.
    #[error(
        "expected a register such as \"input:0\", \"holding:0x10\", \"coil:5\", \"discrete:2\", \"30001\" or \"400017\""
    )]
    Notation,
    /// A number that begins with the kind counts from 1.
    #[error("registers in this notation count from 1: the first is \"30001\", the same as \"input:0\"")]
    Zero,
    /// Beyond the last address.
    #[error("the last address is 65535, written \"input:65535\" or \"365536\"")]
    Beyond,
}

const ALL: [Kind; 4] = [Kind::Coil, Kind::Discrete, Kind::Input, Kind::Holding];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let register = Register::parse(text).map(|register| register.to_string());
        assert_eq!(register.as_deref(), Ok(shown), "{text}");
    }

    #[test]
    fn a_register_is_read_in_any_notation_and_shown_in_all() {
        for text in ["holding:16", "holding:0x10", "40017", "400017"] {
            check(text, "holding:16 (0x10, 40017, 400017)");
        }
        check("input:0", "input:0 (0x0, 30001, 300001)");
        check("coil:5", "coil:5 (0x5, 00006, 000006)");
        check("00001", "coil:0 (0x0, 00001, 000001)");
        check("discrete:2", "discrete:2 (0x2, 10003, 100003)");
        check("365536", "input:65535 (0xffff, 365536)");
        check("39999", "input:9998 (0x270e, 39999, 309999)");
    }

    #[test]
    fn what_is_no_register_is_refused_with_the_reason() {
        for text in [
            "", "0", "3001", "3000001", "20001", "50001", "input", "input:", "input:-1", "input:+1",
            "input:0x", "relay:1", "é0001",
        ] {
            assert_eq!(Register::parse(text), Err(NotARegister::Notation), "{text}");
        }
        assert_eq!(Register::parse("30000"), Err(NotARegister::Zero));
        assert_eq!(Register::parse("365537"), Err(NotARegister::Beyond));
        assert_eq!(Register::parse("holding:0x10000"), Err(NotARegister::Beyond));
    }
}
