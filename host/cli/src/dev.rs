//! `persist dev`: builds and runs an agent again after each change of its files.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use persist_host::snapshot::Store;
use tokio::sync::mpsc;

use crate::error::Usage;
use crate::exit;
use crate::interrupt::Interrupt;
use crate::print::Out;
use crate::project::{Inputs, Project};
use crate::run::Run;
use crate::settings::Settings;

/// Text at the end of `dev -h`.
pub(crate) const EXAMPLES: &str = "\
Files that .gitignore names, target, node_modules, .venv and the component are not watched. Each run
continues with the state that the last one saved. Ctrl-C ends the command.

Examples:
  persist dev -- \"buy milk\"
  persist dev --agent trial notes -- \"buy milk\"";

/// Time without a change before a build: an editor or a checkout changes several files.
const QUIET: Duration = Duration::from_millis(100);

/// Agent to build and run after each change.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    #[command(flatten)]
    pub(crate) run: Run,
}

impl Dev {
    pub(crate) async fn run(
        self,
        store: &Store,
        settings: &Settings,
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        let project = self.run.agent.project(settings)?.ok_or_else(|| {
            Usage::new("cannot watch a file")
                .with_hint("name the directory of the agent, which `persist new` created")
        })?;
        if self.run.reads_stdin() {
            let what = "standard input can be read only once, and the agent runs often";
            return Err(Usage::new(what).with_hint("write it to a file").into());
        }
        tokio::select! {
            biased;
            () = interrupt.interrupted() => Ok(()),
            watched = self.watch(&project, store, settings, out) => watched,
        }
    }

    async fn watch(
        &self,
        project: &Project,
        store: &Store,
        settings: &Settings,
        out: Out,
    ) -> Result<()> {
        let mut last: Option<Inputs> = None;
        loop {
            // Before the files are read, so that no change falls between. It is made anew each
            // time, because directories come and go.
            let mut changes = Changes::of(project)?;
            // A file that cannot be read is an error of the build.
            let inputs = project.inputs().ok();
            if last.is_none() || inputs != last {
                last = inputs;
                if let Err(error) = self.run.once(store, settings, out).await {
                    exit::report(&error, out.json);
                }
                if !out.json {
                    out.note(format_args!("waiting for a change in {}", project.name));
                }
            }
            changes.next().await?;
        }
    }
}

/// Changes in the directories of a project.
struct Changes {
    events: mpsc::UnboundedReceiver<notify::Result<()>>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    fn of(project: &Project) -> Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let heard = move |event: notify::Result<notify::Event>| {
            // Reading a file, as a build does, is no change.
            let changed = event.map(|event| !event.kind.is_access());
            if let Some(changed) = changed.map(|is| is.then_some(())).transpose() {
                // The command is ending if it does not listen.
                let _ = sender.send(changed);
            }
        };
        let mut watcher = notify::recommended_watcher(heard).context("cannot watch files")?;
        for directory in project.directories()? {
            let watched = watcher.watch(&directory, RecursiveMode::NonRecursive);
            match watched {
                // Removed meanwhile.
                Err(error) if !directory.exists() => drop(error),
                watched => {
                    watched.with_context(|| format!("cannot watch {}", directory.display()))?
                }
            }
        }
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits for a change, and until there are no more.
    async fn next(&mut self) -> Result<()> {
        let event = self.events.recv().await;
        event
            .context("files are no longer watched")?
            .context("cannot watch files")?;
        while let Ok(Some(event)) = tokio::time::timeout(QUIET, self.events.recv()).await {
            event.context("cannot watch files")?;
        }
        Ok(())
    }
}
