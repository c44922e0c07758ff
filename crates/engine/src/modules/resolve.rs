//! From import blocks to modules: evaluates what a configuration imports, parses what the module set has of it, and goes on with
//! the imports in there.

use std::path::Path;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use invar_policy::Access;
use invar_syntax::arguments::Arguments;
use invar_syntax::ast::{Block, Body, File, Statement};
use invar_syntax::check::{UnknownTypes, check_body_at};
use invar_syntax::diagnostic::{Diagnostic, Diagnostics, nearest};
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody, Reference, references};
use invar_syntax::parser::parse_bytes;
use invar_syntax::source::Source;
use sha2::{Digest, Sha256};

use super::arguments::{REMOTE_CONFIG, StringImport, text_of};
use super::{
    Declare, FileImport, GitImport, HttpImport, Import, ImportArguments, ImportContent, ImportRequest,
    Lexicon, Module, ModuleFault, ModuleKey, ModuleKind, ModuleSet,
};
use crate::authors::{Authors, access_of};
use crate::block::{BlockRef, BodyRef};
use crate::ceiling::{self, Refused, refused_in};
use crate::codes;
use crate::configuration::{InputScope, Inputs, add_text, hexadecimal, is_constant};
use crate::evaluate::{decode_diagnostics, evaluate};
use crate::graph::duplicate;
use crate::inputs::INPUT_NAMES;

/// How deep modules may import modules.
const DEEPEST_IMPORT: usize = 32;

/// Resolves the imports of a configuration.
pub(crate) struct Resolver<'a> {
    inputs: &'a Inputs,
    set: &'a ModuleSet,
    found: Resolution,
    requested: HashSet<ModuleKey>,
    /// Who wrote what, as far as modules were found.
    authors: Authors,
    /// Which file imports which.
    imports: Vec<(String, String)>,
    /// Modules parsed so far; none for those that cannot be used.
    loaded: HashMap<ModuleKey, Option<Arc<Module>>>,
    /// The imports that led here, outermost first.
    chain: Vec<(ModuleKey, String)>,
    /// Whether what is looked at stands beside nothing that could run.
    at_top_of_module: bool,
}

/// What the imports of a configuration came to.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// All imports whose content has to be fetched, each content once, in source order.
    pub(crate) requests: Vec<ImportRequest>,
    /// Those that the set has not.
    pub(crate) missing: Vec<ImportRequest>,
    pub(crate) faults: Vec<ModuleFault>,
    /// Who wrote what, modules included.
    pub(crate) authors: Authors,
    /// All modules that were parsed.
    pub(crate) modules: Vec<Arc<Module>>,
}

// === impl Resolver ===

impl<'a> Resolver<'a> {
    pub(crate) fn new(inputs: &'a Inputs, set: &'a ModuleSet) -> Self {
        Self {
            inputs,
            set,
            found: Resolution::default(),
            requested: HashSet::default(),
            authors: inputs.authors.clone(),
            imports: Vec::new(),
            loaded: HashMap::default(),
            chain: Vec::new(),
            at_top_of_module: false,
        }
    }

    /// What was found.
    pub(crate) fn finish(mut self) -> Resolution {
        self.authors.import_all(&self.imports);
        self.found.authors = self.authors;
        let (inputs, authors) = (self.inputs, &self.found.authors);
        for request in self.found.requests.iter_mut().chain(&mut self.found.missing) {
            request.access = access_of(&inputs.policy, authors, [request.block.file_name()]);
        }
        self.found
    }

    /// What may be used by a block.
    fn access_of(&self, block: &BlockRef) -> Access {
        access_of(&self.inputs.policy, &self.authors, [block.file_name()])
    }

    /// Notes that a block brings in these files.
    fn brings(&mut self, block: &BlockRef, files: impl Iterator<Item = impl Into<String>>) {
        for file in files {
            let file = file.into();
            self.authors.import(block.file_name(), &file);
            self.imports.push((block.file_name().to_owned(), file));
        }
    }

