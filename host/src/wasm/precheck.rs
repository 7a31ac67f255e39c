//! Estimates the cost of a component before anything is compiled.
//!
//! Three costs are in no limit of the engine. A component may instantiate a component that
//! instantiates others, a thousand each: a few KB then stand for billions of definitions, all of
//! which a compiler writes down. And an instance holds memory of the host for each global, function
//! and segment of its module, which no linear memory counts. And types may be nested without end
//! (`types`).
//!
//! The first two follow from which module and which component is instantiated where, and the binary
//! says that in order: a definition can only name what stands before it. What could only be told
//! from types (a module or component that is passed as an argument) no toolchain makes, and is
//! refused. That the rest is valid is for the engine to find; a survey only has to end, and not to
//! count too little for what is.
//!
//! <https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md> is what is read
//! here.

mod code;
mod reader;
mod types;

use std::fmt;

pub(super) use code::{CodeLimits, measure};
use reader::{Reader, Sort};

/// Components in components in components, or their types: toolchains nest three or four.
const MAX_DEPTH: usize = 32;

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
pub(super) struct Cost {
    /// Definitions.
    pub(super) definitions: u64,
    /// Bytes of the host for all instances of modules.
    pub(super) storage: u64,
}

/// Why something was not surveyed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no component, or its parts do not fit together.
    Damaged,
    Nested,
    /// It passes modules or components as arguments.
    Passed,
    /// It has more functions than the limit `functions`.
    Functions {
        found: u64,
        max: u64,
    },
    /// A function nests more blocks than the limit `nested-blocks`.
    Blocks {
        max: u64,
    },
    /// A function nests more loops than a compiler takes well.
    Loops {
        max: usize,
    },
    /// A function passes or declares more values than its bytes can make.
    Dense,
}

type Result<T> = std::result::Result<T, Refused>;

/// Costs of the modules and components that one nesting level defines, and of what is instantiated
/// there.
#[derive(Debug, Default)]
struct Level {
    /// Bytes of the host for an instance of each module.
    modules: Vec<u64>,
    components: Vec<Cost>,
    cost: Cost,
}

/// Surveys a whole component.
pub(super) fn precheck(component: &[u8]) -> Result<Cost> {
    let mut outer = Vec::new();
    component_cost(component, &mut outer)
}

fn component_cost(bytes: &[u8], outer: &mut Vec<Level>) -> Result<Cost> {
    if outer.len() >= MAX_DEPTH {
        return Err(Refused::Nested);
    }
    outer.push(Level::default());
    let mut reader = Reader(bytes.get(8..).ok_or(Refused::Damaged)?);
    while let Some((id, body)) = reader.section()? {
        section(id, body, outer)?;
    }
    let level = outer.pop().ok_or(Refused::Damaged)?;
    Ok(level.cost)
}

fn section(id: u8, body: &[u8], outer: &mut Vec<Level>) -> Result<()> {
    let found = match id {
        1 => Found::Module(module_cost(body)?),
        4 => Found::Component(component_cost(body, outer)?),
        _ => Found::Neither,
    };
    let (level, enclosing) = outer.split_last_mut().ok_or(Refused::Damaged)?;
    match found {
        Found::Module(cost) => level.modules.push(cost),
        Found::Component(cost) => level.components.push(cost),
        Found::Neither => {}
    }
    let mut reader = Reader(body);
    match id {
        0 => {}
        1 | 4 => level.define(1),
        2 => reader.each(|reader| level.core_instance(reader))?,
        5 => reader.each(|reader| level.instance(reader))?,
        6 => reader.each(|reader| level.alias(reader, enclosing))?,
        7 => reader.each(|reader| {
            level.define(1);
            types::read(reader, 0)
        })?,
        10 => reader.each(|reader| level.import(reader))?,
        11 => reader.each(|reader| level.export(reader))?,
        // Core types, functions and the start: only how many there are.
        _ => level.define(reader.number().unwrap_or(1).into()),
    }
    Ok(())
}

enum Found {
    Module(u64),
    Component(Cost),
    Neither,
}

/// Returns the number of bytes that an instance of a module holds.
fn module_cost(bytes: &[u8]) -> Result<u64> {
    let mut reader = Reader(bytes.get(8..).ok_or(Refused::Damaged)?);
    let mut cost = INSTANCE;
    while let Some((id, body)) = reader.section()? {
        let items = match id {
            // Imports, functions, tables, memories, globals, elements, data, tags.
            2..=6 | 9 | 11 | 13 => Reader(body).number()?,
            _ => 0,
        };
        cost = cost.saturating_add(u64::from(items) * ITEM);
        if id == 9 {
            cost = cost.saturating_add(body.len() as u64 * ELEMENT_BYTE);
        }
    }
    Ok(cost)
}

