//! Whole questions over small configurations. A `|` in a text marks the cursor.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use invar_engine::Registry;
use invar_engine::registry::ComponentInfo;
use invar_reference::Reference;
use invar_syntax::{Field, FieldKind, Schema, Stability, Type};
use lsp_types::{CompletionList, CompletionTextEdit, Position, Range, TextDocumentContentChangeEvent, Url};
use proptest::prelude::*;

use crate::completion::{CompletionOptions, complete};
use crate::context::Context;
use crate::document::{Analysis, apply};
use crate::hover::hover;
use crate::navigation::{rename, target, uses};
use crate::position::Encoding;
use crate::server::edits;
use crate::symbols::symbols;
use crate::workspace::Workspace;

fn attribute(name: &'static str, ty: Type, required: bool) -> Field {
    let mut field = Field::new(name, FieldKind::Attribute, ty);
    field.required = required;
    field.documentation = "What it is.";
    field
}

fn block(name: &'static str, fields: Vec<Field>) -> Field {
    let mut field = Field::new(name, FieldKind::Block, Type::Object(Vec::new()));
    field.fields = fields;
    field
}

fn component(name: &'static str, arguments: Vec<Field>, exports: Vec<Field>) -> ComponentInfo {
    ComponentInfo {
        name,
        summary: "For tests.",
        stability: Stability::GenerallyAvailable,
        community: false,
        settings: false,
        arguments: Schema { fields: arguments },
        exports: Schema { fields: exports },
    }
}

/// A source of targets, a scraper and a receiver.
fn reference() -> Reference {
    let receiver = || Type::Capsule("receiver");
    let targets = || Type::list(Type::Capsule("target"));
    let mut scheme = attribute("scheme", Type::String, false);
    scheme.values = &["http", "https"];
    Reference {
        components: vec![
            component(
                "discovery.list",
                vec![attribute("files", Type::list(Type::String), true)],
                vec![attribute("targets", targets(), true)],
            ),
            component(
                "push.to",
                vec![block("endpoint", vec![attribute("url", Type::String, true)])],
                vec![attribute("receiver", receiver(), true)],
            ),
            component(
                "scrape.all",
                vec![
                    attribute("targets", targets(), true),
                    attribute("forward_to", Type::list(receiver()), true),
                    attribute("honor", Type::Bool, false),
                    scheme,
                    block("tls", vec![attribute("ca", Type::String, false)]),
                ],
                Vec::new(),
            ),
        ],
        ..Reference::new(&Registry::new())
    }
}

/// A folder with open texts; the cursor is where `|` stands.
struct Fixture {
    workspace: Workspace,
    reference: Reference,
    url: Url,
    offset: u32,
    /// Kept so that it is removed at the end.
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::new(false);
        let mut cursor = None;
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let offset = text.find('|').filter(|_| !name.ends_with("toml"));
            let text = if offset.is_some() { text.replacen('|', "", 1) } else { (*text).to_owned() };
            if name.ends_with(".alloy") && !name.contains('/') {
                let url = Url::from_file_path(&path).unwrap();
                if let Some(offset) = offset {
                    cursor = Some((url.clone(), u32::try_from(offset).unwrap()));
                }
                workspace.set(&url, 1, text);
            } else {
                std::fs::write(&path, text).unwrap();
            }
        }
        let (url, offset) = cursor.unwrap();
        Self { workspace, reference: reference(), url, offset, folder }
    }

    fn context(&mut self) -> Context<'_> {
        let project = self.workspace.project(&self.url);
        let file = project.file(&self.url).unwrap().clone();
        Context {
            reference: &self.reference,
            workspace: &mut self.workspace,
            project,
            file,
            offset: self.offset,
            encoding: Encoding::Utf16,
        }
    }

    fn complete(&mut self) -> CompletionList {
        complete(&mut self.context(), CompletionOptions { snippets: true })
    }

    fn labels(&mut self) -> Vec<String> {
        self.complete().items.into_iter().map(|item| item.label).collect()
    }

    /// File and text of what the name at the cursor refers to.
    fn target(&mut self) -> Option<(String, String)> {
        let target = target(&mut self.context())?;
        let name = target.file.url.path_segments().unwrap().next_back().unwrap().to_owned();
        Some((name, target.file.analysis.slice(target.span).to_owned()))
    }
}

