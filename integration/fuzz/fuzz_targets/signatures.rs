//! Files of keys, signatures, and the commits and tags that hold them are read or refused, and never panic.
#![no_main]

use invar_sources::signature_format::{
    is_allowed_signers, is_keyring, parse_minisign, parse_openpgp, parse_ssh,
};
use invar_sources::wire_format::has_signature;
use libfuzzer_sys::fuzz_target;

const SSH: (&[u8], &[u8]) = (b"-----BEGIN SSH SIGNATURE-----\n", b"\n-----END SSH SIGNATURE-----\n");
const PGP: (&[u8], &[u8]) = (b"-----BEGIN PGP SIGNATURE-----\n\n", b"\n-----END PGP SIGNATURE-----\n");

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let armored = |(begin, end): (&[u8], &[u8])| [begin, rest, end].concat();
    match kind % 8 {
        0 => drop(std::str::from_utf8(rest).map(is_allowed_signers)),
        1 => drop(parse_ssh(&armored(SSH))),
        2 => drop(parse_openpgp(&armored(PGP))),
        3 => drop(is_keyring(rest)),
        4 => drop(parse_minisign(rest)),
        5 => drop(parse_ssh(rest)),
        6 => drop(parse_openpgp(rest)),
        _ => {
            let (commit, _) = has_signature(rest);
            assert!(!commit || rest.windows(7).any(|window| window == b"gpgsig "));
        }
    }
});
