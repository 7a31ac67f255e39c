//! Dialects of key-value interfaces, told apart by the types of a component's imports.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::error::KeyValueError;
use super::signature::signature;

/// Dialects that a component imports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialects {
    /// `wasi:keyvalue@0.2.0-draft`.
    pub(super) draft: bool,
    /// `wasi:keyvalue@0.2.0-draft2`.
    pub(super) draft2: Option<GetMany>,
    /// `fermyon:spin/key-value@2.0.0`.
    pub(super) spin: bool,
}

/// Shape of `get-many` in `wasi:keyvalue@0.2.0-draft2`: the standard and Spin differ, and have the
/// same name and version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum GetMany {
    /// A list of `option<tuple<string, list<u8>>>`.
    #[default]
    Standard,
    /// A list of `tuple<string, option<list<u8>>>`.
    Spin,
}

/// Interfaces that are supported, for errors.
const SUPPORTED: &str = "this host supports the interfaces store, atomics and batch of \
     wasi:keyvalue@0.2.0-draft and wasi:keyvalue@0.2.0-draft2, and fermyon:spin/key-value@2.0.0";

/// Functions of an interface, and their types. `E` stands for the interface's error.
type Functions = &'static [(&'static str, &'static str)];

const ERROR: &str = "variant{no-such-store,access-denied,other(string)}";
const SPIN_ERROR: &str = "variant{store-table-full,no-such-store,access-denied,other(string)}";

const STORE: Functions = &[
    ("open", "(string)->result<own,E>"),
    (
        "[method]bucket.get",
        "(borrow,string)->result<option<list<u8>>,E>",
    ),
    (
        "[method]bucket.set",
        "(borrow,string,list<u8>)->result<_,E>",
    ),
    ("[method]bucket.delete", "(borrow,string)->result<_,E>"),
    ("[method]bucket.exists", "(borrow,string)->result<bool,E>"),
];
const LIST_KEYS: &str = "[method]bucket.list-keys";
const DRAFT_LIST_KEYS: &str =
    "(borrow,option<u64>)->result<record{keys:list<string>,cursor:option<u64>},E>";
const DRAFT2_LIST_KEYS: &str =
    "(borrow,option<string>)->result<record{keys:list<string>,cursor:option<string>},E>";
const DRAFT_ATOMICS: Functions = &[("increment", "(borrow,string,u64)->result<u64,E>")];
const DRAFT2_ATOMICS: Functions = &[
    ("increment", "(borrow,string,s64)->result<s64,E>"),
    ("[static]cas.new", "(borrow,string)->result<own,E>"),
    (
        "[method]cas.current",
        "(borrow)->result<option<list<u8>>,E>",
    ),
    (
        "swap",
        "(own,list<u8>)->result<_,variant{store-error(E),cas-failed(own)}>",
    ),
];
const GET_MANY: &str = "get-many";
const STANDARD_GET_MANY: &str =
    "(borrow,list<string>)->result<list<option<tuple<string,list<u8>>>>,E>";
const SPIN_GET_MANY: &str = "(borrow,list<string>)->result<list<tuple<string,option<list<u8>>>>,E>";
const BATCH: Functions = &[
    (
        "set-many",
        "(borrow,list<tuple<string,list<u8>>>)->result<_,E>",
    ),
    ("delete-many", "(borrow,list<string>)->result<_,E>"),
];
const SPIN: Functions = &[
    ("[static]store.open", "(string)->result<own,E>"),
    (
        "[method]store.get",
        "(borrow,string)->result<option<list<u8>>,E>",
    ),
    ("[method]store.set", "(borrow,string,list<u8>)->result<_,E>"),
    ("[method]store.delete", "(borrow,string)->result<_,E>"),
    ("[method]store.exists", "(borrow,string)->result<bool,E>"),
    ("[method]store.get-keys", "(borrow)->result<list<string>,E>"),
];

