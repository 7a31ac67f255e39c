//! Measures the code of a component, before a compiler sees it.
//!
//! A compiler takes more than linear time for some code of few bytes: blocks nested by the hundred
//! thousand, calls that pass a thousand values in two bytes, locals that cost five bytes for fifty
//! thousand. Code that a toolchain makes has none of that: what it passes and declares, it computes
//! and uses, which takes bytes, too.
//!
//! Only what can cost much is decoded: a function too short for the depth that is allowed, in a
//! module without wide types, is not, which is nearly all of them.

use wasmparser::{
    BinaryReader, BlockType, CodeSectionReader, CompositeInnerType, FunctionBody,
    FunctionSectionReader, ImportSectionReader, Operator, Parser, Payload, TypeRef,
    TypeSectionReader,
};

use super::refused::{Refused, Result};

/// A type with at most this many parameters and results is narrow: calls of it do not multiply what
/// a function costs.
const NARROW: u64 = 32;

/// Values that a function may pass and declare for each byte of its body. Toolchains stay below 1.
const VALUES_PER_BYTE: u64 = 4;

/// Values that any function may pass and declare.
const FREE_VALUES: u64 = 256;

/// Work of one function: a compiler follows each local through each block, and each loop, and looks
/// at each block from others. A unit takes it some 0.1 us. The largest functions of Python and
/// JavaScript have a million units; programs that are not optimized have some million.
const MAX_WORK: u64 = 16 << 20;

/// Blocks in pairs that make one unit of work.
const PAIRS_OF_BLOCKS: u64 = 16;

/// Work of all functions together: some ten seconds, and for each byte of code twice what a
/// toolchain's function has at most.
const MAX_TOTAL_WORK: u64 = 64 << 20;
const WORK_PER_BYTE: u64 = 16;

/// Loops in loops in one function. A compiler takes the square of it: 2,000 in 6 KB take half a
/// second, as many blocks or ifs 20 ms. Toolchains nest 6.
const MAX_LOOPS: usize = 64;

/// The operator that begins a loop.
const LOOP: u8 = 0x03;

/// Limits of [`measure`] that an operator can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeLimits {
    pub(crate) functions: u64,
    pub(crate) nested_blocks: u64,
}

/// Signature of a function: how many parameters and results it has.
#[derive(Clone, Copy, Debug, Default)]
struct Arity {
    params: u64,
    results: u64,
}

impl Arity {
    fn sum(self) -> u64 {
        self.params + self.results
    }
}

/// Facts of a module when its code section begins.
#[derive(Debug, Default)]
struct Module {
    types: Vec<Arity>,
    /// Types of all functions, imported ones first.
    functions: Vec<u32>,
    imported: usize,
}

/// Counts over the modules so far.
#[derive(Debug, Default)]
struct Totals {
    functions: u64,
    bytes: u64,
    work: u64,
}

/// Compares the code of a component with `limits`.
pub(crate) fn measure(component: &[u8], limits: &CodeLimits) -> Result<()> {
    let mut totals = Totals::default();
    let mut module = Module::default();
    for payload in Parser::new(0).parse_all(component) {
        // An error in an item of a section is left to the engine, which names it.
        let _: wasmparser::Result<()> = match payload? {
            Payload::ModuleSection { .. } => {
                module = Module::default();
                Ok(())
            }
            Payload::TypeSection(section) => module.add_types(section),
            Payload::ImportSection(section) => module.add_imports(section),
            Payload::FunctionSection(section) => {
                Module::count_functions(&section, limits, &mut totals)?;
                module.add_functions(section)
            }
            Payload::CodeSectionStart { range, .. } => {
                let section = component.get(range).ok_or(Refused::Damaged)?;
                module.measure_code(section, limits, &mut totals)?;
                Ok(())
            }
            _ => Ok(()),
        };
    }
    Ok(())
}

impl Module {
    fn add_types(&mut self, section: TypeSectionReader<'_>) -> wasmparser::Result<()> {
        for group in section {
            for sub_type in group?.into_types() {
                let arity = match &sub_type.composite_type.inner {
                    CompositeInnerType::Func(function) => Arity {
                        params: function.params().len() as u64,
                        results: function.results().len() as u64,
                    },
                    _ => Arity::default(),
                };
                self.types.push(arity);
            }
        }
        Ok(())
    }

    fn add_imports(&mut self, section: ImportSectionReader<'_>) -> wasmparser::Result<()> {
        for import in section.into_imports() {
            if let TypeRef::Func(index) = import?.ty {
                self.functions.push(index);
                self.imported += 1;
            }
        }
        Ok(())
    }

