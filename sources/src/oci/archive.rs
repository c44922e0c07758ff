//! The files within an archive, unpacked in memory: nothing of it ever touches the host's file system, and what would do
//! harm there is refused all the same.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::error::{Failure, Rejection};
use crate::path::{check_name, resolve_link};
use crate::settings::LimitSettings;
use crate::snapshot::Files;
use crate::units::display_size;

/// How many times larger than what was sent an archive may be; small ones consist of padding.
const RATIO_LIMIT: u64 = 100;
const RATIO_FLOOR: u64 = 1024 * 1024;
/// The most entries, files or not.
const ENTRY_LIMIT: usize = 200_000;
/// The most links that are followed one after the other.
const HOP_LIMIT: usize = 8;
/// The longest target of a link, in bytes.
const TARGET_LIMIT: usize = 4096;
const LFS_MARK: &[u8] = b"version https://git-lfs.github.com/spec/";
const GZIP_MARK: &[u8] = b"\x1f\x8b";

enum Node {
    File(Bytes),
    Link(Vec<String>),
}

/// Unpacks the files at and below `selected` (normalized; nothing or the empty path is everything) of an archive,
/// compressed or not. Blocking.
pub(super) fn unpack(archive: &[u8], selected: &[String], limits: &LimitSettings) -> Result<Files, Failure> {
    let unpacking =
        Unpacking { selected, limits, nodes: BTreeMap::new(), count: 0, bytes: 0, other_bytes: 0 };
    if !archive.starts_with(GZIP_MARK) {
        return unpacking.run(archive, u64::MAX);
    }
    let most = (archive.len() as u64).saturating_mul(RATIO_LIMIT).max(RATIO_FLOOR).min(limits.pack);
    unpacking.run(MultiGzDecoder::new(archive), most)
}

/// Counts what comes out, and ends where too much does.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: std::rc::Rc<std::cell::Cell<bool>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => {
                self.exceeded.set(true);
                Err(io::Error::other("too much"))
            }
        }
    }
}

struct Unpacking<'a> {
    selected: &'a [String],
    limits: &'a LimitSettings,
    nodes: BTreeMap<String, Node>,
    /// How many files are selected, and how many bytes they have; those that are not may still be what links lead to.
    count: usize,
    bytes: u64,
    other_bytes: u64,
}

