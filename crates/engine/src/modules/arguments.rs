//! The arguments of import blocks, as Alloy declares them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use invar_syntax::arguments::{ArgumentEnum, Arguments};
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody};
use invar_syntax::schema::Schema;
use invar_syntax::secret::{OptionalSecret, Secret};
use sha2::{Digest, Sha256};

use super::ModuleKey;
use crate::configuration::{add_text, hexadecimal};

/// The kinds of import blocks.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum ModuleKind {
    /// `import.file`
    File,
    /// `import.http`
    Http,
    /// `import.git`
    Git,
    /// `import.string`
    String,
    /// `remotecfg`: no import, but content that is fetched like one; it goes into a scope of its own.
    RemoteConfig,
}

/// The evaluated arguments of an import block whose content has to be fetched.
#[derive(Clone, PartialEq)]
pub enum ImportArguments {
    /// `import.file`
    File(FileImport),
    /// `import.http`
    Http {
        /// What to ask for.
        request: Box<HttpImport>,
        /// The `client` block, evaluated but not decoded: what an HTTP client can be told is for those to say who have one.
        client: Option<Box<EvaluatedBlock>>,
    },
    /// `import.git`
    Git(Box<GitImport>),
    /// `remotecfg`, evaluated but not decoded: what its server can be told is for those to say who speak with it.
    RemoteConfig(Box<EvaluatedBody>),
}

/// `import.file`: a file, or all `*.alloy` files directly in a directory.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FileImport {
    /// The path. A relative one begins at the working directory, or within the snapshot at the importing file's
    /// `module_path`.
    #[argument(required, names = "file")]
    pub filename: String,
    /// How changes are noticed.
    #[argument(default = "\"fsnotify\"")]
    pub detector: ImportDetector,
    /// How often to look.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
}

/// How `import.file` notices that files change.
#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportDetector {
    /// The kernel's events, and a look at every poll.
    #[default]
    #[argument(name = "fsnotify")]
    Fsnotify,
    /// Only a look at every poll.
    #[argument(name = "poll")]
    Poll,
}

/// `import.http`: what an address answers. Its `client` block stands beside it.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct HttpImport {
    /// The address.
    #[argument(required, names = "destination")]
    pub url: String,
    /// The method of the request.
    #[argument(default = "\"GET\"")]
    pub method: String,
    /// Headers of the request.
    pub headers: BTreeMap<String, String>,
    /// The body of the request.
    pub body: String,
    /// How often to ask.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
    /// How long to wait for an answer.
    #[argument(default = "\"10s\"")]
    pub poll_timeout: Duration,
}

/// `import.git`: a file or directory of a repository.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct GitImport {
    /// The address of the repository.
    #[argument(required, names = "destination")]
    pub repository: String,
    /// A branch, tag or commit.
    #[argument(default = "\"main\"")]
    pub revision: String,
    /// A file or a directory within the repository.
    #[argument(required, names = "nothing")]
    pub path: String,
    /// How often to look for something new; never if zero.
    #[argument(default = "\"1m\"")]
    pub pull_frequency: Duration,
    /// Username and password.
    #[argument(block)]
    pub basic_auth: Option<GitBasicAuth>,
    /// An SSH key.
    #[argument(block)]
    pub ssh_key: Option<GitSshKey>,
}

/// `basic_auth` of `import.git`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GitBasicAuth {
    /// The username.
    #[argument(required)]
    pub username: String,
    /// The password.
    #[argument(required)]
    pub password: Secret,
}

/// `ssh_key` of `import.git`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct GitSshKey {
    /// The username.
    #[argument(required)]
    pub username: String,
    /// The key itself.
    pub key: Secret,
    /// A file with the key.
    #[argument(names = "file")]
    pub key_file: String,
    /// What the key is encrypted with.
    pub passphrase: Secret,
}

/// `import.string`: a module that is a value of the language.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct StringImport {
    /// The module.
    #[argument(required)]
    pub(crate) content: OptionalSecret,
}