    fn count_functions(
        section: &FunctionSectionReader<'_>,
        limits: &CodeLimits,
        totals: &mut Totals,
    ) -> Result<()> {
        totals.functions += u64::from(section.count());
        if totals.functions > limits.functions {
            return Err(Refused::Functions {
                found: totals.functions,
                max: limits.functions,
            });
        }
        Ok(())
    }

    fn add_functions(&mut self, section: FunctionSectionReader<'_>) -> wasmparser::Result<()> {
        for index in section {
            self.functions.push(index?);
        }
        Ok(())
    }

    fn measure_code(&self, section: &[u8], limits: &CodeLimits, totals: &mut Totals) -> Result<()> {
        let Ok(bodies) = CodeSectionReader::new(BinaryReader::new(section, 0)) else {
            return Err(Refused::Damaged);
        };
        let has_wide_types = self.types.iter().any(|arity| arity.sum() > NARROW);
        for (index, body) in bodies.into_iter().enumerate() {
            let body = body.map_err(|_| Refused::Damaged)?;
            let len = body.range().len() as u64;
            let mut function = Function::new(self, index, &body);
            // A block takes two bytes at least, and a loop its operator.
            let may_nest = len > 2 * limits.nested_blocks || may_have_loops(body.as_bytes());
            if has_wide_types || may_nest || function.values > FREE_VALUES {
                // Stops at what cannot be decoded. So does the compiler.
                let _ = function.decode(&body, limits.nested_blocks);
            }
            function.compare(len, limits)?;
            totals.bytes += len;
            totals.work = totals.work.saturating_add(function.work());
        }
        if totals.work > MAX_TOTAL_WORK + WORK_PER_BYTE * totals.bytes {
            return Err(Refused::Dense);
        }
        Ok(())
    }

    fn arity_of_type(&self, index: u32) -> Arity {
        self.types.get(index as usize).copied().unwrap_or_default()
    }

    fn arity_of_function(&self, index: usize) -> Arity {
        let index = self.functions.get(index).copied();
        index.map_or(Arity::default(), |index| self.arity_of_type(index))
    }

    fn arity_of_block(&self, block: BlockType) -> Arity {
        match block {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity {
                params: 0,
                results: 1,
            },
            BlockType::FuncType(index) => self.arity_of_type(index),
        }
    }
}

/// Returns false for a body whose bytes cannot be those of more loops than are allowed.
fn may_have_loops(body: &[u8]) -> bool {
    body.iter().filter(|byte| **byte == LOOP).count() > MAX_LOOPS
}

/// One function, as far as it was read.
struct Function<'a> {
    module: &'a Module,
    own: Arity,
    locals: u64,
    /// Parameters, results and locals, and what each operator passes.
    values: u64,
    /// Blocks as a compiler sees them: where the code goes on after a branch, too.
    blocks: u64,
    all_loops: u64,
    deepest: u64,
    /// Loops that are open, and the most that ever were.
    loops: usize,
    most_loops: usize,
    /// True for each open block that is a loop.
    is_loop: Vec<bool>,
    /// Values that a branch to each open block passes.
    labels: Vec<u64>,
}

impl<'a> Function<'a> {
    fn new(module: &'a Module, index: usize, body: &FunctionBody<'_>) -> Self {
        let own = module.arity_of_function(module.imported + index);
        let declared = body.get_locals_reader().into_iter().flatten();
        let locals = declared.map_while(std::result::Result::ok);
        let locals: u64 = locals.map(|(count, _)| u64::from(count)).sum();
        Self {
            module,
            own,
            locals: locals + own.params,
            values: locals + own.sum(),
            blocks: 1,
            all_loops: 0,
            deepest: 0,
            loops: 0,
            most_loops: 0,
            is_loop: vec![false],
            labels: vec![own.results],
        }
    }

