//! Derive macros by which a component declares its arguments and exports. Used through `invar_syntax`, which re-exports
//! them; the generated code names `::invar_syntax`.

mod arguments;
mod attributes;
mod enums;
mod exports;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `invar_syntax::Arguments` for a struct.
///
/// A field is an attribute unless told otherwise. Its documentation comment becomes the schema's documentation.
///
/// - `#[argument(required)]`: must be given.
/// - `#[argument(default = "\"60s\"")]`: an expression of the language made of literals and lists; or
///   `#[argument(default_fn = path)]`, a function that returns the field's type. Otherwise `Default::default()`.
/// - `#[argument(name = "type")]`: the name in the text where it is not the field's.
/// - `#[argument(block)]`: a nested `Arguments` (one, always there), an `Option` of it, or a `Vec` of it (repeated).
/// - `#[argument(block_enum)]`: a `Vec` of a `BlockEnum`, blocks `name.kind`; `recursive` where the schema holds itself.
/// - `#[argument(flatten)]`: the fields of a nested `Arguments` stand at this level.
/// - `#[argument(label)]`: the label of the block.
/// - `#[argument(values = ["http", "https"])]`: the texts to choose from, where the type is no enum; for documentation and
///   editors.
/// - `#[argument(type_note = "config.URL")]`, `#[argument(stability = "experimental")]`: for the schema.
/// - `#[argument(names = "file")]`: what its text names (`file`, `destination`, `targets`, `listen` or `nothing`), for
///   ceilings over what a configuration may use.
/// - `#[arguments(validate = "Self::validate")]` on the struct: a function of `&self` whose result is a
///   `ValidationOutcome`, called when all fields are decoded.
#[proc_macro_derive(Arguments, attributes(argument, arguments))]
pub fn derive_arguments(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    arguments::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `invar_syntax::Exports` for a struct whose fields are `ToValue` and `FromValue`. Takes the `name`,
/// `type_note` and `stability` of `#[argument(…)]`.
#[proc_macro_derive(Exports, attributes(argument))]
pub fn derive_exports(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    exports::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `FromValue`, `ToValue`, `Display` and `FromStr` for an enum without fields. A variant's text is its name in
/// snake case, or `#[argument(name = "keepequal")]`; `#[argument(alias = "…")]` adds another that is accepted.
#[proc_macro_derive(ArgumentEnum, attributes(argument))]
pub fn derive_argument_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    enums::expand_argument_enum(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `invar_syntax::BlockEnum` for an enum whose variants each hold one `Arguments`. A variant's kind is its name
/// in snake case, or `#[argument(name = "json")]`.
#[proc_macro_derive(BlockEnum, attributes(argument))]
pub fn derive_block_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    enums::expand_block_enum(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
