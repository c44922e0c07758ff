//! Looks at a pack on its way to the indexer, for what it unpacks to. A pack of a kilobyte can hold an object that
//! says of itself, in a few instructions, that it is four gigabytes of copies of another one; the indexer would believe it
//! and take that much memory. Sizes are in the pack itself, in front of each object and of each difference.

use flate2::{Decompress, FlushDecompress, Status};

use crate::units::display_size;

/// The largest object that is made from a difference, and the largest such a difference starts from: both are held in
/// memory. Whole objects are not, however large.
const DELTA_LIMIT: u64 = 128 * 1024 * 1024;
/// What all objects of a pack may unpack to, for the time that takes.
const TOTAL_LIMIT: u64 = 8 * 1024 * 1024 * 1024;
/// The two sizes that a difference begins with are not longer.
const SIZES: usize = 20;

/// Why a pack is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PackRefusal {
    /// It unpacks to too much.
    Bomb(String),
    /// It is not a pack.
    Malformed(&'static str),
}

/// Follows the bytes of one pack.
pub(super) struct PackGuard {
    place: Place,
    /// Objects that follow, the current one included.
    objects: u32,
    total: u64,
    inflate: Decompress,
    buffer: Box<[u8]>,
}

enum Place {
    /// `PACK`, a version, a number of objects.
    Header(Vec<u8>),
    /// The kind and size of an object; bytes so far.
    Object {
        shift: u32,
        kind: u8,
        size: u64,
    },
    /// How far back the base of a difference lies.
    Offset(Object),
    /// The id of a base, of which so many bytes follow.
    Base(Object, usize),
    Data(Object),
    /// The digest, and nothing after it.
    Trailer,
}

#[derive(Clone, Debug, Default)]
struct Object {
    is_delta: bool,
    size: u64,
    produced: u64,
    /// The beginning of a difference.
    beginning: Vec<u8>,
}

const START: Place = Place::Object { shift: 0, kind: 0, size: 0 };

