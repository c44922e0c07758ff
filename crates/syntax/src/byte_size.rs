//! Sizes in bytes as text: `64MiB`, `1GB512MB`; all units count in steps of 1024.

use std::fmt;
use std::str::FromStr;

const BINARY_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
];

const SHORT_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1 << 10),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
    ("PB", 1 << 50),
    ("EB", 1 << 60),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    /// Reads one or more decimal numbers, each with a unit of one family: `B KiB MiB GiB TiB PiB EiB` or
    /// `B KB MB GB TB PB EB`. Both count 1024 bytes to a step. `0` needs no unit.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if unsigned == "0" {
            return Ok(Self(0));
        }
        if unsigned.starts_with('-') {
            return Err("it is negative".to_owned());
        }
        parse_with(unsigned, &BINARY_UNITS)
            .or_else(|error| parse_with(unsigned, &SHORT_UNITS).map_err(|_| error))
    }
}

fn parse_with(text: &str, units: &[(&str, u64)]) -> Result<ByteSize, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_length = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_length);
        let unit_length = after
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(after.len());
        let (unit, following) = after.split_at(unit_length);
        if number.is_empty() {
            return Err(format!("a number is missing before \"{unit}\""));
        }
        let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() {
                "a unit is missing; use B, KiB, MiB, GiB, TiB, PiB or EiB".to_owned()
            } else {
                format!("\"{unit}\" is no unit; use B, KiB, MiB, GiB, TiB, PiB or EiB")
            });
        };
        total = scaled(number, *scale)?
            .checked_add(total)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or("it is too large")?;
        rest = following;
    }
    Ok(ByteSize(total))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn scaled(number: &str, scale: u64) -> Result<u64, String> {
    let too_large = || "it is too large".to_owned();
    if number.contains('.') {
        let value: f64 = number.parse().map_err(|_| format!("\"{number}\" is no number"))?;
        let bytes = value * scale as f64;
        return if bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(too_large()) };
    }
    number.parse::<u64>().ok().and_then(|value| value.checked_mul(scale)).ok_or_else(too_large)
}

/// The largest units first, each at most once: `1MiB512KiB`, `0B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0B");
        }
        let mut rest = self.0;
        for (unit, scale) in BINARY_UNITS.iter().rev() {
            let count = rest / scale;
            if count > 0 {
                write!(formatter, "{count}{unit}")?;
                rest %= scale;
            }
        }
        Ok(())
    }
}
