//! Generated files of the SDKs, kept in the tree so that agent authors need no generator: bindings
//! for C and Go, and copies of the contract for npm and PyPI. `cargo xtask bindings` makes them,
//! and `cargo xtask ci` checks that they are what it makes.

#[cfg(all(feature = "bindings", feature = "ci"))]
pub(crate) use generate::check;
#[cfg(feature = "bindings")]
pub(crate) use generate::write;

use crate::machine::Workspace;
use anyhow::Result;

/// Copies of the contract in the packages for npm and PyPI, whose toolchains read it.
#[cfg(any(feature = "bindings", feature = "ci"))]
pub(crate) const WIT_COPIES: [&str; 2] = [
    "guest-sdk/js/wit/deps/persist-snapshot",
    "guest-sdk/python/src/persist_guest/wit",
];

/// Runs this program again, with the generators.
#[cfg(not(feature = "bindings"))]
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let again = ["run", "--locked", "--all-features", "--bin", "xtask"];
    crate::machine::run(workspace.cargo(again).args(["--", "bindings"]))
}

#[cfg(feature = "bindings")]
mod generate {
    use super::{Result, WIT_COPIES, Workspace};
    use anyhow::Context;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};
    use wit_bindgen_core::wit_parser::Resolve;
    use wit_bindgen_core::{Files, WorldGenerator};

    const C: &str = "guest-sdk/c/bindings";
    const GO: &str = "guest-sdk/go/internal";
    /// Appended to a core module, it says which world that is of.
    const SECTION: &str = "guest-sdk/go/agent.component-type.section";
    /// Go's runtime for bindings, of which the SDK has these files as they are. The rest of it is
    /// the SDK's own.
    const GO_TYPES: [&str; 4] = ["option.go", "result.go", "tuple.go", "unit.go"];

    type Made = BTreeMap<PathBuf, Vec<u8>>;

    pub(crate) fn write(workspace: &Workspace) -> Result<()> {
        for (path, bytes) in made(workspace)? {
            let path = workspace.root.join(path);
            fs::create_dir_all(path.parent().context("it has a folder")?)?;
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    #[cfg(feature = "ci")]
    pub(crate) fn check(workspace: &Workspace) -> Result<()> {
        let made = made(workspace)?;
        let differs = made.iter().filter(|(path, bytes)| {
            fs::read(workspace.root.join(path)).ok().as_ref() != Some(bytes)
        });
        let differs: Vec<_> = differs
            .map(|(path, _)| path.display().to_string())
            .collect();
        anyhow::ensure!(
            differs.is_empty(),
            "not what `cargo xtask bindings` makes: {}",
            differs.join(", ")
        );
        println!(
            "{} files of bindings are what the contract makes",
            made.len()
        );
        Ok(())
    }

    fn made(workspace: &Workspace) -> Result<Made> {
        let mut made = Made::new();
        let c = generate(workspace, wit_bindgen_c::Opts::default().build())?;
        let object = c
            .iter()
            .find(|(name, _)| name.ends_with("_component_type.o"));
        let object = object.context("C's bindings have no component type")?;
        made.insert(SECTION.into(), world_section(&object.1)?.to_vec());
        for (name, bytes) in c {
            made.insert(Path::new(C).join(name), bytes);
        }

        let go = wit_bindgen_go::Opts {
            // As it is made, whether or not this machine has gofmt.
            format: wit_bindgen_go::Format::False,
            ..Default::default()
        };
        let module = fs::read_to_string(workspace.root.join("guest-sdk/go/go.mod"))?;
        let module = module
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("module "));
        let module = module.context("guest-sdk/go/go.mod does not begin with its module path")?;
        for (name, bytes) in generate(workspace, go.build())? {
            let place = match name.as_str() {
                "go.mod" => continue,
                "wit_exports.go" => "bindings/export/wit_exports.go".into(),
                name => format!("bindings/{name}"),
            };
            let mut text = String::from_utf8(bytes).context("Go's bindings are no text")?;
            if name == "persist_snapshot_store/wit_bindings.go" {
                // Elsewhere the store in memory takes its place.
                text.insert_str(0, "//go:build wasip1\n\n");
            }
            made.insert(
                Path::new(GO).join(place),
                go_text(&text, module).into_bytes(),
            );
        }
        for file in ["store.wit", "types.wit", "world.wit"] {
            let bytes = fs::read(workspace.root.join("wit").join(file))?;
            for copy in WIT_COPIES {
                made.insert(Path::new(copy).join(file), bytes.clone());
            }
        }
        let types = go_runtime(workspace)?.join("wit/types");
        for name in GO_TYPES {
            let bytes = fs::read(types.join(name))?;
            made.insert(Path::new(GO).join("wit/types").join(name), bytes);
        }
        Ok(made)
    }

    fn generate(
        workspace: &Workspace,
        mut generator: Box<dyn WorldGenerator>,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(workspace.root.join("wit"))?;
        let world = resolve.select_world(&[package], Some("agent"))?;
        let mut files = Files::default();
        generator.generate(&mut resolve, world, &mut files)?;
        let files = files
            .iter()
            .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
        Ok(files.collect())
    }

    /// Go's bindings as packages inside the SDK's module. Each call first gives back what the host
    /// wrote for the one before: the SDK's `internal/wit/runtime` says why.
    fn go_text(text: &str, module: &str) -> String {
        text.replace(
            "\"wit_component/",
            &format!("\"{module}/internal/bindings/"),
        )
        .replace(
            "\"go.bytecodealliance.org/pkg/wit/",
            &format!("\"{module}/internal/wit/"),
        )
        .replace("package main\n", "package export\n")
        .replace(
            "defer pinner.Unpin()\n",
            "defer pinner.Unpin()\nwitRuntime.Reuse()\n",
        )
    }

    /// The folder in which the generator for Go brings the runtime of its bindings.
    fn go_runtime(workspace: &Workspace) -> Result<PathBuf> {
        let metadata = workspace.metadata(&["--locked", "--all-features"])?;
        let packages = metadata["packages"].as_array().context("no packages")?;
        let generator = packages
            .iter()
            .find(|package| package["name"] == "wit-bindgen-go")
            .and_then(|package| package["manifest_path"].as_str())
            .context("no wit-bindgen-go")?;
        Ok(Path::new(generator).with_file_name("src/pkg"))
    }

    /// The custom section `component-type…` of a module, whole.
    fn world_section(module: &[u8]) -> Result<&[u8]> {
        let mut rest = module.get(8..).context("no module")?;
        while let Some((&id, tail)) = rest.split_first() {
            let (len, start) = leb128(tail).context("a section without a length")?;
            let section = rest.get(..1 + start + len).context("a section is cut")?;
            let body = &section[1 + start..];
            // A name begins with its length.
            if id == 0
                && body
                    .get(1..)
                    .is_some_and(|name| name.starts_with(b"component-type"))
            {
                return Ok(section);
            }
            rest = &rest[section.len()..];
        }
        anyhow::bail!("no section has the component type")
    }

    /// A number, and how many bytes it is written with.
    fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
        let end = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)? + 1;
        let number = bytes[..end]
            .iter()
            .rev()
            .fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
        Some((number, end))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_section_of_the_world_is_found_among_others() -> Result<()> {
            let mut module = b"\0asm\x01\0\0\0\0\x04\x02abc".to_vec();
            let wanted = b"\0\x12\x11component-type:xy";
            module.extend_from_slice(wanted);
            module.extend_from_slice(b"\x0a\x01\0");
            assert_eq!(world_section(&module)?, wanted);
            assert!(world_section(&module[..20]).is_err());
            Ok(())
        }
    }
}
