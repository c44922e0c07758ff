//! The store `age`: files that come with the configuration, encrypted in Git and decrypted nowhere but in memory. The
//! identity that opens them is a credential, read anew at each use, and never a part of the configuration.

use std::io::Read as _;

use ::age::armor::ArmoredReader;
use ::age::secrecy::SecretString;
use ::age::{Callbacks, DecryptError, Decryptor, Identity, IdentityFile};
use invar_syntax::Secret;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

use crate::credential::Credential;
use crate::error::SecretError;
use crate::fields::{FieldFormat, decode_fields};
use crate::file::without_line_break;
use crate::snapshot::SecretSnapshot;
use crate::snapshot_files::{SnapshotFile, SnapshotFiles};
use crate::store::{BoxFuture, SecretStore, StoreKind};
use crate::stores::SecretStores;

/// The longest decrypted file, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// `[secrets.NAME]` of the kind `age`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgeSettings {
    /// What opens the files: lines of `AGE-SECRET-KEY-1…`, or a private SSH key (Ed25519, RSA).
    pub identity: Credential,
    /// What an SSH key is encrypted with.
    #[serde(default)]
    pub passphrase: Option<Credential>,
}

/// Decrypts files of the configuration.
pub struct AgeStore {
    settings: AgeSettings,
    files: SnapshotFiles,
    /// Where the identity may come from.
    stores: SecretStores,
}

impl AgeStore {
    /// A store of these files; `stores` hold the identity, if it is a secret.
    #[must_use]
    pub fn new(settings: AgeSettings, files: SnapshotFiles, stores: SecretStores) -> Self {
        Self { settings, files, stores }
    }

    async fn identity(&self, reference: &str) -> Result<(Secret, Option<Secret>), SecretError> {
        let of_part = |part| move |error: SecretError| error.of_part(reference, part);
        let identity = self.settings.identity.resolve(&self.stores).await.map_err(of_part("the identity"))?;
        let passphrase = match &self.settings.passphrase {
            Some(passphrase) => {
                Some(passphrase.resolve(&self.stores).await.map_err(of_part("the passphrase"))?)
            }
            None => None,
        };
        Ok((identity, passphrase))
    }

    async fn decrypted(&self, path: &str) -> Result<SecretSnapshot, SecretError> {
        let (files, wanted) = (self.files.clone(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || files.read(&wanted)).await;
        let content = match read.unwrap_or(SnapshotFile::NotYet) {
            SnapshotFile::Found(content) => content,
            SnapshotFile::Absent => {
                return Err(SecretError::Missing {
                    reference: path.to_owned(),
                    reason: "the configuration has no such file; is it among the `path`s of the source?"
                        .to_owned(),
                });
            }
            SnapshotFile::NotYet => {
                return Err(SecretError::unavailable(
                    path,
                    "the sources whose files it could be in have not answered yet",
                ));
            }
        };
        let (identity, passphrase) = self.identity(path).await?;
        let invalid = |reason: String| SecretError::Invalid { reference: path.to_owned(), reason };
        // Keys that are stretched take a while.
        let opened =
            tokio::task::spawn_blocking(move || open(&content, &identity, passphrase.as_ref())).await;
        let text = match opened {
            Ok(Ok(text)) => text,
            Ok(Err(OpenError::Identity(reason))) => return Err(invalid(format!("the identity: {reason}"))),
            Ok(Err(OpenError::Recipients)) => {
                return Err(SecretError::Denied {
                    reference: path.to_owned(),
                    reason: "it is not encrypted to the identity of this agent: encrypt it anew, with its recipient added"
                        .to_owned(),
                });
            }
            Ok(Err(OpenError::File(reason))) => return Err(invalid(reason)),
            Err(_) => return Err(SecretError::unavailable(path, "decrypting was interrupted")),
        };
        match format_of(path) {
            Some(format) => decode_fields(format, text.expose()).map(SecretSnapshot::new).map_err(invalid),
            None => {
                // Copies nothing when there is no line break.
                let value = match text.expose().ends_with('\n') {
                    true => Secret::new(without_line_break(text.expose().to_owned())),
                    false => text,
                };
                match value.is_empty() {
                    true => Err(invalid("it is empty".to_owned())),
                    false => Ok(SecretSnapshot::single(value)),
                }
            }
        }
    }
}

impl SecretStore for AgeStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Age
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(self.decrypted(path))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async move {
            let (identity, passphrase) = self.identity("").await?;
            let parsed = tokio::task::spawn_blocking(move || {
                let parsed = identities(&identity, passphrase.as_ref())?;
                Ok::<_, OpenError>((parsed.len(), recipients(&identity)))
            });
            match parsed.await {
                Ok(Ok((_, recipients))) if !recipients.is_empty() => {
                    Ok(format!("opens what is encrypted to {}", recipients.join(", ")))
                }
                Ok(Ok((count, _))) => Ok(format!("{count} SSH identity")),
                Ok(Err(error)) => Err(SecretError::Invalid {
                    reference: String::new(),
                    reason: format!("the identity: {}", error.reason()),
                }),
                Err(_) => Err(SecretError::unavailable("", "reading the identity was interrupted")),
            }
        })
    }

    fn watch(&self, _path: &str) -> Option<watch::Receiver<u64>> {
        Some(self.files.subscribe())
    }

    /// Files change with the configuration, which is told; the identity that opens them is looked at again now and then.
    fn refresh_interval(&self) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(300))
    }
}

