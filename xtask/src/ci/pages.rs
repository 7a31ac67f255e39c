//! Checks the Markdown pages: links, the list of the book's pages, and the width of prose. Builds
//! the book.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Workspace;
use anyhow::{Context, Result, ensure};
use mdbook_driver::MDBook;

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

/// Beginning of a page whose lines are as wide as its generator makes them.
const GENERATED: &str = "<!-- Generated";

/// Directory of the pages of the book.
const BOOK: &str = "docs/src";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let read = |page: &str| fs::read_to_string(root.join(page)).with_context(|| page.to_owned());
    let mut pages: Vec<String> = PAGES.map(String::from).into();
    let summary = read(&format!("{BOOK}/SUMMARY.md"))?;
    let mut faults = Vec::new();
    for name in files_below(&root.join(BOOK), "md")? {
        let name = name.display().to_string();
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
        if text.starts_with(GENERATED) {
            continue;
        }
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

/// Builds the book into `target/book`, and checks that each link of it leads to a file of it.
pub(crate) fn check_book(workspace: &Workspace) -> Result<()> {
    let mut book = MDBook::load(workspace.root.join("docs"))?;
    let rendered = workspace.target.join("book");
    book.config.build.build_dir = rendered.clone();
    book.build()?;
    let rendered = rendered.canonicalize()?;
    let pages = files_below(&rendered, "html")?;
    let mut faults = Vec::new();
    // The page for a missing page has a link to the root of the server.
    for page in pages.iter().filter(|page| !page.ends_with("404.html")) {
        let path = rendered.join(page);
        let text = fs::read_to_string(&path)?;
        let dir = path.parent().unwrap_or(&rendered);
        let broken = hyperlinks(&text).filter(|link| !leads_into(&rendered, dir, link));
        faults.extend(broken.map(|link| format!("{}: not in the book: {link}", page.display())));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!("the book has {} pages; its links are right", pages.len());
    Ok(())
}

/// Returns the paths of the files in a folder and its folders that have an extension.
fn files_below(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let path = below.join(entry?.file_name());
            if folder.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the targets of a rendered page's links that are neither addresses nor in the page.
fn hyperlinks(html: &str) -> impl Iterator<Item = &str> {
    let targets = html.split("href=\"").skip(1);
    let targets = targets.filter_map(|rest| rest.split('"').next());
    targets.filter(|link| !link.contains(':') && !link.starts_with('#') && !link.is_empty())
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

/// Returns true if a link leads to a file that is inside the rendered book.
fn leads_into(book: &Path, dir: &Path, link: &str) -> bool {
    let path = dir.join(link.split('#').next().unwrap_or(link));
    path.canonicalize().is_ok_and(|path| path.starts_with(book))
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
    fn links_of_rendered_pages_are_found() {
        let html =
            r##"<a href="b.html#c">, <a href="https://d">, <link href="../e.css">, <a href="#f">"##;
        let found: Vec<_> = hyperlinks(html).collect();
        assert_eq!(found, ["b.html#c", "../e.css"]);
    }

    #[test]
    fn wide_prose_is_found_and_no_table_or_code() {
        let wide = "word ".repeat(30);
        let text = format!("{wide}\n| {wide} |\n```\n{wide}\n```\n{wide}");
        assert_eq!(wide_lines(&text).collect::<Vec<_>>(), [1, 6]);
    }
}
