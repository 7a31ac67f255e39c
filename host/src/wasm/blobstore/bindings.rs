//! Code that wasmtime generates from `wit-blobstore/`.

wasmtime::component::bindgen!({
    path: "wit-blobstore",
    imports: { default: async | trappable },
    with: {
        "wasi:io/streams": wasmtime_wasi::p2::bindings::io::streams,
        "wasi:blobstore/types.incoming-value": crate::wasm::blobstore::incoming::IncomingValue,
        "wasi:blobstore/types.outgoing-value": crate::wasm::blobstore::outgoing::OutgoingValue,
        "wasi:blobstore/container.container": crate::guest::Bucket,
        "wasi:blobstore/container.stream-object-names": crate::guest::ObjectNames,
    },
});