    /// What bodies that make one scope declare and import.
    pub(crate) fn lexicon(
        &mut self,
        bodies: &[BodyRef],
        module_path: &Arc<str>,
        namespace: &str,
    ) -> Arc<Lexicon> {
        let mut lexicon = Lexicon { module_path: Arc::clone(module_path), ..Lexicon::default() };
        for body in bodies {
            for (place, block) in body.blocks() {
                let Some(first) = block.name.first() else { continue };
                if &*first.name == "declare" && block.name.len() == 1 {
                    let label = block.label.as_ref().map(|label| &label.text);
                    let named = label.filter(|label| !lexicon.declares.contains_key(*label));
                    let inner = match named {
                        Some(label) => format!("{namespace}{label}/"),
                        // No label looks so.
                        None => format!("{namespace}#{}/", lexicon.refused.len()),
                    };
                    let before = std::mem::replace(&mut self.at_top_of_module, false);
                    let inner = self.lexicon(&[place.body()], module_path, &inner);
                    self.at_top_of_module = before;
                    let declare = Declare::new(label.unwrap_or(&Arc::default()), place, inner);
                    match named {
                        Some(label) => {
                            lexicon.declares.insert(Arc::clone(label), Arc::new(declare));
                        }
                        None => lexicon.refused.push(Arc::new(declare)),
                    }
                    continue;
                }
                let Some(label) = &block.label else { continue };
                let label = &label.text;
                match (&*first.name, block.name.get(1)) {
                    ("foreach", None) if !lexicon.templates.contains_key(label) => {
                        if let Some((template, _)) =
                            place.body().blocks().find(|(_, block)| block.dotted_name() == TEMPLATE)
                        {
                            let inner = self.lexicon(
                                &[template.body()],
                                module_path,
                                &format!("{namespace}{label}/"),
                            );
                            lexicon.templates.insert(Arc::clone(label), inner);
                        }
                    }
                    ("import", Some(kind))
                        if block.name.len() == 2 && !lexicon.imports.contains_key(label) =>
                    {
                        let kind = ModuleKind::ALL.into_iter().find(|known| known.as_str() == &*kind.name);
                        if let Some(kind) = kind {
                            let content =
                                self.import(kind, &place, module_path, &format!("{namespace}{label}"));
                            let import = Import { label: Arc::clone(label), kind, content };
                            lexicon.imports.insert(Arc::clone(label), Arc::new(import));
                        }
                    }
                    _ => {}
                }
            }
        }
        Arc::new(lexicon)
    }

    /// What an import block brings in. What is wrong with it is among the faults then.
    fn import(
        &mut self,
        kind: ModuleKind,
        place: &BlockRef,
        module_path: &Arc<str>,
        namespace: &str,
    ) -> ImportContent {
        match self.try_import(kind, place, module_path, namespace) {
            Ok(content) => content,
            Err(diagnostics) => {
                self.found.faults.push(ModuleFault { key: None, diagnostics });
                ImportContent::Unknown
            }
        }
    }

