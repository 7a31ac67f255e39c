//! Settings of a host of agents.

use std::fmt;
use std::path::PathBuf;

use wasmtime::component::Linker;

use super::agent::AgentHost;
use super::engine::{Engines, OwnImports};
use super::run_error::RunError;
use super::state::AgentState;
use crate::guest::Limits;
use crate::snapshot::LeaseOptions;

/// Builds an [`AgentHost`].
pub struct AgentHostBuilder {
    limits: Limits,
    lease: Option<LeaseOptions>,
    cache: Option<PathBuf>,
    imports: Vec<OwnImports>,
}

impl AgentHost {
    /// A host with default limits, which keeps compiled code in the user's cache directory.
    ///
    /// # Errors
    /// [`RunError::Engine`] where this machine cannot run compiled WebAssembly.
    pub fn new() -> Result<Self, RunError> {
        Self::builder().build()
    }

    /// A host with default limits, which keeps compiled code in the user's cache directory.
    pub fn builder() -> AgentHostBuilder {
        AgentHostBuilder::default()
    }
}

impl Default for AgentHostBuilder {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lease: None,
            cache: dirs::cache_dir().map(|dir| dir.join("persist")),
            imports: Vec::new(),
        }
    }
}

impl fmt::Debug for AgentHostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages: Vec<_> = self.imports.iter().map(|own| &own.package).collect();
        f.debug_struct("AgentHostBuilder")
            .field("limits", &self.limits)
            .field("lease", &self.lease)
            .field("cache", &self.cache)
            .field("imports", &packages)
            .finish()
    }
}

impl AgentHostBuilder {
    /// Sets what all guests of this host may use together, and what one run may use where its
    /// [`Guest`](crate::guest::Guest) does not say.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how a run holds the lease of its scope while it runs; none, which is the default: runs
    /// take no lease.
    ///
    /// No two runs, on any hosts with leases, then compute the same turn. A run whose scope is
    /// leased waits for at most [`LeaseOptions::wait`], and then ends with [`RunError::Lease`].
    /// Runs of one host are no exception. An agent's changes are made on the versions that
    /// [`Lease::scope`](crate::snapshot::Lease::scope) tells.
    #[must_use]
    pub fn lease(mut self, options: Option<LeaseOptions>) -> Self {
        self.lease = options;
        self
    }

    /// Sets the directory for compiled code; none compiles anew each time.
    ///
    /// Code from there runs as this process, without a sandbox. So the directory is made with mode
    /// 0700, and is not used, with a warning, where it or something in it belongs to another user,
    /// others can write to it, or can replace it or a directory above it.
    #[must_use]
    pub fn cache(mut self, directory: Option<PathBuf>) -> Self {
        self.cache = directory;
        self
    }

    /// Adds imports of the host's own, beside those of Persist and WASI: `add` defines them in the
    /// linker, and `package` is the package of their interfaces (or the name of an import that is
    /// in no interface). An agent whose imports are in no known package is refused by name. Call it
    /// once for each package. A host has two linkers, so it calls `add` twice.
    ///
    /// The functions get the run's [`AgentState`], which has the value of
    /// [`RunOptions::data`](super::RunOptions::data). Persist does not limit what they do.
    ///
    /// ```
    /// # fn example() -> Result<(), persist_host::wasm::RunError> {
    /// use persist_host::wasm::{AgentHost, AgentState};
    /// use persist_host::wasmtime::StoreContextMut;
    ///
    /// struct Player {
    ///     name: String,
    /// }
    ///
    /// let host = AgentHost::builder()
    ///     .imports("game:world", |linker| {
    ///         linker.instance("game:world/players@1.0.0")?.func_wrap(
    ///             "current",
    ///             |store: StoreContextMut<'_, AgentState>, (): ()| {
    ///                 let player = store.data().data::<Player>();
    ///                 Ok((player.map_or(String::new(), |player| player.name.clone()),))
    ///             },
    ///         )
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// # example().unwrap();
    /// ```
    #[must_use]
    pub fn imports(
        mut self,
        package: impl Into<String>,
        add: impl Fn(&mut Linker<AgentState>) -> wasmtime::Result<()> + Send + 'static,
    ) -> Self {
        self.imports.push(OwnImports {
            package: package.into(),
            add: Box::new(add),
        });
        self
    }

    /// Builds the host.
    ///
    /// # Errors
    /// [`RunError::Engine`] where this machine cannot run compiled WebAssembly, or a function of
    /// [`AgentHostBuilder::imports`] fails.
    pub fn build(self) -> Result<AgentHost, RunError> {
        let engines = Engines::new(&self.limits, self.cache.as_deref(), &self.imports)?;
        Ok(AgentHost::with_engines(engines, self.limits, self.lease))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmtime::StoreContextMut;

    use super::super::{Agent, RunOptions};
    use super::*;
    use crate::guest::Guest;
    use crate::snapshot;
    use crate::storage::Memory;

    struct Player(&'static str);

    fn add_players(linker: &mut Linker<AgentState>) -> wasmtime::Result<()> {
        let current = |store: StoreContextMut<'_, AgentState>, (): ()| {
            let player = store.data().data::<Player>().map(|player| player.0);
            Ok((player.unwrap_or("no player").to_owned(),))
        };
        let mut players = linker.instance("game:world/players@1.0.0")?;
        players.func_wrap("current", current)
    }

    fn block_on<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(test)
    }

    async fn load(builder: AgentHostBuilder) -> Result<Agent, RunError> {
        let wasm = wat::parse_str(include_str!("../../testdata/own_import.wat"));
        let host = builder.cache(None).build().expect("a host");
        host.load(&wasm.expect("a component")).await
    }

    #[test]
    fn imports_of_the_host_are_linked_and_get_the_data_of_the_run() {
        block_on(async {
            let builder = AgentHost::builder().imports("game:world", add_players);
            let agent = load(builder).await.expect("an agent");
            let scope = snapshot::Store::new(Arc::new(Memory::new())).scope("bot", None);
            let guest = Guest::new(scope.expect("a name"));
            let options = RunOptions::default().data(Player("Ada"));
            let answer = agent.run_with(guest.clone(), &options).await.answer;
            assert_eq!(answer.expect("an answer"), "Ada");
            let answer = agent.run(guest, &[]).await.answer;
            assert_eq!(answer.expect("an answer"), "no player");
        });
    }

    #[test]
    fn an_import_that_no_host_function_provides_is_refused_by_name() {
        block_on(async {
            let other = |_: &mut Linker<AgentState>| Ok(());
            let builder = AgentHost::builder().imports("game:sound", other);
            let error = load(builder).await.expect_err("refused").to_string();
            let named = "it imports game:world/players@1.0.0, which this host does not provide";
            assert!(error.contains(named), "{error}");
            assert!(error.contains("game:sound"), "{error}");
        });
    }

    #[test]
    fn a_host_whose_imports_cannot_be_added_is_not_built() {
        let twice = |linker: &mut Linker<AgentState>| {
            add_players(linker)?;
            add_players(linker)
        };
        let built = AgentHost::builder().imports("game:world", twice).build();
        let error = built.expect_err("refused").to_string();
        assert!(
            error.contains("cannot add the imports of game:world"),
            "{error}"
        );
    }
}
