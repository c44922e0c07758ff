//! `invar lsp` as an editor meets it: the real binary over standard input and output.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The least an editor has to be.
struct Editor {
    server: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    next_id: u64,
    folder: tempfile::TempDir,
    /// Notifications that came while something else was awaited.
    seen: Vec<Value>,
}

impl Editor {
    fn start() -> Self {
        Self::preferring(&["utf-16"])
    }

    /// An editor that counts columns in the first of these.
    fn preferring(encodings: &[&str]) -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_invar"))
            .arg("lsp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = server.stdin.take();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read_message(&mut output) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let mut editor = Self { server, input, messages, next_id: 0, folder, seen: Vec::new() };
        let capabilities = json!({
            "general": { "positionEncodings": encodings },
            "textDocument": { "completion": { "completionItem": { "snippetSupport": true } } }
        });
        let answer = editor
            .ask("initialize", json!({ "processId": null, "rootUri": null, "capabilities": capabilities }));
        assert_eq!(answer["serverInfo"]["name"], "invar");
        assert_eq!(answer["capabilities"]["positionEncoding"], encodings[0]);
        editor.tell("initialized", json!({}));
        editor
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let input = self.input.as_mut().unwrap();
        write!(input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        input.flush().unwrap();
    }

    fn tell(&mut self, method: &str, parameters: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": parameters }));
    }

    fn message(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the server says nothing")
    }

    /// Everything that the server answers, errors too.
    fn response(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters }));
        loop {
            let message = self.message();
            if message["id"] == id {
                return message;
            }
            self.seen.push(message);
        }
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let response = self.response(method, parameters);
        assert!(response["error"].is_null(), "{response}");
        response["result"].clone()
    }

    fn open(&mut self, name: &str, text: &str) {
        let document = json!({ "uri": self.uri(name), "languageId": "alloy", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    fn change(&mut self, name: &str, version: i64, range: Value, text: &str) {
        let document = json!({ "uri": self.uri(name), "version": version });
        self.tell(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": [{ "range": range, "text": text }] }),
        );
    }

    /// The findings of a file in a version, when they come.
    fn findings(&mut self, name: &str, version: i64) -> Vec<Value> {
        let uri = self.uri(name);
        let wanted = |message: &Value| {
            message["method"] == "textDocument/publishDiagnostics"
                && message["params"]["uri"] == uri
                && message["params"]["version"] == version
        };
        let start = Instant::now();
        loop {
            let message = match self.seen.iter().position(wanted) {
                Some(index) => self.seen.remove(index),
                None => self.message(),
            };
            if wanted(&message) {
                return message["params"]["diagnostics"].as_array().unwrap().clone();
            }
            self.seen.push(message);
            assert!(start.elapsed() < PATIENCE, "no findings for {name}");
        }
    }

    /// Asks about the place where `needle` stands in a text, `within` characters into it.
    fn ask_at(&mut self, method: &str, name: &str, text: &str, needle: &str, within: usize) -> Value {
        let offset = text.find(needle).unwrap() + within;
        let line = text[..offset].matches('\n').count();
        let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let character = text[start..offset].encode_utf16().count();
        self.ask(
            method,
            json!({
                "textDocument": { "uri": self.uri(name) },
                "position": { "line": line, "character": character },
                "context": { "includeDeclaration": true },
                "newName": "renamed",
            }),
        )
    }

    /// Says goodbye properly; the exit code.
    fn quit(mut self) -> Option<i32> {
        assert_eq!(self.ask("shutdown", Value::Null), Value::Null);
        self.tell("exit", Value::Null);
        let code = self.server.wait().unwrap().code();
        self.input = None;
        code
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        // Already gone after `quit`.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn read_message(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", text)) => length = text.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

const WRITE: &str =
    "prometheus.remote_write \"default\" {\n\tendpoint {\n\t\turl = \"http://127.0.0.1:9/\"\n\t}\n}\n";
const SCRAPE: &str = "prometheus.exporter.self \"host\" { }\n\nprometheus.scrape \"self\" {\n\ttargets    = prometheus.exporter.self.host.targets\n\tforward_to = [prometheus.remote_write.default.receiver]\n}\n";

#[test]
fn findings_follow_the_unsaved_texts_of_a_folder() {
    let mut editor = Editor::start();
    editor.write("write.alloy", WRITE);
    editor.open("scrape.alloy", SCRAPE);
    assert!(editor.findings("scrape.alloy", 1).is_empty(), "the receiver is in another file of the folder");
    // 𝄞 is two units of UTF-16: what stands behind it on its line is counted in those.
    let range = json!({ "start": { "line": 3, "character": 0 }, "end": { "line": 3, "character": 0 } });
    editor.change("scrape.alloy", 2, range, "/* 𝄞 */ honor = true\n");
    let findings = editor.findings("scrape.alloy", 2);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0]["code"], "E101");
    let place = json!({ "start": { "line": 3, "character": 9 }, "end": { "line": 3, "character": 14 } });
    assert_eq!(findings[0]["range"], place, "{findings:?}");
    // Open, then changed in the editor only: the disk still has the receiver.
    editor.open("write.alloy", "// nothing\n");
    assert!(editor.findings("write.alloy", 1).is_empty());
    let range = json!({ "start": { "line": 3, "character": 0 }, "end": { "line": 4, "character": 0 } });
    editor.change("scrape.alloy", 3, range, "");
    let findings = editor.findings("scrape.alloy", 3);
    assert!(findings[0]["message"].as_str().unwrap().contains("does not exist"), "{findings:?}");
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn an_environment_is_checked_on_its_base() {
    let mut editor = Editor::start();
    editor.write("base/write.alloy", WRITE);
    editor.write("environments/dev/notes.alloy", "// nothing\n");
    editor.open("environments/dev/scrape.alloy", SCRAPE);
    assert!(editor.findings("environments/dev/scrape.alloy", 1).is_empty(), "the base has the receiver");
    let definition = editor.ask_at(
        "textDocument/definition",
        "environments/dev/scrape.alloy",
        SCRAPE,
        "default.receiver",
        2,
    );
    assert_eq!(definition["uri"], editor.uri("base/write.alloy"));
    // What the base loses is missed where it is used.
    editor.open("base/write.alloy", "// moved\n");
    let findings = editor.findings("environments/dev/scrape.alloy", 1);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(editor.findings("base/write.alloy", 1).is_empty());
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn completion_works_where_nothing_parses() {
    let mut editor = Editor::start();
    editor.write("write.alloy", WRITE);
    let text = format!("{SCRAPE}prometheus.scrape \"more\" {{\n\tforward_to = [prom\n\tscheme = \"\n\n");
    editor.open("scrape.alloy", &text);
    assert!(!editor.findings("scrape.alloy", 1).is_empty());
    let list = editor.ask_at("textDocument/completion", "scrape.alloy", &text, "[prom\n", 5);
    let first = &list["items"][0];
    assert_eq!(first["label"], "prometheus.remote_write.default.receiver", "{list}");
    let list = editor.ask_at("textDocument/completion", "scrape.alloy", &text, "scheme = \"", 10);
    let labels: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|item| item["label"].as_str()).collect();
    assert_eq!(labels, ["\"http\"", "\"https\""]);
    let text = "prometheus.remote_wr";
    editor.open("new.alloy", text);
    let list = editor.ask_at("textDocument/completion", "new.alloy", text, text, text.len());
    assert_eq!(list["items"][0]["label"], "prometheus.remote_write");
    assert_eq!(list["items"][0]["insertTextFormat"], 2);
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn names_are_explained_found_and_renamed_over_files() {
    let mut editor = Editor::start();
    editor.write("write.alloy", WRITE);
    editor.open("scrape.alloy", SCRAPE);
    let hover = editor.ask_at("textDocument/hover", "scrape.alloy", SCRAPE, "forward_to", 2);
    assert!(hover["contents"]["value"].as_str().unwrap().contains("required"), "{hover}");
    let definition = editor.ask_at("textDocument/definition", "scrape.alloy", SCRAPE, "default.receiver", 2);
    assert_eq!(definition["uri"], editor.uri("write.alloy"));
    assert_eq!(definition["range"]["start"], json!({ "line": 0, "character": 24 }));
    let references = editor.ask_at("textDocument/references", "scrape.alloy", SCRAPE, "default.receiver", 2);
    assert_eq!(references.as_array().unwrap().len(), 2, "{references}");
    let edit = editor.ask_at("textDocument/rename", "scrape.alloy", SCRAPE, "default.receiver", 2);
    let changes = &edit["changes"];
    assert_eq!(changes[editor.uri("write.alloy")][0]["newText"], "\"renamed\"", "{edit}");
    assert_eq!(changes[editor.uri("scrape.alloy")][0]["newText"], "renamed", "{edit}");
    let symbols = editor
        .ask("textDocument/documentSymbol", json!({ "textDocument": { "uri": editor.uri("scrape.alloy") } }));
    assert_eq!(symbols[1]["name"], "prometheus.scrape \"self\"");
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn a_text_is_formatted_as_invar_fmt_does_and_a_broken_one_left_alone() {
    let mut editor = Editor::start();
    let text = "logging {\n  level = \"info\"\n   format=\"json\"\n}\n";
    editor.open("a.alloy", text);
    let options = json!({ "tabSize": 8, "insertSpaces": false });
    let document = json!({ "textDocument": { "uri": editor.uri("a.alloy") }, "options": options });
    let edits = editor.ask("textDocument/formatting", document.clone());
    assert_eq!(edits.as_array().unwrap().len(), 1, "{edits}");
    editor.change("a.alloy", 2, edits[0]["range"].clone(), edits[0]["newText"].as_str().unwrap());
    assert_eq!(editor.ask("textDocument/formatting", document.clone()), json!([]), "nothing is left to do");
    editor.write("a.alloy", text);
    let formatted =
        Command::new(env!("CARGO_BIN_EXE_invar")).arg("fmt").arg(editor.path("a.alloy")).output().unwrap();
    let expected = "logging {\n\tlevel  = \"info\"\n\tformat = \"json\"\n}\n";
    assert_eq!(String::from_utf8(formatted.stdout).unwrap(), expected);
    let all = json!({ "start": { "line": 0, "character": 0 }, "end": { "line": 99, "character": 0 } });
    editor.change("a.alloy", 3, all, "logging {\n level = \n");
    assert_eq!(editor.ask("textDocument/formatting", document), Value::Null);
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn navigation_leads_into_modules_and_to_variables() {
    let mut editor = Editor::start();
    let module = "declare \"web\" {\n\targument \"port\" { }\n}\n";
    editor.write("modules/lib.alloy", module);
    editor.write("variables.toml", "# per environment\nscheme = \"https\"\n");
    let text = "import.file \"lib\" {\n\tfilename = file.path_join(module_path, \"modules/lib.alloy\")\n}\n\nlib.web \"a\" {\n\tport = var.scheme\n}\n";
    editor.open("main.alloy", text);
    let found = editor.ask_at("textDocument/definition", "main.alloy", text, "lib.web \"a\"", 5);
    assert_eq!(found["uri"], editor.uri("modules/lib.alloy"));
    let found = editor.ask_at("textDocument/definition", "main.alloy", text, "port =", 1);
    assert_eq!(found["range"]["start"], json!({ "line": 1, "character": 10 }));
    let found = editor.ask_at("textDocument/definition", "main.alloy", text, "var.scheme", 6);
    assert_eq!(found["uri"], editor.uri("variables.toml"));
    assert_eq!(found["range"]["start"], json!({ "line": 1, "character": 0 }));
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn columns_are_bytes_for_editors_that_prefer_them() {
    let mut editor = Editor::preferring(&["utf-8", "utf-16"]);
    editor.open("a.alloy", "prometheus.scrape \"x\" {\n\t/* 𝄞é */ honor_labels = true\n}\n");
    let at = json!({
        "textDocument": { "uri": editor.uri("a.alloy") },
        "position": { "line": 1, "character": 15 },
    });
    let hover = editor.ask("textDocument/hover", at);
    // One tab, three characters before and three behind a sign of four bytes and one of two.
    assert_eq!(hover["range"]["start"], json!({ "line": 1, "character": 14 }), "{hover}");
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn nonsense_is_answered_and_survived() {
    let mut editor = Editor::start();
    let response = editor.response("textDocument/nothing", json!({}));
    assert_eq!(response["error"]["code"], -32601);
    let response = editor.response("textDocument/hover", json!({ "textDocument": 7 }));
    assert_eq!(response["error"]["code"], -32602);
    editor.tell("textDocument/didChange", json!([1, 2, 3]));
    let at = json!({ "textDocument": { "uri": editor.uri("none.alloy") }, "position": { "line": 9, "character": 9 } });
    assert_eq!(editor.ask("textDocument/completion", at), Value::Null);
    let deep = "a {".repeat(20_000);
    editor.open("deep.alloy", &deep);
    let document = json!({ "textDocument": { "uri": editor.uri("deep.alloy") } });
    assert!(editor.ask("textDocument/documentSymbol", document).is_array());
    assert!(!editor.findings("deep.alloy", 1).is_empty());
    assert_eq!(editor.quit(), Some(0));
}

#[test]
fn an_editor_that_vanishes_ends_the_server() {
    let mut editor = Editor::start();
    editor.open("a.alloy", SCRAPE);
    editor.input = None;
    assert_eq!(editor.server.wait().unwrap().code(), Some(1));
    assert!(Path::new(&editor.path("")).is_dir());
}
