//! Durations as text: `1h30m`, `1.5s`, `300ms`; printed the way Go prints them, as in `1m0s`.

use std::time::Duration;

/// Largest magnitude: 64 bits of signed nanoseconds, about 292 years.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;

/// Units, with those that are a prefix of another behind it.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration: an optional sign, then decimal numbers each with a unit of `ns us µs ms s m h`; or `0`.
///
/// # Errors
/// What is wrong with the text. Negative durations are refused: no argument has use for one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" || unsigned == "-0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (negative, mut rest) = match unsigned.strip_prefix('-') {
        Some(rest) if !text.starts_with('+') => (true, rest),
        _ => (false, unsigned),
    };
    if rest.is_empty() {
        return Err("a number is missing".to_owned());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_length = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(format!("a number is missing before \"{after}\""));
        }
        let unit_length = after
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(after.len());
        let (unit, following) = after.split_at(unit_length);
        if unit.is_empty() {
            return Err("a unit is missing; use ns, us, ms, s, m or h".to_owned());
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("\"{unit}\" is no unit; use ns, us, ms, s, m or h"));
        };
        let too_long = || "it is longer than 292 years".to_owned();
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
        total = whole
            .checked_mul(*scale)
            .and_then(|nanoseconds| nanoseconds.checked_add(fraction_of(fraction, *scale)))
            .and_then(|nanoseconds| nanoseconds.checked_add(total))
            .filter(|nanoseconds| *nanoseconds <= MAX_NANOSECONDS)
            .ok_or_else(too_long)?;
        rest = following;
    }
    if negative && total > 0 {
        return Err("it is negative".to_owned());
    }
    Ok(Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX)))
}

/// The decimal digits of `fraction` in units of one nanosecond, given how many nanoseconds the unit has.
fn fraction_of(fraction: &str, scale: u128) -> u128 {
    // Digits beyond a nanosecond of an hour carry nothing.
    let digits = &fraction[..fraction.len().min(18)];
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let divisor = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(18));
    value * scale / divisor
}

/// The duration's text: `1m0s`, `1.5s`, `300ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds < 1_000_000_000 {
        let (scale, unit) = match nanoseconds {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{unit}", decimal(nanoseconds, scale));
    }
    let hours = nanoseconds / 3_600_000_000_000;
    let minutes = nanoseconds / 60_000_000_000 % 60;
    let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000);
    if hours > 0 {
        format!("{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{minutes}m{seconds}s")
    } else {
        format!("{seconds}s")
    }
}

/// `value / scale` as a decimal without trailing zeros; `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let whole = value / scale;
    let fraction = value % scale;
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}
