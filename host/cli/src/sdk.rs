//! Files that `persist new` writes: the SDK of each language, and an agent that keeps notes.

use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

/// Lists the files of the SDK as `persist new` wrote them, in the format of `sha256sum`.
pub(crate) const CHECKSUMS: &str = "persist/sdk.sha256";

/// A language that agents are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// C, with clang and wasi-libc
    C,
    /// C++, with clang, wasi-libc and libc++
    Cpp,
    /// Go
    Go,
    /// JavaScript, on QuickJS
    Js,
    /// Python
    Python,
    /// Rust
    Rust,
    /// TypeScript, on QuickJS
    Ts,
}

/// A path in the agent's folder, and what is there.
pub(crate) type File = (&'static str, &'static [u8]);

impl Language {
    /// All languages, the one before another that its files would be taken for: an agent in
    /// TypeScript may have an `agent.js` that was made of it.
    pub(crate) const ALL: [Self; 7] = [
        Self::C,
        Self::Cpp,
        Self::Go,
        Self::Ts,
        Self::Js,
        Self::Python,
        Self::Rust,
    ];

    /// The file by which an agent's folder is known to be of this language.
    pub(crate) fn marker(self) -> &'static str {
        match self {
            Self::C => "agent.c",
            Self::Cpp => "agent.cpp",
            Self::Go => "go.mod",
            Self::Js => "agent.js",
            Self::Python => "app.py",
            Self::Rust => "Cargo.toml",
            Self::Ts => "agent.ts",
        }
    }

    /// The agent's own files. `NAME` in them stands for the agent's name, `GO_MODULE` for
    /// [`go_module`].
    pub(crate) fn template(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::C => &[("agent.c", C), ("tests/agent_test.c", C_TEST)],
            Self::Cpp => &[("agent.cpp", CPP), ("tests/agent_test.cpp", CPP_TEST)],
            Self::Go => &[
                ("go.mod", GO_MOD),
                ("main.go", GO),
                ("main_test.go", GO_TEST),
            ],
            Self::Js => &[
                ("agent.js", JS),
                ("agent.test.js", JS_TEST),
                ("package.json", JS_PACKAGE),
            ],
            Self::Python => &[
                ("app.py", PYTHON),
                ("conftest.py", PYTHON_CONFTEST),
                ("pyproject.toml", PYPROJECT),
                ("test_app.py", PYTHON_TEST),
            ],
            Self::Rust => &[
                ("Cargo.toml", CARGO_TOML),
                ("src/lib.rs", RUST),
                // The SDK's own inherits from the workspace that it is developed in.
                ("persist/Cargo.toml", SDK_CARGO_TOML),
            ],
            Self::Ts => &[
                ("agent.ts", TS),
                ("agent.test.js", JS_TEST),
                ("package.json", TS_PACKAGE),
                ("tsconfig.json", TSCONFIG),
            ],
        }
    }

    /// The SDK, and the contract where the toolchain reads it.
    pub(crate) fn sdk(self) -> Vec<File> {
        let own = match self {
            Self::C | Self::Cpp => C_SDK,
            Self::Go => GO_SDK,
            Self::Js | Self::Ts => JS_SDK,
            Self::Python => PYTHON_SDK,
            Self::Rust => RUST_SDK,
        };
        let wit = match self {
            Self::Js | Self::Ts => WIT,
            Self::C | Self::Cpp | Self::Go | Self::Python | Self::Rust => &[],
        };
        own.iter().chain(wit).copied().collect()
    }

    /// Returns the checksums of the SDK's files, so that an upgrade knows which were edited.
    pub(crate) fn checksums(self) -> String {
        let files = self.sdk_files();
        let lines = files.iter();
        let lines = lines.map(|(path, bytes)| format!("{}  {path}\n", checksum(bytes)));
        lines.collect()
    }

    /// The files of the SDK in an agent's directory, with those that only a template has.
    pub(crate) fn sdk_files(self) -> Vec<File> {
        let mut files = self.sdk();
        if self == Self::Rust {
            files.push(("persist/Cargo.toml", SDK_CARGO_TOML.as_bytes()));
        }
        files
    }
}

/// Returns the SHA-256 of a file, in hex.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
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
    "src/agent.c" "src/calls.c" "src/error.c" "src/internal.h" "src/store.c" "src/stream.c");

const GO_SDK: &[File] = files!("go/" => "persist/":
    "README.md" "agent.component-type.section" "calls.go" "error.go" "go.mod" "json.go" "pages.go"
    "persist.go" "stream.go" "testing.go"
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
    "agent.js" "calls.js" "check.js" "engine.js" "error.js" "globals.d.ts" "index.d.ts" "index.js"
    "runtime.js" "store.js" "stream.js" "utf8.js"
    "testing/hooks.js" "testing/index.d.ts" "testing/index.js" "testing/random.js"
    "testing/register.js" "testing/stderr.js" "testing/store.js");

