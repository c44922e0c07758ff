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