impl PackGuard {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Header(Vec::with_capacity(12)),
            objects: 0,
            total: 0,
            inflate: Decompress::new(true),
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
        }
    }

    /// Looks at the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), PackRefusal> {
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        Ok(())
    }

    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], PackRefusal> {
        match &mut self.place {
            Place::Header(header) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(12 - header.len()));
                header.extend_from_slice(taken);
                if let [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, count @ ..] = header.as_slice()
                    && let Ok(count) = <[u8; 4]>::try_from(count)
                {
                    self.objects = u32::from_be_bytes(count);
                    self.place = if self.objects == 0 { Place::Trailer } else { START };
                } else if header.len() == 12 {
                    return Err(PackRefusal::Malformed("what was received is no pack"));
                }
                Ok(rest)
            }
            Place::Object { shift, kind, size } => {
                let (byte, rest) = (bytes[0], &bytes[1..]);
                if *shift == 0 {
                    (*kind, *size, *shift) = (byte >> 4 & 7, u64::from(byte & 15), 4);
                } else {
                    if *shift > 57 {
                        return Err(PackRefusal::Malformed("an object's size is out of range"));
                    }
                    *size |= u64::from(byte & 127) << *shift;
                    *shift += 7;
                }
                if byte & 128 == 0 {
                    let object = Object { is_delta: *kind >= 6, size: *size, ..Object::default() };
                    self.place = match *kind {
                        1..=4 => Place::Data(object),
                        6 => Place::Offset(object),
                        7 => Place::Base(object, 20),
                        _ => {
                            return Err(PackRefusal::Malformed(
                                "it has an object of a kind that does not exist",
                            ));
                        }
                    };
                    self.begin()?;
                }
                Ok(rest)
            }
            Place::Offset(object) => {
                if bytes[0] & 128 == 0 {
                    self.place = Place::Data(std::mem::take(object));
                }
                Ok(&bytes[1..])
            }
            Place::Base(object, left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.place = Place::Data(std::mem::take(object));
                }
                Ok(&bytes[taken..])
            }
            Place::Data(_) => self.inflate(bytes),
            // Whether the digest is right is for the indexer to say.
            Place::Trailer => Ok(&[]),
        }
    }

    /// What an object says of its own size.
    fn begin(&mut self) -> Result<(), PackRefusal> {
        let (Place::Data(object) | Place::Offset(object) | Place::Base(object, _)) = &self.place else {
            return Ok(());
        };
        let (size, is_delta) = (object.size, object.is_delta);
        if is_delta {
            within(size)?;
        }
        self.count(size)
    }

    fn count(&mut self, size: u64) -> Result<(), PackRefusal> {
        self.total = self.total.saturating_add(size);
        if self.total > TOTAL_LIMIT {
            let most = display_size(TOTAL_LIMIT);
            return Err(PackRefusal::Bomb(format!("the received pack unpacks to more than {most}")));
        }
        Ok(())
    }

    fn inflate<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], PackRefusal> {
        let Place::Data(object) = &mut self.place else { return Ok(bytes) };
        let broken = PackRefusal::Malformed("an object of it cannot be unpacked");
        let (consumed, produced) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(bytes, &mut self.buffer, FlushDecompress::None)
            .map_err(|_| broken.clone())?;
        let consumed = usize::try_from(self.inflate.total_in() - consumed).map_err(|_| broken.clone())?;
        let produced = usize::try_from(self.inflate.total_out() - produced).map_err(|_| broken.clone())?;
        object.produced += produced as u64;
        if object.produced > object.size {
            return Err(PackRefusal::Malformed("an object of it is larger than it says"));
        }
        let mut unpacks_to = None;
        if object.is_delta && object.beginning.len() < SIZES {
            let wanted = SIZES - object.beginning.len();
            let known = object.beginning.len();
            object.beginning.extend_from_slice(&self.buffer[..produced.min(wanted)]);
            let complete = object.beginning.len() == SIZES || status == Status::StreamEnd;
            if complete && known < SIZES {
                let (from, rest) = size_of(&object.beginning).ok_or_else(|| broken.clone())?;
                let (to, _) = size_of(rest).ok_or_else(|| broken.clone())?;
                within(from)?;
                within(to)?;
                unpacks_to = Some(to);
            }
        }
        match status {
            Status::StreamEnd => {
                if object.produced != object.size {
                    return Err(PackRefusal::Malformed("an object of it is smaller than it says"));
                }
                self.inflate.reset(true);
                self.objects -= 1;
                self.place = if self.objects == 0 { Place::Trailer } else { START };
            }
            _ if consumed == 0 && produced == 0 => return Err(broken),
            _ => {}
        }
        if let Some(size) = unpacks_to {
            self.count(size)?;
        }
        Ok(&bytes[consumed..])
    }
}

fn within(size: u64) -> Result<(), PackRefusal> {
    if size <= DELTA_LIMIT {
        return Ok(());
    }
    let (is, most) = (display_size(size), display_size(DELTA_LIMIT));
    Err(PackRefusal::Bomb(format!(
        "the received pack has a difference that is, starts from or leads to {is}, more than {most}"
    )))
}

/// Reads a size, seven bits a byte, off the beginning of a difference.
fn size_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut size = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        size |= u64::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((size, &bytes[index + 1..]));
        }
    }
    None
}

