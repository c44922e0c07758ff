//! From when to when a certificate is valid, read out of its DER form (RFC 5280, section 4.1). Nothing is verified here;
//! that is the handshake's business, which does not tell the dates of a certificate it likes.

/// When a certificate is valid, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: i64,
    /// Until then.
    pub not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity of a certificate in DER form; `None` for what is none.
#[must_use]
pub fn certificate_validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (mut rest, _) = take(certificate, SEQUENCE)?;
    if let Some((_, after)) = take(rest, EXPLICIT_VERSION) {
        rest = after;
    }
    let (_, rest) = take(rest, INTEGER)?;
    let (_, rest) = take(rest, SEQUENCE)?;
    let (_, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some(Validity { not_before, not_after })
}

/// The content of the value with this tag at the beginning of `bytes`, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length > 0x7f {
        let digits = length & 0x7f;
        if !(1..=4).contains(&digits) {
            return None;
        }
        length = 0;
        for _ in 0..digits {
            let (digit, after) = rest.split_first()?;
            length = length << 8 | usize::from(*digit);
            rest = after;
        }
    }
    rest.split_at_checked(length)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, years) = match take(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, 2),
        None => take(bytes, GENERALIZED_TIME).map(|(text, rest)| (text, rest, 4))?,
    };
    if text.len() != years + 11 || text.last() != Some(&b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        text.get(from..to)?.iter().try_fold(0_i64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let mut year = number(0, years)?;
    if years == 2 {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let [month, day, hour, minute, second] =
        [0, 2, 4, 6, 8].map(|offset| number(years + offset, years + offset + 2));
    let (month, day, hour, minute, second) = (month?, day?, hour?, minute?, second?);
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    fits.then(|| ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
        .map(|seconds| (seconds, rest))
}

/// Days since 1970-01-01 in the Gregorian calendar, in years that begin in March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn dates_of_certificates_in_both_forms() {
        // Times until 2049 are written with two digits of the year, later ones with four.
        let validity = certificate_validity(&certificate((2024, 2, 29), (2061, 3, 1))).unwrap();
        assert_eq!(validity, Validity { not_before: 1_709_164_800, not_after: 2_876_860_800 });
        let validity = certificate_validity(&certificate((1999, 12, 31), (2000, 3, 1))).unwrap();
        assert_eq!(validity, Validity { not_before: 946_598_400, not_after: 951_868_800 });
        assert_eq!(days_since_epoch(1970, 1, 1), 0);
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        for length in 0..whole.len() {
            let cut = &whole[..length];
            // The outer length does not fit any more.
            assert_eq!(certificate_validity(cut), None, "{length}");
        }
        assert_eq!(certificate_validity(b"-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(certificate_validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(certificate_validity(&[0x30, 0x80, 0x30]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = certificate_validity(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_or_not(at in 0_usize..300, with: u8) {
            let mut bytes = certificate((2020, 1, 1), (2030, 1, 1));
            let at = at % bytes.len();
            bytes[at] = with;
            let _read = certificate_validity(&bytes);
        }
    }
}
