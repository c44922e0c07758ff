//! Reading `#[argument(…)]`, documentation comments and names.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, ExprPath, Ident, Lit, LitStr, Path, Token, Type, bracketed, token};

/// What `#[argument(…)]` says about a field or variant.
#[derive(Default)]
pub(crate) struct ArgumentOptions {
    pub(crate) name: Option<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) required: bool,
    /// Code for a `Value`.
    pub(crate) default: Option<TokenStream>,
    pub(crate) default_fn: Option<Path>,
    pub(crate) block: bool,
    pub(crate) block_enum: bool,
    pub(crate) flatten: bool,
    pub(crate) label: bool,
    pub(crate) recursive: bool,
    pub(crate) type_note: Option<String>,
    pub(crate) values: Vec<String>,
    pub(crate) stability: Option<TokenStream>,
    pub(crate) names: Option<TokenStream>,
}

impl ArgumentOptions {
    pub(crate) fn read(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut options = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("argument")) {
            attribute.parse_nested_meta(|meta| {
                let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
                match key.as_str() {
                    "required" => options.required = true,
                    "block" => options.block = true,
                    "block_enum" => options.block_enum = true,
                    "flatten" => options.flatten = true,
                    "label" => options.label = true,
                    "recursive" => options.recursive = true,
                    "name" => options.name = Some(meta.value()?.parse::<LitStr>()?.value()),
                    "alias" => options.aliases.push(meta.value()?.parse::<LitStr>()?.value()),
                    "type_note" => options.type_note = Some(meta.value()?.parse::<LitStr>()?.value()),
                    "values" => {
                        let content;
                        let value = meta.value()?;
                        bracketed!(content in value);
                        let texts = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
                        options.values = texts.iter().map(LitStr::value).collect();
                    }
                    "stability" => options.stability = Some(stability(&meta.value()?.parse::<LitStr>()?)?),
                    "names" => options.names = Some(names(&meta.value()?.parse::<LitStr>()?)?),
                    "default" => options.default = Some(default_value(meta.value()?)?),
                    "default_fn" => options.default_fn = Some(path_or_text(&meta.value()?.parse::<Expr>()?)?),
                    _ => return Err(meta.error("no such option of #[argument(…)]")),
                }
                Ok(())
            })?;
        }
        let kinds = [options.block, options.block_enum, options.flatten, options.label];
        if kinds.iter().filter(|set| **set).count() > 1 {
            return Err(syn::Error::new_spanned(
                attributes.first(),
                "a field is one of block, block_enum, flatten and label",
            ));
        }
        Ok(options)
    }

    pub(crate) fn name_or(&self, ident: &Ident) -> String {
        self.name.clone().unwrap_or_else(|| plain_name(ident))
    }

    pub(crate) fn stability_code(&self) -> TokenStream {
        optional(self.stability.as_ref())
    }

    pub(crate) fn names_code(&self) -> TokenStream {
        optional(self.names.as_ref())
    }

    pub(crate) fn type_note_code(&self) -> TokenStream {
        optional(self.type_note.as_ref())
    }
}