/// Whether a whole pack may be taken; for the fuzzer, which looks for panics.
pub fn is_harmless(pack: &[u8]) -> bool {
    let mut guard = PackGuard::new();
    let whole = guard.push(pack);
    let mut guard = PackGuard::new();
    let parts: Result<(), _> = pack.chunks(7).try_for_each(|chunk| guard.push(chunk));
    assert_eq!(whole.is_ok(), parts.is_ok(), "it does not matter in which pieces a pack comes");
    whole.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn object(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = size >> 4;
        let low = u8::try_from(size & 15).unwrap() | kind << 4;
        bytes.push(if rest == 0 { low } else { low | 128 });
        while rest > 0 {
            let part = u8::try_from(rest & 127).unwrap();
            rest >>= 7;
            bytes.push(if rest == 0 { part } else { part | 128 });
        }
        bytes.extend_from_slice(base);
        let mut encoder = ZlibEncoder::new(bytes, Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(objects.len()).unwrap();
        [b"PACK\0\0\0\x02".as_slice(), &count.to_be_bytes(), &objects.concat(), &[0; 20]].concat()
    }

    fn size(mut size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let part = u8::try_from(size & 127).unwrap();
            size >>= 7;
            bytes.push(if size == 0 { part } else { part | 128 });
            if size == 0 {
                return bytes;
            }
        }
    }

    /// A difference that says where it starts from and what it leads to.
    fn delta(kind: u8, base: &[u8], from: u64, to: u64) -> Vec<u8> {
        let content = [size(from), size(to), vec![0x90, 1]].concat();
        object(kind, content.len() as u64, base, &content)
    }

    fn look(pack: &[u8]) -> Result<(), PackRefusal> {
        let mut guard = PackGuard::new();
        guard.push(pack)
    }

    #[test]
    fn what_differences_lead_to_is_bounded() {
        let blob = object(3, 4, b"", b"blob");
        assert_eq!(
            look(&pack(&[blob.clone(), delta(6, &[0x40], 4, 1000), delta(7, &[9; 20], 4, 1)])),
            Ok(())
        );
        let huge = DELTA_LIMIT + 1;
        for bomb in [
            delta(6, &[0x85, 0x40], 4, huge),
            delta(7, &[9; 20], huge, 4),
            delta(7, &[9; 20], 4, u64::MAX >> 1),
        ] {
            let refused = look(&pack(&[blob.clone(), bomb])).unwrap_err();
            assert!(
                matches!(&refused, PackRefusal::Bomb(reason) if reason.contains("128 MiB")),
                "{refused:?}"
            );
        }
        let many = vec![delta(7, &[9; 20], 4, DELTA_LIMIT); 70];
        let refused = look(&pack(&many)).unwrap_err();
        assert!(matches!(&refused, PackRefusal::Bomb(reason) if reason.contains("8 GiB")), "{refused:?}");
        // An object that only says that it is huge.
        let refused = look(&pack(&[object(3, 9 << 30, b"", b"x")])).unwrap_err();
        assert!(matches!(refused, PackRefusal::Bomb(_)), "{refused:?}");
    }

    #[test]
    fn what_is_no_pack_is_not_taken() {
        for bytes in [
            b"PUCK\0\0\0\x02\0\0\0\x01".to_vec(),
            b"PACK\0\0\0\x09\0\0\0\x01".to_vec(),
            pack(&[object(3, 3, b"", b"longer")]),
            pack(&[object(3, 9, b"", b"short")]),
            pack(&[object(5, 4, b"", b"kind")]),
            pack(&[[&[0x33_u8], b"not compressed at all".as_slice()].concat()]),
            pack(&[vec![0xff; 12]]),
            pack(&[object(7, 1, &[9; 20], b"\xff")]),
        ] {
            let refused = look(&bytes).unwrap_err();
            assert!(matches!(refused, PackRefusal::Malformed(_)), "{refused:?}");
        }
        assert_eq!(look(&pack(&[])), Ok(()));
    }

    #[test]
    fn packs_of_git_pass_in_any_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str], input: &[u8]| {
            let mut child = Command::new("git")
                .args(arguments)
                .current_dir(folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .ok()?;
            child.stdin.take().unwrap().write_all(input).unwrap();
            Some(child.wait_with_output().unwrap().stdout)
        };
        if git(&["init", "-q"], b"").is_none() {
            eprintln!("skipped: git is not installed");
            return;
        }
        let text: String = (0..5000).map(|number| format!("line {}\n", number * 7919 % 4409)).collect();
        let mut ids = Vec::new();
        for number in 0..10 {
            let id = git(&["hash-object", "-w", "--stdin"], format!("{text}{number}").as_bytes()).unwrap();
            ids.extend(id);
        }
        ids.extend(git(&["hash-object", "-w", "--stdin"], b"").unwrap());
        for base in ["--delta-base-offset", "--no-reuse-delta"] {
            let pack = git(&["pack-objects", "-q", base, "--stdout"], &ids).unwrap();
            assert!(pack.len() > 1000);
            for piece in [1, 2, 13, 4096, pack.len()] {
                let mut guard = PackGuard::new();
                for bytes in pack.chunks(piece) {
                    assert_eq!(guard.push(bytes), Ok(()), "pieces of {piece}");
                }
                assert!(matches!(guard.place, Place::Trailer));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 1_u8..4) {
            is_harmless(&bytes);
            is_harmless(&[b"PACK\0\0\0\x02\0\0\0".as_slice(), &[count], &bytes].concat());
            is_harmless(&pack(&[object(3, 4, b"", b"blob"), bytes]));
        }
    }
}