const PYTHON_SDK: &[File] = files!("python/src/" => "persist/":
    "persist_guest/__init__.py" "persist_guest/_agent.py" "persist_guest/_calls.py"
    "persist_guest/_check.py" "persist_guest/_double.py" "persist_guest/_imports.py"
    "persist_guest/_store.py" "persist_guest/testing.py"
    "persist_guest/_stream.py" "persist_guest/_types.py" "persist_guest/_update.py"
    "persist_guest/errors.py"
    "persist_guest/py.typed" "persist_guest/componentize-py.toml"
    "persist_guest/wit/store.wit" "persist_guest/wit/types.wit" "persist_guest/wit/world.wit");

const RUST_SDK: &[File] = files!("rust/" => "persist/":
    "README.md" "src/calls.rs" "src/double.rs" "src/error.rs" "src/imports.rs" "src/json.rs"
    "src/lib.rs" "src/pages.rs"
    "src/reader.rs" "src/types.rs" "src/writer.rs" "wit/store.wit" "wit/types.wit" "wit/world.wit");

const C: &str = r#"#include <persist.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    int count;
    char **texts;
} arguments;

/* Adds a line for each argument. */
static persist_change add(persist_snapshot *notes, void *context) {
    const arguments *added = context;
    for (int i = 0; i < added->count; i++) {
        size_t length = strlen(added->texts[i]);
        notes->state = realloc(notes->state, notes->size + length + 1);
        if (!notes->state) abort();
        memcpy(notes->state + notes->size, added->texts[i], length);
        notes->size += length;
        notes->state[notes->size++] = '\n';
    }
    return PERSIST_CHANGE_SAVE;
}

/* Remembers each argument, and answers all that it remembers. */
int persist_agent(int argc, char **argv) {
    arguments added = {argc, argv};
    if (argc && persist_update("notes", add, &added, NULL, NULL)) return 1;
    persist_snapshot notes;
    if (persist_load("notes", 0, &notes)) return 1;
    if (notes.size) persist_answer_bytes(notes.state, notes.size - 1);
    return 0;
}
"#;

const C_TEST: &str = r#"/*
 * Tests the agent with a store in memory:
 *
 *     cc -I persist/include agent.c tests/agent_test.c persist/src/?*.c persist/testing/?*.c
 *     ./a.out
 */
#undef NDEBUG
#include <assert.h>
#include <persist_testing.h>
#include <string.h>

int main(void) {
    char *notes[] = {"buy milk"}, *answer;
    assert(persist_test_run(1, notes, NULL) == 0);
    assert(persist_test_run(0, NULL, &answer) == 0);
    assert(!strcmp(answer, "buy milk"));
    return 0;
}
"#;

const CPP: &str = r#"#include <persist.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

using arguments = std::vector<std::string_view>;

// Adds a line for each argument.
static persist_change add(persist_snapshot *notes, void *context) {
    std::string text(reinterpret_cast<const char *>(notes->state), notes->size);
    for (const std::string_view note : *static_cast<const arguments *>(context)) {
        text.append(note).append("\n");
    }
    notes->state = static_cast<uint8_t *>(std::realloc(notes->state, text.size() + 1));
    if (!notes->state) std::abort();
    std::memcpy(notes->state, text.data(), text.size());
    notes->size = text.size();
    return PERSIST_CHANGE_SAVE;
}

// Remembers each argument, and answers all that it remembers.
extern "C" int persist_agent(int argc, char **argv) {
    arguments added(argv, argv + argc);
    if (argc && persist_update("notes", add, &added, nullptr, nullptr)) return 1;
    persist_snapshot notes;
    if (persist_load("notes", 0, &notes)) return 1;
    if (notes.size) persist_answer_bytes(notes.state, notes.size - 1);
    return 0;
}
"#;

const CPP_TEST: &str = r#"/*
 * Tests the agent with a store in memory:
 *
 *     cc -I persist/include -c persist/src/?*.c persist/testing/?*.c
 *     c++ -std=c++17 -I persist/include agent.cpp tests/agent_test.cpp ?*.o
 *     ./a.out
 */
#undef NDEBUG
#include <cassert>
#include <persist_testing.h>
#include <string_view>

int main() {
    char note[] = "buy milk", *notes[] = {note}, *answer;
    assert(persist_test_run(1, notes, nullptr) == 0);
    assert(persist_test_run(0, nullptr, &answer) == 0);
    assert(std::string_view(answer) == "buy milk");
}
"#;

const GO_MOD: &str = "module NAME

go 1.25

require GO_MODULE v0.0.0

replace GO_MODULE => ./persist
";

const GO: &str = r#"package main

import (
	"strings"

	persist "GO_MODULE"
)

func init() { persist.Agent(run) }

func main() {}

type notes struct {
	Lines []string `json:"lines"`
}

// Remembers each argument, and answers all that it remembers.
func run(args []string) (string, error) {
	saved, err := persist.Update("notes", func(notes *notes) error {
		notes.Lines = append(notes.Lines, args...)
		return nil
	})
	return strings.Join(saved.Lines, "\n"), err
}
"#;

const GO_TEST: &str = r#"package main

import (
	"testing"

	persist "GO_MODULE"
)

