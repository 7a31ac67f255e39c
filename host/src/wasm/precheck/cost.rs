//! Counts what a component defines, and the host memory of its instances.
//!
//! Two costs are in no limit of the engine. A component may instantiate a component that
//! instantiates others, a thousand each: a few KB then stand for billions of definitions, all of
//! which a compiler writes down. And an instance holds memory of the host for each global, function
//! and segment of its module, which no linear memory counts.
//!
//! Both follow from which module and which component is instantiated where, and the binary says
//! that in order: a definition can only name what stands before it. What could only be told from
//! types (a module or component that is passed as an argument) no toolchain makes, and is refused.
//! The engine validates the rest. This check only has to end, and must not count too little for a
//! valid component.

use wasmparser::{
    ComponentAlias, ComponentExport, ComponentExternalKind, ComponentImport, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Instance, Parser, Payload,
};

use super::refused::{MAX_DEPTH, Refused, Result};
use super::types;

/// Number of bytes that an instance holds for each import, function, global, table and segment of
/// its module: the largest, a reference to a function with its context.
const ITEM: u64 = 32;

/// Number of bytes that an instance holds for each byte of its element segments, which name at
/// least one function or value in it.
const ELEMENT_BYTE: u64 = 16;

/// Minimum number of bytes that an instance holds.
const INSTANCE: u64 = 512;

/// Cost of a component, once everything in it is instantiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::wasm) struct Cost {
    /// Definitions.
    pub(in crate::wasm) definitions: u64,
    /// Bytes of the host for all instances of modules.
    pub(in crate::wasm) storage: u64,
}

/// Costs of the modules and components that one nesting level defines, and of what is instantiated
/// there.
#[derive(Debug, Default)]
struct Level {
    /// Bytes of the host for an instance of each module.
    modules: Vec<u64>,
    components: Vec<Cost>,
    cost: Cost,
}

/// Estimates the cost of a whole component.
pub(in crate::wasm) fn precheck(component: &[u8]) -> Result<Cost> {
    let mut enclosing: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // Bytes of the host for an instance of the module that is being read.
    let mut module: Option<u64> = None;
    // The parser keeps its own stack, and does not recurse.
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match &payload {
            Payload::ModuleSection { .. } => module = Some(INSTANCE),
            Payload::ComponentSection { .. } => {
                enclosing.push(std::mem::take(&mut level));
                if enclosing.len() >= MAX_DEPTH {
                    return Err(Refused::Nested);
                }
            }
            Payload::End(_) => {
                if let Some(cost) = module.take() {
                    level.define(1);
                    level.modules.push(cost);
                    continue;
                }
                let Some(outer) = enclosing.pop() else {
                    return Ok(level.cost);
                };
                let inner = std::mem::replace(&mut level, outer);
                level.define(1);
                level.components.push(inner.cost);
            }
            _ => {
                if let Payload::ComponentTypeSection(section) = &payload {
                    let types = component.get(section.range()).ok_or(Refused::Damaged)?;
                    types::check_depth(types)?;
                }
                if let Some(cost) = &mut module {
                    *cost = cost.saturating_add(section_cost(&payload));
                } else {
                    level.section(payload, &enclosing)?;
                }
            }
        }
    }
    Err(Refused::Damaged)
}

/// Returns the number of bytes that an instance holds for one section of its module.
fn section_cost(section: &Payload<'_>) -> u64 {
    let items = |count: u32| u64::from(count) * ITEM;
    match section {
        Payload::ImportSection(section) => items(section.count()),
        Payload::FunctionSection(section) => items(section.count()),
        Payload::TableSection(section) => items(section.count()),
        Payload::MemorySection(section) => items(section.count()),
        Payload::TagSection(section) => items(section.count()),
        Payload::GlobalSection(section) => items(section.count()),
        Payload::DataSection(section) => items(section.count()),
        Payload::ElementSection(section) => {
            items(section.count()) + section.range().len() as u64 * ELEMENT_BYTE
        }
        _ => 0,
    }
}

impl Level {
    fn define(&mut self, definitions: u64) {
        self.cost.definitions = self.cost.definitions.saturating_add(definitions);
    }