fn labels(text: &str) -> Vec<String> {
    Fixture::new(&[("a.alloy", text)]).labels()
}

#[test]
fn required_arguments_come_first_and_given_ones_not_at_all() {
    let found = labels("scrape.all \"x\" {\n  targets = []\n  |\n}");
    assert_eq!(found, ["forward_to", "honor", "scheme", "tls"]);
    assert_eq!(labels("scrape.all \"x\" {\n  sch|"), ["scheme"]);
    assert_eq!(labels("scrape.all \"x\" {\n  tls {\n    |\n  }\n}"), ["ca"]);
    assert!(labels("scrape.all \"x\" {\n  targets = [] |\n}").contains(&"coalesce".to_owned()));
    assert!(labels("scrape.all \"x\" { // |").is_empty());
}

#[test]
fn components_are_written_with_what_they_need() {
    let mut fixture = Fixture::new(&[("a.alloy", "push.to \"p\" {\n  endpoint {\n}\nscrape|")]);
    // The brace that is missing above leaves the cursor inside of the component.
    assert!(fixture.labels().is_empty());
    let mut fixture = Fixture::new(&[("a.alloy", "push.to \"p\" { }\nscrape.|")]);
    let list = fixture.complete();
    assert_eq!(list.items.len(), 1);
    let Some(CompletionTextEdit::Edit(edit)) = &list.items[0].text_edit else { panic!("no edit") };
    assert_eq!(edit.new_text, "scrape.all \"${1:default}\" {\n  targets    = [$2]\n  forward_to = [$3]\n}");
    assert_eq!(edit.range, Range::new(Position::new(1, 0), Position::new(1, 7)));
    assert!(labels("|").contains(&"logging".to_owned()));
}

#[test]
fn references_that_fit_come_first_in_broken_texts_too() {
    let text = "discovery.list \"d\" {\n}\npush.to \"p\" {}\nscrape.all \"s\" {\n  forward_to = [|\n  targets = 1\n}";
    assert_eq!(labels(text)[0], "push.to.p.receiver");
    let text = "discovery.list \"d\" {}\npush.to \"p\" {}\nscrape.all \"s\" {\n  targets = disc|\n}";
    assert_eq!(labels(text)[0], "discovery.list.d.targets");
    // A list is needed: the single receiver is put into one.
    let mut fixture =
        Fixture::new(&[("a.alloy", "push.to \"p\" {}\nscrape.all \"s\" {\n  forward_to = |\n}")]);
    let list = fixture.complete();
    let Some(CompletionTextEdit::Edit(edit)) = &list.items[0].text_edit else { panic!("no edit") };
    assert_eq!(edit.new_text, "[push.to.p.receiver]");
}

#[test]
fn references_reach_over_files_but_not_into_a_declare() {
    let other = ("b.alloy", "push.to \"p\" {}");
    let mut fixture = Fixture::new(&[("a.alloy", "scrape.all \"s\" {\n  forward_to = [p|]\n}"), other]);
    assert_eq!(fixture.labels()[0], "push.to.p.receiver");
    let module =
        "declare \"m\" {\n  argument \"where\" {}\n  scrape.all \"s\" {\n    forward_to = [|]\n  }\n}";
    let mut fixture = Fixture::new(&[("a.alloy", module), other]);
    let labels = fixture.labels();
    assert!(labels.contains(&"argument.where.value".to_owned()), "{labels:?}");
    assert!(!labels.contains(&"push.to.p.receiver".to_owned()), "{labels:?}");
}

