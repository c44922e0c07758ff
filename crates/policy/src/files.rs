//! Files below roots. The path as it is written has to lie below a root, and so has what it leads to: a symbolic link that
//! somebody put below the root gives nobody more.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The absolute path without `.` and `..`, as it is written: links are not followed.
pub(crate) fn written(path: &Path) -> io::Result<PathBuf> {
    let absolute = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    Ok(normal(&absolute))
}

/// Without `.` and `..`.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // What is above the root is the root.
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Where the path leads: as far as it exists, with all links followed.
pub(crate) fn leads_to(path: &Path) -> io::Result<PathBuf> {
    let mut existing = path.to_owned();
    let mut rest: Vec<OsString> = Vec::new();
    loop {
        match std::fs::canonicalize(&existing) {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(real);
            }
            // A link that leads nowhere is not followed by name: nobody knows what will be there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(&existing) => {
                match (existing.file_name().map(ToOwned::to_owned), existing.parent().map(Path::to_owned)) {
                    (Some(name), Some(parent)) => {
                        rest.push(name);
                        existing = parent;
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Where an open file is, which no later change of a link can alter.
pub(crate) fn place_of(file: &File, path: &Path) -> io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        match std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
            Ok(place) => return Ok(place),
            // Without /proc only the name is left.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let _ = file;
    std::fs::canonicalize(path)
}
