//! The packages that Persist was asked to be made of are what it is made of.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const ASKED_FOR: [&str; 9] = [
    "anyhow",
    "aws-sdk-s3",
    "flate2",
    "google-cloud-storage",
    "tokio",
    "tracing",
    "wasmtime",
    "wasmtime-wasi",
    "wit-bindgen",
];

#[test]
fn every_package_that_was_asked_for_is_in_use() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--no-deps"])
        .args(["--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for asked in ASKED_FOR {
        let used = products(&metadata).any(|(package, sources)| {
            let depends = package["dependencies"]
                .as_array()
                .expect("a list")
                .iter()
                .any(|dependency| dependency["name"] == asked && dependency["kind"].is_null());
            depends && names(&sources, &asked.replace('-', "_"))
        });
        assert!(used, "{asked}");
    }
}

/// The packages that are shipped, and where their sources are. What only tests use is not in use.
fn products(metadata: &Value) -> impl Iterator<Item = (&Value, std::path::PathBuf)> {
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().filter_map(|package| {
        let shipped =
            ["persist-cli", "persist-host", "persist-guest"].contains(&package["name"].as_str()?);
        let manifest = Path::new(package["manifest_path"].as_str()?);
        shipped.then(|| (package, manifest.with_file_name("src")))
    })
}

/// Returns true if a source file below `dir` says `krate::`.
fn names(dir: &Path, krate: &str) -> bool {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .any(|path| {
            if path.is_dir() {
                return names(&path, krate);
            }
            let source = std::fs::read_to_string(&path).expect("a source file");
            source
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| {
                    line.contains(&format!("{krate}::")) || line.contains(&format!("use {krate};"))
                })
        })
}
