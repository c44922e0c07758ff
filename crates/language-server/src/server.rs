//! The conversation with an editor: reads messages, keeps the texts, answers questions. Answers are made on this thread, one
//! after the other, and take no longer than it takes to read a folder; what may take longer ([`crate::diagnostics`]) has a
//! thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use invar_reference::Reference;
use invar_syntax::Span;
use invar_syntax::lexer::is_identifier;
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::notification::{
    DidChangeTextDocument, DidChangeWatchedFiles, DidCloseTextDocument, DidOpenTextDocument,
    DidSaveTextDocument, Notification as _, PublishDiagnostics,
};
use lsp_types::request::{
    Completion, DocumentSymbolRequest, Formatting, GotoDefinition, HoverRequest, PrepareRenameRequest,
    References, RegisterCapability, Rename, Request as _,
};
use lsp_types::{
    CompletionOptions as CompletionCapability, CompletionResponse, DidChangeWatchedFilesRegistrationOptions,
    DocumentSymbolResponse, FileSystemWatcher, GlobPattern, GotoDefinitionResponse, Hover, HoverContents,
    HoverProviderCapability, InitializeParams, Location, MarkupContent, MarkupKind, OneOf, Position,
    PositionEncodingKind, PrepareRenameResponse, PublishDiagnosticsParams, Registration, RegistrationParams,
    RenameOptions, ServerCapabilities, TextDocumentPositionParams, TextDocumentSyncCapability,
    TextDocumentSyncKind, TextEdit, Url, WorkspaceEdit,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::completion::{CompletionOptions, complete};
use crate::context::Context;
use crate::diagnostics::{Check, Checker, Job, Pace};
use crate::document::{DefinitionKind, apply};
use crate::hover::hover;
use crate::layers::{layers, tops};
use crate::navigation::{location, rename, target, uses};
use crate::position::Encoding;
use crate::symbols::symbols;
use crate::workspace::{Workspace, folder, normalized};

/// Formats a text, or says why it cannot.
pub type Format = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// What the server is given by the binary.
pub struct Host {
    /// Everything a configuration can say.
    pub reference: Reference,
    /// The static check.
    pub check: Arc<Check>,
    /// The formatter.
    pub format: Arc<Format>,
    /// The version to introduce itself with.
    pub version: String,
}

/// Why the conversation ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client broke the protocol or went away.
    #[error("the editor's messages cannot be understood: {0}")]
    Protocol(String),
    /// A thread or a pipe failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a client may say when it starts the server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InitializationOptions {
    /// Each file is a configuration of its own.
    single_files: bool,
}

/// A paused hand, and someone who types on and on.
const PACE: Pace = Pace { quiet: Duration::from_millis(150), longest: Duration::from_secs(2) };

/// Serves an editor over standard input and output until it says goodbye.
///
/// # Errors
/// When the client breaks the protocol, goes away without goodbye, or a pipe fails.
pub fn serve_stdio(host: Host) -> Result<(), ServeError> {
    let (connection, threads) = Connection::stdio();
    let served = serve(&connection, host);
    // The writer ends when nobody can send any more.
    drop(connection);
    if served.is_ok() {
        threads.join()?;
    }
    served
}

/// Serves an editor over a connection until it says goodbye.
pub(crate) fn serve(connection: &Connection, host: Host) -> Result<(), ServeError> {
    let protocol = |error: lsp_server::ProtocolError| ServeError::Protocol(error.to_string());
    let (id, parameters) = connection.initialize_start().map_err(protocol)?;
    let parameters: InitializeParams = match serde_json::from_value(parameters) {
        Ok(parameters) => parameters,
        Err(error) => {
            let message = format!("the parameters of initialize cannot be read: {error}");
            send(connection, Response::new_err(id, ErrorCode::InvalidParams as i32, message.clone()));
            return Err(ServeError::Protocol(message));
        }
    };
    let client = Client::of(&parameters);
    let answer = serde_json::json!({
        "capabilities": capabilities(client.encoding),
        "serverInfo": { "name": "invar", "version": host.version },
    });
    connection.initialize_finish(id, answer).map_err(protocol)?;
    if client.watches {
        watch_files(connection);
    }
    let sender = connection.sender.clone();
    let publish = move |parameters: PublishDiagnosticsParams| {
        let notification = Notification::new(PublishDiagnostics::METHOD.to_owned(), parameters);
        // Nobody is left to show it to if this fails.
        drop(sender.send(notification.into()));
    };
    let checker = Checker::start(Arc::clone(&host.check), Box::new(publish), PACE, client.encoding)?;
    let options: InitializationOptions = parameters
        .initialization_options
        .and_then(|options| serde_json::from_value(options).ok())
        .unwrap_or_default();
    let workspace = Workspace::new(options.single_files);
    let mut server = Server { host, client, workspace, checker };
    server.run(connection)
}

