//! A chat-bot whose plugins keep their state in Persist.
//!
//! `plugin-host PLUGINS STORE` reads messages, one a line, `ann: hello`. Each goes to every plugin
//! in the folder PLUGINS, and what a plugin replies is printed. A plugin whose file changes is
//! loaded again before the next message. Its state is in the store, so a new build and a new
//! process go on with it. Any other line prints what each plugin did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use std::{env, fs, io, thread};

use persist_host::snapshot::{Scope, Store as Snapshots};
use persist_host::storage::StorageConfig;
use persist_host::wasm::{Limits, SnapshotCtx, SnapshotView, add_to_linker, componentize};
use wasmtime::component::{Component, InstancePre, Linker, ResourceTable};
use wasmtime::error::{Context as _, format_err};
use wasmtime::{Config, Engine, Result, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Data of one call of a plugin: the `T` of wasmtime's store.
struct Host {
    snapshots: SnapshotCtx,
    table: ResourceTable,
    wasi: WasiCtx,
    memory: StoreLimits,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

struct Plugin {
    component: Option<InstancePre<Host>>,
    /// When the file that was loaded last had changed.
    changed: Option<SystemTime>,
    /// Says which snapshots the plugin sees. Its clones share what the limits count.
    snapshots: SnapshotCtx,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Metrics {
    messages: AtomicU64,
    failures: AtomicU64,
    saves: AtomicU64,
}

struct Bot {
    engine: Engine,
    linker: Linker<Host>,
    store: Snapshots,
    folder: PathBuf,
    plugins: BTreeMap<String, Plugin>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let mut folder = || args.next().context("usage: plugin-host PLUGINS STORE");
    let mut bot = Bot::new(folder()?.into(), folder()?.into())?;
    for line in io::stdin().lines() {
        bot.load_what_changed()?;
        match line?.split_once(": ") {
            Some((sender, message)) => bot.tell(sender, message).await,
            None => {
                for (name, plugin) in &bot.plugins {
                    println!("{name}: {:?}", plugin.metrics);
                }
            }
        }
    }
    Ok(())
}

impl Bot {
    fn new(folder: PathBuf, store: PathBuf) -> Result<Self> {
        let engine = Engine::new(Config::new().epoch_interruption(true))?;
        let mut linker = Linker::new(&engine);
        // Plugins in most languages import WASI. It grants them nothing here.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        add_to_linker(&mut linker, |host: &mut Host| {
            SnapshotView::new(&host.snapshots, &mut host.table)
        })?;
        let clock = engine.weak();
        thread::spawn(move || {
            while let Some(engine) = clock.upgrade() {
                engine.increment_epoch();
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self {
            engine,
            linker,
            store: Snapshots::new(StorageConfig::local(store).build()?),
            folder,
            plugins: BTreeMap::new(),
        })
    }

    /// Loads each plugin that is new or was built again. If that fails, the earlier build goes on.
    fn load_what_changed(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = name.strip_suffix(".wasm") else {
                continue;
            };
            // The plugin sees the snapshots of this scope. It can name no other.
            let scope = self.store.scope(name, None)?;
            let plugin = self.plugins.entry(name.to_owned());
            let plugin = plugin.or_insert_with(|| Plugin::new(scope));
            let changed = Some(fs::metadata(&path)?.modified()?);
            if plugin.changed == changed {
                continue;
            }
            plugin.changed = changed;
            match load(&self.engine, &self.linker, &path) {
                Ok(component) => plugin.component = Some(component),
                Err(error) => eprintln!("{name} cannot be loaded: {error:#}"),
            }
        }
        Ok(())
    }

    async fn tell(&self, sender: &str, message: &str) {
        for (name, plugin) in &self.plugins {
            let reply = plugin.ask(&self.engine, sender, message).await;
            let metrics = &plugin.metrics;
            metrics.messages.fetch_add(1, Relaxed);
            metrics.failures.fetch_add(reply.is_err().into(), Relaxed);
            match reply {
                Ok(Some(reply)) => println!("{name}: {reply}"),
                Ok(None) => {}
                Err(error) => eprintln!("{name} failed: {error:#}"),
            }
        }
    }
}

fn load(engine: &Engine, linker: &Linker<Host>, path: &Path) -> Result<InstancePre<Host>> {
    let component = Component::new(engine, componentize(engine, fs::read(path)?)?)?;
    linker.instantiate_pre(&component)
}

impl Plugin {
    fn new(scope: Scope) -> Self {
        let metrics = Arc::<Metrics>::default();
        let counted = Arc::clone(&metrics);
        let mut limits = Limits::default();
        limits.bytes_at_rest = 10 << 20;
        limits.saves_per_minute = 600;
        let snapshots = SnapshotCtx::builder(scope)
            .limits(limits)
            .on_change(move |_| {
                counted.saves.fetch_add(1, Relaxed);
            })
            .build();
        Self {
            component: None,
            changed: None,
            snapshots,
            metrics,
        }
    }

    /// Asks a new instance for its reply. To remember something, a plugin saves it.
    async fn ask(&self, engine: &Engine, sender: &str, message: &str) -> Result<Option<String>> {
        let host = Host {
            snapshots: self.snapshots.clone(),
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().build(),
            memory: StoreLimitsBuilder::new().memory_size(64 << 20).build(),
        };
        let mut store = Store::new(engine, host);
        store.limiter(|host| &mut host.memory);
        store.set_hostcall_fuel(self.snapshots.hostcall_fuel());
        store.set_epoch_deadline(100); // A second of CPU time.
        let component = self.component.as_ref();
        let component = component.context("none of its builds could be loaded")?;
        let instance = component.instantiate_async(&mut store).await?;
        type Reply = (Result<Option<String>, String>,);
        let reply = instance.get_typed_func::<(&str, &str), Reply>(&mut store, "reply")?;
        let (reply,) = reply.call_async(&mut store, (sender, message)).await?;
        reply.map_err(|why| format_err!("{why}"))
    }
}
