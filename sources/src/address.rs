//! Addresses: a whole source in one line, such as `git+https://host/repo//base?branch=main` or a path.

mod oci;

use invar_secrets::{Credential, Secret};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::settings::{AuthSettings, BasicSettings, GitSettings, HttpSettings, S3Settings, SourceSettings};

/// Why a text is not an address. None of the variants holds what may be a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing at all.
    #[error("the address is empty")]
    Empty,
    /// It starts with a scheme but cannot be parsed.
    #[error("`{address}` is not an address: {reason}")]
    Invalid {
        /// The address, redacted.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The scheme names no kind of source there is.
    #[error("`{address}`: {reason}")]
    Unsupported {
        /// The address, redacted.
        address: String,
        /// What there is instead.
        reason: String,
    },
    /// A key of the query that means nothing.
    #[error("`{address}`: unknown option `{key}`{}", hint(.nearest.as_deref()))]
    UnknownOption {
        /// The address, redacted.
        address: String,
        /// The key.
        key: String,
        /// A key that looks like it.
        nearest: Option<String>,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

const OPTIONS: [&str; 6] = ["branch", "tag", "semver", "commit", "ref", "path"];
const S3_OPTIONS: [&str; 4] = ["region", "endpoint", "path_style", "path"];

/// Parses an address: `git+(https|http|ssh|file)://host/repo//path?branch=…&path=…`, `ssh://…`, `user@host:repo//path?…`,
/// `s3://bucket/key` for an object or, with `/` at the end, what is below it, `https://host/document?…`,
/// `oci://registry/repository:tag@digest?…`, or a path of this host.
///
/// A user name and password in it are moved into the settings' `auth`: `user:password@` as such, a lone
/// `token@` as an access token. The user name of SSH stays: it is no secret.
///
/// # Errors
/// [`AddressError`].
pub fn parse_address(text: &str) -> Result<SourceSettings, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    let unsupported =
        |reason: &str| AddressError::Unsupported { address: redact(text), reason: reason.to_owned() };
    let Some((scheme, _)) = text.split_once("://") else {
        return if is_scp_like(text) { parse_scp_like(text) } else { Ok(SourceSettings::for_file(text)) };
    };
    match scheme.to_ascii_lowercase().as_str() {
        "git+https" | "git+http" | "git+file" | "git+ssh" | "ssh" => parse_git(text),
        "file" => {
            let url = Url::parse(text).map_err(|error| invalid(text, &error.to_string()))?;
            let path = url.to_file_path().map_err(|()| invalid(text, "it is not a path of this host"))?;
            if url.query().is_some() {
                return Err(invalid(text, "a file has no options"));
            }
            Ok(SourceSettings::for_file(path))
        }
        "git" => Err(unsupported(
            "the git:// protocol has neither encryption nor authentication; use git+https://",
        )),
        "https" | "http" if is_repository(text) => {
            Err(unsupported("put `git+` before it to read it as a Git repository"))
        }
        "https" | "http" => parse_document(text),
        "s3" => parse_s3(text),
        "oci" => oci::parse(text),
        _ => Err(unsupported(
            "there are git+https://, git+http://, git+ssh://, git+file://, s3://, https://, oci://, file:// and paths",
        )),
    }
}

fn is_repository(text: &str) -> bool {
    text.split(['?', '#']).next().is_some_and(|place| place.trim_end_matches('/').ends_with(".git"))
}

fn invalid(text: &str, reason: &str) -> AddressError {
    AddressError::Invalid { address: redact(text), reason: reason.to_owned() }
}

/// `user@host:repository`, as Git writes addresses of SSH. The user is what tells it from a file's name.
fn is_scp_like(text: &str) -> bool {
    let Some((before, path)) = text.split_once(':') else { return false };
    let Some((user, host)) = before.split_once('@') else { return false };
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !user.is_empty() && !host.is_empty() && !path.is_empty() && before.replace('@', "").chars().all(usual)
}

fn parse_scp_like(text: &str) -> Result<SourceSettings, AddressError> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    if place.contains('#') {
        return Err(invalid(text, "it has a `#`; options come after `?`"));
    }
    let mut settings = SourceSettings::for_git(GitSettings::default());
    let mut git = GitSettings::default();
    read_options(query, text, &mut git, &mut settings)?;
    let (repository, folder) = place.split_once("//").unwrap_or((place, ""));
    if !folder.is_empty() {
        settings.path.insert(0, folder.to_owned());
    }
    repository.clone_into(&mut git.url);
    settings.git = Some(git);
    Ok(settings)
}

