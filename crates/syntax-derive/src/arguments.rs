//! `#[derive(Arguments)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Expr, Field, Fields, Ident, Path};

use crate::attributes::{ArgumentOptions, documentation, inside, path_or_text};

/// The parts of the implementation that fields contribute to.
#[derive(Default)]
struct Parts {
    schema: Vec<TokenStream>,
    defaults: Vec<TokenStream>,
    decode: Vec<TokenStream>,
    validate: Vec<TokenStream>,
    visit: Vec<TokenStream>,
    value: Vec<TokenStream>,
}

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let fields = named_fields(input)?;
    let mut parts = Parts::default();
    for field in fields {
        expand_field(&input.ident, field, &mut parts)?;
    }
    if let Some(path) = validate_path(input)? {
        parts.validate.push(quote! {
            errors.extend(::invar_syntax::arguments::ValidationOutcome::into_errors(#path(self)));
        });
    }
    let Parts { schema, defaults, decode, validate, visit, value } = parts;
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        impl #impl_generics ::invar_syntax::arguments::Arguments for #name #type_generics #where_clause {
            fn schema() -> ::invar_syntax::Schema {
                #[allow(unused_mut)]
                let mut fields: ::std::vec::Vec<::invar_syntax::Field> = ::std::vec::Vec::new();
                #[allow(unused_variables)]
                let defaults = <Self as ::invar_syntax::arguments::Arguments>::defaults();
                #(#schema)*
                ::invar_syntax::Schema { fields }
            }

            fn defaults() -> Self {
                Self { #(#defaults),* }
            }

            #[allow(unused_variables)]
            fn decode_fields(&mut self, decoder: &mut ::invar_syntax::arguments::BodyDecoder<'_>) {
                #(#decode)*
            }

            fn validate_fields(&self) -> ::std::vec::Vec<::invar_syntax::arguments::ValidationError> {
                #[allow(unused_mut)]
                let mut errors = ::std::vec::Vec::new();
                #(#validate)*
                errors
            }

            #[allow(unused_variables)]
            fn visit_capsules(&self, visit: &mut dyn ::core::ops::FnMut(&'static str, &::invar_syntax::Capsule)) {
                #(#visit)*
            }

            fn to_value(&self) -> ::invar_syntax::Value {
                #[allow(unused_mut)]
                let mut object = ::invar_syntax::Object::new();
                #(#value)*
                ::invar_syntax::Value::from(object)
            }
        }
    })
}

pub(crate) fn named_fields(input: &DeriveInput) -> syn::Result<Vec<&Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter().collect()),
            Fields::Unit => Ok(Vec::new()),
            Fields::Unnamed(_) => Err(syn::Error::new_spanned(&input.ident, "fields need names")),
        },
        _ => Err(syn::Error::new_spanned(&input.ident, "only a struct can be derived here")),
    }
}

fn validate_path(input: &DeriveInput) -> syn::Result<Option<Path>> {
    let mut path = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("arguments")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("validate") {
                path = Some(path_or_text(&meta.value()?.parse::<Expr>()?)?);
                Ok(())
            } else {
                Err(meta.error("no such option of #[arguments(…)]"))
            }
        })?;
    }
    Ok(path)
}

