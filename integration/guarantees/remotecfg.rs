//! A control plane that sends a configuration beside the local one: it goes through the same check, swap, probation and
//! rollback, what is bad of it blocks nothing else, and the server hears the truth.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use invar_integration::wait_for;
use prost::Message;

use crate::fleet::{Fleet, Plan, SOON, VERDICT, scrape_to};

#[derive(Clone, PartialEq, Message)]
struct GetConfigRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "3")]
    hash: String,
    #[prost(btree_map = "string, string", tag = "4")]
    local_attributes: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    status: Option<RemoteConfigStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RemoteConfigStatus {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct GetConfigResponse {
    #[prost(string, tag = "1")]
    content: String,
    #[prost(string, tag = "2")]
    hash: String,
    #[prost(bool, tag = "3")]
    not_modified: bool,
}

const APPLIED: i32 = 1;
const FAILED: i32 = 3;

#[derive(Default)]
struct Plane {
    /// What it sends; none while it is down.
    content: Option<String>,
    /// The statuses it heard, without repetitions.
    heard: Vec<RemoteConfigStatus>,
    calls: Vec<String>,
}

/// A control plane on loopback.
struct ControlPlane {
    plane: Arc<Mutex<Plane>>,
    address: String,
}

impl ControlPlane {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let plane = Arc::new(Mutex::new(Plane::default()));
        let served = Arc::clone(&plane);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (served, stream) = (Arc::clone(&served), stream.unwrap());
                std::thread::spawn(move || serve(stream, &served));
            }
        });
        Self { plane, address }
    }

    fn send(&self, content: Option<&str>) {
        self.plane.lock().unwrap().content = content.map(str::to_owned);
    }

    fn hears(&self, status: i32, part: &str) {
        let heard = || {
            let plane = self.plane.lock().unwrap();
            let last = plane.heard.last()?;
            (last.status == status && last.error_message.contains(part)).then_some(())
        };
        wait_for(&format!("the server to hear {status} {part}"), VERDICT, heard)
            .map_err(|problem| format!("{problem}: {:?}", self.plane.lock().unwrap().heard))
            .unwrap();
    }

    fn block(&self) -> String {
        format!(
            "\nremotecfg {{\n\turl = \"http://{}\"\n\tpoll_frequency = \"10s\"\n\tid = \"me\"\n}}\n",
            self.address
        )
    }
}

/// Answers the calls of one connection.
fn serve(mut stream: TcpStream, plane: &Mutex<Plane>) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut chunk) {
                Ok(read) if read > 0 => buffer.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        while buffer.len() < head_end + length {
            match stream.read(&mut chunk) {
                Ok(read) if read > 0 => buffer.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        }
        let body: Vec<u8> = buffer.drain(..head_end + length).skip(head_end).collect();
        let method =
            head.split(' ').nth(1).unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        let answer = answer(&method, &body, &mut plane.lock().unwrap());
        let answer = match answer {
            Some(message) => {
                let message = message.encode_to_vec();
                let mut answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: {}\r\n\r\n",
                    message.len()
                )
                .into_bytes();
                answer.extend(message);
                answer
            }
            None => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn answer(method: &str, body: &[u8], plane: &mut Plane) -> Option<GetConfigResponse> {
    plane.calls.push(method.to_owned());
    let content = plane.content.clone()?;
    if method != "getconfig" {
        return Some(GetConfigResponse::default());
    }
    let request = GetConfigRequest::decode(body).unwrap();
    assert_eq!(request.id, "me");
    if let Some(status) = request.status.filter(|status| plane.heard.last() != Some(status)) {
        plane.heard.push(status);
    }
    // Any name of a content will do.
    let hash = format!("{}-{:?}", content.len(), content.bytes().map(u64::from).sum::<u64>());
    if request.hash == hash {
        return Some(GetConfigResponse { not_modified: true, ..GetConfigResponse::default() });
    }
    Some(GetConfigResponse { content, hash, not_modified: false })
}

#[test]
fn what_a_control_plane_sends_is_judged_like_everything_else() {
    let plane = ControlPlane::start();
    let mut fleet = Fleet::planned(Plan { probation: 2, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a") + &plane.block()
    });
    let node = "remotecfg/prometheus.scrape.page";

    // The server is down, and the local pipeline runs.
    assert!(fleet.agent.instance("prometheus.scrape.page").is_ok());
    assert!(fleet.agent.instance(node).is_err());

    // It sends something: it runs beside the local pipeline, and is called applied once it is committed.
    plane.send(Some(&scrape_to(&fleet.receiver, &fleet.target, "remote")));
    let reconcile = |fleet: &Fleet| drop(fleet.agent.command(&["reconcile", "remotecfg"]).unwrap());
    reconcile(&fleet);
    wait_for("what the server sends to run", SOON, || fleet.agent.instance(node).ok()).unwrap();
    plane.hears(APPLIED, "");
    let local = fleet.agent.instance("prometheus.scrape.page").unwrap();

    // Something broken changes nothing, and the server hears where and why. Local changes still apply.
    plane.send(Some("prometheus.scrape \"page\" {\n\ttargets = 7\n}\n"));
    reconcile(&fleet);
    plane.hears(FAILED, "remotecfg.alloy:2");
    assert!(fleet.agent.instance(node).is_ok());
    let changed = scrape_to(&fleet.receiver, &fleet.target, "a")
        + &plane.block()
        + "\ndiscovery.relabel \"new\" {\n\ttargets = []\n}\n";
    fleet.push_and_run(changed, "a local change beside a broken remote one");
    assert_eq!(fleet.agent.instance("prometheus.scrape.page").unwrap(), local);
    assert!(fleet.agent.instance(node).is_ok());

    // Something that is bad once it runs is undone.
    fleet.receiver.answer("bad", Some(500));
    plane.send(Some(&scrape_to(&fleet.receiver, &fleet.target, "bad")));
    reconcile(&fleet);
    plane.hears(FAILED, "");
    // Its quarantine came with the rollback: what was good runs again.
    let last_good =
        |status: &serde_json::Value| status["running"]["digest"] == status["last_known_good"]["digest"];
    fleet.agent.wait("the good one to run again", VERDICT, last_good).unwrap();
    assert!(fleet.agent.instance(node).is_ok());

    // With the server gone, a restarted agent runs what was good.
    plane.send(None);
    fleet.agent.kill();
    fleet.agent.launch().unwrap();
    wait_for("the remote part to run without its server", SOON, || fleet.agent.instance(node).ok()).unwrap();
}