/// Reads what stands behind the `?`.
fn read_options(
    query: &str,
    text: &str,
    git: &mut GitSettings,
    settings: &mut SourceSettings,
) -> Result<(), AddressError> {
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        let place = match &*key {
            "branch" => &mut git.branch,
            "tag" => &mut git.tag,
            "semver" => &mut git.semver,
            "commit" => &mut git.commit,
            "ref" => &mut git.reference,
            "path" => {
                settings.path.push(value);
                continue;
            }
            // The rest of a password with a `?` in it is none to be shown.
            _ if query.contains('@') => {
                return Err(invalid(
                    text,
                    "there is an `@` behind the `?`; write %3F for a `?` in a password",
                ));
            }
            other => {
                return Err(AddressError::UnknownOption {
                    address: redact(text),
                    key: other.chars().take(40).collect(),
                    nearest: invar_syntax::nearest(other, OPTIONS.into_iter()).map(str::to_owned),
                });
            }
        };
        if value.is_empty() {
            return Err(invalid(text, &format!("the option `{key}` is empty")));
        }
        if place.replace(value).is_some() {
            return Err(invalid(text, &format!("the option `{key}` is there twice")));
        }
    }
    Ok(())
}

fn parse_git(text: &str) -> Result<SourceSettings, AddressError> {
    let inner = match text.split_at_checked("git+".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("git+") => rest,
        _ => text,
    };
    let mut url = Url::parse(inner).map_err(|error| invalid(text, &error.to_string()))?;
    if url.fragment().is_some() {
        return Err(invalid(text, "it has a `#`; options come after `?`"));
    }
    let mut settings = SourceSettings::for_git(GitSettings::default());
    let mut git = GitSettings::default();
    read_options(url.query().unwrap_or_default(), text, &mut git, &mut settings)?;
    url.set_query(None);
    // The user information ends at the first `/`. Beyond it an `@` is likelier the end of a password with a `/` in it
    // than part of a repository's name, and what is taken for a name is shown.
    if url.scheme() != "file" && url.path().contains('@') {
        return Err(invalid(
            text,
            "there is an `@` behind a `/`; write %2F for a `/` in a password, %40 for an `@` in a path",
        ));
    }
    if url.scheme() != "ssh" {
        settings.auth = take_credential(&mut url, text)?;
    } else if url.password().is_some() {
        return Err(invalid(text, "Git over SSH takes a key, not a password"));
    }
    // The first `//` in the path separates the repository from the folder within it.
    let path = url.path().to_owned();
    if let Some((repository, folder)) = path.split_once("//") {
        url.set_path(repository);
        if !folder.is_empty() {
            let folder = percent_decode_str(folder)
                .decode_utf8()
                .map_err(|_| invalid(text, "the folder is not UTF-8"))?;
            settings.path.insert(0, folder.into_owned());
        }
    }
    if matches!(url.path(), "" | "/") {
        return Err(invalid(text, "it names no repository"));
    }
    git.url = url.into();
    settings.git = Some(git);
    Ok(settings)
}

fn parse_s3(text: &str) -> Result<SourceSettings, AddressError> {
    let rest = text.get("s3://".len()..).unwrap_or_default();
    if rest.contains('#') {
        return Err(invalid(text, "it has a `#`; write %23 for one in a key"));
    }
    if rest.contains('@') {
        return Err(invalid(
            text,
            "there is an `@`; credentials come from `auth` or the environment, a key has %40",
        ));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(invalid(text, "it names no bucket"));
    }
    let key = percent_decode_str(key)
        .decode_utf8()
        .map_err(|_| invalid(text, "the key is not UTF-8"))?
        .into_owned();
    let mut s3 = S3Settings { bucket: bucket.to_owned(), ..S3Settings::default() };
    if key.is_empty() || key.ends_with('/') {
        s3.prefix = Some(key);
    } else {
        s3.key = Some(key);
    }
    let mut settings = SourceSettings::for_s3(S3Settings::default());
    for (option, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() {
            return Err(invalid(text, &format!("the option `{option}` is empty")));
        }
        let twice = match &*option {
            "region" => s3.region.replace(value.into_owned()).is_some(),
            "endpoint" => {
                let url = Url::parse(&value).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                if url.is_none_or(|url| !url.username().is_empty() || url.password().is_some()) {
                    return Err(invalid(
                        text,
                        "the endpoint is not an http:// or https:// address without a user",
                    ));
                }
                s3.endpoint.replace(value.into_owned()).is_some()
            }
            "path_style" => {
                let value = value.parse().map_err(|_| invalid(text, "`path_style` is `true` or `false`"))?;
                s3.path_style.replace(value).is_some()
            }
            "path" => {
                settings.path.push(value.into_owned());
                continue;
            }
            other => {
                return Err(AddressError::UnknownOption {
                    address: redact(text),
                    key: other.chars().take(40).collect(),
                    nearest: invar_syntax::nearest(other, S3_OPTIONS.into_iter()).map(str::to_owned),
                });
            }
        };
        if twice {
            return Err(invalid(text, &format!("the option `{option}` is there twice")));
        }
    }
    settings.s3 = Some(s3);
    Ok(settings)
}

