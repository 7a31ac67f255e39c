//! Checks the imports between the modules of the host: no circle, and no import against the layers.
//!
//! Reads the `use` declarations and the paths in code, outside of tests and documentation. A name
//! that a `mod.rs` only re-exports counts as an import of the module that has it. A circle is a set
//! of files of which each imports the others, directly or through others of the set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::machine::Workspace;
use anyhow::{Context, Result, ensure};

/// Sources of the two crates, and the name that the first has in the second.
const CRATES: [(&str, &str); 2] = [
    ("host/src", "persist_host"),
    ("host/cli/src", "persist_cli"),
];

/// Layers, from the lowest. A module imports from its own layer and from lower ones. Modules that
/// are not below one of these may be imported by all.
const LAYERS: [&str; 5] = [
    "persist_host::storage",
    "persist_host::snapshot",
    "persist_host::guest",
    "persist_host::wasm",
    "persist_cli",
];

/// Path of everything in `snapshot`.
const SNAPSHOT: &str = "persist_host::snapshot::";

/// Rooms of `snapshot`, from the lowest, as ARCHITECTURE.md lists them: its modules below. A module
/// imports from its own room and from lower ones.
const ROOMS: [&[&str]; 11] = [
    &[
        "error",
        "name",
        "version",
        "info",
        "retention",
        "layout",
        "lease_timing",
        "clock",
        "compression",
        "offload",
        "ordered_tasks",
    ],
    &["format"],
    &["shared"],
    &["read"],
    &["lease"],
    &["commit"],
    &["setup"],
    &["history"],
    &["change"],
    &["store", "scope", "walk", "adapter", "lease_handle"],
    &["transfer", "maintenance"],
];

/// Modules by their paths, such as `persist_host::snapshot::commit`.
type Modules = BTreeMap<String, Module>;

#[derive(Debug, Default)]
struct Module {
    /// Imported paths that are not re-exported, in full.
    uses: Vec<Vec<String>>,
    /// Re-exports: the name here, and the path in full. The name `*` stands for all names.
    exports: Vec<(String, Vec<String>)>,
}

type Graph = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut modules = Modules::new();
    for (dir, name) in CRATES {
        read_dir(&workspace.root.join(dir), name, &mut modules)?;
    }
    let graph = graph(&modules);
    let mut faults = upward(&graph, "a layer", layer);
    faults.extend(upward(&graph, "a room", room));
    faults.extend(without_room(&graph));
    let circles = circles(&graph);
    faults.extend(circles.iter().map(|circle| described(circle, &graph)));
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let imports: usize = graph.values().map(BTreeSet::len).sum();
    println!("{} modules, {imports} imports, no circle", graph.len());
    Ok(())
}

/// Describes a circle by its members, and what each of them imports of the others.
fn described(circle: &BTreeSet<String>, graph: &Graph) -> String {
    let members = circle.iter().map(|member| {
        let imports: Vec<_> = graph[member]
            .intersection(circle)
            .map(String::as_str)
            .collect();
        format!("\n  {member} imports {}", imports.join(", "))
    });
    format!(
        "circle of {} modules:{}",
        circle.len(),
        members.collect::<String>()
    )
}

/// Reads the modules of a directory: `mod.rs`, `lib.rs` and `main.rs` are the module of the
/// directory itself.
fn read_dir(dir: &Path, module: &str, modules: &mut Modules) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.with_context(|| format!("the name of {}", path.display()))?;
        if path.is_dir() {
            read_dir(&path, &format!("{module}::{stem}"), modules)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = match stem {
                "mod" | "lib" | "main" => module.to_owned(),
                // Another program of the package, and no module.
                "build" if module == "persist_cli" && is_build_script(&path) => continue,
                stem => format!("{module}::{stem}"),
            };
            let text = fs::read_to_string(&path)?;
            modules.insert(name.clone(), parse(&text, &name));
        }
    }
    Ok(())
}

fn is_build_script(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("cli"))
}