    fn section(&mut self, section: Payload<'_>, enclosing: &[Self]) -> Result<()> {
        match section {
            Payload::Version { .. } | Payload::CustomSection(_) => {}
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.core_instance(&instance?)?;
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.instance(&instance?)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias?, enclosing)?;
                }
            }
            Payload::ComponentTypeSection(section) => self.define(section.count().into()),
            Payload::ComponentImportSection(section) => {
                for import in section {
                    self.import(&import?)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    self.export(&export?)?;
                }
            }
            Payload::CoreTypeSection(section) => self.define(section.count().into()),
            Payload::ComponentCanonicalSection(section) => self.define(section.count().into()),
            _ => self.define(1),
        }
        Ok(())
    }

    fn core_instance(&mut self, instance: &Instance<'_>) -> Result<()> {
        self.define(1);
        if let Instance::Instantiate { module_index, .. } = instance {
            let storage = self.module(*module_index)?;
            self.cost.storage = self.cost.storage.saturating_add(storage);
        }
        Ok(())
    }

    fn instance(&mut self, instance: &ComponentInstance<'_>) -> Result<()> {
        self.define(1);
        match instance {
            ComponentInstance::Instantiate {
                component_index,
                args,
            } => {
                let cost = self.component(*component_index)?;
                self.define(cost.definitions);
                self.cost.storage = self.cost.storage.saturating_add(cost.storage);
                args.iter().try_for_each(|arg| check_passed(arg.kind))
            }
            ComponentInstance::FromExports(exports) => exports
                .iter()
                .try_for_each(|export| check_passed(export.kind)),
        }
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>, enclosing: &[Self]) -> Result<()> {
        self.define(1);
        let (kind, count, index) = match *alias {
            ComponentAlias::InstanceExport { kind, .. } => return check_passed(kind),
            ComponentAlias::CoreInstanceExport { .. } => return Ok(()),
            ComponentAlias::Outer { kind, count, index } => (kind, count, index),
        };
        // The number of levels up; 0 is this one.
        let level = match count.checked_sub(1) {
            None => &*self,
            Some(up) => {
                let level = enclosing.iter().rev().nth(up as usize);
                level.ok_or(Refused::Damaged)?
            }
        };
        match kind {
            ComponentOuterAliasKind::CoreModule => {
                let storage = level.module(index)?;
                self.modules.push(storage);
            }
            ComponentOuterAliasKind::Component => {
                let cost = level.component(index)?;
                self.components.push(cost);
            }
            ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => {}
        }
        Ok(())
    }

    fn import(&mut self, import: &ComponentImport<'_>) -> Result<()> {
        self.define(1);
        match import.ty {
            ComponentTypeRef::Module(_) | ComponentTypeRef::Component(_) => Err(Refused::Passed),
            _ => Ok(()),
        }
    }

    /// Reads an export, which is one more index of what it exports.
    fn export(&mut self, export: &ComponentExport<'_>) -> Result<()> {
        self.define(1);
        match export.kind {
            ComponentExternalKind::Module => {
                let storage = self.module(export.index)?;
                self.modules.push(storage);
            }
            ComponentExternalKind::Component => {
                let cost = self.component(export.index)?;
                self.components.push(cost);
            }
            _ => {}
        }
        Ok(())
    }

    fn module(&self, index: u32) -> Result<u64> {
        let storage = self.modules.get(index as usize);
        storage.copied().ok_or(Refused::Damaged)
    }

    fn component(&self, index: u32) -> Result<Cost> {
        let cost = self.components.get(index as usize);
        cost.copied().ok_or(Refused::Damaged)
    }
}

