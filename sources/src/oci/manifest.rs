//! Manifests of artifacts: which layer holds the files.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::reference::is_digest;
use crate::error::{Failure, Rejection};

/// The media types that are asked for.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// What Flux calls the layer of its artifacts.
const FLUX_CONTENT: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
/// What others call a compressed archive.
const ARCHIVES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar",
];
/// The layers of a signature of cosign.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Where a part of an artifact is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A manifest, of an artifact or of several.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|_| shape("the registry answers with something that is no manifest".to_owned()))?;
        let descriptors = manifest.layers.iter().chain(&manifest.manifests);
        if let Some(wrong) = descriptors.into_iter().find(|descriptor| !is_digest(&descriptor.digest)) {
            let digest: String = wrong.digest.chars().take(80).collect();
            let message =
                format!("the manifest names a part by `{}`, which is no SHA-256", digest.escape_debug());
            return Err(shape(message));
        }
        Ok(manifest)
    }

    /// The one manifest behind an index; `None` where this is none.
    pub(super) fn single(&self) -> Result<Option<&Descriptor>, Failure> {
        match self.manifests.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            many => Err(shape(format!(
                "it is an index of {} manifests, such as images for several platforms have",
                many.len()
            ))
            .with_help("name the digest of one of them with `oci.digest`")),
        }
    }

    /// The layer with the files.
    pub(super) fn content(&self) -> Result<&Descriptor, Failure> {
        if let Some(layer) = self.layers.iter().find(|layer| layer.media_type == FLUX_CONTENT) {
            return Ok(layer);
        }
        match self.layers.as_slice() {
            [layer] if ARCHIVES.contains(&layer.media_type.as_str()) => Ok(layer),
            [] => Err(shape("the artifact has no layer".to_owned())),
            layers => {
                let types: Vec<String> = layers
                    .iter()
                    .take(3)
                    .map(|layer| {
                        layer.media_type.chars().take(80).collect::<String>().escape_debug().to_string()
                    })
                    .collect();
                Err(shape(format!(
                    "the artifact has no layer of type {FLUX_CONTENT}, but {}",
                    types.join(", ")
                ))
                .with_help("publish the files with `flux push artifact`"))
            }
        }
    }

    /// The signatures, if this is their manifest.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().filter(|layer| layer.media_type == SIMPLE_SIGNING)
    }
}

fn shape(message: String) -> Failure {
    Failure::rejected(Rejection::Shape, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    fn layer(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":7}}"#, digest())
    }

    fn manifest(layers: &[String]) -> Manifest {
        Manifest::parse(format!(r#"{{"layers":[{}]}}"#, layers.join(",")).as_bytes()).unwrap()
    }

    #[test]
    fn the_layer_of_flux_or_the_only_archive_is_taken() {
        let flux = manifest(&[layer("application/x"), layer(FLUX_CONTENT)]);
        assert_eq!(flux.content().unwrap().media_type, FLUX_CONTENT);
        assert_eq!(manifest(&[layer(ARCHIVES[0])]).content().unwrap().size, 7);
        for layers in [&[][..], &[layer("application/x")], &[layer(ARCHIVES[0]), layer(ARCHIVES[0])]] {
            assert!(manifest(layers).content().is_err());
        }
    }

    #[test]
    fn an_index_of_one_is_followed_and_of_several_is_not() {
        let index = |count: usize| {
            let parts = vec![layer("x"); count].join(",");
            Manifest::parse(format!(r#"{{"manifests":[{parts}]}}"#).as_bytes()).unwrap()
        };
        assert_eq!(index(0).single().unwrap(), None);
        assert_eq!(index(1).single().unwrap().unwrap().digest, digest());
        assert!(index(2).single().unwrap_err().message.contains("index of 2"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Manifest::parse(&bytes));
        }

        #[test]
        fn only_hashes_name_parts(name in "[ -!#-\\[\\]-~]{0,70}") {
            let text = format!(r#"{{"layers":[{{"mediaType":"x","digest":"{name}","size":1}}]}}"#);
            prop_assert_eq!(Manifest::parse(text.as_bytes()).is_ok(), is_digest(&name));
        }
    }
}