    fn try_import(
        &mut self,
        kind: ModuleKind,
        place: &BlockRef,
        module_path: &Arc<str>,
        namespace: &str,
    ) -> Result<ImportContent, Diagnostics> {
        let block = place.get();
        let body = without_client(&block.body, kind);
        let errors = check_body_at(&body, &kind.schema(), &UnknownTypes, place.header());
        if !errors.is_empty() {
            return Err(decode_diagnostics(place, errors));
        }
        if let Some(reference) = references(&block.body).into_iter().find(|found| !is_constant(found)) {
            if kind == ModuleKind::String && !self.at_top_of_module {
                return Ok(ImportContent::Dynamic);
            }
            return Err(not_constant(kind, place, &reference).into());
        }
        let access = self.access_of(place);
        let scope = InputScope { inputs: self.inputs, module_path, access: access.clone() };
        let mut evaluated = evaluate(place, &scope).map_err(|error| error.diagnostics)?;
        if evaluated.has_unknown() {
            return Ok(ImportContent::Unknown);
        }
        let client = take_client(&mut evaluated, kind);
        let arguments = match kind {
            ModuleKind::File => ImportArguments::File(decode::<FileImport>(place, &evaluated)?),
            ModuleKind::Git => ImportArguments::Git(Box::new(decode::<GitImport>(place, &evaluated)?)),
            ModuleKind::Http => ImportArguments::Http {
                request: Box::new(decode::<HttpImport>(place, &evaluated)?),
                client: client.map(Box::new),
            },
            ModuleKind::RemoteConfig => return Ok(ImportContent::Unknown),
            ModuleKind::String => {
                let StringImport { content } = decode(place, &evaluated)?;
                let text = content.expose();
                return Ok(self.text_module(place, text, content.is_secret(), module_path, namespace));
            }
        };
        let refused = imports_refused(kind, &arguments, &evaluated, module_path, &access);
        if !refused.is_empty() {
            let at = |refused: Refused| {
                let attribute = evaluated.attributes.iter().find(|found| *found.name.name == *refused.field);
                let span = attribute.map_or_else(|| place.header(), |found| found.value_span);
                place.label(ceiling::diagnostic(refused.refusal), span, "")
            };
            return Err(refused.into_iter().map(at).collect());
        }
        let key = arguments.key(module_path);
        let request = ImportRequest {
            key: key.clone(),
            arguments,
            namespace: namespace.to_owned(),
            module_path: module_path.to_string(),
            access,
            block: place.clone(),
        };
        if self.requested.insert(key.clone()) {
            self.found.requests.push(request.clone());
        }
        let content = match self.set.entry(&key) {
            Some(Ok(content)) => Arc::clone(content),
            Some(Err(reason)) => {
                let diagnostic =
                    request.diagnostic(format!("cannot import module \"{namespace}\": {reason}"));
                self.found.faults.push(ModuleFault { key: Some(key), diagnostics: diagnostic.into() });
                return Ok(ImportContent::Unknown);
            }
            None => {
                let known =
                    self.set.is_open(&key) || self.found.missing.iter().any(|missing| missing.key == key);
                if !known {
                    self.found.missing.push(request);
                }
                return Ok(ImportContent::Unknown);
            }
        };
        self.enter(place, &key)?;
        self.brings(place, content.files.iter().map(|file| file.name.as_str()));
        if !self.loaded.contains_key(&key) {
            let files = content.files.iter().map(|file| (file.name.as_str(), &file.content[..]));
            let module_path = Arc::from(content.module_path.as_str());
            let module = self.parse(&key, files, false, &module_path, namespace);
            self.loaded.insert(key.clone(), module);
        }
        self.chain.pop();
        Ok(self.loaded.get(&key).cloned().flatten().map_or(ImportContent::Unknown, ImportContent::Module))
    }

    /// The files that the control plane of a `remotecfg` block among these bodies has sent. Without content there are none:
    /// the local pipeline does not wait for a server.
    pub(crate) fn remote_config(&mut self, bodies: &[BodyRef], module_path: &Arc<str>) -> Vec<Arc<File>> {
        let place = bodies
            .iter()
            .flat_map(BodyRef::blocks)
            .find(|(_, block)| block.dotted_name() == REMOTE_CONFIG)
            .map(|(place, _)| place);
        let Some(place) = place else { return Vec::new() };
        let kind = ModuleKind::RemoteConfig;
        if let Some(reference) = references(&place.get().body).into_iter().find(|found| !is_constant(found)) {
            // No error: Alloy allows it, and the local pipeline runs all the same.
            let name = reference.path.join(".");
            let message = format!(
                "nothing is fetched for {kind}: its arguments use \"{name}\", which is known only when running"
            );
            let warning = Diagnostic::warning(codes::UNREAD_IMPORT, message)
                .with_help("use literals, sys.env, var.*, agent.* or the arguments that name files");
            let diagnostics = place.label(warning, reference.span, "").into();
            self.found.faults.push(ModuleFault { key: None, diagnostics });
            return Vec::new();
        }
        // What is wrong with its expressions, the check of the block itself says.
        let access = self.access_of(&place);
        let scope = InputScope { inputs: self.inputs, module_path, access: access.clone() };
        let Ok(body) = evaluate(&place, &scope) else { return Vec::new() };
        if body.has_unknown() || text_of(&body, "url").is_none_or(str::is_empty) {
            return Vec::new();
        }
        let arguments = ImportArguments::RemoteConfig(Box::new(body));
        let key = arguments.key(module_path);
        let request = ImportRequest {
            key: key.clone(),
            arguments,
            namespace: REMOTE_CONFIG.to_owned(),
            module_path: module_path.to_string(),
            access,
            block: place.clone(),
        };
        self.found.requests.push(request.clone());
        let content = match self.set.entry(&key) {
            Some(Ok(content)) => Arc::clone(content),
            Some(Err(_)) => return Vec::new(),
            None => {
                if !self.set.is_open(&key) {
                    self.found.missing.push(request);
                }
                return Vec::new();
            }
        };
        self.brings(&place, content.files.iter().map(|file| file.name.as_str()));
        let mut files = Vec::new();
        for file in &content.files {
            let (parsed, found) = parse_bytes(&file.name, &file.content);
            if found.has_errors() {
                self.found.faults.push(ModuleFault { key: Some(key.clone()), diagnostics: found });
            }
            files.extend(parsed.map(Arc::new));
        }
        files
    }

