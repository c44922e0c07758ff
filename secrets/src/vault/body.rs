//! Bodies of requests, made so that secrets in them leave no copies behind.

use invar_syntax::Secret;
use zeroize::Zeroizing;

/// A field of a body.
pub(crate) enum Field<'a> {
    Plain(&'a str),
    Secret(&'a Secret),
    Json(&'a serde_json::Value),
    Seconds(u64),
}

/// An object with these fields, in JSON.
pub(crate) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Field<'a>)>) -> Zeroizing<Vec<u8>> {
    let fields: Vec<(&str, Field<'_>)> = fields.into_iter().collect();
    let length = |(name, field): &(&str, Field<'_>)| {
        let value = match field {
            Field::Plain(text) => text.len() * 6,
            Field::Secret(secret) => secret.expose().len() * 6,
            Field::Json(value) => value.to_string().len(),
            Field::Seconds(_) => 20,
        };
        name.len() * 6 + value + 6
    };
    // Growing would leave pieces behind.
    let mut json = Zeroizing::new(Vec::with_capacity(fields.iter().map(length).sum::<usize>() + 2));
    // Writing to memory does not fail.
    let text = |json: &mut Vec<u8>, text: &str| drop(serde_json::to_writer(json, text));
    json.push(b'{');
    for (at, (name, field)) in fields.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        text(&mut json, name);
        json.push(b':');
        match field {
            Field::Plain(plain) => text(&mut json, plain),
            Field::Secret(secret) => text(&mut json, secret.expose()),
            Field::Json(value) => drop(serde_json::to_writer(&mut *json, value)),
            Field::Seconds(seconds) => json.extend_from_slice(seconds.to_string().as_bytes()),
        }
    }
    json.push(b'}');
    json
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_are_escaped_and_nothing_grows() {
        let secret = Secret::new("a\"\\\u{1}ß\n");
        let value = serde_json::json!([1, "x"]);
        let body = object([
            ("plain", Field::Plain("p\"")),
            ("secret", Field::Secret(&secret)),
            ("json", Field::Json(&value)),
            ("seconds", Field::Seconds(7)),
        ]);
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!({ "plain": "p\"", "secret": secret.expose(), "json": value, "seconds": 7 })
        );
        assert_eq!(object([]).as_slice(), b"{}");
    }
}
