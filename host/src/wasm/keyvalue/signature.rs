//! Types of functions as short texts, to be compared.

use wasmtime::component::Type;
use wasmtime::component::types::ComponentFunc;

/// Longest text of a type. The types of a component may describe values that are larger than it
/// without end.
const MAX_LEN: usize = 400;

/// Returns the type of a function, such as `(borrow,string)->result<bool,string>`.
///
/// Records and variants are written out, resources are only `own` or `borrow`: which resource it
/// is, the linker checks. A type that is too long ends in `…`.
pub(super) fn signature(function: &ComponentFunc) -> String {
    let mut text = String::new();
    if function.async_() {
        text.push_str("async ");
    }
    list(&mut text, "(", function.params().map(|(_, ty)| ty), ")");
    for ty in function.results() {
        text.push_str("->");
        write(&mut text, &ty);
    }
    if text.len() > MAX_LEN {
        let end = text.char_indices().map(|(at, _)| at);
        let end = end.take_while(|at| *at <= MAX_LEN).last().unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn list(text: &mut String, open: &str, types: impl Iterator<Item = Type>, close: &str) {
    text.push_str(open);
    for (i, ty) in types.enumerate() {
        if text.len() > MAX_LEN {
            return;
        }
        if i > 0 {
            text.push(',');
        }
        write(text, &ty);
    }
    text.push_str(close);
}

/// Writes cases or fields: a name, and a type.
fn named<'a>(
    text: &mut String,
    kind: &str,
    items: impl Iterator<Item = (&'a str, Option<Type>)>,
    between: (&str, &str),
) {
    text.push_str(kind);
    text.push('{');
    for (i, (name, ty)) in items.enumerate() {
        if text.len() > MAX_LEN {
            return;
        }
        if i > 0 {
            text.push(',');
        }
        text.extend(name.chars().take(MAX_LEN));
        if let Some(ty) = ty {
            text.push_str(between.0);
            write(text, &ty);
            text.push_str(between.1);
        }
    }
    text.push('}');
}

/// Appends a type, or nothing once the text is too long: types are nested only as deeply as
/// components may nest them.
fn write(text: &mut String, ty: &Type) {
    if text.len() > MAX_LEN {
        return;
    }
    let simple = match ty {
        Type::Bool => "bool",
        Type::S8 => "s8",
        Type::U8 => "u8",
        Type::S16 => "s16",
        Type::U16 => "u16",
        Type::S32 => "s32",
        Type::U32 => "u32",
        Type::S64 => "s64",
        Type::U64 => "u64",
        Type::Float32 => "f32",
        Type::Float64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::Own(_) => "own",
        Type::Borrow(_) => "borrow",
        Type::List(ty) => return list(text, "list<", std::iter::once(ty.ty()), ">"),
        Type::Tuple(ty) => return list(text, "tuple<", ty.types(), ">"),
        Type::Option(ty) => return list(text, "option<", std::iter::once(ty.ty()), ">"),
        Type::Result(ty) => {
            text.push_str("result<");
            for (between, ty) in [("", ty.ok()), (",", ty.err())] {
                text.push_str(between);
                match ty {
                    Some(ty) => write(text, &ty),
                    None => text.push('_'),
                }
            }
            return text.push('>');
        }
        Type::Record(ty) => {
            let fields = ty.fields().map(|field| (field.name, Some(field.ty)));
            return named(text, "record", fields, (":", ""));
        }
        Type::Variant(ty) => {
            let cases = ty.cases().map(|case| (case.name, case.ty));
            return named(text, "variant", cases, ("(", ")"));
        }
        Type::Enum(ty) => return named(text, "enum", ty.names().map(|n| (n, None)), ("", "")),
        Type::Flags(ty) => return named(text, "flags", ty.names().map(|n| (n, None)), ("", "")),
        _ => "another type",
    };
    text.push_str(simple);
}