/// A document behind HTTP. The query is part of its address, as presigned ones have it.
fn parse_document(text: &str) -> Result<SourceSettings, AddressError> {
    let mut url = Url::parse(text).map_err(|error| invalid(text, &error.to_string()))?;
    if url.fragment().is_some() {
        return Err(invalid(text, "it has a `#`, which means nothing to a server"));
    }
    // As for repositories: a password with a `/` or a `?` in it must not become a host and what is asked of it.
    if url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) {
        return Err(invalid(
            text,
            "there is an `@` behind the host; write %40 for it, and %2F and %3F for `/` and `?` in a password",
        ));
    }
    let auth = take_credential(&mut url, text)?;
    let http = HttpSettings { url: url.into(), ..HttpSettings::default() };
    Ok(SourceSettings { auth, ..SourceSettings::for_http(http) })
}

fn take_credential(url: &mut Url, text: &str) -> Result<Option<AuthSettings>, AddressError> {
    let decode = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| invalid(text, "the user name or password is not UTF-8"))
    };
    let username = decode(url.username())?;
    let password = url.password().map(decode).transpose()?;
    if username.is_empty() && password.is_none() {
        return Ok(None);
    }
    let removed = url.set_username("").and_then(|()| url.set_password(None));
    removed.map_err(|()| invalid(text, "it has a user but no host"))?;
    let credential = |text: String| Credential::Text(Secret::new(text));
    Ok(Some(match password {
        Some(password) if !username.is_empty() => AuthSettings {
            basic: Some(BasicSettings { username, password: credential(password) }),
            ..AuthSettings::default()
        },
        Some(token) => AuthSettings { token: Some(credential(token)), ..AuthSettings::default() },
        None => AuthSettings { token: Some(credential(username)), ..AuthSettings::default() },
    }))
}

