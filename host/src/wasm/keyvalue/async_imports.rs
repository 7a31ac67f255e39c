//! Key-value imports whose functions are async, found before compilation: the engine refuses them
//! without a name.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType,
    ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload,
};

use super::dialect::is_key_value;
use super::error::KeyValueError;

/// Refuses a component with a key-value import whose functions are async. A component that cannot
/// be read passes: the compiler says why.
pub(in crate::wasm) fn check_async(component: &[u8]) -> Result<(), KeyValueError> {
    let Some((import, function)) = find(component).ok().flatten() else {
        return Ok(());
    };
    Err(KeyValueError::Unsupported {
        import,
        function: Some(function),
        why: "the function is async, and this host only has synchronous ones; use \
              wasi:keyvalue@0.2.0-draft or @0.2.0-draft2, or spin-sdk 3 to 5"
            .into(),
    })
}

/// Returns the first such import, and its first async function.
fn find(component: &[u8]) -> wasmparser::Result<Option<(String, String)>> {
    // For each type of the component itself, the first async function that it has.
    let mut types: Vec<Option<String>> = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    types.push(async_function(&ty?));
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    if is_type(&alias?) {
                        types.push(None);
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    if export?.kind == ComponentExternalKind::Type {
                        types.push(None);
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    match import.ty {
                        ComponentTypeRef::Type(_) => types.push(None),
                        ComponentTypeRef::Instance(ty) if is_key_value(import.name.name) => {
                            let function = types.get(ty as usize).cloned().flatten();
                            if let Some(function) = function {
                                return Ok(Some((import.name.name.into(), function)));
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

fn is_type(alias: &ComponentAlias<'_>) -> bool {
    matches!(
        alias,
        ComponentAlias::InstanceExport {
            kind: ComponentExternalKind::Type,
            ..
        } | ComponentAlias::Outer {
            kind: ComponentOuterAliasKind::Type,
            ..
        }
    )
}

/// Returns the name of the first async function of an interface.
fn async_function(ty: &ComponentType<'_>) -> Option<String> {
    let ComponentType::Instance(declarations) = ty else {
        return None;
    };
    // For each type of the interface, true if it is an async function.
    let mut types = Vec::new();
    for declaration in declarations {
        match declaration {
            InstanceTypeDeclaration::Type(ty) => {
                types.push(matches!(ty, ComponentType::Func(function) if function.async_));
            }
            InstanceTypeDeclaration::Alias(alias) if is_type(alias) => types.push(false),
            InstanceTypeDeclaration::Export { name, ty } => match ty {
                ComponentTypeRef::Type(_) => types.push(false),
                ComponentTypeRef::Func(function)
                    if types.get(*function as usize) == Some(&true) =>
                {
                    return Some(name.name.into());
                }
                _ => {}
            },
            _ => {}
        }
    }
    None
}