#[test]
fn strings_offer_their_choices() {
    assert_eq!(labels("scrape.all \"s\" {\n  scheme = \"h|"), ["\"http\"", "\"https\""]);
    assert_eq!(labels("scrape.all \"s\" {\n  scheme = \"https|\"\n}"), ["\"https\""]);
    assert!(labels("scrape.all \"s\" {\n  scheme = |\n}").starts_with(&["\"http\"".to_owned()]));
    assert!(labels("scrape.all \"s\" {\n  honor = tr|\n}").starts_with(&["true".to_owned()]));
}

#[test]
fn variables_modules_and_functions_are_offered() {
    let files =
        [("a.alloy", "scrape.all \"s\" {\n  scheme = var.|\n}"), ("variables.toml", "scheme = \"https\"\n")];
    assert_eq!(Fixture::new(&files).labels(), ["var.scheme"]);
    let files = [
        ("a.alloy", "import.file \"lib\" {\n  filename = \"modules/lib.alloy\"\n}\nlib.|"),
        (
            "modules/lib.alloy",
            "declare \"web\" {\n  argument \"port\" {}\n  argument \"path\" {\n    optional = true\n  }\n}",
        ),
    ];
    let list = Fixture::new(&files).complete();
    let Some(CompletionTextEdit::Edit(edit)) = &list.items[0].text_edit else { panic!("no edit") };
    assert_eq!(edit.new_text, "lib.web \"${1:default}\" {\n  port = $2\n}");
    assert_eq!(
        labels("scrape.all \"s\" {\n  scheme = string.trim_s|\n}"),
        ["string.trim_space", "string.trim_suffix"]
    );
}

#[test]
fn hovering_explains_names() {
    let hovered = |text: &str| {
        let mut fixture = Fixture::new(&[("a.alloy", text), ("variables.toml", "zone = \"eu\"")]);
        hover(&mut fixture.context()).map(|(text, _)| text).unwrap_or_default()
    };
    assert!(hovered("scr|ape.all \"s\" {}").contains("For tests."));
    assert!(hovered("scrape.all \"s\" {\n  hon|or = true\n}").contains("**honor** `bool`"));
    assert!(
        hovered("scrape.all \"s\" {\n  sch|eme = \"ht\" + \"tp\"\n}").contains("Evaluates to `\"http\"`")
    );
    assert!(!hovered("scrape.all \"s\" {\n  sch|eme = sys.env(\"HOME\")\n}").contains("Evaluates"));
    assert!(hovered("scrape.all \"s\" {\n  scheme = string.jo|in([], \"\")\n}").contains("separator"));
    assert!(hovered("scrape.all \"s\" {\n  scheme = var.zo|ne\n}").contains("`\"eu\"`"));
    let text = "push.to \"p\" {}\nscrape.all \"s\" {\n  forward_to = [push.to.p.recei|ver]\n}";
    assert!(hovered(text).contains("Export of `push.to.p`"));
    assert_eq!(hovered("scrape.all \"s\" {\n  // hon|or\n}"), "");
}

#[test]
fn definitions_are_found_over_files_modules_and_variables() {
    let push = ("b.alloy", "// first\npush.to \"p\" {}");
    let files = [("a.alloy", "scrape.all \"s\" {\n  forward_to = [push.t|o.p.receiver]\n}"), push];
    assert_eq!(Fixture::new(&files).target().unwrap(), ("b.alloy".to_owned(), "\"p\"".to_owned()));
    let files = [
        ("a.alloy", "scrape.all \"s\" {\n  scheme = var.sch|eme\n}"),
        ("variables.toml", "# no\nscheme = \"https\"\n"),
    ];
    assert_eq!(Fixture::new(&files).target().unwrap(), ("variables.toml".to_owned(), "scheme".to_owned()));
    let module = "declare \"web\" {\n  argument \"port\" {}\n  export \"out\" {\n    value = argument.port.value\n  }\n}";
    let import =
        "import.file \"lib\" {\n  filename = file.path_join(module_path, \"modules\", \"lib.alloy\")\n}\n";
    for (use_, name, text) in [
        ("lib.w|eb \"x\" {\n  port = 1\n}", "lib.alloy", "\"web\""),
        ("lib.web \"x\" {\n  po|rt = 1\n}", "lib.alloy", "\"port\""),
        ("lib.web \"x\" {}\npush.to \"y\" {\n  z = lib.web.x.o|ut\n}", "lib.alloy", "\"out\""),
        ("lib.web \"x\" {}\npush.to \"y\" {\n  z = lib.web.|x.out\n}", "a.alloy", "\"x\""),
    ] {
        let text_a = format!("{import}{use_}");
        let mut fixture = Fixture::new(&[("a.alloy", &text_a), ("modules/lib.alloy", module)]);
        assert_eq!(fixture.target().unwrap(), (name.to_owned(), text.to_owned()), "{use_}");
    }
    let foreach = "foreach \"f\" {\n  collection = []\n  var        = \"it\"\n  template {\n    push.to \"p\" {\n      z = i|t\n    }\n  }\n}";
    assert_eq!(Fixture::new(&[("a.alloy", foreach)]).target().unwrap().1, "\"it\"");
}

