//! From bytes that may be anyone's to an agent that is ready to run.

use wasi_preview1_component_adapter_provider as preview1;
use wasmtime::component::Component;
#[cfg(feature = "keyvalue")]
use wasmtime::component::Linker;
use wasmtime::{Engine, Module};

use super::bindings::AgentPre;
use super::engine::Engines;
#[cfg(feature = "keyvalue")]
use super::keyvalue;
use super::precheck::{CodeLimits, measure, precheck};
use super::run_error::RunError;
use super::state::AgentState;
use crate::guest::Limits;

/// Compiles and links an agent.
pub(super) fn compile(
    engines: &Engines,
    limits: &Limits,
    bytes: Vec<u8>,
) -> Result<AgentPre<AgentState>, RunError> {
    let bytes = componentize(engines.validator(), bytes)?;
    check_cost(&bytes, limits)?;
    #[cfg(feature = "keyvalue")]
    keyvalue::check_async(&bytes).map_err(|error| not_linked(&error))?;
    let (linked, component) = engines.compile(&bytes).map_err(|error| unsound(&error))?;
    check_imports(&linked.engine, &component, &linked.packages)?;
    #[cfg(feature = "keyvalue")]
    let with_buckets = with_key_values(&linked.linker, &component)?;
    #[cfg(feature = "keyvalue")]
    let linker = with_buckets.as_ref().unwrap_or(&linked.linker);
    #[cfg(not(feature = "keyvalue"))]
    let linker = &linked.linker;
    let pre = linker.instantiate_pre(&component);
    let pre = pre.map_err(|error| not_an_agent(&error))?;
    AgentPre::new(pre).map_err(|error| another_world(&error))
}

/// Returns a linker with the key-value interfaces in the dialect that the component imports; none
/// if it imports none.
#[cfg(feature = "keyvalue")]
fn with_key_values(
    linker: &Linker<AgentState>,
    component: &Component,
) -> Result<Option<Linker<AgentState>>, RunError> {
    let kind = component.component_type();
    if !kind
        .imports(linker.engine())
        .any(|(name, _)| keyvalue::is_key_value(name))
    {
        return Ok(None);
    }
    let mut linker = linker.clone();
    keyvalue::add_to_linker(&mut linker, component, AgentState::key_values)
        .map_err(|error| not_linked(&error))?;
    Ok(Some(linker))
}

#[cfg(feature = "keyvalue")]
fn not_linked(error: &keyvalue::KeyValueError) -> RunError {
    RunError::NotAnAgent(error.to_string())
}

/// Refuses what would take the compiler or the host more than its bytes say.
fn check_cost(component: &[u8], limits: &Limits) -> Result<(), RunError> {
    let cost = precheck(component).map_err(|why| RunError::NotAnAgent(why.to_string()))?;
    for (what, limit, found, max) in [
        (
            "definitions",
            "definitions",
            cost.definitions,
            limits.definitions,
        ),
        (
            "bytes of instance storage",
            "instance-storage",
            cost.storage,
            limits.instance_storage,
        ),
    ] {
        if found > max {
            let what = format!("it has {found} {what}, and the limit `{limit}` is {max}");
            return Err(RunError::NotAnAgent(what));
        }
    }
    let limits = CodeLimits {
        functions: limits.functions,
        nested_blocks: limits.nested_blocks,
    };
    measure(component, &limits).map_err(|why| RunError::NotAnAgent(why.to_string()))
}

/// Packages of interfaces that this host provides.
const PACKAGES: &[&str] = &[
    "persist:snapshot",
    #[cfg(feature = "blobstore")]
    "wasi:blobstore",
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    #[cfg(feature = "http")]
    "wasi:http",
    "wasi:io",
    #[cfg(feature = "keyvalue")]
    "wasi:keyvalue",
    #[cfg(feature = "keyvalue")]
    "fermyon:spin/key-value",
    "wasi:random",
    "wasi:sockets",
];