/// What the client can do.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    encoding: Encoding,
    snippets: bool,
    watches: bool,
}

struct Server {
    host: Host,
    client: Client,
    workspace: Workspace,
    checker: Checker,
}

/// An answer, or why there is none.
type Answer = Result<Value, (ErrorCode, String)>;

impl Client {
    fn of(parameters: &InitializeParams) -> Self {
        let capabilities = &parameters.capabilities;
        let encodings = capabilities.general.as_ref().and_then(|general| general.position_encodings.as_ref());
        // Only a client that prefers bytes gets them: everyone tests with the other.
        let utf8 = encodings.and_then(|encodings| encodings.first()) == Some(&PositionEncodingKind::UTF8);
        let completion = capabilities.text_document.as_ref().and_then(|text| text.completion.as_ref());
        let item = completion.and_then(|completion| completion.completion_item.as_ref());
        let watched =
            capabilities.workspace.as_ref().and_then(|workspace| workspace.did_change_watched_files);
        Self {
            encoding: if utf8 { Encoding::Utf8 } else { Encoding::Utf16 },
            snippets: item.and_then(|item| item.snippet_support).unwrap_or(false),
            watches: watched.and_then(|watched| watched.dynamic_registration).unwrap_or(false),
        }
    }
}

impl Server {
    fn run(&mut self, connection: &Connection) -> Result<(), ServeError> {
        let mut shut_down = false;
        for message in &connection.receiver {
            match message {
                Message::Request(request) if request.method == "shutdown" => {
                    shut_down = true;
                    send(connection, Response::new_ok(request.id, Value::Null));
                }
                Message::Request(request) if shut_down => {
                    let message = "the server is shutting down".to_owned();
                    send(
                        connection,
                        Response::new_err(request.id, ErrorCode::InvalidRequest as i32, message),
                    );
                }
                Message::Request(request) => {
                    let id = request.id.clone();
                    let answer = caught(|| self.answer(request));
                    let response = match answer {
                        Ok(value) => Response::new_ok(id, value),
                        Err((code, message)) => Response::new_err(id, code as i32, message),
                    };
                    send(connection, response);
                }
                Message::Notification(notification) if notification.method == "exit" => {
                    return if shut_down {
                        Ok(())
                    } else {
                        Err(ServeError::Protocol("exit came without shutdown".to_owned()))
                    };
                }
                Message::Notification(notification) => {
                    let noted = caught(|| {
                        self.note(notification);
                        Ok(Value::Null)
                    });
                    if let Err((_, message)) = noted {
                        tracing::error!(%message, "a notification was lost");
                    }
                }
                Message::Response(_) => {}
            }
        }
        if shut_down { Ok(()) } else { Err(ServeError::Protocol("the editor went away".to_owned())) }
    }

