//! The operator's command: runs agents, and shows, keeps, moves and checks what they saved.

mod address;
mod agent_args;
mod audit;
mod build;
mod chat;
mod commands;
mod completion;
mod compute;
mod dev;
mod error;
mod exit;
mod interrupt;
mod logging;
mod new;
#[cfg(feature = "otlp")]
mod otlp;
mod print;
mod progress;
mod project;
mod proxy;
mod run;
mod sdk;
mod secret_file;
mod select;
#[cfg(feature = "serve")]
mod serve;
mod settings;
mod stdio;
mod stores;
mod table;
mod text;
mod toolchain_versions;
mod unseen;
mod upgrade_sdk;
mod when;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _};

use commands::{
    archive, check, copy, diff, doctor, gc, init, leases, list, meta, policy, repair, retention,
    state, stats,
};
use error::Interrupted;
use interrupt::Interrupt;
use persist_host::storage::secret_in;
use print::Out;
use settings::{GlobalArgs, Settings};
use stdio::Color;
use stores::{Create, Stores};

/// Heading of the options that every command takes.
const GLOBAL: &str = "Global options";

/// Run WebAssembly agents, and list, inspect, copy, prune and verify the snapshots they save
///
/// An address is agent/name or agent/session/name. Append @N to select version N. A SELECTION is an
/// agent (agent), a session (agent/session/) or a name (an address without @N); each part may be a
/// glob, such as 'bot-*/memory'. In an agent, session or name, write ~2f for a slash, ~40 for an @,
/// ~7e for a tilde and ~2a for an asterisk.
#[derive(Debug, Parser)]
#[command(name = "persist", version, after_help = exit::HELP)]
struct Cli {
    /// Store to use: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix [default:
    /// PERSIST_STORAGE, then PERSIST_LOCAL_PATH, then the user's data directory]
    #[arg(long, global = true, value_name = "URL", display_order = 100, help_heading = GLOBAL)]
    storage: Option<String>,

    /// Read settings from FILE [default: PERSIST_CONFIG, then persist/persist.toml in the user's
    /// configuration directory]
    #[arg(long, global = true, value_name = "FILE", display_order = 101, help_heading = GLOBAL)]
    config: Option<PathBuf>,

    /// Print JSON, one object a line
    #[arg(long, global = true, display_order = 102, help_heading = GLOBAL)]
    json: bool,

    /// Print only errors, and the results of commands that show something, without table headers
    #[arg(long, short, global = true, display_order = 103, help_heading = GLOBAL)]
    quiet: bool,

    /// Color the output: auto, always or never; NO_COLOR and CLICOLOR_FORCE change auto [default:
    /// auto]
    #[arg(long, global = true, value_name = "WHEN", display_order = 104, help_heading = GLOBAL,
    value_enum, default_value_t, hide_default_value = true, hide_possible_values = true)]
    color: Color,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent once and print its answer
    #[command(after_help = run::EXAMPLES, after_long_help = run::help())]
    Run(run::Run),
    /// Talk to an agent: each line is a message and one run of the agent
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::Chat),
    /// Build and run an agent, and again after each change of its files
    #[command(after_help = dev::EXAMPLES)]
    Dev(dev::Dev),
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    #[cfg(feature = "serve")]
    Token(serve::token::Token),
    New(new::New),
    Build(build::Build),
    UpgradeSdk(upgrade_sdk::UpgradeSdk),
    Init(init::Init),
    Ls(list::Ls),
    History(list::History),
    Show(state::Show),
    Cat(state::Cat),
    Save(state::Save),
    Rm(state::Rm),
    Mv(state::Mv),
    Restore(state::Restore),
    Fork(state::Fork),
    Diff(diff::Diff),
    Verify(check::Verify),
    Check(check::Check),
    Policy(policy::Policy),
    Repair(repair::Repair),
    Prune(retention::Prune),
    Pin(retention::Pin),
    Unpin(retention::Unpin),
    Purge(retention::Purge),
    Gc(gc::Gc),
    Leases(leases::Leases),
    Copy(copy::Copy),
    Export(archive::Export),
    Import(archive::Import),
    Stats(stats::Stats),
    Doctor(doctor::Doctor),
    Settings(meta::Show),
    Completions(meta::Completions),
    Man(meta::Man),
}