/// Which fields a file has, by its name before `.age`; none where all of it is one value.
fn format_of(path: &str) -> Option<FieldFormat> {
    let name = path.strip_suffix(".age").unwrap_or(path);
    match name.rsplit_once('.')?.1 {
        "json" => Some(FieldFormat::Json),
        "toml" => Some(FieldFormat::Toml),
        _ => None,
    }
}

/// Why a file could not be opened; nothing of what is in it or of what opens it.
#[derive(Debug)]
enum OpenError {
    Identity(String),
    /// It is meant for others.
    Recipients,
    File(String),
}

impl OpenError {
    fn reason(&self) -> &str {
        match self {
            Self::Identity(reason) | Self::File(reason) => reason,
            Self::Recipients => "it opens nothing",
        }
    }
}

/// Answers the one question that may come up.
#[derive(Clone)]
struct Passphrase(Option<Secret>);

impl Callbacks for Passphrase {
    fn display_message(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, _: &str) -> Option<SecretString> {
        self.0.as_ref().map(|passphrase| SecretString::from(passphrase.expose()))
    }
}

type Identities = Vec<Box<dyn Identity>>;

fn identities(text: &Secret, passphrase: Option<&Secret>) -> Result<Identities, OpenError> {
    let unusable = |reason: &str| OpenError::Identity(reason.to_owned());
    let text = text.expose();
    if text.contains("-----BEGIN") {
        let identity = ::age::ssh::Identity::from_buffer(text.as_bytes(), None)
            .map_err(|_| unusable("it is not a private key of SSH"))?;
        match &identity {
            ::age::ssh::Identity::Unsupported(_) => {
                return Err(unusable("only Ed25519 and RSA keys of SSH can be used"));
            }
            ::age::ssh::Identity::Encrypted(_) if passphrase.is_none() => {
                return Err(unusable("the key of SSH is encrypted: it needs a `passphrase`"));
            }
            _ => {}
        }
        return Ok(vec![Box::new(identity.with_callbacks(Passphrase(passphrase.cloned())))]);
    }
    let file = IdentityFile::from_buffer(text.as_bytes())
        .map_err(|_| unusable("it is neither lines of AGE-SECRET-KEY-1… nor a private key of SSH"))?;
    match file.into_identities() {
        Ok(identities) if !identities.is_empty() => Ok(identities),
        _ => Err(unusable("it has no line with AGE-SECRET-KEY-1…")),
    }
}

/// Whom files are encrypted to for these identities; public.
fn recipients(text: &Secret) -> Vec<String> {
    let lines = text.expose().lines();
    lines
        .filter_map(|line| line.trim().parse::<::age::x25519::Identity>().ok())
        .map(|identity| identity.to_public().to_string())
        .collect()
}

