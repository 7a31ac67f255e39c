//! WebAssembly features that agents may use, independent of the Cargo features of wasmtime.
//!
//! Cargo unifies features: a program that embeds this crate and depends on wasmtime with its
//! defaults turns on garbage collection, threads and component-model async for everybody. No limit
//! of [`Limits`](super::Limits) measures those. So the engine gets a complete list, and everything
//! else is off, new features of a later wasmtime included.

use wasmtime::{Config, WasmFeatures};

/// WebAssembly 2.0, and of 3.0 what toolchains emit and what gives the same result on every
/// processor.
const ALLOWED: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Allows the features of the list, and nothing else.
pub(super) fn pin(config: &mut Config) {
    config
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(ALLOWED, true)
        // An agent's export and all imports are synchronous. The support costs time in every call.
        .concurrency_support(false);
}

#[cfg(test)]
mod tests {
    use wasmtime::{Engine, Module, component::Component};

    use super::*;

    fn engine(config: &mut Config) -> Engine {
        Engine::new(config).expect("an engine")
    }

    fn pinned() -> Engine {
        let mut config = Config::new();
        pin(&mut config);
        engine(&mut config)
    }

    /// Returns the engine's error for a module or a component; none if the engine accepts it.
    fn refusal(engine: &Engine, text: &str) -> Option<String> {
        let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let result = if text.starts_with("(component") {
            Component::new(engine, bytes).map(drop)
        } else {
            Module::validate(engine, &bytes)
        };
        result.err().map(|error| format!("{error:#}"))
    }

    /// A use of each feature that is refused, and words of the refusal.
    const REFUSED: [(&str, &str); 24] = [
        ("(module (type (struct (field i32))))", "gc"),
        ("(module (type (array i32)))", "gc"),
        ("(module (func (param (ref null i31))))", "gc"),
        (
            "(module (type $f (func)) (func (param (ref null $f))))",
            "function references",
        ),
        (
            "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))",
            "function references",
        ),
        ("(module (tag))", "exceptions"),
        ("(module (func (try_table)))", "exceptions"),
        ("(module (func try catch_all end))", "legacy exceptions"),
        ("(module (memory 1 1 shared))", "threads"),
        (
            "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
            "threads",
        ),
        ("(module (type (shared (func))))", "shared"),
        (
            "(module (func (param v128)
                (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
            "relaxed SIMD",
        ),
        ("(module (memory i64 1))", "memory64"),
        ("(module (table i64 1 funcref))", "memory64"),
        (
            "(module (type $f (func)) (type (cont $f)))",
            "stack switching",
        ),
        ("(module (memory 1 (pagesize 1)))", "custom page sizes"),
        (
            "(module (func (param i64) (result i64 i64)
                (i64.mul_wide_s (local.get 0) (local.get 0))))",
            "wide arithmetic",
        ),
        ("(component (type (func async)))", "async"),
        ("(component (type (stream u8)))", "async"),
        ("(component (type (future u8)))", "async"),
        ("(component (core func (canon waitable-set.new)))", "async"),
        ("(component (type (list u8 4)))", "fixed"),
        ("(component (type (map string u8)))", "map"),
        (
            "(component (core func (canon error-context.drop)))",
            "error context",
        ),
    ];

    #[test]
    fn features_that_are_not_allowed_are_refused_by_name() {
        let engine = pinned();
        let mut unnamed = Vec::new();
        for (text, words) in REFUSED {
            let refusal = refusal(&engine, text).unwrap_or_else(|| panic!("allowed: {text}"));
            let plain = refusal.to_lowercase().replace(['_', '-'], " ");
            if !plain.contains(&words.to_lowercase()) {
                unnamed.push((text, refusal));
            }
        }
        assert_eq!(unnamed, []);
    }

    #[test]
    fn features_that_toolchains_use_are_allowed() {
        let engine = pinned();
        for text in [
            "(module (func (param v128) (drop (i8x16.add (local.get 0) (local.get 0)))))",
            "(module (func (return_call 0)))",
            "(module (memory 1) (memory 1) (func (memory.copy 0 1
                (i32.const 0) (i32.const 0) (i32.const 0))))",
            "(module (table 1 funcref) (func (drop (table.get 0 (i32.const 0)))))",
            "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))",
            "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
            "(module (global (export \"g\") (mut f64) (f64.const 1)))",
            "(component (core module (func)))",
        ] {
            assert_eq!(refusal(&engine, text), None, "{text}");
        }
    }

    #[test]
    fn nothing_that_is_on_by_default_slips_through() {
        let mut config = Config::new();
        // As in a program that depends on wasmtime with its default features.
        config.wasm_features(WasmFeatures::RELAXED_SIMD, true);
        pin(&mut config);
        let engine = engine(&mut config);
        let text = "(module (func (param v128)
            (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))";
        assert!(refusal(&engine, text).is_some());
    }
}
