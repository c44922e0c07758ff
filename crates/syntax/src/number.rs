//! Numbers of the language: integers that are exact within 64 bits, signed or unsigned, and 64-bit floats. An integer
//! result that fits neither is an error, never a silent wrap.

use std::cmp::Ordering;
use std::fmt;

/// A number as the language knows it.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer; the evaluator uses it for values above `i64::MAX`.
    Uint(u64),
    /// A 64-bit float.
    Float(f64),
}

/// Why an arithmetic operation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The exact integer fits neither 64 bits signed nor unsigned.
    #[error("integer overflow: the result does not fit 64 bits")]
    Overflow,
    /// Division or remainder by zero.
    #[error("divide by zero")]
    DivideByZero,
    /// Zero raised to a negative power.
    #[error("zero has no negative power")]
    ZeroToNegative,
}

impl Number {
    /// The integer within 64 bits, signed or unsigned, or none.
    #[must_use]
    pub fn from_wide(wide: i128) -> Option<Self> {
        if let Ok(signed) = i64::try_from(wide) {
            Some(Self::Int(signed))
        } else {
            u64::try_from(wide).ok().map(Self::Uint)
        }
    }

    /// The integer, wide enough for both kinds; none for a float.
    #[must_use]
    pub fn as_wide(self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(value.into()),
            Self::Uint(value) => Some(value.into()),
            Self::Float(_) => None,
        }
    }

    /// The nearest 64-bit float.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Uint(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// The integer this number is, floats truncated toward zero; none where a float lies outside `i128` or is not a
    /// number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn truncated(self) -> Option<i128> {
        match self {
            Self::Float(value) if value.is_finite() && value.abs() < 1e30 => Some(value.trunc() as i128),
            Self::Float(_) => None,
            integer => integer.as_wide(),
        }
    }

    /// Whether this is zero of any kind.
    #[must_use]
    pub fn is_zero(self) -> bool {
        match self {
            Self::Int(value) => value == 0,
            Self::Uint(value) => value == 0,
            Self::Float(value) => value == 0.0,
        }
    }

    /// Numeric order across kinds; integers compare exactly, an integer against a float as floats.
    #[must_use]
    pub fn compare(self, other: Self) -> Option<Ordering> {
        match (self.as_wide(), other.as_wide()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => self.as_f64().partial_cmp(&other.as_f64()),
        }
    }

    fn arithmetic(
        self,
        other: Self,
        integer: impl FnOnce(i128, i128) -> Option<i128>,
        float: impl FnOnce(f64, f64) -> f64,
    ) -> Result<Self, NumberError> {
        match (self.as_wide(), other.as_wide()) {
            (Some(left), Some(right)) => {
                integer(left, right).and_then(Self::from_wide).ok_or(NumberError::Overflow)
            }
            _ => Ok(Self::Float(float(self.as_f64(), other.as_f64()))),
        }
    }

    /// Sum.
    ///
    /// # Errors
    /// [`NumberError::Overflow`].
    pub fn checked_add(self, other: Self) -> Result<Self, NumberError> {
        self.arithmetic(other, i128::checked_add, |left, right| left + right)
    }

    /// Difference.
    ///
    /// # Errors
    /// [`NumberError::Overflow`].
    pub fn checked_subtract(self, other: Self) -> Result<Self, NumberError> {
        self.arithmetic(other, i128::checked_sub, |left, right| left - right)
    }

    /// Product.
    ///
    /// # Errors
    /// [`NumberError::Overflow`].
    pub fn checked_multiply(self, other: Self) -> Result<Self, NumberError> {
        self.arithmetic(other, i128::checked_mul, |left, right| left * right)
    }

    /// Quotient; integers truncate toward zero.
    ///
    /// # Errors
    /// [`NumberError::DivideByZero`], of floats too.
    pub fn checked_divide(self, other: Self) -> Result<Self, NumberError> {
        if other.is_zero() {
            return Err(NumberError::DivideByZero);
        }
        // The one quotient outside 64 bits is a large unsigned number by minus one, which a float still says.
        match self.arithmetic(other, i128::checked_div, |left, right| left / right) {
            Err(_) => Ok(Self::Float(self.as_f64() / other.as_f64())),
            result => result,
        }
    }

    /// Remainder with the sign of the left side.
    ///
    /// # Errors
    /// [`NumberError::DivideByZero`], of floats too.
    pub fn checked_remainder(self, other: Self) -> Result<Self, NumberError> {
        if other.is_zero() {
            return Err(NumberError::DivideByZero);
        }
        self.arithmetic(other, i128::checked_rem, |left, right| left % right)
    }

    /// Power; of integers exact, with a negative exponent a float.
    ///
    /// # Errors
    /// [`NumberError::Overflow`]; [`NumberError::ZeroToNegative`].
    pub fn checked_power(self, exponent: Self) -> Result<Self, NumberError> {
        let (Some(base), Some(wide_exponent)) = (self.as_wide(), exponent.as_wide()) else {
            return Ok(Self::Float(float_power(self.as_f64(), exponent.as_f64())));
        };
        if wide_exponent < 0 {
            if base == 0 {
                return Err(NumberError::ZeroToNegative);
            }
            return Ok(Self::Float(self.as_f64().powf(exponent.as_f64())));
        }
        match base {
            0 | 1 => Self::from_wide(if wide_exponent == 0 { 1 } else { base }),
            -1 => Self::from_wide(if wide_exponent % 2 == 0 { 1 } else { -1 }),
            // Any other base leaves 64 bits long before the exponent leaves 32.
            _ => u32::try_from(wide_exponent)
                .ok()
                .and_then(|small| base.checked_pow(small))
                .and_then(Self::from_wide),
        }
        .ok_or(NumberError::Overflow)
    }

    /// The number with its sign changed; an integer beyond 64 bits becomes a float, as such a literal is one.
    #[must_use]
    pub fn negate(self) -> Self {
        match self.as_wide() {
            Some(wide) => Self::from_wide(-wide).unwrap_or(Self::Float(-self.as_f64())),
            None => Self::Float(-self.as_f64()),
        }
    }
}

