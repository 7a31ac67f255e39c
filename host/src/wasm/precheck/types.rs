//! Limits how deeply the types of a component are nested, before anything else reads them.
//!
//! wasmparser calls itself for each level of a component or instance type, without a limit: a few
//! KB would overflow the stack of the process. A limit was added once, and later versions do not
//! have it: <https://github.com/bytecodealliance/wasm-tools/pull/646>. So this module reads the
//! nesting itself, and leaves types without nested declarations to wasmparser.

use wasmparser::{BinaryReader, ComponentType, ComponentTypeDeclaration};

use super::refused::{MAX_DEPTH, Refused, Result};

/// The first byte of the type of a component, and of an instance.
const COMPONENT: u8 = 0x41;
const INSTANCE: u8 = 0x42;

/// The first byte of a declaration of a core type, and of a type.
const CORE_TYPE: u8 = 0x00;
const TYPE: u8 = 0x01;

/// Checks all types of a section.
pub(super) fn check_depth(section: &[u8]) -> Result<()> {
    let mut reader = BinaryReader::new(section, 0);
    for _ in 0..reader.read_var_u32()? {
        read_type(&mut reader, 0)?;
    }
    Ok(())
}

fn read_type(reader: &mut BinaryReader<'_>, depth: usize) -> Result<()> {
    if !matches!(peek(reader)?, COMPONENT | INSTANCE) {
        reader.read::<ComponentType<'_>>()?;
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Err(Refused::Nested);
    }
    reader.read_u8()?;
    for _ in 0..reader.read_var_u32()? {
        read_declaration(reader, depth + 1)?;
    }
    Ok(())
}

/// Reads a declaration in the type of a component or an instance.
fn read_declaration(reader: &mut BinaryReader<'_>, depth: usize) -> Result<()> {
    match peek(reader)? {
        // It belongs to a module that is to be passed.
        CORE_TYPE => Err(Refused::Passed),
        TYPE => {
            reader.read_u8()?;
            read_type(reader, depth)
        }
        _ => {
            reader.read::<ComponentTypeDeclaration<'_>>()?;
            Ok(())
        }
    }
}

fn peek(reader: &BinaryReader<'_>) -> Result<u8> {
    Ok(reader.clone().read_u8()?)
}