fn optional(value: Option<&impl quote::ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn stability(text: &LitStr) -> syn::Result<TokenStream> {
    match text.value().as_str() {
        "experimental" => Ok(quote!(::invar_syntax::Stability::Experimental)),
        "public-preview" => Ok(quote!(::invar_syntax::Stability::PublicPreview)),
        "generally-available" => Ok(quote!(::invar_syntax::Stability::GenerallyAvailable)),
        _ => Err(syn::Error::new_spanned(text, "experimental, public-preview or generally-available")),
    }
}

fn names(text: &LitStr) -> syn::Result<TokenStream> {
    match text.value().as_str() {
        "file" => Ok(quote!(::invar_syntax::schema::Names::File)),
        "destination" => Ok(quote!(::invar_syntax::schema::Names::Destination)),
        "targets" => Ok(quote!(::invar_syntax::schema::Names::Targets)),
        "listen" => Ok(quote!(::invar_syntax::schema::Names::Listen)),
        "nothing" => Ok(quote!(::invar_syntax::schema::Names::Nothing)),
        _ => Err(syn::Error::new_spanned(text, "file, destination, targets, listen or nothing")),
    }
}

/// A path written plainly or in quotes.
pub(crate) fn path_or_text(expression: &Expr) -> syn::Result<Path> {
    match expression {
        Expr::Path(ExprPath { path, .. }) => Ok(path.clone()),
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text.parse(),
        other => Err(syn::Error::new_spanned(other, "the path of a function is needed")),
    }
}

/// Code that builds the value of a literal of the language: a string, number, flag, `null`, or a list of those.
struct LiteralValue(TokenStream);

impl Parse for LiteralValue {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(token::Bracket) {
            let content;
            bracketed!(content in input);
            let items = Punctuated::<Self, Token![,]>::parse_terminated(&content)?;
            let items = items.iter().map(|item| &item.0);
            return Ok(Self(quote!(::invar_syntax::Value::array([#(#items),*]))));
        }
        if input.peek(Ident) && !input.peek(Lit) {
            let name: Ident = input.parse()?;
            return if name == "null" {
                Ok(Self(quote!(::invar_syntax::Value::Null)))
            } else {
                Err(syn::Error::new_spanned(name, "a literal is needed; text stands in quotes of its own"))
            };
        }
        let negative = input.parse::<Option<Token![-]>>()?.is_some();
        match (input.parse::<Lit>()?, negative) {
            (Lit::Str(text), false) => Ok(Self(quote!(::invar_syntax::Value::string(#text)))),
            (Lit::Bool(flag), false) => Ok(Self(quote!(::invar_syntax::Value::Bool(#flag)))),
            (Lit::Int(number), false) => {
                let value: u64 = number.base10_parse()?;
                Ok(Self(quote!(::invar_syntax::Value::Number(::invar_syntax::Number::from(#value)))))
            }
            (Lit::Int(number), true) => {
                let value: i64 = format!("-{}", number.base10_digits())
                    .parse()
                    .map_err(|_| syn::Error::new_spanned(number, "beyond 64 bits"))?;
                Ok(Self(quote!(::invar_syntax::Value::Number(::invar_syntax::Number::Int(#value)))))
            }
            (Lit::Float(number), negative) => {
                let value: f64 = number.base10_parse()?;
                let value = if negative { -value } else { value };
                Ok(Self(quote!(::invar_syntax::Value::Number(::invar_syntax::Number::Float(#value)))))
            }
            (other, _) => Err(syn::Error::new_spanned(other, "a literal of the language is needed")),
        }
    }
}

/// A default: text that holds an expression of the language made of literals, or a number or flag written plainly.
fn default_value(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    if !input.peek(LitStr) {
        return Ok(input.parse::<LiteralValue>()?.0);
    }
    let text: LitStr = input.parse()?;
    let value: LiteralValue = text.parse().map_err(|_| {
        syn::Error::new_spanned(
            &text,
            "literals of the language are needed, such as \"\\\"60s\\\"\" or \"[1, 2]\"; else use default_fn",
        )
    })?;
    Ok(value.0)
}

/// The name without the `r#` of a raw identifier.
pub(crate) fn plain_name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// `KeepEqual` as `keep_equal`.
pub(crate) fn snake_case(ident: &Ident) -> String {
    let mut text = String::new();
    for (index, character) in plain_name(ident).chars().enumerate() {
        if character.is_uppercase() && index > 0 {
            text.push('_');
        }
        text.extend(character.to_lowercase());
    }
    text
}

/// The documentation comment as one text.
pub(crate) fn documentation(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    lines.join("\n").trim().to_owned()
}

/// The type inside `Wrapper<…>`.
pub(crate) fn inside<'a>(ty: &'a Type, wrapper: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if last.ident != wrapper {
        return None;
    }
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(inner) => Some(inner),
        _ => None,
    })
}