/// Returns true if an import is of a key-value interface, in a dialect that is supported or not.
pub(in crate::wasm) fn is_key_value(import: &str) -> bool {
    [
        "wasi:keyvalue/",
        "spin:key-value/",
        "fermyon:spin/key-value",
    ]
    .iter()
    .any(|package| import.starts_with(package))
}

impl Dialects {
    /// Returns the dialects that a component imports.
    pub(super) fn of(component: &Component, engine: &Engine) -> Result<Self, KeyValueError> {
        let mut dialects = Self::default();
        for (import, item) in component.component_type().imports(engine) {
            if !is_key_value(import) {
                continue;
            }
            let ComponentItem::ComponentInstance(interface) = item.ty else {
                return Err(unsupported(import, None, SUPPORTED));
            };
            let is_supported = dialects.add(import);
            if !is_supported {
                return Err(unsupported(import, None, SUPPORTED));
            }
            for (name, item) in interface.exports(engine) {
                if let ComponentItem::ComponentFunc(function) = item.ty {
                    dialects.check(import, name, &signature(&function))?;
                }
            }
        }
        Ok(dialects)
    }

    /// Adds the dialect of an interface. Returns false if it is not supported.
    fn add(&mut self, import: &str) -> bool {
        let Some((interface, version)) = import.split_once('@') else {
            return false;
        };
        match (interface, version) {
            ("wasi:keyvalue/store" | "wasi:keyvalue/atomics" | "wasi:keyvalue/batch", version) => {
                match version {
                    "0.2.0-draft" => self.draft = true,
                    "0.2.0-draft2" => {
                        self.draft2.get_or_insert_default();
                    }
                    _ => return false,
                }
            }
            ("fermyon:spin/key-value", "2.0.0") => self.spin = true,
            _ => return false,
        }
        true
    }

    /// Checks the type of one function of a supported interface, and takes the dialect from it.
    fn check(&mut self, import: &str, name: &str, found: &str) -> Result<(), KeyValueError> {
        let is_draft2 = import.ends_with("@0.2.0-draft2");
        let (functions, error) = match import.split_once('@').map_or(import, |(name, _)| name) {
            "wasi:keyvalue/store" => (STORE, ERROR),
            "wasi:keyvalue/atomics" if is_draft2 => (DRAFT2_ATOMICS, ERROR),
            "wasi:keyvalue/atomics" => (DRAFT_ATOMICS, ERROR),
            "wasi:keyvalue/batch" => (BATCH, ERROR),
            _ => (SPIN, SPIN_ERROR),
        };
        let is_batch = import.starts_with("wasi:keyvalue/batch");
        if is_batch && is_draft2 && name == GET_MANY && found == expand(SPIN_GET_MANY, error) {
            self.draft2 = Some(GetMany::Spin);
            return Ok(());
        }
        let listed = functions.iter().find(|(function, _)| *function == name);
        let expected = match (listed, name) {
            (Some((_, expected)), _) => *expected,
            (None, LIST_KEYS) if is_draft2 => DRAFT2_LIST_KEYS,
            (None, LIST_KEYS) if functions == STORE => DRAFT_LIST_KEYS,
            (None, GET_MANY) if is_batch => STANDARD_GET_MANY,
            _ => {
                let why = "the interface has no such function in the dialect of this version";
                return Err(unsupported(import, Some(name), why));
            }
        };
        let expected = expand(expected, error);
        if found == expected {
            return Ok(());
        }
        let why = format!("its type is {found}, and this host supports {expected}");
        Err(unsupported(import, Some(name), &why))
    }
}

fn expand(signature: &str, error: &str) -> String {
    signature.replace('E', error)
}

/// Longest name of an import or a function in an error: it is the component's.
const MAX_NAME: usize = 200;

fn unsupported(import: &str, function: Option<&str>, why: &str) -> KeyValueError {
    let short = |name: &str| name.escape_debug().take(MAX_NAME).collect::<String>();
    KeyValueError::Unsupported {
        import: short(import),
        function: function.map(short),
        why: why.into(),
    }
}