    /// The module that a text is.
    pub(crate) fn text_module(
        &mut self,
        place: &BlockRef,
        text: &str,
        secret: bool,
        module_path: &Arc<str>,
        namespace: &str,
    ) -> ImportContent {
        let key = text_key(text, module_path);
        if let Err(diagnostics) = self.enter(place, &key) {
            self.found.faults.push(ModuleFault { key: None, diagnostics });
            return ImportContent::Unknown;
        }
        let name = format!("{}.{namespace}", ModuleKind::String);
        self.brings(place, std::iter::once(name.as_str()));
        if !self.loaded.contains_key(&key) {
            let module = self.parse(
                &key,
                std::iter::once((name.as_str(), text.as_bytes())),
                secret,
                module_path,
                namespace,
            );
            self.loaded.insert(key.clone(), module);
        }
        self.chain.pop();
        self.loaded.get(&key).cloned().flatten().map_or(ImportContent::Unknown, ImportContent::Module)
    }

    /// Notes an import on the way; refuses circles and endless chains.
    fn enter(&mut self, place: &BlockRef, key: &ModuleKey) -> Result<(), Diagnostics> {
        if let Some(start) = self.chain.iter().position(|(other, _)| other == key) {
            let mut names: Vec<&str> = self.chain[start..].iter().map(|(_, place)| place.as_str()).collect();
            let here = place.location();
            names.push(&here);
            let message = format!("import cycle: {}", names.join(" imports "));
            let diagnostic = Diagnostic::error(codes::CYCLE, message);
            return Err(place.label(diagnostic, place.header(), "imports what it is part of").into());
        }
        if self.chain.len() >= DEEPEST_IMPORT {
            let message = format!("modules import modules more than {DEEPEST_IMPORT} deep");
            let diagnostic = Diagnostic::error(codes::TOO_DEEP, message);
            return Err(place.label(diagnostic, place.header(), "").into());
        }
        self.chain.push((key.clone(), place.location()));
        Ok(())
    }

    /// Parses a module; none if it cannot be used.
    fn parse<'f>(
        &mut self,
        key: &ModuleKey,
        files: impl Iterator<Item = (&'f str, &'f [u8])>,
        secret: bool,
        module_path: &Arc<str>,
        namespace: &str,
    ) -> Option<Arc<Module>> {
        let mut diagnostics = Diagnostics::new();
        let mut bodies = Vec::new();
        for (name, content) in files {
            let (file, found) = parse_bytes(name, content);
            diagnostics.0.extend(found.0);
            let file = file.map(|file| if secret { masked(file) } else { file });
            bodies.extend(file.map(|file| BodyRef::file(&Arc::new(file))));
        }
        let syntax_errors = diagnostics.len();
        diagnostics.extend(misplaced(&bodies));
        if secret {
            // Those of the parser show the text, and name parts of it.
            let count = syntax_errors;
            if count > 0 {
                diagnostics =
                    Diagnostic::error(codes::IMPORT, format!("the content has {count} syntax errors")).into();
            }
        }
        if diagnostics.has_errors() {
            self.found.faults.push(ModuleFault { key: Some(key.clone()), diagnostics });
            return None;
        }
        let before = std::mem::replace(&mut self.at_top_of_module, true);
        let lexicon = self.lexicon(&bodies, module_path, &format!("{namespace}/"));
        self.at_top_of_module = before;
        let module = Arc::new(Module { key: key.clone(), bodies, lexicon });
        self.found.modules.push(Arc::clone(&module));
        Some(module)
    }
}

