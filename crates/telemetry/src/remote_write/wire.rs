//! The few protobuf wire primitives that the remote-write codecs and the write-ahead log share: a bounded field
//! reader over borrowed bytes, and writers that append to a reused buffer.

use thiserror::Error;

/// Why bytes are not the protobuf message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ends inside a field.
    #[error("message is truncated")]
    Truncated,
    /// A varint has more than ten bytes or exceeds 64 bits.
    #[error("varint is too long")]
    VarintOverflow,
    /// A field number of zero, or a wire type that proto3 does not use.
    #[error("invalid field tag {0}")]
    Tag(u64),
    /// A known field carries the wrong wire type.
    #[error("field {0} has an unexpected wire type")]
    Type(u32),
}

/// One decoded field value, still raw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field `number`.
    pub fn bytes(self, number: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type(number)),
        }
    }

    /// The integer of a varint field `number`.
    pub fn varint(self, number: u32) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::Type(number)),
        }
    }

    /// The number of a `double` field `number`.
    pub fn double(self, number: u32) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WireError::Type(number)),
        }
    }
}

/// Reads the fields of one message in order. Never allocates, never reads past its slice.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value, or `None` at the end of the message.
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Tag(tag))?;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::Tag(tag));
        }
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(take_array(&mut self.rest)?)),
            2 => {
                let length = take_varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
                if length > self.rest.len() {
                    return Err(WireError::Truncated);
                }
                let (bytes, rest) = self.rest.split_at(length);
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(take_array(&mut self.rest)?)),
            _ => return Err(WireError::Tag(tag)),
        };
        Ok(Some((number, value)))
    }
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
    *input = rest;
    Ok(*head)
}

/// Takes one varint off the front of `input`.
#[inline]
pub fn take_varint(input: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for index in 0..10 {
        let byte = *input.get(index).ok_or(WireError::Truncated)?;
        if index == 9 && byte > 1 {
            return Err(WireError::VarintOverflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(WireError::VarintOverflow)
}

/// Reads a repeated scalar varint field that may be packed or not, handing each element to `each`.
pub fn each_varint(value: Value<'_>, number: u32, mut each: impl FnMut(u64)) -> Result<(), WireError> {
    match value {
        Value::Varint(value) => each(value),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                each(take_varint(&mut packed)?);
            }
        }
        _ => return Err(WireError::Type(number)),
    }
    Ok(())
}

/// Reads a repeated `double` field that may be packed or not, handing each element to `each`.
pub fn each_double(value: Value<'_>, number: u32, mut each: impl FnMut(f64)) -> Result<(), WireError> {
    match value {
        Value::Fixed64(bits) => each(f64::from_bits(bits)),
        Value::Bytes(packed) => {
            let (chunks, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(WireError::Truncated);
            }
            chunks.iter().for_each(|chunk| each(f64::from_bits(u64::from_le_bytes(*chunk))));
        }
        _ => return Err(WireError::Type(number)),
    }
    Ok(())
}

/// Undoes the zigzag mapping of `sint32` and `sint64`.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The zigzag mapping of `sint32` and `sint64`.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes `value` takes as a varint.
#[inline]
pub fn varint_length(value: u64) -> usize {
    (((64 - (value | 1).leading_zeros()) as usize) * 9 + 64) / 64
}

/// Appends a varint field; zero, proto3's default, is left out.
#[inline]
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    }
}

/// Appends a `double` field even when it is zero (members of a `oneof` carry presence).
#[inline]
pub fn put_double_present(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends a `double` field; positive zero, proto3's default, is left out.
#[inline]
pub fn put_double_field(out: &mut Vec<u8>, number: u32, value: f64) {
    if value.to_bits() != 0 {
        put_double_present(out, number, value);
    }
}

/// Appends a length-delimited field.
#[inline]
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a nested message written by `body`. The length prefix is minimal: room for two bytes is kept, which is
/// right for most series, and the body is moved where it is not.
#[inline]
pub fn put_message(out: &mut Vec<u8>, number: u32, body: impl FnOnce(&mut Vec<u8>)) {
    const ROOM: usize = 2;
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    body(out);
    let length = out.len() - start - ROOM;
    let needed = varint_length(length as u64);
    if needed != ROOM {
        if needed > ROOM {
            out.resize(out.len() + needed - ROOM, 0);
        }
        out.copy_within(start + ROOM..start + ROOM + length, start + needed);
        out.truncate(start + needed + length);
    }
    let mut value = length as u64;
    for slot in &mut out[start..start + needed - 1] {
        *slot = value as u8 | 0x80;
        value >>= 7;
    }
    out[start + needed - 1] = value as u8;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_length(value));
            let mut rest = &out[..];
            prop_assert_eq!(take_varint(&mut rest).unwrap(), value);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn zigzag_round_trips(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(_)) = fields.next_field() {}
        }
    }

    #[test]
    fn message_lengths_are_minimal() {
        for length in [0usize, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let mut out = Vec::new();
            put_message(&mut out, 1, |out| out.resize(out.len() + length, 7));
            let mut fields = Fields::new(&out);
            let (number, value) = fields.next_field().unwrap().unwrap();
            assert_eq!((number, value.bytes(1).unwrap().len()), (1, length));
            assert_eq!(fields.next_field(), Ok(None));
            assert_eq!(out.len(), 1 + varint_length(length as u64) + length);
        }
    }
}
