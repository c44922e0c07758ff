//! A manifest of an S3 source is read or refused; what is read holds safe names and digests.
#![no_main]

use invar_sources::{Manifest, normalize_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    let Ok(manifest) = Manifest::parse(document) else { return };
    for (name, digest) in &manifest.files {
        assert_eq!(normalize_path(name).as_ref(), Some(name));
        assert!(digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }
    if let Some(folder) = &manifest.objects {
        assert!(!folder.starts_with('/') && !folder.split('/').any(|name| name == ".."));
    }
});