/// The text that is in an age file, armoured or not.
fn open(content: &[u8], identity: &Secret, passphrase: Option<&Secret>) -> Result<Secret, OpenError> {
    let broken = |reason: &str| OpenError::File(reason.to_owned());
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(content)).map_err(|error| match error {
        DecryptError::UnknownFormat => broken("it is an age file of a version that is not known here"),
        _ => broken("it is not an age file"),
    })?;
    if decryptor.is_scrypt() {
        return Err(broken("it is encrypted with a passphrase: encrypt it to the recipient of the identity"));
    }
    let identities = identities(identity, passphrase)?;
    let opened = decryptor.decrypt(identities.iter().map(|identity| &**identity));
    let mut reader = opened.map_err(|error| match error {
        DecryptError::NoMatchingKeys => OpenError::Recipients,
        DecryptError::KeyDecryptionFailed => {
            OpenError::Identity("the passphrase does not open the key of SSH".to_owned())
        }
        _ => broken("it is damaged"),
    })?;
    // Not longer than what it comes from, so that it never grows, which would leave copies behind.
    let mut text = zeroize::Zeroizing::new(String::with_capacity(content.len().min(SIZE_LIMIT) + 1));
    let limit = u64::try_from(SIZE_LIMIT + 1).unwrap_or(u64::MAX);
    match reader.by_ref().take(limit).read_to_string(&mut text) {
        Ok(length) if length > SIZE_LIMIT => Err(broken("it is larger than 1 MiB")),
        Ok(_) => Ok(Secret::new(std::mem::take(&mut *text))),
        // Of a text that is not UTF-8, the error does not say whether the file was whole.
        Err(_) => Err(broken("it is damaged, or its content is not UTF-8 text")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::sync::Arc;

    use ::age::armor::{ArmoredWriter, Format};
    use ::age::secrecy::ExposeSecret as _;
    use ::age::{Encryptor, Recipient};
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    /// A key of no use but in tests, made with `ssh-keygen`; once more under a passphrase.
    const SSH_KEY: &str = include_str!("age/test_ed25519");
    const SSH_ENCRYPTED_KEY: &str = include_str!("age/test_ed25519_encrypted");
    const SSH_RECIPIENT: &str = include_str!("age/test_ed25519.pub");
    const SSH_PASSPHRASE: &str = "open sesame";

    fn encrypt(text: &str, recipient: &dyn Recipient, armored: bool) -> Vec<u8> {
        let mut content = Vec::new();
        let format = if armored { Format::AsciiArmor } else { Format::Binary };
        let armor = ArmoredWriter::wrap_output(&mut content, format).unwrap();
        let mut writer =
            Encryptor::with_recipients(std::iter::once(recipient)).unwrap().wrap_output(armor).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap().finish().unwrap();
        content
    }

    fn text_of(identity: &::age::x25519::Identity) -> String {
        identity.to_string().expose_secret().to_owned()
    }

    fn store(identity: &str, passphrase: Option<&str>, files: &[(&str, Vec<u8>)]) -> AgeStore {
        let text = |text: &str| Credential::Text(Secret::new(text));
        let settings = AgeSettings { identity: text(identity), passphrase: passphrase.map(text) };
        let provided = SnapshotFiles::default();
        let files: Vec<(String, Vec<u8>)> =
            files.iter().map(|(path, content)| ((*path).to_owned(), content.clone())).collect();
        provided.provide(move |path| match files.iter().find(|(name, _)| name == path) {
            Some((_, content)) => SnapshotFile::Found(content.clone()),
            None => SnapshotFile::Absent,
        });
        AgeStore::new(settings, provided, SecretStores::default())
    }

    #[tokio::test]
    async fn files_are_decrypted_to_a_value_or_to_fields() {
        let identity = ::age::x25519::Identity::generate();
        let recipient = identity.to_public();
        let files = [
            ("secrets/token.age", encrypt("abc\n", &recipient, false)),
            ("secrets/es.json.age", encrypt(r#"{"user": "ana", "password": "abc"}"#, &recipient, true)),
            ("secrets/es.toml", encrypt("user = 'ana'", &recipient, true)),
        ];
        let identities = format!(
            "# two of them\n{}\n{}\n",
            text_of(&::age::x25519::Identity::generate()),
            text_of(&identity)
        );
        let store = store(&identities, None, &files);
        assert_eq!(store.read("secrets/token.age").await.unwrap().fields["value"].expose(), "abc");
        let fields = store.read("secrets/es.json.age").await.unwrap().fields;
        assert_eq!((fields["user"].expose(), fields["password"].expose()), ("ana", "abc"));
        assert_eq!(store.read("secrets/es.toml").await.unwrap().fields["user"].expose(), "ana");
        assert!(store.check().await.unwrap().contains(&recipient.to_string()));
    }

    #[tokio::test]
    async fn keys_of_ssh_are_identities() {
        let recipient: ::age::ssh::Recipient = SSH_RECIPIENT.trim().parse().unwrap();
        let files = [("token.age", encrypt("abc", &recipient, true))];
        for (key, passphrase) in [(SSH_KEY, None), (SSH_ENCRYPTED_KEY, Some(SSH_PASSPHRASE))] {
            let store = store(key, passphrase, &files);
            assert_eq!(store.read("token.age").await.unwrap().fields["value"].expose(), "abc");
            assert_eq!(store.check().await.unwrap(), "1 SSH identity");
        }
        for (passphrase, said) in
            [(None, "needs a `passphrase`"), (Some("sesame"), "passphrase does not open")]
        {
            let error = store(SSH_ENCRYPTED_KEY, passphrase, &files).read("token.age").await.unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_says_why_and_nothing_else() {
        let identity = ::age::x25519::Identity::generate();
        let recipient = identity.to_public();
        let other = ::age::x25519::Identity::generate().to_public();
        let mut damaged = encrypt("hunter2", &recipient, false);
        *damaged.last_mut().unwrap() ^= 1;
        let mut stretched = ::age::scrypt::Recipient::new(SecretString::from("hunter2"));
        stretched.set_work_factor(2);
        let files = [
            ("other.age", encrypt("hunter2", &other, true)),
            ("damaged.age", damaged),
            ("plain", b"hunter2".to_vec()),
            ("stretched.age", encrypt("hunter2", &stretched, true)),
            ("fields.json.age", encrypt("hunter2", &recipient, true)),
            ("empty.age", encrypt("\n", &recipient, true)),
            ("large.age", encrypt(&"hunter2".repeat(160_000), &recipient, false)),
        ];
        let store = store(&text_of(&identity), None, &files);
        for (path, said) in [
            ("other.age", "is denied: it is not encrypted to the identity"),
            ("damaged.age", "is damaged"),
            ("plain", "is not an age file"),
            ("stretched.age", "with a passphrase"),
            ("fields.json.age", "not a JSON object"),
            ("empty.age", "is empty"),
            ("large.age", "larger than 1 MiB"),
            ("absent", "has no such file"),
        ] {
            let error = store.read(path).await.unwrap_err();
            assert!(error.to_string().contains(said), "{path}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn identities_that_cannot_be_had_or_read_say_so() {
        let files = [("a.age", encrypt("x", &::age::x25519::Identity::generate().to_public(), true))];
        for (identity, said) in [
            ("hunter2", "neither lines of AGE-SECRET-KEY"),
            ("# nothing", "has no line with AGE-SECRET-KEY"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "not a private key of SSH"),
        ] {
            let store = store(identity, None, &files);
            for error in [store.read("a.age").await.unwrap_err(), store.check().await.unwrap_err()] {
                let text = format!("{error} {error:?}");
                assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
            }
        }
        let mut store = store("", None, &files);
        store.settings.identity = Credential::File("/absent/identity".into());
        let error = store.read("a.age").await.unwrap_err();
        assert!(matches!(error, SecretError::Missing { .. }));
        assert!(
            error.to_string().contains("the identity: ") && error.to_string().contains("/absent"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn files_come_later_and_change() {
        let identity = ::age::x25519::Identity::generate();
        let settings =
            AgeSettings { identity: Credential::Text(Secret::new(text_of(&identity))), passphrase: None };
        let files = SnapshotFiles::default();
        let store = AgeStore::new(settings, files.clone(), SecretStores::default());
        assert!(store.read("a").await.unwrap_err().is_transient());
        let mut changes = store.watch("a").unwrap();
        let content = Arc::new(Mutex::new(encrypt("one", &identity.to_public(), true)));
        let held = Arc::clone(&content);
        files.provide(move |_| SnapshotFile::Found(held.lock().clone()));
        changes.changed().await.unwrap();
        assert_eq!(store.read("a").await.unwrap().fields["value"].expose(), "one");
        *content.lock() = encrypt("two", &identity.to_public(), true);
        files.changed();
        changes.changed().await.unwrap();
        assert_eq!(store.read("a").await.unwrap().fields["value"].expose(), "two");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_file_is_opened_or_refused(content in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..300) {
            let identity = ::age::x25519::Identity::generate();
            let key = Secret::new(text_of(&identity));
            prop_assert!(open(&content, &key, None).is_err());
            let mut whole = encrypt("abc", &identity.to_public(), false);
            let changed = cut < whole.len();
            whole.truncate(cut);
            prop_assert!(!changed || open(&whole, &key, None).is_err());
        }
    }
}