    fn answer(&mut self, request: Request) -> Answer {
        let Request { method, params, .. } = request;
        match method.as_str() {
            Completion::METHOD => {
                let at: TextDocumentPositionParams = read(params)?;
                let options = CompletionOptions { snippets: self.client.snippets };
                let list = self
                    .at(&at.text_document.uri, at.position)
                    .map(|mut context| complete(&mut context, options));
                write(&list.map(CompletionResponse::List))
            }
            HoverRequest::METHOD => {
                let at: TextDocumentPositionParams = read(params)?;
                let answer = self.at(&at.text_document.uri, at.position).and_then(|mut context| {
                    let (value, span) = hover(&mut context)?;
                    let range = Some(context.file.analysis.range(span, context.encoding));
                    let contents = HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value });
                    Some(Hover { contents, range })
                });
                write(&answer)
            }
            GotoDefinition::METHOD => {
                let at: TextDocumentPositionParams = read(params)?;
                let found = self.at(&at.text_document.uri, at.position).and_then(|mut context| {
                    let target = target(&mut context)?;
                    Some(GotoDefinitionResponse::Scalar(location(&target.file, target.span, &context)))
                });
                write(&found)
            }
            References::METHOD => {
                let at: lsp_types::ReferenceParams = read(params)?;
                let place = at.text_document_position;
                let found = self.at(&place.text_document.uri, place.position).and_then(|mut context| {
                    let target = target(&mut context)?;
                    let definition = target.definition?;
                    let uses = uses(&context, &target.file, &definition);
                    let mut locations: Vec<Location> =
                        uses.into_iter().map(|used| location(&used.file, used.span, &context)).collect();
                    if at.context.include_declaration {
                        locations.insert(0, location(&target.file, target.span, &context));
                    }
                    Some(locations)
                });
                write(&found)
            }
            PrepareRenameRequest::METHOD => {
                let at: TextDocumentPositionParams = read(params)?;
                let found = self.at(&at.text_document.uri, at.position).and_then(|mut context| {
                    let (span, label) = renameable(&mut context)?;
                    let range = context.file.analysis.range(span, context.encoding);
                    Some(PrepareRenameResponse::RangeWithPlaceholder { range, placeholder: label })
                });
                write(&found)
            }
            Rename::METHOD => {
                let at: lsp_types::RenameParams = read(params)?;
                if !is_identifier(&at.new_name) {
                    let message = "a label consists of letters, digits and underscores, and does not begin with a digit";
                    return Err((ErrorCode::InvalidParams, message.to_owned()));
                }
                let place = at.text_document_position;
                let edit = self.at(&place.text_document.uri, place.position).and_then(|mut context| {
                    renameable(&mut context)?;
                    let target = target(&mut context)?;
                    let changes = rename(&context, &target.file, &target.definition?, &at.new_name);
                    Some(WorkspaceEdit::new(changes.into_iter().collect()))
                });
                write(&edit)
            }
            DocumentSymbolRequest::METHOD => {
                let at: lsp_types::DocumentSymbolParams = read(params)?;
                let document = self.workspace.document(&at.text_document.uri);
                let symbols = document.map(|document| symbols(&document.analysis, self.client.encoding));
                write(&symbols.map(DocumentSymbolResponse::Nested))
            }
            Formatting::METHOD => {
                let at: lsp_types::DocumentFormattingParams = read(params)?;
                let Some(document) = self.workspace.document(&at.text_document.uri) else {
                    return Ok(Value::Null);
                };
                // What cannot be parsed is left as it is; the findings say why.
                let formatted = (self.host.format)(&document.analysis.text).ok();
                let edits = formatted.map(|text| edits(&document.analysis, &text, self.client.encoding));
                write(&edits)
            }
            other => Err((ErrorCode::MethodNotFound, format!("{other} is not offered"))),
        }
    }

    /// The place that a question is about, if the text is open.
    fn at(&mut self, url: &Url, position: Position) -> Option<Context<'_>> {
        self.workspace.document(url)?;
        let project = self.workspace.project(url);
        let file = project.file(url)?.clone();
        let offset = file.analysis.lines.offset(&file.analysis.text, position, self.client.encoding);
        Some(Context {
            reference: &self.host.reference,
            workspace: &mut self.workspace,
            project,
            file,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            encoding: self.client.encoding,
        })
    }

    fn note(&mut self, notification: Notification) {
        let Notification { method, params } = notification;
        match method.as_str() {
            DidOpenTextDocument::METHOD => {
                let Ok(opened) = serde_json::from_value::<lsp_types::DidOpenTextDocumentParams>(params)
                else {
                    return;
                };
                let document = opened.text_document;
                self.workspace.set(&document.uri, document.version, document.text);
                self.check(&document.uri);
            }
            DidChangeTextDocument::METHOD => {
                let Ok(changed) = serde_json::from_value::<lsp_types::DidChangeTextDocumentParams>(params)
                else {
                    return;
                };
                let (url, version) = (changed.text_document.uri, changed.text_document.version);
                let Some(document) = self.workspace.document(&url) else { return };
                let mut text = document.analysis.text.to_string();
                for change in &changed.content_changes {
                    apply(&mut text, change, self.client.encoding);
                }
                self.workspace.set(&url, version, text);
                self.check(&url);
            }
            DidCloseTextDocument::METHOD => {
                let Ok(closed) = serde_json::from_value::<lsp_types::DidCloseTextDocumentParams>(params)
                else {
                    return;
                };
                self.workspace.close(&closed.text_document.uri);
                self.check(&closed.text_document.uri);
            }
            DidSaveTextDocument::METHOD => {
                let Ok(saved) = serde_json::from_value::<lsp_types::DidSaveTextDocumentParams>(params) else {
                    return;
                };
                self.check(&saved.text_document.uri);
            }
            DidChangeWatchedFiles::METHOD => {
                // A module or a variables file may concern any open configuration.
                let mut done = Vec::new();
                for url in self.workspace.open_urls() {
                    let folder = folder(url);
                    if folder.is_none() || self.workspace.single_files || !done.contains(&folder) {
                        done.push(folder);
                        self.check(url);
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks soon what a change of a file concerns: the configurations that it is part of.
    fn check(&self, url: &Url) {
        let url = &normalized(url);
        let Some(changed) = folder(url).filter(|_| !self.workspace.single_files) else {
            let document = self.workspace.document(url);
            let open = document
                .map(|document| (url.clone(), (Arc::clone(&document.analysis.text), document.version)));
            let job = Job { folder: folder(url), layers: Vec::new(), open: open.into_iter().collect() };
            return self.checker.submit(url.to_string(), job);
        };
        let mut concerned: BTreeSet<PathBuf> = tops(&changed).into_iter().collect();
        // Hosts stand on a base as well, but there may be many: those that are being looked at.
        let open = self.workspace.open_urls().filter_map(folder);
        concerned.extend(open.filter(|folder| *folder != changed && layers(folder).contains(&changed)));
        for folder in concerned {
            let layers = layers(&folder);
            let open: BTreeMap<_, _> = self.workspace.open_in(&layers).collect();
            // Nobody looks at a configuration of which nothing is open.
            let layers = if open.is_empty() { Vec::new() } else { layers };
            let key = folder.display().to_string();
            self.checker.submit(key, Job { folder: Some(folder), layers, open });
        }
    }
}

/// The span of the label at the context's offset and its text, if it can be changed everywhere.
fn renameable(context: &mut Context<'_>) -> Option<(Span, String)> {
    let found = target(context)?;
    let definition = found.definition?;
    // Names that are not labels of blocks stand in strings or elsewhere.
    if definition.kind == DefinitionKind::LoopVariable
        || !context.project.files.iter().any(|file| file.url == found.file.url)
    {
        return None;
    }
    let label = definition.id.rsplit('.').next().unwrap_or_default().to_owned();
    if found.file.url == context.file.url
        && definition.span.start <= context.offset
        && context.offset <= definition.span.end
    {
        // Without the quotes.
        let span = Span::new(definition.span.start + 1, definition.span.end.saturating_sub(1));
        return Some((span, label));
    }
    let own = context.file.url.clone();
    let used = uses(context, &found.file, &definition).into_iter().find(|used| {
        used.file.url == own && used.span.start <= context.offset && context.offset <= used.span.end
    })?;
    Some((used.label, label))
}

/// One edit that replaces what differs.
pub(crate) fn edits(
    analysis: &crate::document::Analysis,
    formatted: &str,
    encoding: Encoding,
) -> Vec<TextEdit> {
    let text: &str = &analysis.text;
    if text == formatted {
        return Vec::new();
    }
    let same = |pairs: &mut dyn Iterator<Item = (char, char)>| -> usize {
        pairs.take_while(|(old, new)| old == new).map(|(old, _)| old.len_utf8()).sum()
    };
    // Between the two characters of a line end there is no position.
    let within_line_end = |at: usize| text[..at].ends_with('\r') && text[at..].starts_with('\n');
    let mut start = same(&mut text.chars().zip(formatted.chars()));
    start -= usize::from(within_line_end(start));
    let (old, new) = (&text[start..], &formatted[start..]);
    let mut end = same(&mut old.chars().rev().zip(new.chars().rev()));
    end -= usize::from(within_line_end(text.len() - end));
    let offset = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    let range = analysis.range(Span::new(offset(start), offset(text.len() - end)), encoding);
    vec![TextEdit::new(range, new[..new.len() - end].to_owned())]
}

fn capabilities(encoding: Encoding) -> ServerCapabilities {
    ServerCapabilities {
        position_encoding: Some(match encoding {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
        }),
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::INCREMENTAL)),
        completion_provider: Some(CompletionCapability {
            trigger_characters: Some([".", "\"", "[", "="].map(str::to_owned).to_vec()),
            ..CompletionCapability::default()
        }),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        definition_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        rename_provider: Some(OneOf::Right(RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: lsp_types::WorkDoneProgressOptions::default(),
        })),
        ..ServerCapabilities::default()
    }
}

/// Asks to be told when files change that no editor has open.
fn watch_files(connection: &Connection) {
    let watchers = ["**/*.alloy", "**/variables.toml"]
        .map(|glob| FileSystemWatcher { glob_pattern: GlobPattern::String(glob.to_owned()), kind: None })
        .to_vec();
    let options = DidChangeWatchedFilesRegistrationOptions { watchers };
    let registration = Registration {
        id: "files".to_owned(),
        method: DidChangeWatchedFiles::METHOD.to_owned(),
        register_options: serde_json::to_value(options).ok(),
    };
    let parameters = RegistrationParams { registrations: vec![registration] };
    send(
        connection,
        Request::new("watch-files".to_owned().into(), RegisterCapability::METHOD.to_owned(), parameters),
    );
}

fn send(connection: &Connection, message: impl Into<Message>) {
    // A client that went away ends the loop by itself.
    drop(connection.sender.send(message.into()));
}

fn read<T: DeserializeOwned>(parameters: Value) -> Result<T, (ErrorCode, String)> {
    serde_json::from_value(parameters).map_err(|error| (ErrorCode::InvalidParams, error.to_string()))
}

fn write<T: serde::Serialize>(answer: &T) -> Answer {
    serde_json::to_value(answer).map_err(|error| (ErrorCode::InternalError, error.to_string()))
}

/// A mistake of ours costs one answer, not the editor's session.
fn caught(answer: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(answer))
        .unwrap_or_else(|_| Err((ErrorCode::InternalError, "the server failed on this request".to_owned())))
}
