//! The client that tests fill buckets with.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};

/// A client of the store at `endpoint`, with the key of every server.
pub fn writer(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    // A second installation in one process finds the first one, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder().no_proxy().build().expect("a plain client can be made");
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .http_client(invar_cloud_identity::sdk_http_client(http, 1 << 24, Duration::from_secs(30)))
        .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}
