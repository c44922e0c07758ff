//! `coalesce`, `convert.nonsensitive`, `sys.env` and the constants.

use super::{Outcome, text_argument};
use crate::function::FunctionError;
use crate::secret::OptionalSecret;
use crate::value::Value;

/// The first argument that says something, else the last.
pub(super) fn coalesce(arguments: &[Value]) -> Outcome {
    let chosen = arguments.iter().find(|value| !is_nothing(value)).or_else(|| arguments.last());
    Ok(chosen.cloned().unwrap_or(Value::Null))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.is_zero(),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Capsule(capsule) => capsule.to_object().is_some_and(|object| object.is_empty()),
        Value::Function(_)
        | Value::Secret(_)
        | Value::OptionalSecret(_)
        | Value::LiveSecret(_)
        | Value::Unknown(_) => false,
    }
}

/// The plain text of a secret: the only way out.
pub(super) fn nonsensitive(arguments: &[Value]) -> Outcome {
    match arguments.first() {
        Some(Value::Secret(secret)) => Ok(Value::string(secret.expose())),
        Some(Value::LiveSecret(live)) => Ok(Value::string(live.freeze().expose())),
        Some(Value::OptionalSecret(OptionalSecret::Secret(secret))) => Ok(Value::string(secret.expose())),
        Some(Value::OptionalSecret(OptionalSecret::Plain(text))) => Ok(Value::string(text.as_str())),
        Some(text @ Value::String(_)) => Ok(text.clone()),
        Some(Value::Null) => Ok(Value::string("")),
        Some(other) => {
            Err(FunctionError::argument(0, format!("should be a secret or string, got {}", other.describe())))
        }
        None => Ok(Value::string("")),
    }
}

/// Secrets are the host's: who has them puts a function of this name before this one.
pub(super) fn secret(_: &[Value]) -> Outcome {
    Err(FunctionError::call("secrets are at hand in a running agent only"))
}

/// A variable of the process's environment; empty where it is not set.
pub(super) fn environment(arguments: &[Value]) -> Outcome {
    let name = text_argument(arguments, 0)?;
    // `var_os` accepts any name but these, on which it panics on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Ok(Value::string(""));
    }
    Ok(Value::string(
        std::env::var_os(&*name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default(),
    ))
}

/// `constants.*`, with the names of systems and architectures that Alloy uses.
pub(super) fn constants() -> [(&'static str, Value); 4] {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    };
    [
        ("constants.arch", Value::string(architecture)),
        ("constants.hostname", Value::string(hostname())),
        ("constants.os", Value::string(system)),
        ("constants.version", Value::string(concat!("v", env!("CARGO_PKG_VERSION")))),
    ]
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default()
}
