//! A version as clients get it.

use persist_host::snapshot::{Info, Name, Scope};
use serde_json::Value;

use crate::address::address;
use crate::print;

/// Returns the information about a version.
pub(super) fn value(scope: &Scope, info: &Info) -> Value {
    let Ok(name) = Name::new(info.name.clone()) else {
        return Value::Null;
    };
    let place = address(scope.agent(), scope.session(), &name);
    print::info(&format!("{place}@{}", info.version), info)
}