impl Unpacking<'_> {
    fn run(mut self, stream: impl Read, most: u64) -> Result<Files, Failure> {
        let exceeded = std::rc::Rc::default();
        let bounded = Bounded { inner: stream, left: most, exceeded: std::rc::Rc::clone(&exceeded) };
        let mut archive = Archive::new(bounded);
        let result = self.read(&mut archive);
        if exceeded.get() {
            let message = format!("the archive is more than {} when decompressed", display_size(most));
            return Err(limit(message));
        }
        result?;
        self.files()
    }

    fn read(&mut self, archive: &mut Archive<impl Read>) -> Result<(), Failure> {
        let mut count = 0;
        for entry in archive.entries().map_err(|error| broken(&error))? {
            let mut entry = entry.map_err(|error| broken(&error))?;
            count += 1;
            if count > ENTRY_LIMIT {
                return Err(limit(format!("the archive has more than {ENTRY_LIMIT} entries")));
            }
            self.take(&mut entry)?;
        }
        Ok(())
    }

    fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Failure> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => return Ok(()),
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
            EntryType::Symlink | EntryType::Link => {}
            _ => {
                let path = String::from_utf8_lossy(&entry.path_bytes()).chars().take(80).collect::<String>();
                let message = format!("`{}` in the archive is neither file nor folder", path.escape_debug());
                return Err(Failure::rejected(Rejection::Shape, message));
            }
        }
        let names = names(&entry.path_bytes())?;
        let Some((name, folder)) = names.split_last() else { return Ok(()) };
        let path = names.join("/");
        let node = match kind {
            EntryType::Directory => return Ok(()),
            EntryType::Symlink => Node::Link(self.target(entry, folder, &path)?),
            // The path within the archive.
            EntryType::Link => Node::Link(self.target(entry, &[], &path)?),
            _ => {
                let size = entry.size();
                let wanted = is_selected(&path, self.selected);
                let (counted, limits) =
                    (if wanted { &mut self.bytes } else { &mut self.other_bytes }, self.limits);
                if size > limits.file {
                    if !wanted {
                        return Ok(());
                    }
                    let (is, most) = (display_size(size), display_size(limits.file));
                    return Err(limit(format!("`{path}` is {is} long, more than {most}"))
                        .with_help("select less with `path`, or raise `limits.file`"));
                }
                *counted += size;
                if *counted > limits.bytes {
                    // Of what is not selected only links could want something.
                    if !wanted {
                        return Ok(());
                    }
                    let most = display_size(limits.bytes);
                    return Err(limit(format!("the files of the archive have more than {most}"))
                        .with_help("select less with `path`, or raise `limits.bytes`"));
                }
                let mut content = Vec::new();
                entry.take(limits.file).read_to_end(&mut content).map_err(|error| broken(&error))?;
                if content.len() as u64 != size {
                    return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
                }
                if wanted && content.starts_with(LFS_MARK) {
                    return Err(Failure::rejected(
                        Rejection::LfsPointer,
                        format!("`{path}` is a Git LFS pointer"),
                    )
                    .with_help("publish the content itself"));
                }
                Node::File(content.into())
            }
        };
        self.count += usize::from(is_selected(&path, self.selected));
        if self.count > self.limits.files {
            let most = self.limits.files;
            return Err(limit(format!("the archive has more than {most} files"))
                .with_help("select less with `path`, or raise `limits.files`"));
        }
        if self.nodes.insert(path.clone(), node).is_some() {
            let message = format!("`{name}` is in the archive twice, as `{path}`");
            return Err(Failure::rejected(Rejection::Shape, message));
        }
        Ok(())
    }

    fn target(
        &self,
        entry: &Entry<'_, impl Read>,
        folder: &[String],
        path: &str,
    ) -> Result<Vec<String>, Failure> {
        let escape = || {
            let message = format!("the link at `{path}` leads out of the archive");
            Failure::rejected(Rejection::SymlinkEscape, message)
        };
        let target = entry.link_name_bytes().ok_or_else(escape)?;
        if target.len() > TARGET_LIMIT {
            return Err(escape());
        }
        let target = std::str::from_utf8(&target).map_err(|_| escape())?;
        resolve_link(folder, target).ok_or_else(escape)
    }

    /// The selected files, with links replaced by what they lead to.
    fn files(self) -> Result<Files, Failure> {
        let mut files = Files::new();
        for (path, node) in self.nodes.iter().filter(|(path, _)| is_selected(path, self.selected)) {
            let mut node = node;
            let mut hops = 0;
            let content = loop {
                match node {
                    Node::File(content) => break content.clone(),
                    Node::Link(target) => {
                        hops += 1;
                        if hops > HOP_LIMIT {
                            let message =
                                format!("the link at `{path}` goes through more than {HOP_LIMIT} links");
                            return Err(Failure::rejected(Rejection::SymlinkEscape, message));
                        }
                        node = self.nodes.get(&target.join("/")).ok_or_else(|| {
                            let message =
                                format!("the link at `{path}` does not lead to a file of the archive");
                            Failure::rejected(Rejection::Shape, message)
                        })?;
                    }
                }
            };
            files.insert(path.clone(), content);
        }
        if files.is_empty() {
            let message = if self.selected.is_empty() {
                "the archive has no files".to_owned()
            } else {
                format!("the archive has no files at {}", self.selected.join(", "))
            };
            return Err(Failure::rejected(Rejection::EmptySource, message));
        }
        Ok(files)
    }
}

fn is_selected(path: &str, selected: &[String]) -> bool {
    let below = |folder: &String| {
        folder.is_empty()
            || path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    selected.is_empty() || selected.iter().any(below)
}

/// The names of a path, each safe; none for the root itself.
fn names(path: &[u8]) -> Result<Vec<String>, Failure> {
    if path.starts_with(b"/") {
        let shown = String::from_utf8_lossy(path).chars().take(80).collect::<String>();
        let message = format!("the path `{}` in the archive is absolute", shown.escape_debug());
        return Err(Failure::rejected(Rejection::Name, message));
    }
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| check_name(name).map(str::to_owned))
        .collect()
}

fn limit(message: String) -> Failure {
    Failure::rejected(Rejection::Limits, message)
}

/// Its digest is right, so that asking again gives the same.
fn broken(error: &io::Error) -> Failure {
    Failure::rejected(Rejection::Shape, format!("the layer is no archive that can be read: {error}"))
}

#[cfg(test)]
mod tests;
