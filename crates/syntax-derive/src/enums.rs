//! `#[derive(ArgumentEnum)]` and `#[derive(BlockEnum)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, Variant};

use crate::attributes::{ArgumentOptions, documentation, snake_case};

fn variants(input: &DeriveInput) -> syn::Result<Vec<&Variant>> {
    match &input.data {
        Data::Enum(data) if !data.variants.is_empty() => Ok(data.variants.iter().collect()),
        _ => Err(syn::Error::new_spanned(&input.ident, "only an enum with variants can be derived here")),
    }
}

pub(crate) fn expand_argument_enum(input: &DeriveInput) -> syn::Result<TokenStream> {
    let enum_name = &input.ident;
    let mut texts = Vec::new();
    let mut accepted = Vec::new();
    let mut to_text = Vec::new();
    let mut from_text = Vec::new();
    for variant in variants(input)? {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(syn::Error::new_spanned(variant, "the variants of an ArgumentEnum hold nothing"));
        }
        let options = ArgumentOptions::read(&variant.attrs)?;
        let ident = &variant.ident;
        let text = options.name.clone().unwrap_or_else(|| snake_case(ident));
        let aliases = &options.aliases;
        to_text.push(quote!(Self::#ident => #text));
        from_text.push(quote!(#text #(| #aliases)* => ::core::option::Option::Some(Self::#ident)));
        accepted.push(text.clone());
        accepted.extend(aliases.iter().cloned());
        texts.push(text);
    }
    // Dead code is allowed below because not every enum's crate calls both accessors.
    Ok(quote! {
        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        impl #enum_name {
            /// The texts of all variants, in the order of declaration.
            #[allow(dead_code)]
            pub const NAMES: &'static [&'static str] = &[#(#texts),*];

            /// The text that stands for the variant.
            #[allow(dead_code)]
            #[must_use]
            pub const fn as_str(&self) -> &'static str {
                match self { #(#to_text),* }
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Display for #enum_name {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        impl ::core::str::FromStr for #enum_name {
            type Err = ::std::string::String;

            fn from_str(text: &str) -> ::core::result::Result<Self, Self::Err> {
                let parsed = match text {
                    #(#from_text,)*
                    _ => ::core::option::Option::None,
                };
                parsed.ok_or_else(|| ::invar_syntax::convert::enum_error(text, Self::NAMES))
            }
        }

        #[automatically_derived]
        impl ::invar_syntax::FromValue for #enum_name {
            fn value_type() -> ::invar_syntax::Type {
                ::invar_syntax::Type::Enum(&[#(#accepted),*])
            }

            fn from_value(
                value: &::invar_syntax::Value,
            ) -> ::core::result::Result<Self, ::invar_syntax::ConvertError> {
                let text = ::invar_syntax::convert::text_from_value(value)?;
                <Self as ::core::str::FromStr>::from_str(&text).map_err(::invar_syntax::ConvertError::new)
            }
        }

        #[automatically_derived]
        impl ::invar_syntax::ToValue for #enum_name {
            fn to_value(&self) -> ::invar_syntax::Value {
                ::invar_syntax::Value::string(self.as_str())
            }

            fn visit_capsules(&self, _visit: &mut dyn ::core::ops::FnMut(&::invar_syntax::Capsule)) {}
        }
    })
}

pub(crate) fn expand_block_enum(input: &DeriveInput) -> syn::Result<TokenStream> {
    let enum_name = &input.ident;
    let mut fields = Vec::new();
    let mut decode = Vec::new();
    let mut to_value = Vec::new();
    let mut visit = Vec::new();
    for variant in variants(input)? {
        let content = match &variant.fields {
            Fields::Unnamed(content) if content.unnamed.len() == 1 => content.unnamed.first(),
            _ => None,
        };
        let Some(content) = content else {
            return Err(syn::Error::new_spanned(variant, "a variant of a BlockEnum holds one Arguments"));
        };
        let ty = &content.ty;
        let options = ArgumentOptions::read(&variant.attrs)?;
        let ident = &variant.ident;
        let kind = options.name.clone().unwrap_or_else(|| snake_case(ident));
        let documentation = documentation(&variant.attrs);
        let stability = options.stability_code();
        fields.push(quote! {{
            let mut field = ::invar_syntax::Field::new(
                #kind,
                ::invar_syntax::FieldKind::Block,
                ::invar_syntax::Type::Object(::std::vec::Vec::new()),
            );
            field.fields = <#ty as ::invar_syntax::arguments::Arguments>::schema().fields;
            field.documentation = #documentation;
            field.stability = #stability;
            field
        }});
        decode.push(quote! {
            #kind => ::invar_syntax::arguments::decode_block::<#ty>(block, errors).map(Self::#ident)
        });
        to_value.push(quote! {
            Self::#ident(content) => (#kind, ::invar_syntax::arguments::Arguments::to_value(content))
        });
        visit.push(quote! {
            Self::#ident(content) => ::invar_syntax::arguments::Arguments::visit_capsules(content, visit)
        });
    }
    Ok(quote! {
        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        impl ::invar_syntax::arguments::BlockEnum for #enum_name {
            fn fields() -> ::std::vec::Vec<::invar_syntax::Field> {
                ::std::vec![#(#fields),*]
            }

            fn decode_kind(
                kind: &str,
                block: &::invar_syntax::EvaluatedBlock,
                errors: &mut ::std::vec::Vec<::invar_syntax::DecodeError>,
            ) -> ::core::option::Option<Self> {
                match kind {
                    #(#decode,)*
                    _ => ::core::option::Option::None,
                }
            }

            fn to_value(&self) -> (&'static str, ::invar_syntax::Value) {
                match self { #(#to_value),* }
            }

            fn visit_capsules(&self, visit: &mut dyn ::core::ops::FnMut(&'static str, &::invar_syntax::Capsule)) {
                match self { #(#visit),* }
            }
        }
    })
}
