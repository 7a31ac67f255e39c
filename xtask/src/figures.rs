//! Pages whose figures a chore writes: between two lines that say so, with the command and the
//! machine that they are of. What people wrote around them stays.

use crate::machine::{self, Workspace};
use anyhow::{Context, Result};
use std::borrow::Cow;
use std::fs;
use std::process::Command;

/// A page in the workspace's root, and the chore that writes its figures.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) chore: Cow<'static, str>,
}

/// Columns of a line of prose.
const WIDTH: usize = 100;

const END: &str = "<!-- end of figures -->\n";

impl Page {
    /// The line that figures begin after.
    pub(crate) fn begin(&self) -> String {
        format!("<!-- figures: written by `{} --write` -->\n", self.chore)
    }

    /// Figures under a line that says how they were made: by this chore with these arguments, on
    /// this machine.
    pub(crate) fn headed(
        &self,
        workspace: &Workspace,
        args: &[String],
        figures: &str,
    ) -> Result<String> {
        let words = std::iter::once(&*self.chore).chain(args.iter().map(String::as_str));
        let command = words.collect::<Vec<_>>().join(" ");
        let machine = machine_described(workspace)?;
        Ok(format!("`{command}` on {machine}.\n\n{figures}"))
    }

    /// Puts figures in the place of those that are there.
    pub(crate) fn write(&self, workspace: &Workspace, figures: &str) -> Result<()> {
        let page = workspace.root.join(self.name);
        let text = self.replaced(&fs::read_to_string(&page)?, figures)?;
        Ok(fs::write(page, text)?)
    }

    /// The page with other figures.
    pub(crate) fn replaced(&self, page: &str, figures: &str) -> Result<String> {
        let begin = self.begin();
        let missing = || format!("{} has no place for figures of {}", self.name, self.chore);
        let (before, rest) = page.split_once(&begin).with_context(missing)?;
        let (_, after) = rest.split_once(END).with_context(missing)?;
        Ok(format!(
            "{before}{begin}\n{}\n\n{END}{after}",
            wrapped(figures.trim())
        ))
    }
}

/// Breaks prose at the width that `cargo xtask ci` allows; tables and code stay as they are.
fn wrapped(text: &str) -> String {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code || line.starts_with(['|', ' ', '#']) {
            lines.push(line.to_owned());
            continue;
        }
        let indent = if line.starts_with("- ") { "  " } else { "" };
        let mut words = line.split(' ');
        let mut current = words.next().unwrap_or_default().to_owned();
        for word in words {
            if current.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut current, format!("{indent}{word}")));
            } else {
                current = format!("{current} {word}");
            }
        }
        lines.push(current);
    }
    lines.join("\n")
}

/// Processor, how many, and the file system.
fn machine_described(workspace: &Workspace) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor without a name", |model| model.1);
    let cores = std::thread::available_parallelism()?;
    let df = machine::output(
        Command::new("df")
            .arg("--output=fstype")
            .arg(&workspace.target),
    )?;
    let file_system = df.lines().nth(1).unwrap_or("an unknown file system");
    Ok(format!("{cores} processors ({model}), {file_system}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_replaced_and_what_people_wrote_stays() -> Result<()> {
        let this = Page {
            name: "PAGE.md",
            chore: "cargo xtask chore".into(),
        };
        let begin = this.begin();
        let page = format!("before\n{begin}old\n{END}after\n");
        let once = this.replaced(&page, "new\n")?;
        assert_eq!(once, format!("before\n{begin}\nnew\n\n{END}after\n"));
        assert_eq!(this.replaced(&once, "new")?, once);
        assert!(this.replaced("nothing", "new").is_err());

        let other = Page {
            chore: "cargo xtask other".into(),
            ..this
        };
        let both = format!("{once}{}second\n{END}end\n", other.begin());
        let changed = other.replaced(&both, "third")?;
        assert!(changed.starts_with(&once), "{changed}");
        assert!(
            changed.ends_with(&format!("\nthird\n\n{END}end\n")),
            "{changed}"
        );
        Ok(())
    }

    #[test]
    fn prose_is_wrapped_and_tables_are_not() {
        let words = "word ".repeat(30);
        let words = words.trim_end();
        let wrapped = wrapped(&format!("- {words}\n| {words} |\n\n{words}"));
        let lines: Vec<_> = wrapped.lines().collect();
        assert_eq!(lines.len(), 6, "{wrapped}");
        assert!(lines[1].starts_with("  word"), "{wrapped}");
        assert!(lines[2].len() > WIDTH, "{wrapped}");
        let prose = lines.iter().filter(|line| !line.starts_with('|'));
        assert!(prose.clone().all(|line| line.len() <= WIDTH), "{wrapped}");
        assert_eq!(prose.flat_map(|line| line.split_whitespace()).count(), 61);
    }
}
