//! A host of ZeroClaw's tool plugins, whose durable state is in a store of Persist.
//!
//! `zeroclaw-backend PLUGINS STORE [LIMIT=VALUE...]` admits the plugins in the folder PLUGINS with
//! all permissions that they request. Each line of its input is a JSON object with the arguments
//! of a call, which every tool gets; each line of the output is a tool's answer.

mod backend;

use std::time::Duration;
use std::{env, io};

use anyhow::{Context as _, Result};
use backend::PersistState;
use persist_host::guest::Limits;
use persist_host::snapshot::Store;
use persist_host::storage::StorageConfig;
use zeroclaw_plugins::component::PluginLimits;
use zeroclaw_plugins::config::{PluginConfigResolver, resolve_plugin_config};
use zeroclaw_plugins::host::{AdmittedComponent, PluginHost};
use zeroclaw_plugins::instance::PluginInstanceScope;
use zeroclaw_plugins::runtime::{call_execute, create_plugin};
use zeroclaw_plugins::services::{PluginHostServices, PluginStateService};
use zeroclaw_plugins::{PluginCapability, PluginManifest};

/// Use of the machine by one call of a plugin.
const LIMITS: PluginLimits = PluginLimits {
    call_fuel: 1_000_000_000,
    max_memory_bytes: 64 << 20,
    max_table_elements: 10_000,
    max_instances: 32,
    call_timeout: Duration::from_secs(30),
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let usage = "usage: zeroclaw-backend PLUGINS STORE [LIMIT=VALUE...]";
    let plugins = args.next().context(usage)?;
    let store = Store::new(StorageConfig::local(args.next().context(usage)?).build()?);
    let mut limits = Limits::default();
    for limit in args {
        let limit = limit.to_string_lossy();
        let (name, value) = limit.split_once('=').context(usage)?;
        limits.set(name, value)?;
    }
    let state = PluginStateService::new(PersistState::new(store, limits));

    let host = PluginHost::from_plugins_dir(plugins.as_ref())?;
    let tools = host.tool_plugin_details();
    for line in io::stdin().lines() {
        let args = line?;
        for (manifest, component) in &tools {
            let name = &manifest.name;
            match call(manifest, component, &state, &args).await {
                Ok(answer) => println!("{name}: {answer}"),
                Err(error) => println!("{name}: failed: {error:#}"),
            }
        }
    }
    Ok(())
}

/// Calls a tool in a new instance, as ZeroClaw does.
async fn call(
    manifest: &PluginManifest,
    component: &AdmittedComponent,
    state: &PluginStateService,
    args: &str,
) -> Result<String> {
    let permissions = manifest.permissions.iter().copied();
    let tool = PluginCapability::Tool;
    let instance = PluginInstanceScope::for_package_binding(manifest, tool, permissions)?;
    let manifest = manifest.clone();
    let config =
        PluginConfigResolver::new(move |instance| resolve_plugin_config(&manifest, instance, None));
    let services = PluginHostServices::new(config, state.clone());
    let mut plugin = create_plugin(component, &instance, &services, LIMITS).await?;
    let result = call_execute(&mut plugin, args.as_bytes()).await?;
    match result.error {
        Some(error) => Ok(format!("error: {error}")),
        None => Ok(result.output.to_string()),
    }
}
