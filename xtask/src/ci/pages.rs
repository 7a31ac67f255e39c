//! Checks the Markdown pages: links, the list of the book's pages, and the width of prose.

use std::fs;
use std::path::Path;

use crate::machine::Workspace;
use anyhow::{Context, Result, ensure};

/// Lines of the README.
const README_LINES: usize = 130;

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// Pages outside the book.
const PAGES: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];

/// Directory of the pages of the book.
const BOOK: &str = "docs/src";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let read = |page: &str| fs::read_to_string(root.join(page)).with_context(|| page.to_owned());
    let mut pages: Vec<String> = PAGES.map(String::from).into();
    let summary = read(&format!("{BOOK}/SUMMARY.md"))?;
    let mut faults = Vec::new();
    for entry in fs::read_dir(root.join(BOOK))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            faults.push(format!("{BOOK}/SUMMARY.md does not list {name}"));
        }
        pages.push(format!("{BOOK}/{name}"));
    }
    for page in &pages {
        let text = read(page)?;
        let dir = root.join(page);
        let dir = dir.parent().unwrap_or(root);
        let broken = links(&text).filter(|link| !leads_to_a_file(dir, link));
        faults.extend(broken.map(|link| format!("{page}: no file {link}")));
        faults.extend(wide_lines(&text).map(|line| format!("{page}:{line}: over {WIDTH} columns")));
    }
    let lines = read("README.md")?.lines().count();
    if lines > README_LINES {
        faults.push(format!(
            "README.md has {lines} lines; at most {README_LINES}"
        ));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} pages: links, list and width are right", pages.len());
    Ok(())
}

/// Returns the targets of links that are no addresses.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split(')').next());
    targets.filter(|link| !link.contains("://") && !link.starts_with('#'))
}

fn leads_to_a_file(dir: &Path, link: &str) -> bool {
    let path = link.split('#').next().unwrap_or(link);
    dir.join(path).exists()
}

/// Returns the numbers of lines of prose that are too wide and could be broken.
fn wide_lines(text: &str) -> impl Iterator<Item = usize> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let is_prose = !is_code && !line.starts_with('|') && !line.starts_with("    ");
        let is_breakable = line.split(' ').all(|word| word.len() <= WIDTH / 2);
        (is_prose && is_breakable && line.chars().count() > WIDTH).then_some(number + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found() {
        let text = "[a](b.md), [c](https://example.org), [d](#e) and [f](g/h.md#i)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "g/h.md#i"]);
        assert!(leads_to_a_file(Path::new("/"), "dev/null#i"));
        assert!(!leads_to_a_file(Path::new("/"), "dev/no-such-file"));
    }

    #[test]
    fn wide_prose_is_found_and_no_table_or_code() {
        let wide = "word ".repeat(30);
        let text = format!("{wide}\n| {wide} |\n```\n{wide}\n```\n{wide}");
        assert_eq!(wide_lines(&text).collect::<Vec<_>>(), [1, 6]);
    }
}