/// Checks the kind of an argument.
fn check_passed(kind: ComponentExternalKind) -> Result<()> {
    match kind {
        ComponentExternalKind::Module | ComponentExternalKind::Component => Err(Refused::Passed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(text: &str) -> Result<Cost> {
        precheck(&wat::parse_str(text).expect("valid"))
    }

    #[test]
    fn each_instance_of_a_module_is_counted() {
        let globals = "(global i32 (i32.const 0))".repeat(100);
        let one = |instances: usize| {
            let instances = "(core instance (instantiate $m))".repeat(instances);
            let text = format!("(component (core module $m {globals}) {instances})");
            cost(&text).expect("a component").storage
        };
        assert_eq!(one(0), 0);
        assert_eq!(one(1), INSTANCE + 100 * ITEM);
        assert_eq!(one(7), 7 * one(1));
    }

    #[test]
    fn components_in_components_multiply() {
        let mut text =
            String::from("(component $c0 (core module $m) (core instance (instantiate $m)))");
        for level in 1..=9 {
            let below = level - 1;
            let instances = format!("(instance (instantiate $c{below}))").repeat(10);
            text.push_str(&format!(
                "(component $c{level} (alias outer $root $c{below} (component $c{below})) \
                 {instances})"
            ));
        }
        let text = format!("(component $root {text} (instance (instantiate $c9)))");
        let cost = cost(&text).expect("a component");
        assert_eq!(cost.storage, INSTANCE * 1_000_000_000);
        assert!(cost.definitions > 2_000_000_000, "{cost:?}");
    }

    #[test]
    fn exports_and_aliases_keep_their_meaning() {
        let cost = cost(
            r#"(component $root
                (core module $small)
                (component $c (alias outer $root $small (core module $s))
                    (core instance (instantiate $s)) (core instance (instantiate $s)))
                (export $again "c" (component $c))
                (instance (instantiate $again)))"#,
        );
        assert_eq!(cost.expect("a component").storage, 2 * INSTANCE);
    }

    #[test]
    fn a_component_that_is_passed_as_an_argument_is_refused() {
        for text in [
            r#"(component (component (import "x" (component)) (instance (instantiate 0))))"#,
            r#"(component (import "m" (core module $m)) (core instance (instantiate $m)))"#,
            r#"(component (import "i" (instance $i (export "c" (component))))
                (alias export $i "c" (component $c)) (instance (instantiate $c)))"#,
        ] {
            assert_eq!(cost(text), Err(Refused::Passed), "{text}");
        }
    }

    #[test]
    fn types_that_are_nested_without_end_are_refused() {
        for kind in [0x41, 0x42] {
            let nested = |levels: usize| {
                let mut types = vec![1];
                types.extend([kind, 1, 1].repeat(levels));
                types.extend([kind, 0]);
                let mut bytes = b"\0asm\x0d\0\x01\0\x07".to_vec();
                // In three bytes, as a number of any size may be.
                let len = types.len();
                bytes.extend([len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8]);
                bytes.extend(types);
                precheck(&bytes)
            };
            assert!(nested(MAX_DEPTH - 1).is_ok());
            assert_eq!(nested(MAX_DEPTH), Err(Refused::Nested));
            assert_eq!(nested(100_000), Err(Refused::Nested));
        }
    }

    #[test]
    fn every_kind_of_type_is_read() {
        let types = r#"(component
            (type (record (field "a" u8) (field "b" string)))
            (type $v (variant (case "a" u64) (case "b")))
            (type (list $v)) (type (tuple u8 $v float64))
            (type (flags "x" "y")) (type (enum "x" "y"))
            (type (option $v)) (type (result)) (type (result u8))
            (type (result u8 (error $v))) (type (result (error $v)))
            (type $r (resource (rep i32))) (type (own $r)) (type (borrow $r))
            (type (func (param "a" $v) (result bool))) (type (func)) (type char)
            (type (component (import "i" (instance (export "f" (func))))
                (export "t" (type (sub resource)))
                (alias outer 1 $v (type $x)) (export "x" (type (eq $x)))
                (import "v" (func (param "p" $x)))))
            (type (instance (type (list u8)) (export "a" (func (param "p" 0)))))
            (import "big" (instance (type (tuple u8 u8)) (export "z" (type (eq 0))))))"#;
        cost(types).expect("a component");
    }

    #[test]
    fn a_file_truncated_anywhere_is_an_error_and_no_panic() {
        let whole = wat::parse_str(include_str!("../../../testdata/print_and_trap.wat"));
        let whole = whole.expect("valid");
        precheck(&whole).expect("a component");
        for len in 0..whole.len() {
            let _ = precheck(&whole[..len]);
            let mut other = whole.clone();
            for byte in [0, 0x7f, 0xff] {
                other[len] = byte;
                let _ = precheck(&other);
            }
        }
        assert_eq!(precheck(&whole[..9]), Err(Refused::Damaged));
    }
}
