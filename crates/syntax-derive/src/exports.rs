//! `#[derive(Exports)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::arguments::named_fields;
use crate::attributes::{ArgumentOptions, documentation};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut schema = Vec::new();
    let mut value = Vec::new();
    for field in named_fields(input)? {
        let options = ArgumentOptions::read(&field.attrs)?;
        let Some(ident) = &field.ident else {
            return Err(syn::Error::new_spanned(field, "fields need names"));
        };
        let ty = &field.ty;
        let name = options.name_or(ident);
        let documentation = documentation(&field.attrs);
        let type_note = options.type_note_code();
        let stability = options.stability_code();
        schema.push(quote! {{
            let mut field = ::invar_syntax::Field::new(
                #name,
                ::invar_syntax::FieldKind::Attribute,
                <#ty as ::invar_syntax::FromValue>::value_type(),
            );
            field.required = true;
            field.documentation = #documentation;
            field.type_note = #type_note;
            field.stability = #stability;
            field
        }});
        value.push(quote!((#name, ::invar_syntax::ToValue::to_value(&self.#ident))));
    }
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, clippy::nursery)]
        impl #impl_generics ::invar_syntax::arguments::Exports for #name #type_generics #where_clause {
            fn schema() -> ::invar_syntax::Schema {
                ::invar_syntax::Schema { fields: ::std::vec![#(#schema),*] }
            }

            fn to_value(&self) -> ::invar_syntax::Value {
                ::invar_syntax::Value::object::<&'static str>([#(#value),*])
            }
        }
    })
}