// Run with `go test`: the calls use a store in memory.
func TestNotesAreKept(t *testing.T) {
	persist.NewTestHost(t)
	if _, err := run([]string{"buy milk"}); err != nil {
		t.Fatal(err)
	}
	if notes, err := run(nil); err != nil || notes != "buy milk" {
		t.Fatal(notes, err)
	}
}
"#;

const JS: &str = r#"import { agent, update } from "./persist/index.js";

// Remembers each argument, and answers all that it remembers.
export const run = agent((args) => {
  const add = (notes) => {
    notes.lines.push(...args);
  };
  return update("notes", add, { lines: [] }).lines.join("\n");
});
"#;

const JS_TEST: &str = r#"// Run with `npm test`: the calls use a store in memory.
import assert from "node:assert";
import { beforeEach, test } from "node:test";
import { run } from "./agent.js";
import { reset } from "./persist/testing/index.js";

beforeEach(reset);

test("notes are kept", () => {
  run(["buy milk"]);
  assert.equal(run([]), "buy milk");
});
"#;

const JS_PACKAGE: &str = r#"{
  "name": "NAME",
  "private": true,
  "type": "module",
  "scripts": { "test": "node --import ./persist/testing/register.js --test" },
  "devDependencies": { "componentize-qjs": "QJS_VERSION" }
}
"#;

const TS: &str = r#"import { agent, update } from "./persist/index.js";

interface Notes {
  lines: string[];
}

/** Remembers each argument, and answers all that it remembers. */
export const run = agent((args) => {
  const add = (notes: Notes) => {
    notes.lines.push(...args);
  };
  const none: Notes = { lines: [] };
  return update("notes", add, none).lines.join("\n");
});
"#;

const TS_PACKAGE: &str = r#"{
  "name": "NAME",
  "private": true,
  "type": "module",
  "scripts": {
    "check": "tsc --noEmit",
    "pretest": "esbuild agent.ts --outfile=agent.js",
    "test": "node --import ./persist/testing/register.js --test"
  },
  "devDependencies": {
    "componentize-qjs": "QJS_VERSION",
    "esbuild": "ESBUILD_VERSION",
    "typescript": "TYPESCRIPT_VERSION"
  }
}
"#;

/// Names what QuickJS has: no types of Node.js or of a browser.
const TSCONFIG: &str = r#"{
  "compilerOptions": {
    "target": "es2023",
    "lib": ["es2023", "esnext.disposable"],
    "types": [],
    "module": "esnext",
    "moduleResolution": "bundler",
    "strict": true,
    "noEmit": true,
    "skipLibCheck": true
  },
  "include": ["agent.ts", "persist/globals.d.ts"]
}
"#;

const PYTHON: &str = r#"from dataclasses import dataclass, field

from persist_guest import agent, update


@dataclass
class Notes:
    lines: list[str] = field(default_factory=list)


@agent
def run(args: list[str]) -> str:
    """Remembers each argument, and answers all that it remembers."""

    def add(notes: Notes) -> None:
        notes.lines.extend(args)

    return "\n".join(update("notes", add, Notes()).lines)
"#;

const PYTHON_CONFTEST: &str = r#"# Each test begins with an empty store in memory.
pytest_plugins = ["persist_guest.testing"]
"#;

const PYTHON_TEST: &str = r#"from app import run


def test_notes_are_kept() -> None:
    """Run with pytest: the calls use a store in memory."""
    run(["buy milk"])
    assert run([]) == "buy milk"
"#;

const PYPROJECT: &str = r#"[project]
name = "NAME"
version = "0.1.0"
requires-python = ">=3.12"

[tool.pytest.ini_options]
pythonpath = ["persist", "."]

[tool.pyright]
extraPaths = ["persist"]
venvPath = "."
venv = ".venv"

[tool.mypy]
mypy_path = "persist"

[[tool.mypy.overrides]]
module = ["wit_world.*", "componentize_py_types"]
ignore_missing_imports = true
"#;

const CARGO_TOML: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
persist-guest = { path = "persist", features = ["serde"] }

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

const RUST: &str = r#"use persist_guest::{Error, agent, json};

/// Remembers each argument, and answers all that it remembers.
fn run(args: Vec<String>) -> Result<String, Error> {
    json::update("notes", |notes: &mut Vec<String>| {
        notes.extend_from_slice(&args);
        Ok(notes.join("\n"))
    })
}

agent!(run);

#[test]
fn notes_are_kept() {
    run(vec!["buy milk".into()]).unwrap();
    assert_eq!(run(vec![]).unwrap(), "buy milk");
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
    fn the_types_of_an_agent_in_typescript_include_the_globals_of_the_sdk() {
        let config: serde_json::Value = serde_json::from_str(TSCONFIG).expect("JSON");
        let included = config["include"].as_array().expect("a list");
        let sdk = Language::Ts.sdk();
        let template = Language::Ts.template();
        let is_written = |path: &str| {
            let mut files = sdk.iter().map(|(path, _)| *path);
            files.any(|file| file == path) || template.iter().any(|(file, _)| *file == path)
        };
        assert!(
            included
                .iter()
                .all(|path| is_written(path.as_str().expect("a path")))
        );
        assert!(included.iter().any(|path| path == "persist/globals.d.ts"));
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