fn main() -> ExitCode {
    if completion::answer(Cli::command) {
        return ExitCode::SUCCESS;
    }
    proxy::exempt_metadata_services();
    let words = arguments();
    let color = color_of(&words);
    color.apply();
    let cli = parsed(color, words).unwrap_or_else(|mut error| {
        drop_far_suggestion(&mut error);
        let said = error.to_string();
        if error.use_stderr() && wants_json() {
            exit::refuse_as_json(&said);
        }
        // An argument that is repeated may hold a secret.
        if error.use_stderr() && secret_in(&said).is_some() {
            exit::refuse(&said);
        }
        error.exit()
    });
    let json = cli.json;
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error, json),
    }
}

/// Parses a command line. Errors of it are coloured as it says itself.
fn parsed(color: Color, words: Vec<OsString>) -> clap::error::Result<Cli> {
    let mut command = Cli::command().color(color.of_parser());
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Returns the `--color` of a command line that may be wrong.
fn color_of(words: &[OsString]) -> Color {
    let mut color = Color::default();
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--color") {
            _ if word == "--" => break,
            Some("") => words.next(),
            Some(value) => value.strip_prefix('=').map(|value| value.to_owned().into()),
            None => None,
        };
        color = value
            .and_then(|value| Color::from_str(&value, true).ok())
            .unwrap_or(color);
    }
    color
}

/// The words of the command line. `persist help --help` asks for help, and not for a command of
/// that name.
fn arguments() -> Vec<OsString> {
    let mut words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "help") {
        words.retain(|word| word != "--help" && word != "-h");
    }
    words
}

/// Returns true if a command line that clap rejects asks for JSON.
fn wants_json() -> bool {
    let words = arguments();
    let mut options = words.iter().take_while(|word| *word != "--");
    options.any(|word| word == "--json")
}

/// Leaves out a suggestion that is no misspelling of what was written, as `--storage` is none of
/// `--sort`.
fn drop_far_suggestion(error: &mut clap::Error) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let written = text(ContextKind::InvalidArg);
    let suggested = text(ContextKind::SuggestedArg);
    if let (Some(written), Some(suggested)) = (written, suggested)
        && text::distance(&written, &suggested) > 2
    {
        error.remove(ContextKind::SuggestedArg);
    }
}

fn start(cli: Cli) -> Result<()> {
    let out = Out {
        json: cli.json,
        quiet: cli.quiet,
        // Once, for as long as the process lives.
        options: Box::leak(options(&cli).into_boxed_str()),
    };
    let said = GlobalArgs {
        storage: cli.storage,
        config: cli.config,
    };
    let settings = Settings::resolve(said)?;
    if cli.command.uses_settings() {
        settings.check()?;
    }
    // What a guest's call meets is told to the guest, and logged for the operator.
    let reports = !cli.command.runs_agents();
    let watched = progress::is_watched(out);
    #[cfg(feature = "otlp")]
    let exporters = match cli.command {
        Command::Serve(_) => Some(otlp::Exporters::of(settings.environment())?),
        _ => None,
    };
    #[cfg(feature = "otlp")]
    let exported = exporters.as_ref().and_then(otlp::Exporters::layer);
    #[cfg(not(feature = "otlp"))]
    let exported = None;
    logging::start(
        &settings.log()?,
        settings.has_log(),
        reports,
        watched,
        exported,
    );
    // The command runs on this thread. One more is enough: the disk has its own, agents give way to
    // each other, and servers are slower than it. It also hears signals while this one waits for
    // the reader of the output.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli.command.threads())
        .enable_all()
        .build()?;
    let done = runtime.block_on(cli.command.run(&settings, out));
    // A thread may wait for input for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    #[cfg(feature = "otlp")]
    if let Some(exporters) = exporters {
        exporters.finish();
    }
    done
}

/// Returns the given options that locate the store, so that a proposed command uses the same store.
fn options(cli: &Cli) -> String {
    let storage = cli.storage.as_deref();
    let config = cli.config.as_deref().map(|path| path.to_string_lossy());
    let said = [("--storage", storage), ("--config", config.as_deref())];
    let said = said
        .into_iter()
        .filter_map(|(option, value)| Some(format!("{option} {} ", text::quoted(value?))));
    said.collect()
}

impl Command {
    async fn run(self, settings: &Settings, out: Out) -> Result<()> {
        let stores = Stores::new(settings, self.via());
        let interrupt = Interrupt::default();
        let left = self.left();
        if left.is_some() {
            interrupt.listen(out.json)?;
        }
        let done = tokio::select! {
            biased;
            done = self.do_it(&stores, settings, &interrupt, out) => done,
            () = interrupt.interrupted() => {
                let (left, hint) = left.unwrap_or_default();
                Err(Interrupted { left, hint }.into())
            }
        };
        // What it does not come to, the next process does.
        let _ = tokio::time::timeout(interrupt::PATIENCE, stores.wait_idle()).await;
        done
    }

