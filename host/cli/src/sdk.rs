//! Files that `persist new` writes: the SDK of each language, and an agent that keeps notes.

use clap::ValueEnum;

/// A language that agents are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// C, with clang and wasi-libc
    C,
    /// Go
    Go,
    /// JavaScript, on QuickJS
    Js,
    /// Python
    Python,
    /// Rust
    Rust,
}

/// A path in the agent's folder, and what is there.
pub(crate) type File = (&'static str, &'static [u8]);

impl Language {
    pub(crate) const ALL: [Self; 5] = [Self::C, Self::Go, Self::Js, Self::Python, Self::Rust];

    /// The file by which an agent's folder is known to be of this language.
    pub(crate) fn marker(self) -> &'static str {
        match self {
            Self::C => "agent.c",
            Self::Go => "go.mod",
            Self::Js => "agent.js",
            Self::Python => "app.py",
            Self::Rust => "Cargo.toml",
        }
    }

    /// The agent's own files. `NAME` in them stands for the agent's name, `GO_MODULE` for
    /// [`go_module`].
    pub(crate) fn template(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::C => &[("agent.c", C)],
            Self::Go => &[("go.mod", GO_MOD), ("main.go", GO)],
            Self::Js => &[("agent.js", JS), ("package.json", JS_PACKAGE)],
            Self::Python => &[("app.py", PYTHON)],
            Self::Rust => &[
                ("Cargo.toml", CARGO_TOML),
                ("src/lib.rs", RUST),
                // The SDK's own inherits from the workspace that it is developed in.
                ("persist/Cargo.toml", SDK_CARGO_TOML),
            ],
        }
    }

    /// The SDK, and the contract where the toolchain reads it.
    pub(crate) fn sdk(self) -> Vec<File> {
        let own = match self {
            Self::C => C_SDK,
            Self::Go => GO_SDK,
            Self::Js => JS_SDK,
            Self::Python => PYTHON_SDK,
            Self::Rust => RUST_SDK,
        };
        let wit = match self {
            Self::Js => WIT,
            Self::C | Self::Go | Self::Python | Self::Rust => &[],
        };
        own.iter().chain(wit).copied().collect()
    }
}

/// Returns the path of the Go module that is the SDK.
pub(crate) fn go_module() -> &'static str {
    let first = GO_MODULE_FILE.lines().next().unwrap_or_default();
    first.strip_prefix("module ").unwrap_or_default()
}

const GO_MODULE_FILE: &str = include_str!("../sdk/go/go.mod");

macro_rules! files {
    ($from:literal => $to:literal: $($file:literal)*) => {
        &[$((
            concat!($to, $file),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/", $from, $file)),
        )),*]
    };
}

const WIT: &[File] = files!("js/wit/" => "wit/":
    "agent.wit" "deps/persist-snapshot/store.wit" "deps/persist-snapshot/types.wit"
    "deps/persist-snapshot/world.wit" "deps/wasi-cli/stderr.wit" "deps/wasi-io/streams.wit"
    "deps/wasi-random/random.wit");

const C_SDK: &[File] = files!("c/" => "persist/":
    "README.md" "bindings/agent.c" "bindings/agent.h" "bindings/agent_component_type.o"
    "include/persist.h" "include/persist_testing.h" "testing/persist_testing.c"
    "src/agent.c" "src/error.c" "src/internal.h" "src/store.c" "src/stream.c");

const GO_SDK: &[File] = files!("go/" => "persist/":
    "README.md" "agent.component-type.section" "error.go" "go.mod" "json.go" "pages.go" "persist.go"
    "stream.go" "testing.go"
    "internal/bindings/persist_snapshot_store/double.go"
    "internal/bindings/export/wit_exports.go" "internal/bindings/export_wit_world/run.go"
    "internal/bindings/persist_snapshot_store/empty.s"
    "internal/bindings/persist_snapshot_store/wit_bindings.go"
    "internal/bindings/persist_snapshot_types/empty.s"
    "internal/bindings/persist_snapshot_types/wit_bindings.go"
    "internal/wit/LICENSE" "internal/wit/runtime/empty.s" "internal/wit/runtime/runtime.go"
    "internal/wit/types/option.go" "internal/wit/types/result.go" "internal/wit/types/tuple.go"
    "internal/wit/types/unit.go");

const JS_SDK: &[File] = files!("js/src/" => "persist/":
    "agent.js" "check.js" "engine.js" "error.js" "index.d.ts" "index.js" "runtime.js" "store.js"
    "stream.js" "utf8.js"
    "testing/hooks.js" "testing/index.d.ts" "testing/index.js" "testing/random.js"
    "testing/register.js" "testing/stderr.js" "testing/store.js");

const PYTHON_SDK: &[File] = files!("python/src/" => "persist/":
    "persist_guest/__init__.py" "persist_guest/_agent.py" "persist_guest/_check.py"
    "persist_guest/_double.py" "persist_guest/_store.py" "persist_guest/testing.py"
    "persist_guest/_stream.py" "persist_guest/_types.py" "persist_guest/_update.py"
    "persist_guest/errors.py"
    "persist_guest/py.typed" "persist_guest/componentize-py.toml"
    "persist_guest/wit/store.wit" "persist_guest/wit/types.wit" "persist_guest/wit/world.wit");