    /// Counts what is in `body`, as far as blocks are nested no deeper than `max_depth`.
    fn decode(&mut self, body: &FunctionBody<'_>, max_depth: u64) -> wasmparser::Result<()> {
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::Block { blockty } | Operator::If { blockty } => {
                    let arity = self.module.arity_of_block(blockty);
                    self.open(arity, arity.results, false);
                }
                Operator::Loop { blockty } => {
                    let arity = self.module.arity_of_block(blockty);
                    self.open(arity, arity.params, true);
                }
                Operator::End => {
                    self.labels.pop();
                    self.loops -= usize::from(self.is_loop.pop().unwrap_or_default());
                }
                Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                    self.values += self.label(relative_depth);
                    self.blocks += 1;
                }
                Operator::BrTable { targets } => {
                    let each = 1 + self.label(targets.default());
                    self.values += each.saturating_mul(u64::from(targets.len()) + 1);
                }
                Operator::Return => self.values += self.own.results,
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    let arity = self.module.arity_of_function(function_index as usize);
                    self.values += arity.sum();
                }
                Operator::CallIndirect { type_index, .. }
                | Operator::ReturnCallIndirect { type_index, .. } => {
                    self.values += self.module.arity_of_type(type_index).sum();
                }
                _ => {}
            }
            if self.deepest > max_depth || self.most_loops > MAX_LOOPS {
                break;
            }
        }
        Ok(())
    }

    fn open(&mut self, arity: Arity, label: u64, is_loop: bool) {
        self.labels.push(label);
        self.is_loop.push(is_loop);
        self.loops += usize::from(is_loop);
        self.all_loops += u64::from(is_loop);
        self.most_loops = self.most_loops.max(self.loops);
        self.values += arity.sum();
        self.blocks += 1;
        // The function itself is the first.
        self.deepest = self.deepest.max(self.labels.len() as u64 - 1);
    }

    fn label(&self, relative_depth: u32) -> u64 {
        let label = self.labels.iter().rev().nth(relative_depth as usize);
        label.copied().unwrap_or_default()
    }

    fn compare(&self, len: u64, limits: &CodeLimits) -> Result<()> {
        if self.deepest > limits.nested_blocks {
            return Err(Refused::Blocks {
                max: limits.nested_blocks,
            });
        }
        if self.most_loops > MAX_LOOPS {
            return Err(Refused::Loops { max: MAX_LOOPS });
        }
        let is_dense = self.values > FREE_VALUES + VALUES_PER_BYTE * len;
        if is_dense || self.work() > MAX_WORK {
            return Err(Refused::Dense);
        }
        Ok(())
    }

    fn work(&self) -> u64 {
        let per_block = self.locals + self.all_loops + self.blocks / PAIRS_OF_BLOCKS;
        self.blocks.saturating_mul(per_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CodeLimits = CodeLimits {
        functions: 1000,
        nested_blocks: 2000,
    };

    fn measure_text(module: &str) -> Result<()> {
        let bytes = wat::parse_str(format!("(component (core module {module}))"));
        measure(&bytes.expect("valid"), &LIMITS)
    }

    /// A number in LEB128.
    fn number(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// A component of one module of one function, of which `body` are the bytes after its locals.
    fn measure_body(locals: &[u8], body: &[u8]) -> Result<()> {
        let sized = |bytes: Vec<u8>| [number(bytes.len()), bytes].concat();
        let section = |id: u8, bytes: Vec<u8>| [vec![id], sized(bytes)].concat();
        let body = sized([locals, body, &[0x0b]].concat());
        let module = [
            b"\0asm\x01\0\0\0".to_vec(),
            section(1, vec![1, 0x60, 0, 0]),
            section(3, vec![1, 0]),
            section(10, [vec![1], body].concat()),
        ];
        let component = [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module.concat())];
        measure(&component.concat(), &LIMITS)
    }

    fn nested(opening: &[u8], levels: usize) -> Vec<u8> {
        [opening.repeat(levels), [0x0b].repeat(levels)].concat()
    }

    #[test]
    fn blocks_are_nested_as_deep_as_the_limit_and_no_deeper() {
        let refused = Err(Refused::Blocks { max: 2000 });
        // Blocks, and ifs with their conditions.
        for opening in [&[0x02, 0x40][..], &[0x41, 0, 0x04, 0x40]] {
            assert_eq!(measure_body(&[0], &nested(opening, 2000)), Ok(()));
            assert_eq!(measure_body(&[0], &nested(opening, 2001)), refused);
            assert_eq!(measure_body(&[0], &nested(opening, 200_000)), refused);
            // A function that does not end is not compiled to its end either.
            let without_end = opening.repeat(200_000);
            assert_eq!(measure_body(&[0], &without_end), refused);
        }
        let side_by_side = nested(&[0x02, 0x40], 1).repeat(10_000);
        assert_eq!(measure_body(&[0], &side_by_side), Ok(()));
    }

    #[test]
    fn loops_are_nested_less_deep_than_blocks() {
        let refused = Err(Refused::Loops { max: MAX_LOOPS });
        assert_eq!(
            measure_body(&[0], &nested(&[0x03, 0x40], MAX_LOOPS)),
            Ok(())
        );
        assert_eq!(
            measure_body(&[0], &nested(&[0x03, 0x40], MAX_LOOPS + 1)),
            refused
        );
        // With a block in each, and side by side.
        let in_blocks = nested(&[0x03, 0x40, 0x02, 0x40], MAX_LOOPS + 1);
        assert_eq!(measure_body(&[0], &in_blocks), refused);
        let side_by_side = nested(&[0x03, 0x40], 1).repeat(1000);
        assert_eq!(measure_body(&[0], &side_by_side), Ok(()));
    }

    #[test]
    fn functions_are_counted_in_all_modules() {
        let module = format!("(core module {})", "(func)".repeat(400));
        let component = |text: String| {
            let bytes = wat::parse_str(format!("(component {text})"));
            measure(&bytes.expect("valid"), &LIMITS)
        };
        assert_eq!(component(module.repeat(2)), Ok(()));
        let refused = Err(Refused::Functions {
            found: 1200,
            max: 1000,
        });
        assert_eq!(component(module.repeat(3)), refused);
        assert_eq!(
            component(format!("{module}(component {})", module.repeat(2))),
            refused
        );
    }

    #[test]
    fn locals_that_nothing_uses_are_refused() {
        // 50,000 locals in five bytes.
        assert_eq!(
            measure_body(&[1, 0xd0, 0x86, 0x03, 0x7f], &[]),
            Err(Refused::Dense)
        );
        assert_eq!(measure_body(&[1, 100, 0x7f], &[]), Ok(()));
    }

    #[test]
    fn blocks_and_locals_in_one_function_have_a_common_limit() {
        let locals = [1, 0xd0, 0x86, 0x03, 0x7f];
        // As many bytes as its locals explain.
        let used = [0x20, 0, 0x1a].repeat(50_000);
        assert_eq!(measure_body(&locals, &used), Ok(()));
        let blocks = nested(&[0x02, 0x40], 1).repeat(1000);
        assert_eq!(
            measure_body(&locals, &[used, blocks].concat()),
            Err(Refused::Dense)
        );
    }

    #[test]
    fn blocks_loops_and_branches_of_one_function_are_limited() {
        for many in [
            nested(&[0x03, 0x40], 1).repeat(5000),
            nested(&[0x02, 0x40], 1).repeat(20_000),
            nested(&[0x41, 0, 0x04, 0x40], 1).repeat(20_000),
            [0x41, 0, 0x0d, 0].repeat(20_000),
        ] {
            assert_eq!(measure_body(&[0], &many), Err(Refused::Dense));
            assert_eq!(measure_body(&[0], &many[..many.len() / 10]), Ok(()));
        }
    }

    #[test]
    fn functions_that_are_allowed_alone_have_a_common_limit() {
        let body = nested(&[0x03, 0x40], 1).repeat(3000);
        let bodies = |count: usize| -> Result<()> {
            let mut totals = Totals::default();
            for _ in 0..count {
                let body = [&[0][..], &body, &[0x0b]].concat();
                let sized = [&number(body.len())[..], &body].concat();
                let section = [&[1][..], &sized].concat();
                Module::default().measure_code(&section, &LIMITS, &mut totals)?;
            }
            Ok(())
        };
        assert_eq!(bodies(5), Ok(()));
        assert_eq!(bodies(20), Err(Refused::Dense));
    }

    #[test]
    fn calls_that_pass_hundreds_of_values_in_two_bytes_are_refused() {
        let wide = "i32 ".repeat(900);
        let types = format!("(type $t (func (param {wide}) (result {wide})))");
        for body in [
            "(call 0)".repeat(500),
            "(block (type $t))".repeat(500),
            "(loop (type $t))".repeat(500),
            "(call_indirect (type $t) (i32.const 0))".repeat(500),
        ] {
            let text = format!("{types} (table 1 funcref) (func (type $t) {body})");
            assert_eq!(measure_text(&text), Err(Refused::Dense), "{body:.30}");
        }
        let constants = "(i32.const 1)".repeat(900);
        let once = format!("{types} (func (type $t) {constants} unreachable)");
        assert_eq!(measure_text(&once), Ok(()));
    }

    #[test]
    fn branch_tables_count_what_they_pass() {
        let results = "i32 ".repeat(300);
        let constants = "(i32.const 1)".repeat(300);
        let targets = "0 ".repeat(300);
        let text = format!(
            "(func (result {results}) (block (result {results}) {constants}
                (br_table {targets} (i32.const 0))))"
        );
        assert_eq!(measure_text(&text), Err(Refused::Dense));
        let plain = format!("(func (block (br_table {targets} (i32.const 0))))");
        assert_eq!(measure_text(&plain), Ok(()));
    }

    #[test]
    fn code_that_ends_anywhere_is_no_panic() {
        let whole = wat::parse_str(include_str!("../../../testdata/print_and_trap.wat"));
        let whole = whole.expect("valid");
        assert_eq!(measure(&whole, &LIMITS), Ok(()));
        for len in 0..whole.len() {
            let _ = measure(&whole[..len], &LIMITS);
            let mut other = whole.clone();
            for byte in [0, 0x7f, 0xff] {
                other[len] = byte;
                let _ = measure(&other, &LIMITS);
            }
        }
    }
}
