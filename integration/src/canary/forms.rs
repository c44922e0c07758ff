//! The forms in which a secret may be found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// No secret of a test is shorter in any form.
pub(super) const SHORTEST: usize = 8;

/// What is looked for, by its first bytes: files are long, and there are many forms.
pub(crate) struct Forms {
    by_begin: BTreeMap<[u8; SHORTEST], Vec<Vec<u8>>>,
    /// Which pairs of bytes any of them begins with.
    pairs: Vec<bool>,
}

impl Forms {
    pub(crate) fn of(secrets: &[String]) -> Self {
        let mut by_begin: BTreeMap<[u8; SHORTEST], Vec<Vec<u8>>> = BTreeMap::new();
        let mut pairs = vec![false; 1 << 16];
        for form in secrets.iter().flat_map(|secret| forms_of(secret)) {
            if let Some(begin) = form.first_chunk() {
                pairs[pair(begin[0], begin[1])] = true;
                by_begin.entry(*begin).or_default().push(form);
            }
        }
        Self { by_begin, pairs }
    }

    /// Where the first one begins.
    pub(crate) fn find(&self, content: &[u8]) -> Option<usize> {
        let is_there = |at: usize| {
            let rest = &content[at..];
            let forms = rest.first_chunk::<SHORTEST>().and_then(|begin| self.by_begin.get(begin));
            forms.is_some_and(|forms| forms.iter().any(|form| rest.starts_with(form)))
        };
        let likely = |pair_of: &[u8]| matches!(pair_of, [first, second] if self.pairs[pair(*first, *second)]);
        let candidates = content.windows(2).enumerate().filter(|(_, both)| likely(both));
        candidates.map(|(at, _)| at).find(|at| is_there(*at))
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// A secret as it is, in hexadecimal digits, as addresses and JSON write it, and within any longer text in base64: there its
/// digits depend on how many bytes stand before it.
pub(super) fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let written = |write: &dyn Fn(&mut String, u8)| {
        let mut text = String::new();
        secret.bytes().for_each(|byte| write(&mut text, byte));
        text.into_bytes()
    };
    let of_address = |text: &mut String, byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    };
    let json = serde_json::to_string(secret).unwrap_or_default();
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        written(&|text, byte| write!(text, "{byte:02x}").expect("writing to a string cannot fail")),
        written(&|text, byte| write!(text, "{byte:02X}").expect("writing to a string cannot fail")),
        written(&of_address),
        String::from_utf8_lossy(&written(&of_address)).replace("%20", "+").into_bytes(),
        json.trim_matches('"').as_bytes().to_vec(),
        // JSON within JSON, and within logfmt.
        serde_json::to_string(json.trim_matches('"'))
            .unwrap_or_default()
            .trim_matches('"')
            .as_bytes()
            .to_vec(),
    ];
    for before in 0..3 {
        let padded = [vec![b'x'; before], secret.as_bytes().to_vec()].concat();
        let digits = STANDARD_NO_PAD.encode(&padded);
        // Digits that stand for bytes of the neighbours as well are left out.
        let inner = &digits[(before * 8).div_ceil(6)..padded.len() * 8 / 6];
        forms.push(inner.as_bytes().to_vec());
        forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    forms.sort();
    forms.dedup();
    forms
}
