//! The canary: credentials are unique markers, and none of them is found in anything an agent says or keeps, in no form
//! that a careless print or a cache would give them.

use std::collections::BTreeMap;
use std::path::Path;

use invar_integration::Agent;

/// What an agent answers over its API.
const PAGES: [&str; 10] = [
    "/api/v1/status",
    "/api/v1/sources",
    "/api/v1/revisions",
    "/api/v1/plan",
    "/api/v1/graph",
    "/api/v1/components",
    "/api/v1/quarantine",
    "/api/v1/secrets",
    "/metrics",
    "/-/healthy",
];

/// What its commands print.
const COMMANDS: [&[&str]; 14] = [
    &["status"],
    &["status", "-o", "json"],
    &["history"],
    &["history", "-o", "json"],
    &["plan"],
    &["plan", "-o", "json"],
    &["quarantine", "list"],
    &["quarantine", "list", "-o", "json"],
    &["sources"],
    &["sources", "-o", "json"],
    &["components", "-o", "json"],
    &["secrets"],
    &["secrets", "-o", "json"],
    &["explain", "-o", "json"],
];

/// Looks for each secret in the log, the API, what commands print, and the state on disk; says where one is.
pub(crate) fn are_nowhere(agent: &Agent, secrets: &[String]) -> Result<(), String> {
    are_not_said(agent, secrets)?;
    search(&agent.state_directory(), &Forms::of(secrets))
}

/// As [`are_nowhere`], without the state on disk.
pub(crate) fn are_not_said(agent: &Agent, secrets: &[String]) -> Result<(), String> {
    let forms = Forms::of(secrets);
    let mut seen = vec![("the log".to_owned(), agent.log().into_bytes())];
    for path in PAGES {
        seen.push((path.to_owned(), agent.text(path)?.1.into_bytes()));
    }
    for arguments in COMMANDS {
        let output = agent.command(arguments)?;
        seen.push((arguments.join(" "), [output.stdout, output.stderr].concat()));
    }
    for (place, content) in &seen {
        if let Some(at) = forms.find(content) {
            let around = &content[at.saturating_sub(AROUND)..content.len().min(at + AROUND)];
            return Err(format!("{place} shows a credential: …{}…", String::from_utf8_lossy(around)));
        }
    }
    Ok(())
}

fn search(folder: &Path, forms: &Forms) -> Result<(), String> {
    for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        let path = entry.path();
        if forms.is_in(path.to_string_lossy().as_bytes()) {
            return Err(format!("the name of {} is a credential", path.display()));
        }
        if path.is_dir() {
            search(&path, forms)?;
        } else if let Ok(content) = std::fs::read(&path)
            && (forms.is_in(&content) || forms.is_in(&inflated(&content)))
        {
            return Err(format!("{} holds a credential", path.display()));
        }
    }
    Ok(())
}

/// What is looked for, by its first bytes: files are long, and there are many forms.
struct Forms(BTreeMap<[u8; BEGIN], Vec<Vec<u8>>>);

/// No secret of a test is shorter in any form.
const BEGIN: usize = 8;
/// What is shown around one that was found.
const AROUND: usize = 200;

impl Forms {
    fn of(secrets: &[String]) -> Self {
        let mut forms: BTreeMap<[u8; BEGIN], Vec<Vec<u8>>> = BTreeMap::new();
        for form in secrets.iter().flat_map(|secret| forms_of(secret)) {
            let begin = *form.first_chunk().unwrap();
            forms.entry(begin).or_default().push(form);
        }
        Self(forms)
    }

    fn is_in(&self, content: &[u8]) -> bool {
        self.find(content).is_some()
    }

    /// Where the first one begins.
    fn find(&self, content: &[u8]) -> Option<usize> {
        let begins = |at: usize| content[at..].first_chunk::<BEGIN>().and_then(|begin| self.0.get(begin));
        (0..content.len()).find(|at| {
            begins(*at).is_some_and(|forms| forms.iter().any(|form| content[*at..].starts_with(form)))
        })
    }
}

/// A secret as it is, in hexadecimal digits, and within any longer text in base64: there its digits depend on how many
/// bytes stand before it.
fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    forms.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
    for before in 0..3 {
        let padded = [vec![b'x'; before], secret.as_bytes().to_vec()].concat();
        let digits = base64(&padded);
        // Digits that stand for bytes of the neighbours as well are left out.
        let inner = &digits[(before * 8).div_ceil(6)..padded.len() * 8 / 6];
        forms.push(inner.as_bytes().to_vec());
        forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// Every stream of zlib or gzip within a file, decompressed; loose objects and packs of Git are made of the former.
fn inflated(content: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut all = Vec::new();
    for start in 0..content.len().saturating_sub(2) {
        let rest = &content[start..];
        let limited: &mut dyn std::io::Read = match rest {
            [0x1f, 0x8b, 8, ..] => &mut flate2::read::GzDecoder::new(rest).take(LARGEST),
            [first, second, ..] if is_zlib(*first, *second) => {
                &mut flate2::read::ZlibDecoder::new(rest).take(LARGEST)
            }
            _ => continue,
        };
        // What is no stream after all ends with an error; what came before it counts.
        drop(limited.read_to_end(&mut all));
    }
    all
}

/// The most that is looked at of one stream.
const LARGEST: u64 = 4 << 20;

fn is_zlib(first: u8, second: u8) -> bool {
    first == 0x78 && (u16::from(first) << 8 | u16::from(second)).is_multiple_of(31)
}

#[test]
fn a_secret_is_found_in_every_form() {
    use std::io::Write as _;
    let secret = "marker-canary-3f9c1a";
    let forms = Forms::of(&[secret.to_owned()]);
    for before in ["", "u:", "user:", "x-access-token:"] {
        let text =
            format!("Authorization: Basic {}==", base64(format!("{before}{secret} and more").as_bytes()));
        assert!(forms.is_in(text.as_bytes()), "{text}");
    }
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(format!("blob 30\0password = {secret}").as_bytes()).unwrap();
    let file = [b"PACK....".to_vec(), encoder.finish().unwrap(), b"the end".to_vec()].concat();
    assert!(!forms.is_in(&file) && forms.is_in(&inflated(&file)));
    assert!(!forms.is_in(b"marker-canary-3f9c1b and nothing else"));
}
