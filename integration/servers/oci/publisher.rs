//! Publishes artifacts as Flux does, by plain requests of the distribution specification.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, RequestBuilder};
use sha2::{Digest as _, Sha256};

pub const FLUX_CONTENT: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Pushes to one repository.
pub struct Publisher {
    client: Client,
    base: String,
    user: Option<(String, String)>,
}

/// A compressed archive of these files.
pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let mut encoder = builder.into_inner().unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

pub fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

pub fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest(content), content.len())
}

/// The manifest of an artifact with one layer, and its configuration.
pub fn manifest(media_type: &str, layer: &[u8]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}],"annotations":{{"org.opencontainers.image.created":"2024-05-06T07:08:09Z","org.opencontainers.image.revision":"main@sha1:4be21c09"}}}}"#,
        descriptor("application/vnd.cncf.flux.config.v1+json", b"{}"),
        descriptor(media_type, layer)
    )
}

impl Publisher {
    pub fn new(registry: &str, name: &str) -> Self {
        Self::with_client(Client::builder().no_proxy(), registry, name, None)
    }

    pub fn with_client(
        builder: reqwest::ClientBuilder,
        registry: &str,
        name: &str,
        user: Option<(&str, &str)>,
    ) -> Self {
        // A second installation in one process finds the first one, which is what is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self {
            client: builder.build().unwrap(),
            base: format!("{registry}/v2/{name}"),
            user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
        }
    }

    fn as_user(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.user {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }

    pub async fn blob(&self, content: &[u8]) {
        let started =
            self.as_user(self.client.post(format!("{}/blobs/uploads/", self.base))).send().await.unwrap();
        assert_eq!(started.status(), 202);
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", digest(content));
        let put = self.client.put(url).header("content-type", "application/octet-stream");
        let put = self.as_user(put.body(content.to_vec())).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }

    pub async fn put_manifest(&self, reference: &str, media_type: &str, manifest: &str) -> String {
        let put = self.client.put(format!("{}/manifests/{reference}", self.base));
        let put = put.header("content-type", media_type).body(manifest.to_owned());
        let put = self.as_user(put).send().await.unwrap();
        assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
        digest(manifest.as_bytes())
    }

    /// Publishes these files under a tag; gives the digest of the manifest.
    pub async fn push(&self, tag: &str, files: &[(&str, &str)]) -> String {
        self.push_layer(tag, FLUX_CONTENT, &archive(files)).await
    }

    pub async fn push_layer(&self, tag: &str, media_type: &str, layer: &[u8]) -> String {
        self.blob(b"{}").await;
        self.blob(layer).await;
        self.put_manifest(tag, MANIFEST, &manifest(media_type, layer)).await
    }

    pub async fn delete(&self, reference: &str) {
        let request = self.client.delete(format!("{}/manifests/{reference}", self.base));
        assert_eq!(self.as_user(request).send().await.unwrap().status(), 202);
    }
}
