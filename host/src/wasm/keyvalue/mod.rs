//! Key-value interfaces for guests that were written for other hosts.
//!
//! | interfaces | functions |
//! |---|---|
//! | `wasi:keyvalue@0.2.0-draft`: `store`, `atomics`, `batch` | all |
//! | `wasi:keyvalue@0.2.0-draft2`: `store`, `atomics`, `batch` | all, with the `get-many` of the standard or that of Spin |
//! | `fermyon:spin/key-value@2.0.0` | all |
//!
//! [`add_to_linker`] looks at the types of a component's imports, and adds what it needs. The
//! buckets, and how keys become names, are in [`Buckets`].

mod async_imports;
mod bindings;
mod convert;
mod dialect;
mod error;
mod host;
mod signature;

use wasmtime::component::{Component, HasData, Linker, ResourceTable};

pub(super) use async_imports::check_async;
pub(super) use dialect::is_key_value;
pub use error::KeyValueError;

use crate::guest::Buckets;
use dialect::{Dialects, GetMany};

/// View that a call of a guest works on: its buckets and its handles, borrowed from your `T`.
#[derive(Debug)]
pub struct KeyValueView<'a> {
    buckets: &'a mut Buckets,
    table: &'a mut ResourceTable,
}

impl<'a> KeyValueView<'a> {
    /// A view of what your `T` holds.
    pub fn new(buckets: &'a mut Buckets, table: &'a mut ResourceTable) -> Self {
        Self { buckets, table }
    }
}

/// The view as the data of generated bindings.
struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = KeyValueView<'a>;
}

/// Gives a component the key-value interfaces that it imports, in the dialects of its imports.
/// `view` finds its buckets in your `T`. A component without such imports gets nothing.
///
/// Two dialects have the same name and version. So each component gets a linker of its own: a clone
/// of the linker that has your other imports.
///
/// ```
/// # fn example(wasm: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// use persist_host::guest::Buckets;
/// use persist_host::wasm::keyvalue::{self, KeyValueView};
/// use persist_host::wasmtime::Engine;
/// use persist_host::wasmtime::component::{Component, Linker, ResourceTable};
///
/// struct Host {
///     buckets: Buckets,     // what this guest may open
///     table: ResourceTable, // its handles
/// }
///
/// let engine = Engine::default();
/// let component = Component::new(&engine, wasm)?;
/// let mut linker = Linker::new(&engine);
/// keyvalue::add_to_linker(&mut linker, &component, |host: &mut Host| {
///     KeyValueView::new(&mut host.buckets, &mut host.table)
/// })?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`KeyValueError`] if the component imports another dialect or another function.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    component: &Component,
    view: fn(&mut T) -> KeyValueView<'_>,
) -> Result<(), KeyValueError> {
    let dialects = Dialects::of(component, linker.engine())?;
    add_dialects(linker, dialects, view).map_err(KeyValueError::Linker)
}

fn add_dialects<T: Send + 'static>(
    linker: &mut Linker<T>,
    dialects: Dialects,
    view: fn(&mut T) -> KeyValueView<'_>,
) -> wasmtime::Result<()> {
    if dialects.draft {
        use bindings::draft::wasi::keyvalue::{atomics, batch, store};
        store::add_to_linker::<T, HasKeyValue>(linker, view)?;
        atomics::add_to_linker::<T, HasKeyValue>(linker, view)?;
        batch::add_to_linker::<T, HasKeyValue>(linker, view)?;
    }
    if let Some(get_many) = dialects.draft2 {
        use bindings::draft2::wasi::keyvalue::{atomics, batch, store};
        use bindings::draft2_spin::wasi::keyvalue::batch as spin_batch;
        store::add_to_linker::<T, HasKeyValue>(linker, view)?;
        atomics::add_to_linker::<T, HasKeyValue>(linker, view)?;
        match get_many {
            GetMany::Standard => batch::add_to_linker::<T, HasKeyValue>(linker, view)?,
            GetMany::Spin => spin_batch::add_to_linker::<T, HasKeyValue>(linker, view)?,
        }
    }
    if dialects.spin {
        use bindings::spin::fermyon::spin::key_value;
        key_value::add_to_linker::<T, HasKeyValue>(linker, view)?;
    }
    Ok(())
}