#[test]
fn a_label_is_renamed_with_everything_that_uses_it() {
    let files = [
        ("a.alloy", "scrape.all \"s\" {\n  forward_to = [push.to.p.receiver, push.to.other.receiver]\n}"),
        (
            "b.alloy",
            "push.to \"|p\" {}\ndeclare \"m\" {\n  scrape.all \"s\" {\n    forward_to = [push.to.p.receiver]\n  }\n}",
        ),
    ];
    let mut fixture = Fixture::new(&files);
    let mut context = fixture.context();
    let found = target(&mut context).unwrap();
    let definition = found.definition.unwrap();
    assert_eq!(uses(&context, &found.file, &definition).len(), 1, "a declare does not see it");
    let edits = rename(&context, &found.file, &definition, "q");
    let texts: Vec<Vec<&str>> =
        edits.iter().map(|(_, edits)| edits.iter().map(|edit| edit.new_text.as_str()).collect()).collect();
    assert_eq!(texts, [["\"q\""], ["q"]]);
    assert_eq!(edits[1].1[0].range, Range::new(Position::new(1, 24), Position::new(1, 25)));
}

#[test]
fn symbols_are_nested_as_blocks_are_to_a_depth() {
    let analysis = Analysis::new("push.to \"p\" {\n  endpoint {\n    url = \"x\"\n  }\n}\n".into());
    let found = symbols(&analysis, Encoding::Utf16);
    assert_eq!(found[0].name, "push.to \"p\"");
    assert_eq!(found[0].range.end, Position::new(4, 1));
    assert_eq!(found[0].children.as_ref().unwrap()[0].children.as_ref().unwrap()[0].name, "url");
    let deep = Analysis::new("a {".repeat(50_000).into());
    assert!(serde_json::to_string(&symbols(&deep, Encoding::Utf16)).is_ok());
}

