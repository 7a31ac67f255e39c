//! Output that is made from the command line itself, and from the settings.

use std::path::{Path, PathBuf};

use anstyle::Style;
use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use persist_host::storage::{redact, secret_in};
use serde_json::json;

use crate::completion;
use crate::error::Usage;
use crate::print::Out;
use crate::settings::{SETTINGS, Settings, Source, table as settings_table};
use crate::stdio::{BAD, DIM, results};
use crate::table::{self, Column, Table};
use crate::text::one_line;

/// Print a completion script for a shell
///
/// The script completes commands, options, agents, sessions, names and versions. It asks this
/// program, which waits for the store for less than a second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist completions bash > ~/.local/share/bash-completion/completions/persist
  persist completions zsh > ~/.zfunc/_persist
  persist completions fish > ~/.config/fish/completions/persist.fish")]
pub(crate) struct Completions {
    /// Shell to print the script for
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands to a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist man | man -l -
  persist man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write the pages of all commands to DIR
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Show every setting, its value and its source
///
/// Every value is checked. If a value cannot be used, its problem is shown and the exit code is 2.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist settings
  persist settings --json --config ./persist.toml")]
pub(crate) struct Show {
    /// Print the table of docs/src/configuration.md
    #[arg(long, hide = true)]
    table: bool,
}

impl Completions {
    pub(crate) fn run(self) -> Result<()> {
        Ok(results(&completion::script(self.shell)?)?)
    }
}

impl Man {
    pub(crate) fn run(self, command: Command) -> Result<()> {
        match self.dir {
            Some(dir) => std::fs::create_dir_all(&dir)
                .and_then(|()| {
                    let mut command = command.disable_help_subcommand(true);
                    command.build();
                    pages(&command, &dir)
                })
                .with_context(|| format!("cannot write to {}", dir.display())),
            None => Ok(results(page(&command)?.1.as_bytes())?),
        }
    }
}

/// Writes the page of a command, and those of its subcommands.
fn pages(command: &Command, dir: &Path) -> std::io::Result<()> {
    for command in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        pages(command, dir)?;
    }
    let (name, page) = page(command)?;
    std::fs::write(dir.join(name), page)
}

/// The name of the file of a command's page, and the page. What is written at the end of its help
/// keeps its lines, and has a section of the usual name.
fn page(command: &Command) -> std::io::Result<(String, String)> {
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    let mut end = Vec::new();
    man.render(&mut page)?;
    man.render_extra_section(&mut end)?;
    let page = String::from_utf8_lossy(&page).into_owned();
    let end = String::from_utf8_lossy(&end);
    let Some((_, body)) = end.split_once(".SH EXTRA\n") else {
        return Ok((man.get_filename(), page));
    };
    let (first, lines) = body.split_once('\n').unwrap_or((body, ""));
    let title = match first {
        "Exit codes:" => "EXIT STATUS",
        _ => "EXAMPLES",
    };
    let section = format!(".SH \"{title}\"\n.nf\n{lines}.fi\n");
    let page = page.replace(&format!(".SH EXTRA\n{body}"), &section);
    Ok((man.get_filename(), page))
}

impl Show {
    pub(crate) fn run(self, settings: &Settings, out: Out) -> Result<()> {
        if self.table {
            return Ok(results(settings_table().as_bytes())?);
        }
        let problems = show(settings, out)?;
        if problems.is_empty() {
            Ok(())
        } else {
            let problems: Vec<_> = problems.into_iter().map(|(_, what)| what).collect();
            Err(Usage::new(problems.join("\n")).into())
        }
    }
}

/// A value as it may be shown.
fn shown(value: &str) -> String {
    match secret_in(value) {
        Some(kind) => format!("(not shown: it contains {kind})"),
        None => value.to_owned(),
    }
}

/// The columns of the settings.
const COLUMNS: [Column; 3] = [
    table::text("SETTING"),
    table::words("VALUE"),
    table::text("SOURCE"),
];

/// Prints every setting as it was resolved. Returns what is wrong: the first variable of a setting,
/// and why.
pub(crate) fn show(settings: &Settings, out: Out) -> Result<Vec<(&'static str, String)>> {
    let problems = settings.problems();
    let mut table = Table::new(out, &COLUMNS);
    for setting in SETTINGS {
        let (value, source) = settings.of(setting);
        let value = value.map(|value| {
            if setting.is_secret {
                "(not shown)".to_owned()
            } else {
                shown(&value.to_string_lossy())
            }
        });
        let from = match &source {
            Source::Option(name) | Source::Variable(name) => (*name).to_owned(),
            Source::File => settings
                .file()
                .map_or("file".into(), |file| file.display().to_string()),
            Source::Default => "default".into(),
        };
        let name = setting.variables[0];
        let problem = problems.iter().find(|(wrong, _)| *wrong == name);
        let problem = problem.map(|(_, what)| what);
        let effective = match &value {
            Some(value) => Some(value.clone()),
            None => settings.default_of(setting),
        };
        let json = json!({
            "setting": name, "key": setting.key, "value": value, "effective": effective,
            "source": from, "problem": problem,
        });
        let style = match (problem, &source) {
            (Some(_), _) => BAD,
            (None, Source::Default) => DIM,
            (None, _) => Style::new(),
        };
        table.styled_row(&json, style, || {
            let value = effective.unwrap_or_else(|| setting.default.replace('`', ""));
            let wrong = problem.map_or("", |_| "WRONG: ");
            vec![
                name.to_owned(),
                format!("{wrong}{}", one_line(&value)),
                from.clone(),
            ]
        })?;
    }
    let bindings = settings.bindings().iter();
    let bindings = bindings.map(|binding| {
        let name = format!("endpoints.{:?}", binding.host);
        (name, "endpoints", binding.shown())
    });
    let agents = settings.agents().iter();
    let agents = agents.map(|agent| (agent.key(), "agents", agent.shown()));
    for (name, key, value) in bindings.chain(agents) {
        let value = redact(&value).into_owned();
        let from = settings.file().map(|file| file.display().to_string());
        let from = from.unwrap_or_default();
        let json = json!({
            "setting": name, "key": key, "value": value, "effective": value,
            "source": from, "problem": null,
        });
        let cells = vec![one_line(&name), one_line(&value), from];
        table.row(&json, || cells)?;
    }
    table.flush()?;
    for name in settings.unknown_variables() {
        out.note(format_args!(
            "warning: the environment variable {} is not a setting",
            one_line(name)
        ));
    }
    Ok(problems)
}
