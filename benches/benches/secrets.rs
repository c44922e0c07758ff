//! What a live secret costs where it is used: reading one field, two fields of one version, a text derived from both, and the
//! header of a request. The aim: a field in less than 10 ns.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use invar_blocks::{HttpClient, HttpClientArguments, HttpClientOptions};
use invar_policy::Access;
use invar_secrets::{BoxFuture, SecretError, SecretSnapshot, SecretStore, SecretStores, StoreKind};
use invar_syntax::arguments::Arguments;
use invar_syntax::live_secret::{LiveSecret, read_together};
use invar_syntax::secret::Secret;

/// A store that has one login.
struct Login;

impl SecretStore for Login {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        let field = |name: &str, text: &str| (name.to_owned(), Secret::new(text));
        let fields = BTreeMap::from([
            field("password", "correct horse battery staple"),
            field("tenant", "team-a"),
            field("user", "writer"),
        ]);
        Box::pin(async move { Ok(SecretSnapshot::new(fields)) })
    }
}

fn secrets(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store: Arc<dyn SecretStore> = Arc::new(Login);
    let (user, password, stores) = runtime.block_on(async {
        let stores = SecretStores::new(BTreeMap::from([("vault".to_owned(), store)]));
        let live = async |field| stores.live(&format!("vault/kv/es#{field}").parse().unwrap()).await.unwrap();
        (live("user").await, live("password").await, stores.clone())
    });
    let mut group = criterion.benchmark_group("live_secret");
    group.bench_function("version", |bencher| bencher.iter(|| black_box(&password).version()));
    group.bench_function("read", |bencher| bencher.iter(|| black_box(&password).read()));
    group.bench_function("read_two_together", |bencher| {
        bencher.iter(|| read_together(&[black_box(&user), black_box(&password)]));
    });
    let joined = LiveSecret::derived("join", vec![user.clone(), password.clone()], |texts| {
        Some(Secret::new(format!("{}:{}", texts[0].expose(), texts[1].expose())))
    });
    let joined = joined.unwrap();
    group.bench_function("read_derived", |bencher| bencher.iter(|| black_box(&joined).read()));

    let mut arguments = HttpClientArguments::defaults();
    arguments.authentication.bearer_token = password.clone();
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted()));
    let client = runtime.block_on(client).unwrap();
    let mut request =
        reqwest::Request::new(reqwest::Method::POST, "http://127.0.0.1/api/v1/write".parse().unwrap());
    group.bench_function("header", |bencher| {
        bencher.iter(|| runtime.block_on(client.dress(black_box(&mut request))).unwrap());
    });
    group.finish();
    runtime.block_on(stores.shutdown());
}

criterion_group!(benches, secrets);
criterion_main!(benches);