/// What an import names and its authors may not use. What lies beside what imports it, they have brought themselves.
fn imports_refused(
    kind: ModuleKind,
    arguments: &ImportArguments,
    body: &EvaluatedBody,
    module_path: &str,
    access: &Access,
) -> Vec<Refused> {
    if let ImportArguments::File(FileImport { filename, .. }) = arguments {
        let beside = !module_path.is_empty() && Path::new(filename).starts_with(module_path);
        if beside && !filename.contains("..") {
            return Vec::new();
        }
    }
    refused_in(&kind.schema(), body, access)
}

/// The file with a text in which nothing can be read: diagnostics show texts.
fn masked(file: File) -> File {
    let letters = file.source.text.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' });
    let text: String = letters.collect();
    File { source: Arc::new(Source::new(Arc::clone(&file.source.name), text)), ..file }
}

/// The block of a `foreach` that is made once for each item.
pub(crate) const TEMPLATE: &str = "template";

/// Names a module that is a text.
pub(crate) fn text_key(text: &str, module_path: &str) -> ModuleKey {
    let mut hasher = Sha256::new();
    add_text(&mut hasher, text);
    add_text(&mut hasher, module_path);
    ModuleKey::new(format!("{}-{}", ModuleKind::String.as_str(), hexadecimal(&hasher.finalize())))
}

/// What may not stand at the top of a module.
fn misplaced(bodies: &[BodyRef]) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    let mut labels: HashMap<Arc<str>, BlockRef> = HashMap::default();
    let mut refuse = |body: &BodyRef, name: &str, span| {
        let message = format!("only declare and import blocks are allowed in a module, got {name}");
        diagnostics.push(body.label(Diagnostic::error(codes::MISPLACED, message), span, ""));
    };
    let mut twice = Vec::new();
    for body in bodies {
        for attribute in body.attributes() {
            refuse(body, &attribute.name.name, attribute.name.span);
        }
        for (place, block) in body.blocks() {
            if !is_declare(block) && !is_import(block) {
                refuse(body, &block.dotted_name(), block.name_span());
            } else if let Some(label) = &block.label {
                match labels.get(&label.text) {
                    Some(first) => twice.push(duplicate(&place.name_with_label(), first, &place)),
                    None => _ = labels.insert(Arc::clone(&label.text), place),
                }
            }
        }
    }
    diagnostics.extend(twice);
    diagnostics
}

fn is_declare(block: &Block) -> bool {
    matches!(&*block.name, [name] if &*name.name == "declare")
}

pub(crate) fn is_import(block: &Block) -> bool {
    matches!(&*block.name, [first, _] if &*first.name == "import")
}

fn not_constant(kind: ModuleKind, place: &BlockRef, reference: &Reference) -> Diagnostic {
    let name = reference.path.join(".");
    let message = format!("the arguments of {kind} must be known before anything runs, \"{name}\" is not");
    let help = match nearest(&name, INPUT_NAMES.into_iter()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "use literals, the standard library, module_path, var.* and agent.*; import.string can take its \
                 content from a component"
                .to_owned()
        }
    };
    place.label(Diagnostic::error(codes::IMPORT, message), reference.span, "").with_help(help)
}

fn decode<A: Arguments>(place: &BlockRef, body: &EvaluatedBody) -> Result<A, Diagnostics> {
    let mut errors = Vec::new();
    match A::decode(body, &mut errors) {
        Some(arguments) if errors.is_empty() => Ok(arguments),
        _ => Err(decode_diagnostics(place, errors)),
    }
}

/// The name of the block of `import.http` that is not the engine's to understand.
pub(super) const CLIENT: &str = "client";

fn is_client(block: &Block, kind: ModuleKind) -> bool {
    kind == ModuleKind::Http && block.dotted_name() == CLIENT
}

/// The body without its `client` block.
fn without_client(body: &Body, kind: ModuleKind) -> Body {
    let keep =
        |statement: &&Statement| !matches!(statement, Statement::Block(block) if is_client(block, kind));
    Body { statements: body.statements.iter().filter(keep).cloned().collect() }
}

fn take_client(body: &mut EvaluatedBody, kind: ModuleKind) -> Option<EvaluatedBlock> {
    if kind != ModuleKind::Http {
        return None;
    }
    let position = body.blocks.iter().position(|block| block.dotted_name() == CLIENT)?;
    Some(body.blocks.remove(position))
}
