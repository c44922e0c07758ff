//! Endpoints that know the agent by a signature or a token of a cloud, against a receiver that checks it.

use std::time::SystemTime;

use invar_cloud_identity::Surroundings as CloudSurroundings;
use ring::hmac;

use super::*;

const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// What AWS does with a signature: makes it again out of the request as it came, and compares.
fn is_signed(received: &Received) -> bool {
    let authorization = &received.headers["authorization"];
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}=")).unwrap();
        rest.split(',').next().unwrap().to_owned()
    };
    let (credential, names, signature) = (part("Credential"), part("SignedHeaders"), part("Signature"));
    let (_, scope) = credential.split_once('/').unwrap();
    let headers: String =
        names.split(';').map(|name| format!("{name}:{}\n", received.headers[name].trim())).collect();
    let canonical = format!("POST\n/write\n\n{headers}\n{names}\n{}", sha256(&received.body));
    let date = &received.headers["x-amz-date"];
    let signed = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{KEY}").into_bytes();
    for part in scope.split('/').chain([signed.as_str()]) {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    hexadecimal(&key) == signature && scope.ends_with("/eu-central-1/aps/aws4_request")
}

#[tokio::test]
async fn requests_are_signed_for_aws_in_both_versions() {
    for message in ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] {
        let receiver = Receiver::start().await;
        receiver.answer(|received| if is_signed(received) { OK } else { FORBIDDEN }.to_owned());
        let text = |key: &str| {
            let sigv4 = format!(
                "protobuf_message = \"{message}\"\nsigv4 {{\n region = \"eu-central-1\"\n access_key = \"AKID\"\n \
                 secret_key = \"{key}\"\n}}"
            );
            endpoint(&receiver.url, &sigv4)
        };
        let harness = Harness::<RemoteWrite>::new(&text(KEY)).await.unwrap();
        let list = list();
        feed(&harness, &list, 1..4).await;
        receiver.wait_for(1..4).await;
        assert!(receiver.refused.lock().is_empty());
        // Another key is another identity, taken up at once; a refusal right after costs nothing.
        harness.update(&text("other")).await.unwrap();
        feed(&harness, &list, 4..6).await;
        eventually(|| !receiver.refused.lock().is_empty()).await;
        harness.update(&text(KEY)).await.unwrap();
        receiver.wait_for(4..6).await;
        assert_eq!(harness.vitals().groups[0].now.dropped, 0);
        harness.shutdown().await;
    }
}

/// Answers every request with a token, or with an error while it is `down`.
async fn issuer(down: Arc<Mutex<bool>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = Vec::new();
            let complete = |buffer: &[u8]| {
                let text = String::from_utf8_lossy(buffer).to_ascii_lowercase();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
                (body.len() >= length).then_some(())
            };
            while complete(&buffer).is_none() && stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {}
            kept.lock().push(String::from_utf8_lossy(&buffer).into_owned());
            let answer = if *down.lock() {
                "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 41\r\n\r\n{\"access_token\":\"good\",\"expires_in\":3600}"
            };
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    (address, asked)
}

fn knows_token(received: &Received) -> String {
    let known = received.headers.get("authorization").map(String::as_str) == Some("Bearer good");
    if known { OK } else { FORBIDDEN }.to_owned()
}

#[tokio::test]
async fn tokens_of_azure_are_fetched_once_and_an_authority_that_is_down_costs_no_sample() {
    let receiver = Receiver::start().await;
    receiver.answer(knows_token);
    let down = Arc::new(Mutex::new(true));
    let (authority, asked) = issuer(Arc::clone(&down)).await;
    let services = Services::new();
    let variable = move |name: &str| (name == "AZURE_AUTHORITY_HOST").then(|| format!("http://{authority}"));
    services.insert(Arc::new(CloudSurroundings::new("test", variable, SystemTime::now).await.unwrap()));
    let surroundings = Surroundings { services, ..Surroundings::default() };
    let azure =
        "azuread {\n oauth {\n client_id = \"app\"\n client_secret = \"hunter2\"\n tenant_id = \"t\"\n }\n}";
    let harness =
        Harness::<RemoteWrite>::within(surroundings, &endpoint(&receiver.url, azure)).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..4).await;
    eventually(|| harness.vitals().groups[0].now.retryable > 0).await;
    assert!(receiver.accepted.lock().is_empty() && receiver.refused.lock().is_empty());
    *down.lock() = false;
    receiver.wait_for(1..4).await;
    let before = asked.lock().len();
    feed(&harness, &list, 4..8).await;
    receiver.wait_for(4..8).await;
    assert_eq!(asked.lock().len(), before, "the token is kept");
    assert!(asked.lock()[0].contains("client_secret=hunter2"));
    let group = &harness.vitals().groups[0].now;
    assert_eq!((group.permanent, group.dropped), (0, 0));
    harness.shutdown().await;
}

#[tokio::test]
async fn tokens_of_google_come_by_a_file_of_credentials() {
    let receiver = Receiver::start().await;
    receiver.answer(knows_token);
    let (issuer, asked) = issuer(Arc::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials.json");
    let credentials = serde_json::json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "hunter2",
        "token_uri": format!("http://{issuer}/token"),
    });
    std::fs::write(&file, credentials.to_string()).unwrap();
    let google = format!("google_iam {{\n credentials_file = {file:?}\n}}");
    let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, &google)).await.unwrap();
    feed(&harness, &list(), 1..4).await;
    receiver.wait_for(1..4).await;
    assert!(asked.lock()[0].contains("refresh_token=hunter2"));
    assert!(receiver.refused.lock().is_empty());
    harness.shutdown().await;
}
