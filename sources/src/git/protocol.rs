//! The messages of the Git wire protocol that reading needs: the advertisement of a server, `ls-refs` and
//! `fetch` of version 2 (gitprotocol-v2), and the equivalents of versions 0 and 1 (gitprotocol-pack) for
//! servers that know no better. Bytes in, values out: nothing here touches the network.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};

use super::pkt_line::{
    FramingError, Packet, PacketReader, trim_line, write_delimiter, write_flush, write_line,
};

/// A server's message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The framing is broken.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The answer ended before it was complete.
    #[error("the server's answer ended early")]
    Truncated,
    /// The server refused in its own words, shortened and without control characters.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// A line that the protocol does not know.
    #[error("the server's answer has an unexpected line")]
    Unexpected,
    /// More references or bytes than are read.
    #[error("the server's answer is longer than {0} entries")]
    TooLong(usize),
}

/// The most references that one answer may list.
const REFERENCE_LIMIT: usize = 200_000;

/// A reference of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReference {
    /// In full: `HEAD`, `refs/heads/main`, …
    pub name: String,
    /// The object it names, in hexadecimal digits; empty for a `HEAD` without commits.
    pub object: String,
    /// The commit an annotated tag names.
    pub peeled: Option<String>,
    /// The reference that a symbolic one (`HEAD`) names.
    pub target: Option<String>,
}

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// 2, or 1 for versions 0 and 1.
    pub version: u8,
    /// Capability to its value, which is empty where there is none.
    pub capabilities: BTreeMap<String, String>,
    /// All references, in versions 0 and 1.
    pub references: Vec<RemoteReference>,
}

impl Advertisement {
    /// Whether `feature` is among the features of command `fetch` (version 2) or a capability (version 1).
    #[must_use]
    pub fn has_fetch_feature(&self, feature: &str) -> bool {
        match self.version {
            2 => self
                .capabilities
                .get("fetch")
                .is_some_and(|features| features.split(' ').any(|other| other == feature)),
            _ => self.capabilities.contains_key(feature),
        }
    }

    /// Whether objects are named by SHA-1.
    #[must_use]
    pub fn is_sha1(&self) -> bool {
        self.capabilities.get("object-format").is_none_or(|format| format == "sha1")
    }
}

/// All frames of a complete answer.
fn packets(bytes: &[u8]) -> Result<Vec<Packet>, ProtocolError> {
    let mut reader = PacketReader::default();
    reader.push(bytes);
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet()? {
        if let Packet::Data(content) = &packet {
            refusal(content)?;
        }
        if packets.len() > REFERENCE_LIMIT {
            return Err(ProtocolError::TooLong(REFERENCE_LIMIT));
        }
        packets.push(packet);
    }
    if reader.is_empty() { Ok(packets) } else { Err(ProtocolError::Truncated) }
}

fn refusal(content: &[u8]) -> Result<(), ProtocolError> {
    match content.strip_prefix(b"ERR ") {
        Some(reason) => Err(ProtocolError::Refused(for_people(reason))),
        None => Ok(()),
    }
}

/// At most 200 characters of a server's words, none of them controlling a terminal.
pub(crate) fn for_people(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(trim_line(words));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect::<String>().trim().to_owned()
}

fn text(content: &[u8]) -> Result<&str, ProtocolError> {
    std::str::from_utf8(trim_line(content)).map_err(|_| ProtocolError::Unexpected)
}

fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads the answer to `GET …/info/refs?service=git-upload-pack`.
///
/// # Errors
/// [`ProtocolError`]; an answer without a closing flush is [`ProtocolError::Truncated`].
pub fn parse_advertisement(bytes: &[u8]) -> Result<Advertisement, ProtocolError> {
    let packets = packets(bytes)?;
    let mut rest = packets.as_slice();
    // Servers may leave the service line out in version 2.
    if let [Packet::Data(first), Packet::Flush, after @ ..] = rest
        && first.starts_with(b"# service=")
    {
        rest = after;
    }
    let Some((Packet::Flush, lines)) = rest.split_last() else { return Err(ProtocolError::Truncated) };
    match lines.split_first() {
        Some((Packet::Data(first), capabilities)) if trim_line(first) == b"version 2" => {
            let mut advertisement =
                Advertisement { version: 2, capabilities: BTreeMap::new(), references: Vec::new() };
            for packet in capabilities {
                let Packet::Data(line) = packet else { return Err(ProtocolError::Unexpected) };
                let (name, value) = text(line)?.split_once('=').unwrap_or((text(line)?, ""));
                advertisement.capabilities.insert(name.to_owned(), value.to_owned());
            }
            Ok(advertisement)
        }
        _ => parse_first_version(lines),
    }
}