/// The integer part of the exponent by repeated squaring, the rest by logarithm: the results to the last digit that
/// configurations written for Alloy were tested with.
fn float_power(base: f64, exponent: f64) -> f64 {
    let magnitude = exponent.abs();
    let ordinary = base > 0.0 && base.is_finite() && base != 1.0 && magnitude < 1e9 && magnitude > 0.0;
    if !ordinary || exponent == 1.0 {
        return base.powf(exponent);
    }
    if magnitude == 0.5 {
        let root = base.sqrt();
        return if exponent < 0.0 { 1.0 / root } else { root };
    }
    let (mut whole, mut fraction) = (magnitude.trunc(), magnitude.fract());
    if fraction > 0.5 {
        fraction -= 1.0;
        whole += 1.0;
    }
    let mut power = if fraction == 0.0 { 1.0 } else { (fraction * base.ln()).exp() };
    // Mantissa and exponent of two apart, so that squaring never overflows.
    let (mut mantissa, mut two) = split_float(base);
    let mut twos: i64 = 0;
    // Below 1e9, as checked above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let mut left = whole as u32;
    while left != 0 {
        if two.abs() > 4096 {
            twos += two;
            break;
        }
        if left & 1 == 1 {
            power *= mantissa;
            twos += two;
        }
        mantissa *= mantissa;
        two *= 2;
        if mantissa < 0.5 {
            mantissa += mantissa;
            two -= 1;
        }
        left >>= 1;
    }
    if exponent < 0.0 {
        power = 1.0 / power;
        twos = -twos;
    }
    scale(power, twos)
}

/// A positive finite number as a fraction between a half and one, and the power of two it is multiplied by.
fn split_float(number: f64) -> (f64, i64) {
    let (number, shift) = if number.is_normal() { (number, 0) } else { (number * 2f64.powi(64), -64) };
    let bits = number.to_bits();
    let exponent = i64::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1022;
    (f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52)), exponent + shift)
}

/// `number` times two to the power of `twos`.
fn scale(mut number: f64, mut twos: i64) -> f64 {
    while twos != 0 && number != 0.0 && number.is_finite() {
        let step = twos.clamp(-1000, 1000);
        number *= 2f64.powi(i32::try_from(step).unwrap_or(0));
        twos -= step;
    }
    number
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.compare(*other) == Some(Ordering::Equal)
    }
}

/// Shortest decimal text that reads back the same, never with an exponent.
impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(formatter, "{value}"),
            Self::Uint(value) => write!(formatter, "{value}"),
            Self::Float(value) if value.is_infinite() => {
                formatter.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Float(value) => write!(formatter, "{value}"),
        }
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::Uint(value), Self::Int)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}