/// Texts near to configurations, and some that are not.
fn texts() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "scrape.all",
        "push.to",
        "discovery.list",
        "declare",
        "import.file",
        "foreach",
        "template",
        "argument",
        "\"x\"",
        "\"unclosed",
        "`raw",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "=",
        ".",
        ",",
        "\n",
        " ",
        "targets",
        "forward_to",
        "var",
        "string.join",
        "// note\n",
        "/* open",
        "1",
        "true",
        "é𝄞",
        "\r",
        "\0",
        "+",
        "filename",
        "scheme",
        "push.to.x.receiver",
    ];
    proptest::collection::vec(proptest::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

fn ask_everything(workspace: &mut Workspace, reference: &Reference, url: &Url, offset: u32) {
    let project = workspace.project(url);
    let file = project.file(url).unwrap().clone();
    let mut context = Context { reference, workspace, project, file, offset, encoding: Encoding::Utf16 };
    for item in complete(&mut context, CompletionOptions { snippets: true }).items {
        let Some(CompletionTextEdit::Edit(edit)) = item.text_edit else { panic!("no edit") };
        assert!(edit.range.start <= edit.range.end);
    }
    drop(hover(&mut context));
    if let Some(found) = target(&mut context)
        && let Some(definition) = found.definition
    {
        drop(rename(&context, &found.file, &definition, "other"));
    }
    drop(symbols(&context.file.analysis, Encoding::Utf16));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_and_no_edit_makes_anything_panic(
        text in texts(),
        edits in proptest::collection::vec((any::<(u8, u8, u8, u8)>(), texts()), 0..4),
        at in any::<prop::sample::Index>(),
    ) {
        let reference = reference();
        let url = Url::parse("untitled:a.alloy").unwrap();
        let mut workspace = Workspace::new(false);
        let mut text = text;
        for ((line, column, end_line, end_column), new) in edits {
            let position = |line: u8, column: u8| Position::new(u32::from(line % 8), u32::from(column % 40));
            let range = Range::new(position(line, column), position(end_line, end_column));
            let change = TextDocumentContentChangeEvent { range: Some(range), range_length: None, text: new };
            apply(&mut text, &change, Encoding::Utf16);
            let offset = u32::try_from(at.index(text.len() + 1)).unwrap();
            workspace.set(&url, 1, text.clone());
            ask_everything(&mut workspace, &reference, &url, offset);
        }
        let offset = u32::try_from(at.index(text.len() + 1)).unwrap();
        workspace.set(&url, 1, text);
        ask_everything(&mut workspace, &reference, &url, offset);
    }
}

proptest! {
    #[test]
    fn the_edit_of_a_formatter_makes_the_text_it_wants(old in texts(), new in texts()) {
        let analysis = Analysis::new(old.as_str().into());
        let mut text = old;
        for edit in edits(&analysis, &new, Encoding::Utf16) {
            let change = TextDocumentContentChangeEvent {
                range: Some(edit.range),
                range_length: None,
                text: edit.new_text,
            };
            apply(&mut text, &change, Encoding::Utf16);
        }
        prop_assert_eq!(text, new);
    }
}

#[test]
fn edits_count_as_the_protocol_does() {
    let mut text = "a𝄞b\r\nc".to_owned();
    let change = |start: (u32, u32), end: (u32, u32), text: &str| TextDocumentContentChangeEvent {
        range: Some(Range::new(Position::new(start.0, start.1), Position::new(end.0, end.1))),
        range_length: None,
        text: text.to_owned(),
    };
    apply(&mut text, &change((0, 3), (1, 0), "-"), Encoding::Utf16);
    assert_eq!(text, "a𝄞-c");
    apply(&mut text, &change((0, 1), (0, 3), ""), Encoding::Utf16);
    assert_eq!(text, "a-c");
    apply(&mut text, &change((9, 9), (0, 2), "!"), Encoding::Utf16);
    assert_eq!(text, "a-!");
}

#[test]
fn the_folder_of_the_fixture_is_its_project() {
    let mut fixture = Fixture::new(&[("a.alloy", "|"), ("notes.txt", "x")]);
    std::fs::write(fixture.folder.path().join("disk.alloy"), "push.to \"d\" {}").unwrap();
    let project = fixture.workspace.project(&fixture.url);
    let names: Vec<&str> = project
        .files
        .iter()
        .map(|file| Path::new(file.url.path()).file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["a.alloy", "disk.alloy"]);
}

#[test]
fn a_file_is_the_same_however_its_address_is_escaped() {
    let mut fixture = Fixture::new(&[("a.alloy", "|")]);
    let path = fixture.folder.path().join("b+c.alloy");
    std::fs::write(&path, "push.to \"disk\" {}").unwrap();
    let escaped = Url::from_file_path(&path).unwrap().as_str().replace("b+c.alloy", "%62%2Bc.alloy");
    let escaped = Url::parse(&escaped).unwrap();
    fixture.workspace.set(&escaped, 1, "push.to \"editor\" {}".to_owned());
    assert!(fixture.workspace.document(&escaped).is_some());
    let project = fixture.workspace.project(&fixture.url);
    let labels: Vec<&str> = project
        .files
        .iter()
        .flat_map(|file| &file.analysis.definitions)
        .map(|definition| definition.id.as_str())
        .collect();
    assert_eq!(labels, ["push.to.editor"]);
}
