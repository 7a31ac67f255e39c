//! Checks the text of the sources: the packages that Persist was asked to be made of are used, and
//! the variables that are read are those that are documented.

use crate::machine::Workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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

/// The packages that are shipped. A package that only tests use is not in use.
const SHIPPED: [&str; 3] = ["persist-cli", "persist-host", "persist-guest"];

/// Checks that every package that was asked for is a dependency of a shipped crate, and that a
/// source file of the crate names it.
pub(super) fn check_packages(workspace: &Workspace) -> Result<()> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let is_shipped = |package: &&Value| {
        let name = package["name"].as_str();
        name.is_some_and(|name| SHIPPED.contains(&name))
    };
    let mut used = BTreeSet::new();
    for package in packages.iter().filter(is_shipped) {
        let manifest = package["manifest_path"].as_str().context("no path")?;
        let sources = sources(&Path::new(manifest).with_file_name("src"))?;
        let dependencies = package["dependencies"].as_array();
        for dependency in dependencies.context("no dependencies")? {
            let name = dependency["name"].as_str().unwrap_or_default();
            let module = name.replace('-', "_");
            let is_named = || sources.iter().any(|(_, source)| names(source, &module));
            if dependency["kind"].is_null() && is_named() {
                used.insert(name.to_owned());
            }
        }
    }
    let unused = ASKED_FOR.iter().filter(|asked| !used.contains(**asked));
    let unused: Vec<_> = unused.copied().collect();
    ensure!(unused.is_empty(), "not in use: {}", unused.join(", "));
    Ok(())
}

/// Checks that the table of settings in the documentation lists exactly the variables that the
/// sources name. A test of the command compares the table with the one that the command prints.
pub(super) fn check_variables(workspace: &Workspace) -> Result<()> {
    // The SDK of Amazon reads these.
    const THEIRS: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
    ];
    // The table itself proves nothing.
    const TABLE: &str = "cli/src/settings/table.rs";
    let mut named = BTreeSet::new();
    for dir in ["host/src", "host/cli/src"] {
        for (path, source) in sources(&workspace.root.join(dir))? {
            if !path.ends_with(TABLE) {
                named.extend(variables(&source));
            }
        }
    }
    let page = fs::read_to_string(workspace.root.join("docs/src/configuration.md"))?;
    let documented = documented(&page).context("docs/src/configuration.md has no table")?;
    let mut of_providers = BTreeSet::new();
    for page in ["docs/src/s3.md", "docs/src/gcs.md"] {
        let text = fs::read_to_string(workspace.root.join(page))?;
        let table = self::documented(&text).with_context(|| format!("{page} has no table"))?;
        of_providers.extend(table);
    }
    let faults = named
        .difference(&documented)
        // Not all of these tables are read: they tell, too, what is not used.
        .filter(|name| !of_providers.contains(*name))
        .map(|name| format!("{name} is read, and is not in the table of settings"));
    let unread = documented
        .difference(&named)
        .filter(|name| !THEIRS.contains(&name.as_str()))
        .map(|name| format!("{name} is in the table of settings, and nothing reads it"));
    let faults: Vec<_> = faults.chain(unread).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// The Rust files below a directory, and their text.
fn sources(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(found)
}

/// Returns true if a source file uses a module of another crate, outside of comments.
fn names(source: &str, module: &str) -> bool {
    let path = format!("{module}::");
    let import = format!("use {module};");
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter()
        .any(|line| line.contains(&path) || line.contains(&import))
}

/// String literals that are the names of variables of ours, of Amazon's or of Google's, outside of
/// tests.
fn variables(source: &str) -> Vec<String> {
    const STARTS: [&str; 6] = [
        "PERSIST_",
        "AWS_",
        "GCS_",
        "GOOGLE_",
        "STORAGE_EMULATOR_",
        "RUST_",
    ];
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    let literals = product.split('"').skip(1).step_by(2);
    let is_one = |text: &&str| {
        STARTS.iter().any(|start| text.starts_with(start))
            && text
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    literals.filter(is_one).map(Into::into).collect()
}

/// The variables in the first column of the table of settings.
fn documented(page: &str) -> Option<BTreeSet<String>> {
    let (_, after) = page.split_once("<!-- settings -->\n")?;
    let (table, _) = after.split_once("<!-- end of settings -->")?;
    let cells = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split(','));
    let names = names.map(|name| name.trim().trim_matches('`').to_owned());
    Some(names.filter(|name| !name.starts_with("--")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_used_where_code_names_it() {
        assert!(names("let x = tokio::spawn(y);", "tokio"));
        assert!(names("use tokio;", "tokio"));
        assert!(!names("    // tokio::spawn\n/// [`tokio::spawn`]", "tokio"));
    }

    #[test]
    fn variables_are_literals_outside_of_tests() {
        let source = "let a = \"AWS_REGION\"; b(\"aws\", \"RUST_LOG\");\n\
                      #[cfg(test)]\nmod tests { const C: &str = \"PERSIST_X\"; }";
        assert_eq!(variables(source), ["AWS_REGION", "RUST_LOG"]);
    }

    #[test]
    fn the_first_column_of_the_table_names_variables() {
        let page = "text\n<!-- settings -->\n| variable | meaning |\n|---|---|\n\
                    | `A`, `B` | x |\n| `--c`, `D` | y |\n<!-- end of settings -->\n";
        let names = documented(page).expect("a table");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["A", "B", "D"]);
        assert_eq!(documented("no table"), None);
    }
}
