//! Types of a component, which are read for one thing: how deeply they are nested. The engine's own
//! reader calls itself for each level, and has no end to it; a few KB would be the end of the
//! process.

use super::reader::Reader;
use super::{MAX_DEPTH, Refused, Result};

/// Reads one type.
pub(super) fn read(reader: &mut Reader<'_>, depth: usize) -> Result<()> {
    match reader.byte()? {
        // A resource: what represents it, and what drops it.
        0x3f => {
            reader.byte()?;
            optional(reader, |reader| reader.number().map(drop))
        }
        // Functions.
        0x40 | 0x43 => {
            reader.each(|reader| {
                reader.text()?;
                value(reader)
            })?;
            match reader.byte()? {
                0 => value(reader),
                _ => reader.byte().map(drop),
            }
        }
        // A component, an instance.
        0x41 | 0x42 if depth >= MAX_DEPTH => Err(Refused::Nested),
        0x41 | 0x42 => reader.each(|reader| declaration(reader, depth + 1)),
        other => defined(reader, other),
    }
}

fn defined(reader: &mut Reader<'_>, kind: u8) -> Result<()> {
    match kind {
        0x64 | 0x73..=0x7f => Ok(()),
        // Records.
        0x72 => reader.each(|reader| {
            reader.text()?;
            value(reader)
        }),
        // Variants.
        0x71 => reader.each(|reader| {
            reader.text()?;
            optional(reader, value)?;
            reader.byte().map(drop)
        }),
        // Lists, options.
        0x70 | 0x6b => value(reader),
        // Maps.
        0x63 => {
            value(reader)?;
            value(reader)
        }
        // Tuples.
        0x6f => reader.each(value),
        // Flags, enumerations.
        0x6e | 0x6d => reader.each(Reader::text),
        // Results.
        0x6a => {
            optional(reader, value)?;
            optional(reader, value)
        }
        // Handles.
        0x69 | 0x68 => reader.number().map(drop),
        // Lists of fixed length.
        0x67 => {
            value(reader)?;
            reader.number().map(drop)
        }
        // Streams, futures.
        0x66 | 0x65 => optional(reader, value),
        _ => Err(Refused::Damaged),
    }
}

/// Reads a declaration in the type of a component or an instance, which describes one item in it.
fn declaration(reader: &mut Reader<'_>, depth: usize) -> Result<()> {
    match reader.byte()? {
        // A type of core WebAssembly: of a module that is to be passed.
        0 => Err(Refused::Passed),
        1 => read(reader, depth),
        2 => {
            reader.sort()?;
            match reader.byte()? {
                0 | 1 => {
                    reader.number()?;
                    reader.text()
                }
                _ => {
                    reader.number()?;
                    reader.number().map(drop)
                }
            }
        }
        // An import, an export.
        3 | 4 => {
            reader.name()?;
            external(reader)
        }
        _ => Err(Refused::Damaged),
    }
}

/// Reads the description of an import or an export.
fn external(reader: &mut Reader<'_>) -> Result<()> {
    match reader.byte()? {
        // A module.
        0 => {
            reader.byte()?;
            reader.number().map(drop)
        }
        2 => value(reader),
        3 => reader.bound(),
        _ => reader.number().map(drop),
    }
}

/// A type of a value: a primitive one is a small number, too.
fn value(reader: &mut Reader<'_>) -> Result<()> {
    reader.number().map(drop)
}

fn optional(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<()>,
) -> Result<()> {
    match reader.byte()? {
        0 => Ok(()),
        _ => read(reader),
    }
}
