//! Numbers as the text formats write them: the decimal forms of Go's `strconv.ParseFloat`, and timestamps.

use crate::batch::NORMAL_NAN;

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Reads a plain decimal number, such as `-12.5`, at the start of the input: the number and its length. `None` where it takes more than
/// exact arithmetic on a double, or is written in another form; [`parse_float`] then does it.
#[inline]
pub(super) fn plain_decimal(input: &[u8]) -> Option<(f64, usize)> {
    let negative = input.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0_u64;
    let start = at;
    while let Some(digit) = input.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        // Wrapping is harmless: so many digits are refused below.
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    let mut digits = at - start;
    let mut fraction = 0;
    if input.get(at) == Some(&b'.') {
        at += 1;
        let start = at;
        while let Some(digit) = input.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10)
        {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        fraction = at - start;
        digits += fraction;
    }
    // Fifteen digits are below 2^53: both operands are exact, so the quotient is rounded once.
    if digits == 0 || digits > 15 {
        return None;
    }
    let value = mantissa as f64 / POWERS[fraction];
    Some((if negative { -value } else { value }, at))
}

/// Reads a sample value. Hexadecimal forms and underscores are refused, as Prometheus does; any NaN is [`NORMAL_NAN`].
pub(super) fn parse_float(token: &[u8]) -> Result<f64, String> {
    if let Some((value, length)) = plain_decimal(token)
        && length == token.len()
    {
        return Ok(value);
    }
    let invalid = || format!("{:?} is not a number", String::from_utf8_lossy(&token[..token.len().min(64)]));
    let text = std::str::from_utf8(token).map_err(|_| invalid())?;
    // What the two standard libraries disagree on: a NaN has no sign in Go.
    let signed = text.starts_with(['+', '-']);
    let value: f64 = text.parse().map_err(|_| invalid())?;
    if value.is_nan() {
        return if signed { Err(invalid()) } else { Ok(NORMAL_NAN) };
    }
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is out of range", &text[..text.len().min(64)]));
    }
    Ok(value)
}

/// Reads an OpenMetrics timestamp, in seconds, as Unix milliseconds.
pub(super) fn parse_seconds(token: &[u8]) -> Result<i64, String> {
    let seconds = parse_float(token)?;
    if !seconds.is_finite() {
        return Err("a timestamp is not finite".to_owned());
    }
    Ok(milliseconds(seconds))
}

/// Whole milliseconds of a number of seconds; what does not fit becomes the least value, as Prometheus has it on common processors.
pub(super) fn milliseconds(seconds: f64) -> i64 {
    let milliseconds = seconds * 1000.0;
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&milliseconds) {
        milliseconds as i64
    } else {
        i64::MIN
    }
}

/// The canonical form of the value of an `le` or `quantile` label: the shortest digits, always with a point or an exponent.
pub(super) fn write_openmetrics_float(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // The bounds of Go's format `g` where as few digits as possible are asked for.
    if value != 0.0 && !(-4..6).contains(&exponent) {
        out.push_str(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("e{sign}{:02}", exponent.abs()));
    } else {
        let plain = format!("{value}");
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::let_underscore_must_use)]

    use super::*;

    #[test]
    fn go_forms_are_read() {
        for (text, value) in [
            ("1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-0.25", -0.25),
            ("+5", 5.0),
            ("1e3", 1000.0),
            ("1E-2", 0.01),
            ("+Inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("123456789012345678", 123_456_789_012_345_678.0),
            ("0.1", 0.1),
            ("179769313486231570000000000000000000000", 1.797_693_134_862_315_7e38),
            ("1e-400", 0.0),
        ] {
            assert_eq!(parse_float(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(parse_float(b"nan").unwrap().to_bits(), NORMAL_NAN.to_bits());
        for text in
            ["", "-", ".", "1_000", "0x1p-2", "0x10", "1e309", "+nan", "--5", "1 ", "1\r", "e5", "\u{661}"]
        {
            assert!(parse_float(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn floats_are_written_as_openmetrics_asks() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (0.005, "0.005"),
            (100_000.0, "100000.0"),
            (999_999.5, "999999.5"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (0.000_12, "0.00012"),
            (f64::INFINITY, "+Inf"),
            (-2.5, "-2.5"),
        ] {
            let mut out = String::new();
            write_openmetrics_float(value, &mut out);
            assert_eq!(out, text);
        }
    }

    proptest::proptest! {
        #[test]
        fn plain_decimals_are_exact(mantissa in -999_999_999_999_999_i64..=999_999_999_999_999, point in 0_usize..15) {
            let digits = format!("{:015}", mantissa.abs());
            let (whole, fraction) = digits.split_at(15 - point);
            let text = format!("{}{whole}.{fraction}", if mantissa < 0 { "-" } else { "" });
            let (value, length) = plain_decimal(text.as_bytes()).unwrap();
            proptest::prop_assert_eq!(length, text.len());
            proptest::prop_assert_eq!(value, text.parse::<f64>().unwrap());
        }

        #[test]
        fn arbitrary_tokens_never_panic(token: Vec<u8>) {
            let _ = parse_float(&token);
            let _ = parse_seconds(&token);
        }
    }
}
