//! The attribute and the derive that make a type fit for the state of a millpond job. Use them as
//! `millpond::data` and `millpond::Described`, where they are documented.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::parse::Nothing;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, Result, parse_macro_input};

/// Makes a type what may be stored or cross a shuffle: it adds rkyv's derives and `millpond::Described`.
///
/// It stands above the type's own derives; `Clone` has to be among these. Every field must be data too: numbers,
/// strings, options, vectors, ordered maps, other types with this attribute. What rkyv's derives take as attributes
/// can be written below it. A type that contains itself needs bounds that only it can know: give it rkyv's derives and
/// `millpond::Described` by hand, see rkyv's documentation of `omit_bounds`.
#[proc_macro_attribute]
pub fn data(arguments: TokenStream, item: TokenStream) -> TokenStream {
    parse_macro_input!(arguments as Nothing);
    let item = Tokens::from(item);
    let derived = quote! {
        #[derive(
            ::millpond::rkyv::Archive,
            ::millpond::rkyv::Serialize,
            ::millpond::rkyv::Deserialize,
            ::millpond::Described,
        )]
        #[rkyv(crate = ::millpond::rkyv)]
        #item
    };
    derived.into()
}

/// Describes how the type is archived, for a type that has rkyv's derives. A field with `#[millpond(opaque)]`, or
/// with rkyv's `with`, is described by its size alone.
#[proc_macro_derive(Described, attributes(millpond))]
pub fn described(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    describe(&item).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn describe(item: &DeriveInput) -> Result<Tokens> {
    let (ident, name) = (&item.ident, plain_name(&item.ident));
    let body = match &item.data {
        Data::Struct(structure) => {
            let fields = describe_fields(&structure.fields)?;
            quote! { schema.structure::<Self, ::millpond::rkyv::Archived<Self>>(#name, |fields| { #fields }); }
        }
        Data::Enum(enumeration) => {
            let mut variants = Tokens::new();
            for variant in &enumeration.variants {
                let (name, fields) = (plain_name(&variant.ident), describe_fields(&variant.fields)?);
                variants.extend(match &variant.discriminant {
                    None => quote! { variants.variant(#name, |fields| { #fields }); },
                    Some((_, tag)) => quote! { variants.tagged(#name, #tag, |fields| { #fields }); },
                });
            }
            quote! { schema.enumeration::<Self, ::millpond::rkyv::Archived<Self>>(#name, |variants| { #variants }); }
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(ident, "a union has no fields that could be described"));
        }
    };
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    let given = where_clause.map(|clause| &clause.predicates);
    let separator = given.filter(|given| !given.is_empty() && !given.trailing_punct()).map(|_| quote!(,));
    let parameters: Vec<_> = item.generics.type_params().map(|parameter| &parameter.ident).collect();
    let archive = (!parameters.is_empty()).then(|| quote! { Self: ::millpond::rkyv::Archive + 'static, });
    Ok(quote! {
        impl #impl_generics ::millpond::Described for #ident #type_generics
        where #given #separator #archive #(#parameters: ::millpond::Described,)*
        {
            #[allow(unused_variables)]
            fn describe(schema: &mut ::millpond::Schema) {
                #body
            }
        }
    })
}

/// Without the `r#` of a name that is a keyword.
fn plain_name(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

/// The calls that append the fields.
fn describe_fields(fields: &Fields) -> Result<Tokens> {
    let mut calls = Tokens::new();
    for (at, field) in fields.iter().enumerate() {
        let name = match &field.ident {
            Some(ident) => plain_name(ident),
            None => at.to_string(),
        };
        let r#type = &field.ty;
        calls.extend(match archived_by(field)? {
            Way::Described => {
                quote! { fields.field::<#r#type>(#name); }
            }
            Way::Opaque => quote! { fields.opaque::<::millpond::rkyv::Archived<#r#type>>(#name); },
            Way::With(with) => quote! {
                fields.opaque::<<#with as ::millpond::rkyv::with::ArchiveWith<#r#type>>::Archived>(#name);
            },
        });
    }
    Ok(calls)
}

/// How a field is archived.
enum Way {
    Described,
    /// Only its own program can read it.
    Opaque,
    /// By one of rkyv's wrappers.
    With(Box<syn::Type>),
}

fn archived_by(field: &Field) -> Result<Way> {
    let mut way = Way::Described;
    for attribute in &field.attrs {
        if attribute.path().is_ident("millpond") {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("opaque") {
                    return Err(meta.error("the only word that is known here is `opaque`"));
                }
                if !matches!(way, Way::With(_)) {
                    way = Way::Opaque;
                }
                Ok(())
            })?;
        } else if attribute.path().is_ident("rkyv") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("with") {
                    way = Way::With(meta.value()?.parse()?);
                } else if meta.input.peek(syn::Token![=]) {
                    meta.value()?.parse::<syn::Expr>()?;
                } else if meta.input.peek(syn::token::Paren) {
                    let inner;
                    syn::parenthesized!(inner in meta.input);
                    inner.parse::<Tokens>()?;
                }
                Ok(())
            })?;
        }
    }
    Ok(way)
}