    /// Returns false for commands that need no setting, or tell themselves which are wrong.
    fn uses_settings(&self) -> bool {
        #[cfg(feature = "serve")]
        if matches!(self, Self::Token(_)) {
            return false;
        }
        !matches!(
            self,
            Self::New(_)
                | Self::Build(_)
                | Self::UpgradeSdk(_)
                | Self::Doctor(_)
                | Self::Settings(_)
                | Self::Completions(_)
                | Self::Man(_)
        )
    }

    /// Returns true for a command that runs agents.
    fn runs_agents(&self) -> bool {
        match self {
            Self::Run(_) | Self::Chat(_) | Self::Dev(_) => true,
            #[cfg(feature = "serve")]
            Self::Serve(_) => true,
            _ => false,
        }
    }

    /// Returns the number of threads besides the one of the command.
    fn threads(&self) -> usize {
        match self {
            // The compilers, the agents and the clients of a service work at the same time.
            #[cfg(feature = "serve")]
            Self::Serve(_) => std::thread::available_parallelism().map_or(2, usize::from),
            _ => 1,
        }
    }

    /// Returns the name of a command that creates versions.
    fn via(&self) -> Option<&'static str> {
        Some(match self {
            Self::Init(_) => "init",
            Self::Save(_) => "save",
            Self::Rm(_) => "rm",
            Self::Mv(_) => "mv",
            Self::Restore(_) => "restore",
            Self::Fork(_) => "fork",
            Self::Policy(_) => "policy set",
            Self::Repair(_) => "repair",
            Self::Prune(_) => "prune",
            Self::Purge(_) => "purge",
            Self::Copy(_) => "copy",
            Self::Import(_) => "import",
            _ => return None,
        })
    }

    /// Returns what an interruption leaves and a hint, for a command that has something to leave;
    /// all others end at once.
    fn left(&self) -> Option<(&'static str, Option<&'static str>)> {
        const CONTINUE: Option<&str> = Some("run the command again to continue");
        match self {
            Self::Run(_) | Self::Chat(_) | Self::Dev(_) => {
                Some(("the agent was stopped; acknowledged saves are kept", None))
            }
            Self::Save(_) => Some(("nothing was saved", None)),
            Self::Init(_) => Some((
                "the store may be incomplete",
                Some("run `persist init` again"),
            )),
            // These wait for the answer to the one change that they make.
            Self::Pin(_) | Self::Unpin(_) => Some(("nothing was changed", None)),
            Self::Rm(_) | Self::Mv(_) | Self::Restore(_) | Self::Fork(_) => {
                Some(("only the printed changes were made", None))
            }
            Self::Repair(_) => Some(("the printed repairs are made", CONTINUE)),
            Self::Copy(_) | Self::Import(_) => {
                Some(("the printed names are copied and verified", CONTINUE))
            }
            Self::Prune(_) | Self::Purge(_) => Some(("removed versions stay removed", CONTINUE)),
            Self::Gc(_) => Some(("removed leftovers stay removed", CONTINUE)),
            Self::Leases(_) => Some(("only the printed leases were broken", None)),
            Self::Export(_) => Some(("the archive was incomplete and is removed", None)),
            Self::Check(_) => Some(("the check is incomplete", None)),
            Self::Doctor(_) => Some((
                "the checks are incomplete",
                Some("run `persist gc` to remove the objects that they created"),
            )),
            _ => None,
        }
    }

    async fn do_it(
        self,
        stores: &Stores<'_>,
        settings: &Settings,
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        match self {
            Self::Run(run) => {
                let store = stores.host(run.agent.create)?;
                run.once(&store, settings, out).await
            }
            Self::Dev(dev) => {
                let store = stores.host(dev.run.agent.create)?;
                dev.run(&store, settings, interrupt, out).await
            }
            Self::Chat(chat) => {
                let store = stores.host(chat.agent.create)?;
                chat.run(&store, settings, interrupt, out).await
            }
            #[cfg(feature = "serve")]
            Self::Serve(serve) => serve.run(stores, settings, out).await,
            #[cfg(feature = "serve")]
            Self::Token(token) => token.run(out),
            Self::New(new) => new.run(out),
            Self::Build(build) => build.run(settings, out),
            Self::UpgradeSdk(upgrade) => upgrade.run(out),
            Self::Init(init) => {
                interrupt
                    .uninterruptible(init.run(&stores.making(Create::YES)?, out))
                    .await
            }
            Self::Ls(ls) => ls.run(&stores.usual()?, out).await,
            Self::History(history) => history.run(&stores.usual()?, out).await,
            Self::Show(show) => show.run(&stores.usual()?, out).await,
            Self::Cat(cat) => cat.run(&stores.usual()?, out).await,
            Self::Save(save) => {
                let store = stores.making(save.create)?;
                save.run(&store, interrupt, out).await
            }
            Self::Rm(rm) => rm.run(&stores.usual()?, interrupt, out).await,
            Self::Mv(mv) => mv.run(&stores.usual()?, interrupt, out).await,
            Self::Restore(restore) => restore.run(&stores.usual()?, interrupt, out).await,
            Self::Fork(fork) => fork.run(&stores.usual()?, interrupt, out).await,
            Self::Diff(diff) => diff.run(&stores.usual()?, out).await,
            Self::Verify(verify) => verify.run(&stores.usual()?, out).await,
            Self::Check(check) => check.run(stores, &stores.usual()?, out).await,
            Self::Policy(policy) => {
                interrupt
                    .uninterruptible(policy.run(&stores.usual()?, out))
                    .await
            }
            Self::Repair(repair) => {
                interrupt
                    .uninterruptible(repair.run(stores, &stores.usual()?, out))
                    .await
            }
            Self::Prune(prune) => prune.run(&stores.usual()?, settings, out).await,
            Self::Pin(pin) => {
                interrupt
                    .uninterruptible(pin.run(&stores.usual()?, out))
                    .await
            }
            Self::Unpin(unpin) => {
                interrupt
                    .uninterruptible(unpin.run(&stores.usual()?, out))
                    .await
            }
            Self::Purge(purge) => purge.run(&stores.usual()?, interrupt, out).await,
            Self::Gc(gc) => gc.run(&stores.usual()?, out).await,
            Self::Leases(leases) => leases.run(&stores.usual()?, settings, out).await,
            Self::Import(import) => import.run(stores, out).await,
            Self::Stats(stats) => stats.run(&stores.usual()?, out).await,
            Self::Copy(copy) => copy.run(stores, interrupt, out).await,
            Self::Export(export) => {
                let storage = settings.build(&settings.storage()?)?;
                export.run(&stores.usual()?, &*storage, out).await
            }
            Self::Doctor(doctor) => doctor.run(settings, out).await,
            Self::Settings(show) => show.run(settings, out),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ignorable_characters_are_escaped() {
        use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};

        let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
        for c in '\0'..=char::MAX {
            assert!(unseen::is_unseen(c) || !ignorable.contains(c), "{c:?}");
        }
    }

    /// Run with `PERSIST_WRITE_DOCS=1` to write the page.
    #[test]
    fn the_reference_of_the_command_line_is_what_clap_knows() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/cli.md");
        let options = clap_markdown::MarkdownOptions::new()
            .title("Command line".into())
            .show_footer(false);
        let help = clap_markdown::help_markdown_custom::<Cli>(&options);
        let mut reference =
            "<!-- Generated from the command's help; see CONTRIBUTING.md. -->\n\n".to_owned();
        // Examples and exit codes keep their lines.
        let mut is_block = false;
        let mut before = "";
        for line in help.trim_end().lines() {
            let is_indented = line.starts_with("  ") || line.starts_with("130");
            if is_indented && !is_block && before.ends_with(':') && !before.starts_with('*') {
                reference += "```text\n";
                is_block = true;
            } else if is_block && !is_indented {
                reference += "```\n";
                is_block = false;
            }
            reference += line.trim_end();
            reference += "\n";
            before = line;
        }
        if is_block {
            reference += "```\n";
        }
        if std::env::var_os("PERSIST_WRITE_DOCS").is_some() {
            std::fs::write(page, &reference).expect("written");
        }
        let found = std::fs::read_to_string(page).expect("the page");
        assert!(
            found == reference,
            "run PERSIST_WRITE_DOCS=1 cargo test -p persist-cli reference"
        );
    }

    #[test]
    fn each_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let example = format!("persist {}", command.get_name());
            assert!(
                help.is_some_and(|help| help.contains(&example)),
                "{example}"
            );
        }
    }
}