impl Level {
    fn define(&mut self, definitions: u64) {
        self.cost.definitions = self.cost.definitions.saturating_add(definitions);
    }

    fn core_instance(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.define(1);
        match reader.byte()? {
            0 => {
                let module = reader.index()?;
                let cost = self.modules.get(module).ok_or(Refused::Damaged)?;
                self.cost.storage = self.cost.storage.saturating_add(*cost);
                reader.each(|reader| {
                    reader.text()?;
                    reader.byte()?;
                    reader.number().map(drop)
                })
            }
            _ => reader.each(|reader| {
                reader.text()?;
                reader.byte()?;
                reader.number().map(drop)
            }),
        }
    }

    fn instance(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.define(1);
        match reader.byte()? {
            0 => {
                let component = reader.index()?;
                let cost = *self.components.get(component).ok_or(Refused::Damaged)?;
                self.define(cost.definitions);
                self.cost.storage = self.cost.storage.saturating_add(cost.storage);
                reader.each(|reader| {
                    reader.text()?;
                    reader.passed()?;
                    reader.number().map(drop)
                })
            }
            _ => reader.each(|reader| {
                reader.name()?;
                reader.passed()?;
                reader.number().map(drop)
            }),
        }
    }

    fn alias(&mut self, reader: &mut Reader<'_>, enclosing: &[Self]) -> Result<()> {
        self.define(1);
        let sort = reader.sort()?;
        match reader.byte()? {
            0 | 1 => {
                reader.number()?;
                reader.text()?;
                match sort {
                    Sort::Module | Sort::Component => Err(Refused::Passed),
                    Sort::Other => Ok(()),
                }
            }
            _ => {
                // The number of levels up; 0 is this one.
                let up = reader.index()?;
                let index = reader.index()?;
                let level = match up.checked_sub(1) {
                    None => &*self,
                    Some(up) => enclosing.iter().rev().nth(up).ok_or(Refused::Damaged)?,
                };
                let found = level.find(sort, index)?;
                self.same_again(sort, found);
                Ok(())
            }
        }
    }

    fn import(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.define(1);
        reader.name()?;
        match reader.byte()? {
            // A module or a component.
            0 | 4 => Err(Refused::Passed),
            3 => reader.bound(),
            _ => reader.number().map(drop),
        }
    }

    fn export(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        self.define(1);
        reader.name()?;
        let sort = reader.sort()?;
        let index = reader.index()?;
        // An export is one more name for what it exports.
        let found = self.find(sort, index)?;
        self.same_again(sort, found);
        // A type that it is given.
        match reader.byte()? {
            0 => Ok(()),
            _ => match reader.byte()? {
                0 => {
                    reader.byte()?;
                    reader.number().map(drop)
                }
                3 => reader.bound(),
                _ => reader.number().map(drop),
            },
        }
    }

    fn find(&self, sort: Sort, index: usize) -> Result<Cost> {
        match sort {
            Sort::Module => self.modules.get(index).map(|storage| Cost {
                definitions: 0,
                storage: *storage,
            }),
            Sort::Component => self.components.get(index).copied(),
            Sort::Other => Some(Cost::default()),
        }
        .ok_or(Refused::Damaged)
    }

    fn same_again(&mut self, sort: Sort, cost: Cost) {
        match sort {
            Sort::Module => self.modules.push(cost.storage),
            Sort::Component => self.components.push(cost),
            Sort::Other => {}
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => {
                "it is damaged, or uses a WebAssembly feature that this host does not allow; copy \
                 it again, or build it without that feature"
            }
            Self::Nested => "its components, or their types, are nested too deeply",
            Self::Passed => {
                "it passes modules or components as arguments, which this host does not allow"
            }
            Self::Functions { found, max } => {
                return write!(
                    f,
                    "it has at least {found} functions, and the limit `functions` is {max}; remove \
                     unused code, or raise the limit"
                );
            }
            Self::Blocks { max } => {
                return write!(
                    f,
                    "one of its functions nests more than {max} blocks (limit `nested-blocks`); \
                     split that function, or raise the limit"
                );
            }
            Self::Loops { max } => {
                return write!(
                    f,
                    "one of its functions nests more than {max} loops, which would take too long \
                     to compile; split that function"
                );
            }
            Self::Dense => {
                "one of its functions has too many locals, parameters, blocks or branch targets to \
                 compile; split that function, or build it with optimization"
            }
        })
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
        let whole = wat::parse_str(include_str!("../../testdata/print_and_trap.wat"));
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