const RUST_SDK: &[File] = files!("rust/" => "persist/":
    "README.md" "src/double.rs" "src/error.rs" "src/imports.rs" "src/json.rs" "src/lib.rs"
    "src/pages.rs"
    "src/reader.rs" "src/types.rs" "src/writer.rs" "wit/store.wit" "wit/types.wit" "wit/world.wit");

const C: &str = r#"#include <persist.h>
#include <stdlib.h>
#include <string.h>

/* Remembers each argument, and answers all that it remembers. */
int persist_agent(int argc, char **argv) {
    persist_snapshot notes;
    if (persist_load("notes", 0, &notes)) return 1;
    for (int i = 0; i < argc; i++) {
        size_t length = strlen(argv[i]);
        notes.state = realloc(notes.state, notes.size + length + 1);
        if (!notes.state) abort();
        memcpy(notes.state + notes.size, argv[i], length);
        notes.size += length;
        notes.state[notes.size++] = '\n';
        if (persist_save("notes", notes.state, notes.size, NULL, NULL)) return 1;
    }
    persist_answer_bytes(notes.state, notes.size);
    return 0;
}
"#;

const GO_MOD: &str = "module NAME

go 1.25

require GO_MODULE v0.0.0

replace GO_MODULE => ./persist
";

const GO: &str = r#"package main

import persist "GO_MODULE"

func init() { persist.Agent(run) }

func main() {}

// Remembers each argument, and answers all that it remembers.
func run(args []string) (string, error) {
	notes, _, err := persist.Load("notes")
	if err != nil {
		return "", err
	}
	for _, note := range args {
		notes = append(notes, note+"\n"...)
		if _, err := persist.Save("notes", notes); err != nil {
			return "", err
		}
	}
	return string(notes), nil
}
"#;

const JS: &str = r#"import { agent, loadText, save } from "./persist/index.js";

// Remembers each argument, and answers all that it remembers.
export const run = agent((args) => {
  let notes = loadText("notes") ?? "";
  for (const note of args) {
    notes += `${note}\n`;
    save("notes", notes);
  }
  return notes;
});
"#;

const JS_PACKAGE: &str = r#"{
  "name": "NAME",
  "private": true,
  "type": "module",
  "devDependencies": { "componentize-qjs": "QJS_VERSION" }
}
"#;

const PYTHON: &str = r#"from persist_guest import agent, load, save


@agent
def run(args: list[str]) -> str:
    """Remembers each argument, and answers all that it remembers."""
    notes = load("notes") or b""
    for note in args:
        notes += f"{note}\n".encode()
        save("notes", notes)
    return notes.decode()
"#;

const CARGO_TOML: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
persist-guest = { path = "persist" }

[profile.release]
opt-level = "s"
lto = true
panic = "abort"
strip = true

[workspace]
"#;

const SDK_CARGO_TOML: &str = r#"[package]
name = "persist-guest"
version = "0.1.0"
edition = "2024"
license = "Apache-2.0 OR MIT"

[features]
serde = ["dep:serde", "dep:serde_json"]

[dependencies]
serde = { version = "1", features = ["derive"], optional = true }
serde_json = { version = "1", optional = true, features = ["float_roundtrip"] }

[target.'cfg(target_arch = "wasm32")'.dependencies]
wit-bindgen = { version = "0.63", default-features = false, features = ["macros", "realloc"] }

[target.'cfg(not(target_arch = "wasm32"))'.dependencies]
sha2 = { version = "0.11", default-features = false }
"#;

const RUST: &str = r#"use persist_guest::{Error, agent, load, save};

/// Remembers each argument, and answers all that it remembers.
fn run(args: Vec<String>) -> Result<String, Error> {
    let mut notes = load("notes")?.unwrap_or_default();
    for note in &args {
        notes.extend_from_slice(format!("{note}\n").as_bytes());
        save("notes", &notes)?;
    }
    Ok(String::from_utf8_lossy(&notes).into_owned())
}

agent!(run);

#[test]
fn notes_are_kept() {
    run(vec!["buy milk".into()]).unwrap();
    assert_eq!(run(vec![]).unwrap(), "buy milk\n");
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The files below a folder whose names end in one of these.
    fn sources(folder: &Path, ends: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for entry in folder.read_dir().expect("readable").flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().expect("text");
            if path.is_dir() {
                let below = sources(&path, ends);
                found.extend(below.iter().map(|file| format!("{name}/{file}")));
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push(name);
            }
        }
        found
    }

    #[test]
    fn the_go_module_has_a_path_that_go_can_fetch() {
        let (domain, path) = go_module().split_once('/').expect("a path");
        assert!(domain.contains('.') && path.ends_with("guest-sdk/go"));
    }

    #[test]
    fn a_fresh_agent_gets_every_source_of_its_sdk() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk");
        for (language, folder, ends) in [
            (Language::C, "c", &[".c", ".h", ".o"][..]),
            (Language::Go, "go", &[".go", ".s", ".mod", ".section"]),
            (Language::Js, "js/src", &[".js", ".ts"]),
            (
                Language::Python,
                "python/src",
                &[".py", ".typed", ".toml", ".wit"],
            ),
            (Language::Rust, "rust", &[".rs", ".wit"]),
        ] {
            let sdk = language.sdk();
            for file in sources(&root.join(folder), ends) {
                let path = format!("persist/{file}");
                assert!(sdk.iter().any(|(known, _)| *known == path), "{path}");
            }
        }
    }
}
