//! Checks Rust sources for what rustfmt leaves alone: the width of comments and literals, and how
//! doc comments begin.

use std::fs;

use crate::machine::{self, Workspace};
use anyhow::{Context, Result, ensure};

/// Columns of a line.
const WIDTH: usize = 100;

/// Characters without a space that may stand in a longer line, such as an address.
const UNBREAKABLE: usize = 50;

/// Words with which no doc comment begins: it would be no sentence, or lean on its neighbours.
const STARTS: [&str; 7] = [
    "What", "Whether", "Where", "Who", "Whoever", "As", "The same",
];

/// Share of doc comments that may begin so, in percent.
const MAX_PERCENT: usize = 1;

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut list = std::process::Command::new("git");
    list.args(["ls-files", "*.rs"]).current_dir(&workspace.root);
    let mut faults = Vec::new();
    let mut docs = 0;
    let mut odd = Vec::new();
    for file in machine::output(&mut list)?.lines() {
        let path = workspace.root.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {file}"))?;
        faults.extend(wide_lines(&text).map(|line| format!("{file}:{line}: over {WIDTH} columns")));
        for (line, doc) in doc_starts(&text) {
            docs += 1;
            if is_odd(doc) {
                odd.push(format!("{file}:{line}: {doc}"));
            }
        }
    }
    if odd.len() * 100 > docs * MAX_PERCENT {
        faults.push(format!(
            "{} of {docs} doc comments begin with {}:\n{}",
            odd.len(),
            STARTS.join(", "),
            odd.join("\n")
        ));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{docs} doc comments, {} with an odd start", odd.len());
    Ok(())
}

/// Returns the numbers of lines that are too wide and could be broken.
fn wide_lines(text: &str) -> impl Iterator<Item = usize> {
    let is_wide = |line: &str| line.chars().count() > WIDTH && !is_table(line);
    let is_breakable = |line: &str| line.split(' ').all(|word| word.len() <= UNBREAKABLE);
    let lines = text.lines().enumerate();
    lines
        .filter(move |(_, line)| is_wide(line) && is_breakable(line))
        .map(|(number, _)| number + 1)
}

/// Returns true for a row of a table in a doc comment.
fn is_table(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//! |") || line.starts_with("/// |")
}

/// Returns the first line of each doc comment, and its number.
fn doc_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut before = None;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let doc = doc_of(line);
        let is_first = doc.is_some_and(|(mark, _)| before != Some(mark));
        before = doc.map(|(mark, _)| mark);
        doc.filter(|(_, text)| is_first && !text.is_empty())
            .map(|(_, text)| (number + 1, text))
    })
}

fn doc_of(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let (mark, text) = line.split_at_checked(3)?;
    ["///", "//!"].contains(&mark).then(|| (mark, text.trim()))
}

fn is_odd(doc: &str) -> bool {
    STARTS.iter().any(|start| {
        let rest = doc.strip_prefix(start);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_are_found_unless_they_cannot_be_broken() {
        let wide = format!("// {}", "word ".repeat(25));
        let address = format!("// {}", "x".repeat(120));
        let table = format!("/// | {} |", "cell ".repeat(30));
        let text = [wide.as_str(), &address, &table, "short"].join("\n");
        assert_eq!(wide_lines(&text).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn odd_starts_are_found() {
        let text =
            "/// Whether it is.\n/// What follows.\nfn a() {}\n/// Returns it.\n//! As [`a`].";
        let starts: Vec<_> = doc_starts(text).collect();
        assert_eq!(
            starts,
            [(1, "Whether it is."), (4, "Returns it."), (5, "As [`a`].")]
        );
        let odd: Vec<_> = starts.iter().map(|(_, doc)| is_odd(doc)).collect();
        assert_eq!(odd, [true, false, true]);
        assert!(!is_odd("Whatever it is."));
    }
}