/// An address without what may be secret in it: the user information, and the values of options that are
/// not known to be harmless.
#[must_use]
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    if scheme == "oci"
        && let (place, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()))
        && let Some((before, digest)) = oci::split_digest(place)
    {
        // The `@` of a digest is none of a user's.
        let shown = redact(&format!("{scheme}://{before}{query}"));
        let (place, query) = shown.split_at(shown.find('?').unwrap_or(shown.len()));
        return format!("{place}@{digest}{query}");
    }
    // Everything before the last `@`: a password with an unescaped `/`, `?` or `#` ends the authority too
    // early, and hiding too much does no harm.
    let (mark, rest) = match rest.rsplit_once('@') {
        Some((_, after)) => ("***@", after),
        None => ("", rest),
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let mut result = format!("{scheme}://{mark}{place}");
    if query.is_some() && matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        // All of it is the server's own, and may be what lets us in.
        result.push_str("?***");
    } else if let Some(query) = query {
        let options: Vec<String> = query
            .split('&')
            .map(|option| match option.split_once('=') {
                // An endpoint may have a user, escaped.
                Some((key, value))
                    if OPTIONS.contains(&key) || (S3_OPTIONS.contains(&key) && !value.contains("%40")) =>
                {
                    format!("{key}={value}")
                }
                Some((key, _)) => format!("{key}=***"),
                None => "***".to_owned(),
            })
            .collect();
        result.push('?');
        result.push_str(&options.join("&"));
    }
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn git(text: &str) -> (SourceSettings, GitSettings) {
        let settings = parse_address(text).unwrap();
        let git = settings.git.clone().unwrap();
        (settings, git)
    }

    #[test]
    fn a_repository_with_folder_and_reference() {
        let (settings, git) =
            git("git+https://git.example/obs/fleet.git//base?branch=main&path=environments/production");
        assert_eq!(git.url, "https://git.example/obs/fleet.git");
        assert_eq!(git.branch.as_deref(), Some("main"));
        assert_eq!(settings.path, ["base", "environments/production"]);
        assert_eq!(settings.auth, None);
    }

    #[test]
    fn other_forms_of_repositories() {
        assert_eq!(git("git+file:///srv/fleet.git?ref=v1").1.url, "file:///srv/fleet.git");
        assert_eq!(git("git+file:///srv/fleet.git//a/b").0.path, ["a/b"]);
        assert_eq!(git("git+http://localhost:3000/x?tag=v1").1.tag.as_deref(), Some("v1"));
    }

    #[test]
    fn documents_keep_their_query() {
        let settings = parse_address("https://host:8443/a/x.alloy?X-Signature=a%2Bb&path=y").unwrap();
        assert_eq!(settings.http.unwrap().url, "https://host:8443/a/x.alloy?X-Signature=a%2Bb&path=y");
        assert_eq!((settings.path.len(), settings.auth), (0, None));
        let settings = parse_address("https://me:hunter2@host/x").unwrap();
        assert_eq!(settings.http.unwrap().url, "https://host/x");
        assert_eq!(settings.auth.unwrap().basic.unwrap().username, "me");
        let settings = parse_address("http://hunter2@127.0.0.1/x").unwrap();
        assert!(settings.auth.unwrap().token.is_some());
    }

    #[test]
    fn addresses_of_ssh_keep_the_user() {
        for text in [
            "git+ssh://git@git.example:2222/obs/fleet.git//base?branch=main",
            "ssh://git@git.example:2222/obs/fleet.git//base?branch=main",
        ] {
            let (settings, git) = git(text);
            assert_eq!(git.url, "ssh://git@git.example:2222/obs/fleet.git");
            assert_eq!(git.branch.as_deref(), Some("main"));
            assert_eq!((settings.path, settings.auth), (vec!["base".to_owned()], None));
        }
        let (settings, short) = git("git@git.example:obs/fleet.git//base?branch=main&path=more");
        assert_eq!(short.url, "git@git.example:obs/fleet.git");
        assert_eq!(settings.path, ["base", "more"]);
        for text in ["git@git.example:x?banch=main", "git@git.example:x?branch=", "git@git.example:x#y"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_files() {
        for text in ["config.alloy", "/etc/invar", "./x", "C:\\x.alloy", "a@b", "a:b", "./a@b:c"] {
            assert_eq!(parse_address(text).unwrap().file.unwrap().path.to_str(), Some(text));
        }
        assert_eq!(parse_address("file:///etc/x").unwrap().file.unwrap().path.to_str(), Some("/etc/x"));
    }

    #[test]
    fn credentials_are_moved_out() {
        let (settings, git) = git("git+https://me:hunt%40er2@git.example/x");
        assert_eq!(git.url, "https://git.example/x");
        let basic = settings.auth.clone().unwrap().basic.unwrap();
        assert_eq!(basic.username, "me");
        assert_eq!(basic.password, Credential::Text(Secret::new("hunt@er2")));
        assert!(!format!("{settings:?}").contains("hunt"));
        for text in ["git+https://hunter2@git.example/x", "git+https://:hunter2@git.example/x"] {
            let settings = parse_address(text).unwrap();
            assert_eq!(settings.auth.unwrap().token, Some(Credential::Text(Secret::new("hunter2"))));
        }
    }

    #[test]
    fn errors_name_the_address_without_its_credentials() {
        for text in [
            "git+https://me:hunter2@git.example/x?banch=main",
            "git+https://me:hunter2@git.example/",
            "git+https://me:hunter2@git.example/x?branch=",
            "git+https://me:hunter2@git.example/x?branch=a&branch=b",
            "git+https://me:hunter2@git.example/x#y",
            "git+https://me:hunter2@git.example:99999/x",
            "git+https://me:hun/hunter2@git.example/x?tokn=hunter2",
            "git+https://me:hunt@er/hunter2@git.example/x",
            "git+https://hun/hunter2@git.example/x",
            "git+https://hun//hunter2@git.example/x",
            "git+https://hun?hunter2@git.example/x",
            "git+https://hun/x?hunter2=3@git.example/x",
            "git+https://hun#hunter2@git.example/x",
            "ssh://me:hunter2@git.example/x",
            "s3://me:hunter2@bucket/x",
            "s3://bucket/x?endpoint=http://me:hunter2@host",
            "s3://bucket/x?endpoint=http://me:hunter2%40host",
            "s3://bucket/x?endpoint=http://me:hunter2%40host&regoin=x",
            "s3://bucket/x?token=hunter2",
            "https://me:hunter2@git.example/x.git",
            "https://me:hunter2@git.example/x#y",
            "https://hun/hunter2@git.example/x",
            "https://hun?hunter2@git.example/x",
            "https://hun#hunter2@git.example/x",
            "https://git.example:99999/x?hunter2",
            "nope://me:hunter2@git.example/x",
        ] {
            let error = parse_address(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let error = parse_address("git+https://git.example/x?banch=main").unwrap_err();
        assert!(error.to_string().contains("did you mean `branch`"), "{error}");
    }

    #[test]
    fn buckets_with_an_object_or_a_prefix() {
        let s3 = |text: &str| parse_address(text).unwrap().s3.unwrap();
        let object =
            s3("s3://fleet/a/main.alloy?region=eu-west-1&endpoint=http://localhost:9000&path_style=false");
        assert_eq!((object.bucket.as_str(), object.key.as_deref()), ("fleet", Some("a/main.alloy")));
        assert_eq!(object.region.as_deref(), Some("eu-west-1"));
        assert_eq!(object.endpoint.as_deref(), Some("http://localhost:9000"));
        assert_eq!(object.path_style, Some(false));
        for (text, prefix) in [("s3://fleet", ""), ("s3://fleet/", ""), ("s3://fleet/a/b/", "a/b/")] {
            assert_eq!(s3(text).prefix.as_deref(), Some(prefix), "{text}");
        }
        assert_eq!(s3("s3://fleet/a%20b%3Fc%23d").key.as_deref(), Some("a b?c#d"));
        assert_eq!(parse_address("s3://fleet/x/?path=base&path=hosts/a").unwrap().path, ["base", "hosts/a"]);
        for (text, part) in [
            ("s3://", "no bucket"),
            ("s3:///x", "no bucket"),
            ("s3://fleet/x#y", "%23"),
            ("s3://fleet/x?region=", "is empty"),
            ("s3://fleet/x?region=a&region=b", "twice"),
            ("s3://fleet/x?path_style=maybe", "`true` or `false`"),
            ("s3://fleet/x?endpoint=host", "not an http"),
            ("s3://fleet/x?regoin=a", "did you mean `region`"),
        ] {
            let error = parse_address(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_at_sign_belongs_before_the_host() {
        assert!(parse_address("git+https://a@0/ @").is_err());
        assert_eq!(git("git+https://h/%40team/x?branch=a@b").1.url, "https://h/%40team/x");
        assert_eq!(git("git+https://h/%40team/x?branch=a@b").1.branch.as_deref(), Some("a@b"));
        assert_eq!(git("git+file:///srv/a@b").1.url, "file:///srv/a@b");
    }

    #[test]
    fn redaction() {
        assert_eq!(
            redact("git+https://a:b@h/x?branch=m&token=t&u"),
            "git+https://***@h/x?branch=m&token=***&***"
        );
        assert_eq!(redact("https://a:b@h/x?branch=m&token=t&u"), "https://***@h/x?***");
        assert_eq!(redact("/etc/x@y"), "/etc/x@y");
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(
            redact(&format!("oci://a:b@h/x:v1@{digest}?path=y")),
            format!("oci://***@h/x:v1@{digest}?path=y")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(git\\+https://|git\\+file://|s3://|)[ -~]{0,60}") {
            if let Ok(settings) = parse_address(&text)
                && let Some(git) = settings.git
            {
                prop_assert!(!git.url.contains('?'));
                let may_have_user = git.url.starts_with("file:") || !git.url.contains("://");
                prop_assert!(!git.url.contains('@') || may_have_user);
            }
        }

        #[test]
        fn no_password_survives_redaction(password in "[a-z/:?#@]{0,6}hunter2[a-z/:#@]{0,6}") {
            let text = format!("git+https://me:{password}@git.example/x?brnch=main");
            let redacted = redact(&text);
            prop_assert!(!redacted.contains("hunter2"), "{redacted}");
        }
    }
}