/// The block whose content a control plane sends, and the root it goes into.
pub(crate) const REMOTE_CONFIG: &str = "remotecfg";

/// The text of an attribute.
pub(crate) fn text_of<'a>(body: &'a EvaluatedBody, name: &str) -> Option<&'a str> {
    body.attributes.iter().find(|attribute| &*attribute.name.name == name)?.value.as_str()
}

/// Names that move by themselves: what they stand for cannot be told from the configuration.
const MOVING_REVISIONS: [&str; 5] = ["HEAD", "FETCH_HEAD", "ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD"];

// === impl ModuleKind ===

impl ModuleKind {
    /// The kinds by the last part of the block's name.
    pub(crate) const ALL: [Self; 4] = [Self::File, Self::Http, Self::Git, Self::String];

    /// The last part of the block's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Git => "git",
            Self::String => "string",
            Self::RemoteConfig => REMOTE_CONFIG,
        }
    }

    /// What the block takes; without the `client` block of `import.http`.
    pub(crate) fn schema(self) -> Schema {
        match self {
            Self::File => FileImport::schema(),
            Self::Http => HttpImport::schema(),
            Self::Git => GitImport::schema(),
            Self::String => StringImport::schema(),
            // The binary's registry has it.
            Self::RemoteConfig => Schema::default(),
        }
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteConfig => f.write_str(REMOTE_CONFIG),
            _ => write!(f, "import.{}", self.as_str()),
        }
    }
}

// === impl ImportArguments ===

impl ImportArguments {
    /// The kind of import.
    #[must_use]
    pub const fn kind(&self) -> ModuleKind {
        match self {
            Self::File(_) => ModuleKind::File,
            Self::Http { .. } => ModuleKind::Http,
            Self::Git(_) => ModuleKind::Git,
            Self::RemoteConfig(_) => ModuleKind::RemoteConfig,
        }
    }

    /// Names what these arguments bring in, imported by a file whose `module_path` is given.
    pub(crate) fn key(&self, module_path: &str) -> ModuleKey {
        let mut hasher = Sha256::new();
        match self {
            Self::File(file) => {
                add_text(&mut hasher, &file.filename);
                if !Path::new(&file.filename).is_absolute() {
                    add_text(&mut hasher, module_path);
                }
            }
            Self::Http { request, .. } => {
                add_text(&mut hasher, &request.url);
                add_text(&mut hasher, &request.method);
                for (name, value) in &request.headers {
                    add_text(&mut hasher, name);
                    add_text(&mut hasher, value);
                }
                add_text(&mut hasher, &request.body);
            }
            Self::Git(git) => {
                add_text(&mut hasher, &git.repository);
                add_text(&mut hasher, &git.revision);
                add_text(&mut hasher, &git.path);
            }
            Self::RemoteConfig(body) => {
                for name in ["url", "id"] {
                    add_text(&mut hasher, text_of(body, name).unwrap_or_default());
                }
            }
        }
        ModuleKey::new(format!("{}-{}", self.kind().as_str(), hexadecimal(&hasher.finalize())))
    }
}

/// Shows no argument: there may be credentials among them.
impl fmt::Debug for ImportArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ … }}", self.kind())
    }
}

// === impl HttpImport ===

impl HttpImport {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.poll_frequency.is_zero() {
            return Err(("poll_frequency", "poll_frequency must be greater than 0".to_owned()));
        }
        Ok(())
    }
}

// === impl GitImport ===

impl GitImport {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if MOVING_REVISIONS.contains(&self.revision.as_str()) {
            let message = format!("revision \"{}\" is not a branch, tag or commit", self.revision);
            return Err(("revision", message));
        }
        if self.basic_auth.is_some() && self.ssh_key.is_some() {
            return Err(("ssh_key", "only one of basic_auth and ssh_key may be given".to_owned()));
        }
        Ok(())
    }
}

// === impl GitSshKey ===

impl GitSshKey {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.key.is_empty() == self.key_file.is_empty() {
            return Err(("key", "exactly one of key and key_file must be given".to_owned()));
        }
        Ok(())
    }
}
