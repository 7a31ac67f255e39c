//! Code that wasmtime generates from `wit/`.

wasmtime::component::bindgen!({
    path: "wit",
    world: "agent",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "persist:snapshot/store.writer": crate::guest::GuestWriter,
        "persist:snapshot/store.reader": crate::guest::GuestReader,
    },
    trappable_error_type: {
        "persist:snapshot/types.error" => super::error::CallError,
    },
});