fn expand_field(owner: &Ident, field: &Field, parts: &mut Parts) -> syn::Result<()> {
    let options = ArgumentOptions::read(&field.attrs)?;
    let Some(ident) = &field.ident else {
        return Err(syn::Error::new_spanned(field, "fields need names"));
    };
    let ty = &field.ty;
    let name = options.name_or(ident);
    let place = format!("{owner}.{ident}");
    let initial = match (&options.default, &options.default_fn) {
        (Some(value), _) => quote!(::invar_syntax::arguments::default_of::<#ty>(#place, &#value)),
        (None, Some(path)) => quote!(#path()),
        (None, None) if options.flatten => quote!(<#ty as ::invar_syntax::arguments::Arguments>::defaults()),
        (None, None) if options.block && inside(ty, "Option").is_none() && inside(ty, "Vec").is_none() => {
            quote!(<#ty as ::invar_syntax::arguments::Arguments>::defaults())
        }
        (None, None) => quote!(<#ty as ::core::default::Default>::default()),
    };
    parts.defaults.push(quote!(#ident: #initial));

    if options.flatten {
        parts.schema.push(quote! {
            fields.extend(<#ty as ::invar_syntax::arguments::Arguments>::schema().fields);
        });
        parts.decode.push(quote! {
            ::invar_syntax::arguments::Arguments::decode_fields(&mut self.#ident, decoder);
        });
        parts.validate.push(quote! {
            errors.extend(::invar_syntax::arguments::Arguments::validate_fields(&self.#ident));
        });
        parts.visit.push(quote! {
            ::invar_syntax::arguments::Arguments::visit_capsules(&self.#ident, visit);
        });
        parts.value.push(quote! {
            if let ::invar_syntax::Value::Object(inner) = ::invar_syntax::arguments::Arguments::to_value(&self.#ident) {
                for (key, value) in inner.iter() {
                    object.insert(key.clone(), value.clone());
                }
            }
        });
        return Ok(());
    }

    let documentation = documentation(&field.attrs);
    let required = options.required;
    let type_note = options.type_note_code();
    let values = &options.values;
    let stability = options.stability_code();
    let names = options.names_code();
    let describe = |kind: TokenStream, value_type: TokenStream, more: TokenStream| {
        quote! {
            fields.push({
                let mut field = ::invar_syntax::Field::new(#name, #kind, #value_type);
                field.required = #required;
                field.documentation = #documentation;
                field.type_note = #type_note;
                field.values = &[#(#values),*];
                field.stability = #stability;
                field.names = #names;
                #more
                field
            });
        }
    };
    if options.block {
        expand_block(ident, ty, &options, &name, describe, parts);
    } else if options.block_enum {
        expand_block_enum(ident, ty, &options, &name, describe, parts)?;
    } else {
        expand_attribute(ident, ty, &options, &name, describe, parts);
    }
    Ok(())
}

fn expand_attribute(
    ident: &Ident,
    ty: &syn::Type,
    options: &ArgumentOptions,
    name: &str,
    describe: impl Fn(TokenStream, TokenStream, TokenStream) -> TokenStream,
    parts: &mut Parts,
) {
    let value_type = quote!(<#ty as ::invar_syntax::FromValue>::value_type());
    if options.label {
        parts.schema.push(describe(
            quote!(::invar_syntax::FieldKind::Label),
            value_type,
            quote!(field.required = true;),
        ));
        parts.decode.push(quote!(decoder.label(#name, &mut self.#ident);));
    } else {
        let required = options.required;
        let declared = options.default.is_some() || options.default_fn.is_some();
        let accepts = quote! {
            field.accepts = ::core::option::Option::Some(
                |value| <#ty as ::invar_syntax::FromValue>::from_value(value).map(::core::mem::drop)
            );
        };
        let default = if required {
            accepts
        } else {
            quote! {
                field.default = ::invar_syntax::arguments::shown_default(&defaults.#ident, #declared);
                #accepts
            }
        };
        parts.schema.push(describe(quote!(::invar_syntax::FieldKind::Attribute), value_type, default));
        parts.decode.push(quote!(decoder.attribute(#name, #required, &mut self.#ident);));
        parts.visit.push(quote! {
            ::invar_syntax::ToValue::visit_capsules(&self.#ident, &mut |capsule| visit(#name, capsule));
        });
    }
    parts.value.push(quote!(object.insert(#name, ::invar_syntax::ToValue::to_value(&self.#ident));));
}

fn expand_block(
    ident: &Ident,
    ty: &syn::Type,
    options: &ArgumentOptions,
    name: &str,
    describe: impl Fn(TokenStream, TokenStream, TokenStream) -> TokenStream,
    parts: &mut Parts,
) {
    let required = options.required;
    let kind = quote!(::invar_syntax::FieldKind::Block);
    let object_type = quote!(::invar_syntax::Type::Object(::std::vec::Vec::new()));
    let nested = |inner: &syn::Type| {
        if options.recursive {
            quote! {
                field.recursive = ::core::option::Option::Some(
                    || <#inner as ::invar_syntax::arguments::Arguments>::schema().fields
                );
            }
        } else {
            quote!(field.fields = <#inner as ::invar_syntax::arguments::Arguments>::schema().fields;)
        }
    };
    if let Some(inner) = inside(ty, "Option") {
        parts.schema.push(describe(kind, object_type, nested(inner)));
        parts.decode.push(quote!(decoder.optional_block(#name, #required, &mut self.#ident);));
        parts.visit.push(quote! {
            if let ::core::option::Option::Some(inner) = &self.#ident {
                ::invar_syntax::arguments::Arguments::visit_capsules(inner, visit);
            }
        });
        parts.value.push(quote! {
            if let ::core::option::Option::Some(inner) = &self.#ident {
                object.insert(#name, ::invar_syntax::arguments::Arguments::to_value(inner));
            }
        });
    } else if let Some(inner) = inside(ty, "Vec") {
        let more = nested(inner);
        parts.schema.push(describe(kind, object_type, quote!(field.many = true; #more)));
        parts.decode.push(quote!(decoder.repeated_block(#name, #required, &mut self.#ident);));
        parts.visit.push(quote! {
            for inner in &self.#ident {
                ::invar_syntax::arguments::Arguments::visit_capsules(inner, visit);
            }
        });
        parts.value.push(quote! {
            if !self.#ident.is_empty() {
                object.insert(#name, ::invar_syntax::Value::array(
                    self.#ident.iter().map(::invar_syntax::arguments::Arguments::to_value)
                ));
            }
        });
    } else {
        parts.schema.push(describe(kind, object_type, nested(ty)));
        parts.decode.push(quote!(decoder.block(#name, #required, &mut self.#ident);));
        parts.visit.push(quote! {
            ::invar_syntax::arguments::Arguments::visit_capsules(&self.#ident, visit);
        });
        parts.value.push(quote! {
            object.insert(#name, ::invar_syntax::arguments::Arguments::to_value(&self.#ident));
        });
    }
}

fn expand_block_enum(
    ident: &Ident,
    ty: &syn::Type,
    options: &ArgumentOptions,
    name: &str,
    describe: impl Fn(TokenStream, TokenStream, TokenStream) -> TokenStream,
    parts: &mut Parts,
) -> syn::Result<()> {
    let Some(element) = inside(ty, "Vec") else {
        return Err(syn::Error::new_spanned(ty, "block_enum needs a Vec of a type that derives BlockEnum"));
    };
    let required = options.required;
    let nested = if options.recursive {
        quote! {
            field.recursive = ::core::option::Option::Some(
                <#element as ::invar_syntax::arguments::BlockEnum>::fields
            );
        }
    } else {
        quote!(field.fields = <#element as ::invar_syntax::arguments::BlockEnum>::fields();)
    };
    parts.schema.push(describe(
        quote!(::invar_syntax::FieldKind::EnumBlocks),
        quote!(::invar_syntax::Type::Object(::std::vec::Vec::new())),
        quote!(field.many = true; #nested),
    ));
    parts.decode.push(quote!(decoder.enum_blocks(#name, #required, &mut self.#ident);));
    parts.visit.push(quote! {
        for element in &self.#ident {
            ::invar_syntax::arguments::BlockEnum::visit_capsules(element, visit);
        }
    });
    parts.value.push(quote! {
        if !self.#ident.is_empty() {
            object.insert(#name, ::invar_syntax::Value::array(self.#ident.iter().map(|element| {
                let (kind, value) = ::invar_syntax::arguments::BlockEnum::to_value(element);
                ::invar_syntax::Value::object([(kind, value)])
            })));
        }
    });
    Ok(())
}
