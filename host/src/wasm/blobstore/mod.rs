//! `wasi:blobstore@0.2.0-draft` for guests that were written for other hosts.
//!
//! A container is a bucket of [`Buckets`], and an object is a value in it. An object is made when
//! its `outgoing-value` is finished, and not before.

mod bindings;
mod host;
mod incoming;
mod outgoing;

use wasmtime::component::{HasData, Linker, ResourceTable};

use crate::guest::Buckets;

/// Interfaces that are supported.
const INTERFACES: [&str; 3] = [
    "wasi:blobstore/blobstore@0.2.0-draft",
    "wasi:blobstore/container@0.2.0-draft",
    "wasi:blobstore/types@0.2.0-draft",
];

/// View that a call of a guest works on: its buckets and its handles, borrowed from your `T`.
#[derive(Debug)]
pub struct BlobStoreView<'a> {
    buckets: &'a mut Buckets,
    table: &'a mut ResourceTable,
}

impl<'a> BlobStoreView<'a> {
    /// A view of what your `T` holds. The table is that of WASI: it holds the streams.
    pub fn new(buckets: &'a mut Buckets, table: &'a mut ResourceTable) -> Self {
        Self { buckets, table }
    }
}

/// The view as the data of generated bindings.
struct HasBlobStore;

impl HasData for HasBlobStore {
    type Data<'a> = BlobStoreView<'a>;
}

/// Gives every guest of `linker` the imports of `wasi:blobstore`. `view` finds its buckets in your
/// `T`. The guests need `wasi:io` too, which `wasmtime_wasi::p2::add_to_linker_async` adds.
///
/// ```
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use persist_host::guest::Buckets;
/// use persist_host::wasm::blobstore::{self, BlobStoreView};
/// use persist_host::wasmtime::Engine;
/// use persist_host::wasmtime::component::{Linker, ResourceTable};
///
/// struct Host {
///     buckets: Buckets,     // the containers that this guest may open
///     table: ResourceTable, // its handles
/// }
///
/// let mut linker = Linker::new(&Engine::default());
/// blobstore::add_to_linker(&mut linker, |host: &mut Host| {
///     BlobStoreView::new(&mut host.buckets, &mut host.table)
/// })?;
/// # Ok(()) }
/// # example().unwrap();
/// ```
///
/// # Errors
/// If the linker has these imports already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> BlobStoreView<'_>,
) -> wasmtime::Result<()> {
    use bindings::wasi::blobstore::{blobstore, container, types};

    types::add_to_linker::<T, HasBlobStore>(linker, view)?;
    container::add_to_linker::<T, HasBlobStore>(linker, view)?;
    blobstore::add_to_linker::<T, HasBlobStore>(linker, view)
}

/// Returns the reason why an import of `wasi:blobstore` is not supported; none if it is.
pub(super) fn unsupported(import: &str) -> Option<String> {
    const PACKAGE: &str = "wasi:blobstore/";
    if !import.starts_with(PACKAGE) || INTERFACES.contains(&import) {
        return None;
    }
    let name: String = import.escape_debug().take(200).collect();
    Some(format!(
        "it imports {name}: this host supports the interfaces blobstore, container and types of \
         wasi:blobstore@0.2.0-draft"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_refused_by_name() {
        for import in INTERFACES {
            assert_eq!(unsupported(import), None);
        }
        assert_eq!(unsupported("wasi:keyvalue/store@0.2.0-draft"), None);
        let import = "wasi:blobstore/container@0.3.0";
        let why = unsupported(import).expect("not supported");
        assert!(why.contains(import) && why.contains("0.2.0-draft"), "{why}");
    }
}
