//! Code that wasmtime generates from `wit-keyvalue/`, one module for each dialect.

pub(super) mod draft {
    wasmtime::component::bindgen!({
        path: "wit-keyvalue/draft",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::guest::Bucket },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => crate::wasm::keyvalue::error::CallError,
        },
    });
}

pub(super) mod draft2 {
    wasmtime::component::bindgen!({
        path: "wit-keyvalue/draft2",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::guest::Bucket,
            "wasi:keyvalue/atomics.cas": crate::guest::CompareAndSwap,
        },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => crate::wasm::keyvalue::error::CallError,
        },
    });
}

/// Spin's shape of `batch`, over the `store` of the standard.
pub(super) mod draft2_spin {
    wasmtime::component::bindgen!({
        path: "wit-keyvalue/draft2-spin",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store": crate::wasm::keyvalue::bindings::draft2::wasi::keyvalue::store,
        },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => crate::wasm::keyvalue::error::CallError,
        },
    });
}

pub(super) mod spin {
    wasmtime::component::bindgen!({
        path: "wit-keyvalue/spin",
        imports: { default: async | trappable },
        with: { "fermyon:spin/key-value.store": crate::guest::Bucket },
        trappable_error_type: {
            "fermyon:spin/key-value.error" => crate::wasm::keyvalue::error::CallError,
        },
    });
}
