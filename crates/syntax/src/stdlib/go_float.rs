//! Floats as text the way Go's libraries print them, which is what configurations were written against.

/// Decimal digits and the exponent of the first: `1.25e3` is `("125", 3)`.
fn shortest_digits(magnitude: f64) -> (String, i32) {
    split_scientific(&format!("{magnitude:e}"))
}

fn split_scientific(text: &str) -> (String, i32) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (digits.replace('.', ""), exponent.parse().unwrap_or(0))
}

/// `digits` with the first at 10^`exponent`, in scientific form with at least two digits of exponent.
fn scientific(digits: &str, exponent: i32, letter: char) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}{letter}{sign}{:02}", exponent.abs())
}

/// `digits` with the first at 10^`exponent`, without an exponent.
fn positional(digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if digits.len() <= whole {
        format!("{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// A finite or infinite magnitude (no sign) under one of the verbs `e E f F g G`; no precision means the shortest text that reads back.
/// `keep_zeros` is the alternative form: always a point, trailing zeros kept.
pub(super) fn verb(magnitude: f64, verb: char, precision: Option<usize>, keep_zeros: bool) -> String {
    if magnitude.is_nan() {
        return "NaN".to_owned();
    }
    if magnitude.is_infinite() {
        return "Inf".to_owned();
    }
    let letter = if verb.is_ascii_uppercase() { 'E' } else { 'e' };
    match verb {
        'e' | 'E' => {
            let (digits, exponent) = match precision {
                Some(precision) => split_scientific(&format!("{magnitude:.precision$e}")),
                None => shortest_digits(magnitude),
            };
            scientific(&digits, exponent, letter)
        }
        'f' | 'F' => match precision {
            Some(precision) => format!("{magnitude:.precision$}"),
            None => format!("{magnitude}"),
        },
        _ => general(magnitude, letter, precision, keep_zeros),
    }
}

fn general(magnitude: f64, letter: char, precision: Option<usize>, keep_zeros: bool) -> String {
    let (mut digits, exponent) = match precision {
        Some(precision) => {
            let decimals = precision.max(1) - 1;
            split_scientific(&format!("{magnitude:.decimals$e}"))
        }
        None => shortest_digits(magnitude),
    };
    // The shortest text switches to an exponent as if its precision were six.
    let limit = precision.map_or(6, |precision| i32::try_from(precision.max(1)).unwrap_or(i32::MAX));
    if !keep_zeros {
        let trimmed = digits.trim_end_matches('0').len().max(1);
        digits.truncate(trimmed);
    }
    if exponent < -4 || exponent >= limit {
        scientific(&digits, exponent, letter)
    } else {
        positional(&digits, exponent)
    }
}

/// A float as JSON; none for infinities and NaN.
pub(super) fn json(number: f64) -> Option<String> {
    if !number.is_finite() {
        return None;
    }
    let magnitude = number.abs();
    let text = if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let (digits, exponent) = shortest_digits(magnitude);
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{first}{point}{rest}e{sign}{}", exponent.abs())
    } else {
        format!("{magnitude}")
    };
    Some(if number.is_sign_negative() { format!("-{text}") } else { text })
}

/// A finite magnitude with a hexadecimal mantissa and a binary exponent: `0x1.8p+00`.
pub(super) fn hexadecimal(magnitude: f64, upper: bool) -> String {
    let (mantissa, exponent) = parts(magnitude);
    let text = if mantissa == 0 {
        "0x0p+00".to_owned()
    } else {
        // Shifted so that the leading one stands before the point.
        let shift = mantissa.leading_zeros() - 11;
        let fraction = format!("{:013x}", (mantissa << shift) & ((1 << 52) - 1));
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        let exponent = exponent + 52 - i32::try_from(shift).unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("0x1{point}{fraction}p{sign}{:02}", exponent.abs())
    };
    if upper { text.to_uppercase() } else { text }
}

/// A finite magnitude as an integer and a power of two: `6755399441055744p-52`.
pub(super) fn binary(magnitude: f64) -> String {
    let (mantissa, exponent) = parts(magnitude);
    format!("{mantissa}p{exponent:+}")
}

/// Integer mantissa and the exponent of two it is scaled by.
fn parts(magnitude: f64) -> (u64, i32) {
    let bits = magnitude.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
    if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) }
}