/// Finds the paths that a module names.
fn parse(text: &str, name: &str) -> Module {
    let code = without_tests(&without_comments(text));
    let mut module = Module::default();
    let mut rest = String::new();
    let mut pending = String::new();
    let mut is_use = false;
    for line in code.lines() {
        let start = line.trim_start();
        let starts_use = start.starts_with("use ")
            || start.starts_with("pub") && {
                let after = start
                    .split_once("use ")
                    .map(|(before, _)| before.trim_end());
                after.is_some_and(|before| before == "pub" || before.ends_with(')'))
            };
        if is_use || starts_use {
            is_use = true;
            pending.push_str(line);
            pending.push(' ');
            if line.contains(';') {
                declare(&pending, name, &mut module);
                pending.clear();
                is_use = false;
            }
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    for path in paths_in(&rest) {
        module.uses.extend(absolute(&path, name));
    }
    module
}

/// Takes one `use` declaration.
fn declare(text: &str, name: &str, module: &mut Module) {
    let is_export = text.trim_start().starts_with("pub");
    let Some((_, tree)) = text.split_once("use ") else {
        return;
    };
    let tree = tree.split(';').next().unwrap_or_default();
    for (path, alias) in expand(tree) {
        let Some(path) = absolute(&path, name) else {
            continue;
        };
        let last = path.last().cloned().unwrap_or_default();
        if is_export {
            module.exports.push((alias.unwrap_or(last), path));
        } else {
            module.uses.push(path);
        }
    }
}

/// Expands the braces of a use tree into paths, each with its alias.
fn expand(tree: &str) -> Vec<(Vec<String>, Option<String>)> {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let close = tree.rfind('}').unwrap_or(tree.len());
        let prefix: Vec<_> = segments(&tree[..open]);
        let mut paths = Vec::new();
        for part in split_top(&tree[open + 1..close]) {
            for (path, alias) in expand(part) {
                let path = if path == ["self"] { Vec::new() } else { path };
                paths.push(([&prefix[..], &path].concat(), alias));
            }
        }
        return paths;
    }
    if tree.is_empty() {
        return Vec::new();
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    vec![(segments(path), alias)]
}

fn segments(path: &str) -> Vec<String> {
    let parts = path.split("::").map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Splits at the commas that are in no braces.
fn split_top(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Finds the paths in code. One that begins with an imported name, or with a type of the module,
/// leads to nothing but the module itself.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code
        .split(|c| !is_path(c))
        .filter(|word| word.contains("::"));
    words.map(segments).filter(|path| path.len() > 1).collect()
}

/// Returns the path from the crate, for a path in the module `name`. One that begins with another
/// word is a child of the module, or of another crate: then it leads to nothing but the module
/// itself.
fn absolute(path: &[String], name: &str) -> Option<Vec<String>> {
    let here: Vec<_> = name.split("::").map(str::to_owned).collect();
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&here[..1], &path[1..]),
        "self" => (&here[..], &path[1..]),
        "super" => (here.get(..here.len().checked_sub(ups)?)?, &path[ups..]),
        "persist_host" => (&path[..1], &path[1..]),
        _ => (&here[..], path),
    };
    Some([base, rest].concat())
}

/// Resolves each imported path to the module that has the item.
fn graph(modules: &Modules) -> Graph {
    let mut graph = Graph::new();
    for (name, module) in modules {
        let mut imports = BTreeSet::new();
        let mut paths: Vec<_> = module.uses.iter().collect();
        // A re-export of what a child has is how a child is seen from outside. What comes from
        // elsewhere is imported.
        let is_own = |path: &Vec<String>| path.join("::").starts_with(&format!("{name}::"));
        paths.extend(
            module
                .exports
                .iter()
                .map(|(_, path)| path)
                .filter(|path| !is_own(path)),
        );
        for path in paths {
            imports.extend(home_of(path, modules, 0));
        }
        imports.remove(name);
        graph.insert(name.clone(), imports);
    }
    graph
}

/// The module in which an item is declared that can be imported by this path.
fn home_of(path: &[String], modules: &Modules, depth: usize) -> Option<String> {
    // Re-exports of re-exports are few; one of itself has no end.
    if depth > 8 {
        return None;
    }
    let longest = (1..=path.len()).rev();
    let mut found = longest.map(|len| (len, path[..len].join("::")));
    let (len, module) = found.find(|(_, name)| modules.contains_key(name))?;
    let Some(item) = path.get(len) else {
        return Some(module);
    };
    let exports = &modules[&module].exports;
    for (name, target) in exports {
        if name == item {
            let target = [target, &path[len + 1..]].concat();
            return home_of(&target, modules, depth + 1).or(Some(module));
        }
    }
    for (_, target) in exports.iter().filter(|(name, _)| name == "*") {
        let target = [&target[..target.len() - 1], &path[len..]].concat();
        if let Some(home) = home_of(&target, modules, depth + 1) {
            return Some(home);
        }
    }
    Some(module)
}

/// Returns true for a module that is `root`, or below it.
fn is_in(module: &str, root: &str) -> bool {
    let rest = module.strip_prefix(root);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the layer of a module.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|root| is_in(module, root))
}

/// Returns the room of a module of `snapshot`.
fn room(module: &str) -> Option<usize> {
    let rest = module.strip_prefix(SNAPSHOT)?;
    let is_of = |room: &&[&str]| room.iter().any(|name| is_in(rest, name));
    ROOMS.iter().position(is_of)
}

/// Modules of `snapshot` that [`ROOMS`] does not name.
fn without_room(graph: &Graph) -> Vec<String> {
    let in_none = |module: &&String| module.starts_with(SNAPSHOT) && room(module).is_none();
    let modules = graph.keys().filter(in_none);
    modules
        .map(|module| format!("{module} is in no room: add it to ROOMS and to ARCHITECTURE.md"))
        .collect()
}

