//! The contract in `wit/`: it parses, every item of it says what it is, and there is one copy.

use crate::bindings::WIT_COPIES;
use crate::machine::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use wit_parser::{
    Docs, Function, PackageId, Resolve, Type, TypeDef, TypeDefKind, TypeOwner, World, WorldItem,
};

const PACKAGE: &str = "package persist:snapshot";
/// Paths where a crate needs the contract inside its own folder, to be packaged with it.
const LINKS: [&str; 2] = ["host/wit", "guest-sdk/rust/wit"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(workspace.root.join("wit"))?;
    let silent = undocumented(&resolve, package);
    ensure!(
        silent.is_empty(),
        "without a doc comment:\n  {}",
        silent.join("\n  ")
    );
    one_copy(workspace)
}

/// The items of a package without a doc comment, each with the path to it.
fn undocumented(resolve: &Resolve, package: PackageId) -> Vec<String> {
    let mut found = Silent::default();
    for (_, interface) in resolve
        .interfaces
        .iter()
        .filter(|(_, i)| i.package == Some(package))
    {
        let name = interface.name.as_deref().unwrap_or("(an inline interface)");
        found.see(name, &interface.docs);
        for id in interface.types.values() {
            found.see_type(resolve, name, &resolve.types[*id]);
        }
        for function in interface.functions.values() {
            found.see_function(name, function);
        }
    }
    for (_, world) in resolve
        .worlds
        .iter()
        .filter(|(_, w)| w.package == Some(package))
    {
        found.see_world(resolve, world);
    }
    found.0
}

#[derive(Default)]
struct Silent(Vec<String>);

impl Silent {
    fn see(&mut self, path: &str, docs: &Docs) {
        if docs
            .contents
            .as_ref()
            .is_none_or(|text| text.trim().is_empty())
        {
            self.0.push(path.to_owned());
        }
    }

    fn see_world(&mut self, resolve: &Resolve, world: &World) {
        self.see(&world.name, &world.docs);
        for item in world.imports.values().chain(world.exports.values()) {
            match item {
                // A named interface speaks for itself, an inline one is among the interfaces.
                WorldItem::Interface { .. } => {}
                WorldItem::Function(function) => self.see_function(&world.name, function),
                WorldItem::Type { id, .. } => {
                    self.see_type(resolve, &world.name, &resolve.types[*id]);
                }
            }
        }
    }

    fn see_function(&mut self, within: &str, function: &Function) {
        self.see(&format!("{within}/{}", function.name), &function.docs);
    }

    fn see_type(&mut self, resolve: &Resolve, within: &str, definition: &TypeDef) {
        if is_use(resolve, definition) {
            return;
        }
        let path = format!(
            "{within}/{}",
            definition.name.as_deref().unwrap_or("(a type)")
        );
        self.see(&path, &definition.docs);
        let parts: Vec<(&str, &Docs)> = match &definition.kind {
            TypeDefKind::Record(record) => record
                .fields
                .iter()
                .map(|field| (&*field.name, &field.docs))
                .collect(),
            TypeDefKind::Variant(variant) => variant
                .cases
                .iter()
                .map(|case| (&*case.name, &case.docs))
                .collect(),
            TypeDefKind::Enum(cases) => cases
                .cases
                .iter()
                .map(|case| (&*case.name, &case.docs))
                .collect(),
            TypeDefKind::Flags(flags) => flags
                .flags
                .iter()
                .map(|flag| (&*flag.name, &flag.docs))
                .collect(),
            _ => Vec::new(),
        };
        for (name, docs) in parts {
            self.see(&format!("{path}.{name}"), docs);
        }
    }
}

/// Returns true if a type was imported by `use`. Such a type is documented where it comes from.
fn is_use(resolve: &Resolve, definition: &TypeDef) -> bool {
    match definition.kind {
        TypeDefKind::Type(Type::Id(id)) => {
            let from = resolve.types[id].owner;
            from != TypeOwner::None && from != definition.owner
        }
        _ => false,
    }
}

/// Links lead to `wit/`, and no other file that git knows says that it is this package.
fn one_copy(workspace: &Workspace) -> Result<()> {
    let original = workspace.root.join("wit").canonicalize()?;
    for link in LINKS {
        let path = workspace.root.join(link);
        let is_link = fs::symlink_metadata(&path)
            .with_context(|| link.to_owned())?
            .is_symlink();
        let leads_home = path.canonicalize().with_context(|| link.to_owned())? == original;
        ensure!(
            is_link && leads_home,
            "{link} must be a symbolic link to wit/"
        );
    }
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.wit",
    ]);
    for file in machine::output(git.current_dir(&workspace.root))?.split_terminator('\0') {
        let path = workspace.root.join(file);
        // A file that git knows may have been deleted since.
        let is_checked_copy = WIT_COPIES.iter().any(|copy| file.starts_with(copy));
        if file.starts_with("wit/") || is_checked_copy || !path.is_file() {
            continue;
        }
        let copied = fs::read_to_string(&path)?
            .lines()
            .any(|line| line.starts_with(PACKAGE));
        ensure!(
            !copied,
            "{file} is a copy of the contract; link to wit/ or use a world of its own"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(text: &str) -> Result<Vec<String>> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("test.wit", text)?;
        Ok(undocumented(&resolve, package))
    }

    #[test]
    fn every_kind_of_item_without_a_comment_is_found() -> Result<()> {
        let text = "package a:b;
            interface i {
                type t = u64;
                record r { field: u8 }
                variant v { one(u8) }
                enum e { two }
                flags f { three }
                resource s { constructor(); m: func(); n: static func(); }
                g: func();
            }
            world w { export h: func(); }";
        let expected = "i i/t i/r i/r.field i/v i/v.one i/e i/e.two i/f i/f.three i/s \
             i/[constructor]s i/[method]s.m i/[static]s.n i/g w w/h";
        assert_eq!(
            silent(text)?,
            expected.split_whitespace().collect::<Vec<_>>()
        );
        Ok(())
    }

    #[test]
    fn a_type_that_is_used_from_elsewhere_is_documented_there() -> Result<()> {
        let text = "package a:b;
            /// Types.
            interface i {
                /// A type.
                type t = u64;
            }
            /// Functions.
            interface j {
                use i.{t};
                /// A function.
                f: func() -> t;
            }
            /// A world.
            world w { import j; }";
        assert_eq!(silent(text)?, [""; 0]);
        Ok(())
    }
}