/// Names the imports of packages that the host does not provide: the linker's error would be about
/// a type inside the first of them.
fn check_imports(
    engine: &Engine,
    component: &Component,
    of_embedder: &[String],
) -> Result<(), RunError> {
    const MAX_NAMED: usize = 5;
    let kind = component.component_type();
    #[cfg(feature = "blobstore")]
    if let Some(why) = kind
        .imports(engine)
        .find_map(|(name, _)| super::blobstore::unsupported(name))
    {
        return Err(RunError::NotAnAgent(why));
    }
    let is_provided = |name: &str| {
        let package = name.split_once('/').map_or(name, |(package, _)| package);
        #[cfg(feature = "keyvalue")]
        if keyvalue::is_key_value(name) {
            return true;
        }
        PACKAGES.contains(&package) || of_embedder.iter().any(|own| own == package)
    };
    let missing = kind.imports(engine).map(|(name, _)| name);
    let missing: Vec<_> = missing
        .filter(|name| !is_provided(name))
        .take(MAX_NAMED)
        .map(|name| name.escape_debug().take(200).collect::<String>())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let of_embedder = of_embedder.iter().map(String::as_str);
    let provided: Vec<_> = PACKAGES.iter().copied().chain(of_embedder).collect();
    Err(RunError::NotAnAgent(format!(
        "it imports {}, which this host does not provide (it provides {})",
        missing.join(", "),
        provided.join(", ")
    )))
}

fn not_an_agent(error: &wasmtime::Error) -> RunError {
    RunError::NotAnAgent(short(error))
}

fn unsound(error: &wasmtime::Error) -> RunError {
    RunError::NotAnAgent(format!(
        "it is damaged, or uses a WebAssembly feature that this host does not allow: {}; copy it \
         again, or build it without that feature (allowed: WebAssembly 2.0, tail calls, multiple \
         memories)",
        short(error)
    ))
}

/// An error of the compiler, which may hold names that an agent made as long as it liked.
fn short(error: &wasmtime::Error) -> String {
    const LONG: usize = 1000;
    let text = format!("{error:#}");
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn another_world(error: &wasmtime::Error) -> RunError {
    let error = short(error);
    RunError::NotAnAgent(format!(
        "{error}; an agent must export `run: func(args: list<string>) -> result<string, string>` \
         of the world persist:snapshot/agent"
    ))
}

/// Returns the component that `bytes` are, or makes one from a core module that carries its world,
/// as the toolchains of most languages write it. An import of WASI 0.1 becomes one of WASI 0.2.
///
/// For programs with an engine of their own, so that they take what their plugins' toolchains
/// made. [`AgentHost`](super::AgentHost) does this for each agent.
///
/// # Errors
/// [`RunError::NotAnAgent`] for bytes that are no WebAssembly, are damaged, or carry no world.
///
/// ```
/// use persist_host::wasm::componentize;
/// use persist_host::wasmtime::{Engine, component::Component};
///
/// # let file = wat::parse_str(include_str!("../../testdata/save.wat"))?;
/// let engine = Engine::default();
/// let plugin = Component::new(&engine, componentize(&engine, file)?)?;
///
/// assert!(componentize(&engine, b"no WebAssembly".to_vec()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn componentize(engine: &Engine, bytes: Vec<u8>) -> Result<Vec<u8>, RunError> {
    if !bytes.starts_with(b"\0asm") {
        let what = "it is not WebAssembly; use the .wasm file from the build";
        return Err(RunError::NotAnAgent(what.into()));
    }
    // A component and a core module differ in the layer, the two bytes after the version.
    if bytes.get(6..8) != Some(&[0, 0]) {
        return Ok(bytes);
    }
    // The encoder takes for granted that the module is whole.
    Module::validate(engine, &bytes).map_err(|error| unsound(&error))?;
    wit_component::ComponentEncoder::default()
        .module(&bytes)
        // Used only where the module imports WASI 0.1, as C and Go do.
        .and_then(|encoder| {
            encoder.adapter(
                preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|encoder| encoder.encode())
        .map_err(|error| {
            RunError::NotAnAgent(format!(
                "cannot make a component from the core module: {error:#}"
            ))
        })
}