/// Imports of a module from a place above its own.
fn upward(graph: &Graph, what: &str, place: impl Fn(&str) -> Option<usize>) -> Vec<String> {
    let mut faults = Vec::new();
    for (module, imports) in graph {
        for import in imports {
            if let (Some(from), Some(to)) = (place(module), place(import))
                && from < to
            {
                faults.push(format!(
                    "{module} imports {import}, which is {what} above it"
                ));
            }
        }
    }
    faults
}

/// The sets of modules that import each other.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|from| (from, reachable(from, graph)))
        .collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (module, reached) in &reach {
        if !reached.contains(*module) || circles.iter().any(|circle| circle.contains(*module)) {
            continue;
        }
        let is_member = |other: &&String| reach[*other].contains(*module);
        circles.push(reached.iter().filter(is_member).cloned().collect());
    }
    circles
}

fn reachable(from: &str, graph: &Graph) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for import in graph.get(module).into_iter().flatten() {
            if reached.insert(import.clone()) {
                next.push(import);
            }
        }
    }
    reached
}

/// Removes comments and the text of string literals: neither imports anything.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if let Some(len) = literal_len(rest) {
            code.push_str("\"\"");
            // The lines of the rest keep their order; their numbers are not used.
            rest = &rest[len..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// The length of the literal at the beginning, if there is one that may hold quotes or slashes.
fn literal_len(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix("r#\"") {
        return raw.find("\"#").map(|end| end + 5);
    }
    if let Some(raw) = text.strip_prefix("r\"") {
        return raw.find('"').map(|end| end + 3);
    }
    if text.starts_with("'\"'") || text.starts_with("'\\''") || text.starts_with("'{'") {
        return text[1..]
            .find('\'')
            .map(|end| end + 2)
            .map(|len| len.max(3));
    }
    let quoted = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !is_escaped => return Some(at + 2),
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    None
}

/// Removes the items that are compiled for tests or documentation alone: each ends with its braces,
/// or with a semicolon where it has none.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";

    let code = code.replace("#[cfg(doc)]", MARK);
    let mut kept = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        let mut depth = 0;
        let end = rest.char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && ['}', ';'].contains(c)
        });
        rest = &rest[end.map_or(rest.len(), |(at, c)| at + c.len_utf8())..];
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(files: &[(&str, &str)]) -> Graph {
        let modules = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), parse(text, name)));
        graph(&modules.collect())
    }

    fn imports(graph: &Graph, module: &str) -> Vec<String> {
        graph[module].iter().cloned().collect()
    }

    #[test]
    fn a_re_export_counts_as_its_home() {
        let graph = graph_of(&[
            ("c", "mod a;\nmod b;\npub use a::{One, Two as Second};"),
            ("c::a", "pub struct One;"),
            ("c::b", "use super::{One,\n    Second};\nuse super::Other;"),
        ]);
        assert_eq!(imports(&graph, "c::b"), ["c", "c::a"]);
        assert!(imports(&graph, "c").is_empty());
        assert!(circles(&graph).is_empty());
    }

    #[test]
    fn a_circle_is_found_with_all_its_members() {
        let graph = graph_of(&[
            ("c::a", "use super::b::B;"),
            ("c::b", "fn f() { crate::d::g() }"),
            ("c::d", "use crate::{a::A};"),
            ("c::e", "use super::a;"),
        ]);
        let circles = circles(&graph);
        assert_eq!(circles.len(), 1);
        let members: Vec<_> = circles[0].iter().map(String::as_str).collect();
        assert_eq!(members, ["c::a", "c::b", "c::d"]);
    }

    #[test]
    fn tests_comments_and_texts_import_nothing() {
        let graph = graph_of(&[
            (
                "c::a",
                "// use super::b;\nconst T: &str = \"use super::b;\";\n\
                 #[cfg(test)]\nuse super::b;\n#[cfg(doc)]\nuse super::b;\n\
                 #[cfg(test)]\nmod tests {\n    use super::super::b;\n}\n",
            ),
            ("c::b", ""),
        ]);
        assert!(imports(&graph, "c::a").is_empty());
    }

    #[test]
    fn an_import_from_a_higher_layer_is_found() {
        let graph = graph_of(&[
            ("persist_host::storage::a", "use crate::snapshot::b::B;"),
            ("persist_host::snapshot::b", "use crate::storage::a::A;"),
        ]);
        assert_eq!(upward(&graph, "a layer", layer).len(), 1);
    }

    #[test]
    fn an_import_from_a_higher_room_and_a_module_without_one_are_found() {
        let graph = graph_of(&[
            (
                "persist_host::snapshot::read::find",
                "use crate::snapshot::commit::Commit;\nuse crate::snapshot::format::Footer;",
            ),
            ("persist_host::snapshot::commit", ""),
            ("persist_host::snapshot::format", "use super::name::Name;"),
            ("persist_host::snapshot::name", ""),
            ("persist_host::snapshot::nowhere", ""),
        ]);
        let faults = upward(&graph, "a room", room);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("imports persist_host::snapshot::commit"));
        let without = without_room(&graph);
        assert_eq!(without.len(), 1, "{without:?}");
        assert!(without[0].contains("nowhere"));
    }
}