fn parse_first_version(lines: &[Packet]) -> Result<Advertisement, ProtocolError> {
    let mut advertisement =
        Advertisement { version: 1, capabilities: BTreeMap::new(), references: Vec::new() };
    let mut symbolic: BTreeMap<String, String> = BTreeMap::new();
    let mut first = true;
    for packet in lines {
        let Packet::Data(line) = packet else { return Err(ProtocolError::Unexpected) };
        let mut line = text(line)?;
        if first && line == "version 1" {
            continue;
        }
        if first {
            first = false;
            if let Some((reference, capabilities)) = line.split_once('\0') {
                line = reference;
                for capability in capabilities.split(' ').filter(|capability| !capability.is_empty()) {
                    let (name, value) = capability.split_once('=').unwrap_or((capability, ""));
                    if name == "symref"
                        && let Some((from, to)) = value.split_once(':')
                    {
                        symbolic.insert(from.to_owned(), to.to_owned());
                    }
                    advertisement.capabilities.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        if line.starts_with("shallow ") {
            continue;
        }
        let Some((object, name)) = line.split_once(' ') else { return Err(ProtocolError::Unexpected) };
        if !is_object_id(object) {
            return Err(ProtocolError::Unexpected);
        }
        if name == "capabilities^{}" {
            continue;
        }
        if let Some(tag) = name.strip_suffix("^{}") {
            match advertisement.references.last_mut() {
                Some(last) if last.name == tag => last.peeled = Some(object.to_owned()),
                _ => return Err(ProtocolError::Unexpected),
            }
            continue;
        }
        let target = symbolic.get(name).cloned();
        let (name, object) = (name.to_owned(), object.to_owned());
        advertisement.references.push(RemoteReference { name, object, peeled: None, target });
    }
    Ok(advertisement)
}

/// The start of a version 2 request.
fn command(name: &str, advertisement: &Advertisement) -> Vec<u8> {
    let mut request = Vec::with_capacity(512);
    write_line(&mut request, &format!("command={name}"));
    if advertisement.capabilities.contains_key("agent") {
        write_line(&mut request, concat!("agent=invar/", env!("CARGO_PKG_VERSION")));
    }
    if advertisement.capabilities.contains_key("object-format") {
        write_line(&mut request, "object-format=sha1");
    }
    write_delimiter(&mut request);
    request
}

/// The request for the references whose names start with one of `prefixes`.
#[must_use]
pub fn encode_ls_refs(advertisement: &Advertisement, prefixes: &[String]) -> Vec<u8> {
    let mut request = command("ls-refs", advertisement);
    write_line(&mut request, "peel");
    write_line(&mut request, "symrefs");
    let features = advertisement.capabilities.get("ls-refs");
    if features.is_some_and(|features| features.split(' ').any(|feature| feature == "unborn")) {
        write_line(&mut request, "unborn");
    }
    for prefix in prefixes {
        write_line(&mut request, &format!("ref-prefix {prefix}"));
    }
    write_flush(&mut request);
    request
}

/// Reads the answer to [`encode_ls_refs`].
///
/// # Errors
/// [`ProtocolError`].
pub fn parse_ls_refs(bytes: &[u8]) -> Result<Vec<RemoteReference>, ProtocolError> {
    let packets = packets(bytes)?;
    let lines = match packets.split_last() {
        Some((Packet::Flush, lines)) => lines,
        Some((Packet::ResponseEnd, [lines @ .., Packet::Flush])) => lines,
        _ => return Err(ProtocolError::Truncated),
    };
    let mut references = Vec::with_capacity(lines.len());
    for packet in lines {
        let Packet::Data(line) = packet else { return Err(ProtocolError::Unexpected) };
        let mut words = text(line)?.split(' ');
        let (Some(object), Some(name)) = (words.next(), words.next()) else {
            return Err(ProtocolError::Unexpected);
        };
        let object = match object {
            "unborn" => String::new(),
            object if is_object_id(object) => object.to_owned(),
            _ => return Err(ProtocolError::Unexpected),
        };
        let mut reference = RemoteReference { name: name.to_owned(), object, peeled: None, target: None };
        for attribute in words {
            if let Some(target) = attribute.strip_prefix("symref-target:") {
                reference.target = Some(target.to_owned());
            } else if let Some(peeled) = attribute.strip_prefix("peeled:") {
                if !is_object_id(peeled) {
                    return Err(ProtocolError::Unexpected);
                }
                reference.peeled = Some(peeled.to_owned());
            }
        }
        references.push(reference);
    }
    Ok(references)
}

/// What to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// The commit wanted.
    pub want: String,
    /// A commit that is here, with its tree but without its parents.
    pub have: Option<String>,
    /// How many commits back; 0 means all.
    pub depth: u32,
    /// Leave trees and files out, where the server can.
    pub commits_only: bool,
}

/// The request for a pack.
#[must_use]
pub fn encode_fetch(advertisement: &Advertisement, fetch: &FetchRequest) -> Vec<u8> {
    if advertisement.version == 2 {
        encode_fetch_v2(advertisement, fetch)
    } else {
        encode_fetch_v1(advertisement, fetch)
    }
}

fn encode_fetch_v2(advertisement: &Advertisement, fetch: &FetchRequest) -> Vec<u8> {
    let mut request = command("fetch", advertisement);
    for line in ["thin-pack", "no-progress", "ofs-delta"] {
        write_line(&mut request, line);
    }
    write_line(&mut request, &format!("want {}", fetch.want));
    if let Some(have) = &fetch.have {
        write_line(&mut request, &format!("shallow {have}"));
        write_line(&mut request, &format!("have {have}"));
    }
    if fetch.depth > 0 && advertisement.has_fetch_feature("shallow") {
        write_line(&mut request, &format!("deepen {}", fetch.depth));
    }
    if fetch.commits_only && advertisement.has_fetch_feature("filter") {
        write_line(&mut request, "filter tree:0");
    }
    write_line(&mut request, "done");
    write_flush(&mut request);
    request
}

fn encode_fetch_v1(advertisement: &Advertisement, fetch: &FetchRequest) -> Vec<u8> {
    let mut request = Vec::with_capacity(512);
    let mut want = format!("want {}", fetch.want);
    for capability in ["multi_ack_detailed", "side-band-64k", "thin-pack", "ofs-delta", "no-progress"] {
        if advertisement.capabilities.contains_key(capability) {
            want.push(' ');
            want.push_str(capability);
        }
    }
    if fetch.commits_only && advertisement.has_fetch_feature("filter") {
        want.push_str(" filter");
    }
    if advertisement.capabilities.contains_key("agent") {
        want.push_str(concat!(" agent=invar/", env!("CARGO_PKG_VERSION")));
    }
    write_line(&mut request, &want);
    if advertisement.has_fetch_feature("shallow") {
        if let Some(have) = &fetch.have {
            write_line(&mut request, &format!("shallow {have}"));
        }
        if fetch.depth > 0 {
            write_line(&mut request, &format!("deepen {}", fetch.depth));
        }
    }
    if fetch.commits_only && advertisement.has_fetch_feature("filter") {
        write_line(&mut request, "filter tree:0");
    }
    write_flush(&mut request);
    // Without the shallow capability a `have` would promise parents that are not here.
    if let Some(have) = fetch.have.as_ref().filter(|_| advertisement.has_fetch_feature("shallow")) {
        write_line(&mut request, &format!("have {have}"));
    }
    write_line(&mut request, "done");
    request
}

/// Reads the answer to [`encode_fetch`] as it arrives.
#[derive(Debug)]
pub struct FetchReader {
    packets: PacketReader,
    version: u8,
    in_pack: bool,
    finished: bool,
}

impl FetchReader {
    /// A reader of an answer in the advertised version.
    #[must_use]
    pub fn new(version: u8) -> Self {
        Self { packets: PacketReader::default(), version, in_pack: false, finished: false }
    }

    /// Adds what arrived and gives the bytes of the pack that became complete.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Bytes>, ProtocolError> {
        self.packets.push(chunk);
        let mut pack = Vec::new();
        while let Some(packet) = self.packets.next_packet()? {
            match packet {
                Packet::Data(content) if self.finished => {
                    let _ = content;
                    return Err(ProtocolError::Unexpected);
                }
                Packet::Data(content) => pack.extend(self.line(content)?),
                Packet::Flush if self.in_pack => self.finished = true,
                Packet::Flush | Packet::Delimiter | Packet::ResponseEnd => {}
            }
        }
        Ok(pack)
    }

    fn line(&mut self, mut content: Bytes) -> Result<Option<Bytes>, ProtocolError> {
        if !self.in_pack {
            refusal(&content)?;
            if self.version == 2 {
                self.in_pack = trim_line(&content) == b"packfile";
                return Ok(None);
            }
            // shallow, unshallow, ACK and NAK come before the first frame of a band.
            if !matches!(content.first(), Some(1..=3)) {
                return Ok(None);
            }
            self.in_pack = true;
        }
        let band = content.first().copied();
        match band {
            Some(1) => {
                content.advance(1);
                Ok((!content.is_empty()).then_some(content))
            }
            Some(2) => Ok(None),
            Some(3) => Err(ProtocolError::Refused(for_people(&content[1..]))),
            _ => Err(ProtocolError::Unexpected),
        }
    }

    /// Whether the whole answer was read.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`] when something is missing.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        if self.finished && self.packets.is_empty() { Ok(()) } else { Err(ProtocolError::Truncated) }
    }
}

#[cfg(test)]
mod tests;
