//! Scenarios of writers and readers.

use std::io::{Read, Seek, SeekFrom, Write};

use persist_guest::{Error, Reader, SaveOptions, Writer};

use crate::{
    Answer, Args, Failure, bytes, describe_bytes, describe_error, misbehave, number, store, version,
};

pub(crate) fn stream(args: Args<'_>) -> Answer {
    let [name, chunks, size] = args else {
        return Err(Failure::Usage);
    };
    let (chunks, size): (u64, usize) = (number(chunks)?, number(size)?);
    let mut writer = open(name)?;
    for chunk in 0..chunks {
        writer.write_all(&bytes(chunk * size as u64, size))?;
        writer.flush()?;
    }
    version(writer.finish()?)
}

pub(crate) fn stream_mib(args: Args<'_>) -> Answer {
    let [name, count] = args else {
        return Err(Failure::Usage);
    };
    let mut writer = open(name)?;
    let mut piece = bytes(0, 4096).repeat(256);
    for number in 0..number::<u64>(count)? {
        piece[0] = number as u8;
        writer.write_all(&piece)?;
    }
    version(writer.finish()?)
}

pub(crate) fn copy(args: Args<'_>) -> Answer {
    let [name, new_name] = args else {
        return Err(Failure::Usage);
    };
    let Some(mut reader) = Reader::open(name, None)? else {
        return Ok("none".into());
    };
    let mut writer = open(new_name)?;
    std::io::copy(&mut reader, &mut writer)?;
    version(writer.finish()?)
}

pub(crate) fn read_at(args: Args<'_>) -> Answer {
    let [name, offset, length] = args else {
        return Err(Failure::Usage);
    };
    let Some(mut reader) = Reader::open(name, None)? else {
        return Ok("none".into());
    };
    reader.seek(SeekFrom::Start(number(offset)?))?;
    let mut found = Vec::new();
    reader.take(number(length)?).read_to_end(&mut found)?;
    Ok(String::from_utf8_lossy(&found).into_owned())
}

pub(crate) fn stream_expect(args: Args<'_>) -> Answer {
    let [name, expect, text] = args else {
        return Err(Failure::Usage);
    };
    let mut writer = Writer::open(name, &SaveOptions::new().expect(store::expect(expect)?))?;
    writer.write_all(text.as_bytes())?;
    version(writer.finish()?)
}

pub(crate) fn stream_beside_save(args: Args<'_>) -> Answer {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    let mut writer = open(name)?;
    writer.write_all(b"late")?;
    persist_guest::save(name, "early")?;
    version(writer.finish()?)
}

pub(crate) fn read_stream(args: Args<'_>) -> Answer {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    let Some(mut reader) = Reader::open(name, None)? else {
        return Ok("none".into());
    };
    let mut all = Vec::new();
    reader.read_to_end(&mut all)?;
    let middle = all.len() / 2;
    let mut found = vec![0; 16.min(all.len() - middle)];
    reader.seek(SeekFrom::Start(middle as u64))?;
    reader.read_exact(&mut found)?;
    if found != all[middle..][..found.len()] {
        return Err(Failure::Text(
            "the middle is not what was read before".into(),
        ));
    }
    Ok(describe_bytes(&all))
}

pub(crate) fn unfinished(args: Args<'_>) -> Answer {
    drop(half_written(args)?);
    Ok("unfinished".into())
}

pub(crate) fn leaked(args: Args<'_>) -> Answer {
    std::mem::forget(half_written(args)?);
    Ok("leaked".into())
}

pub(crate) fn trap_mid_write(args: Args<'_>) -> Answer {
    let _open = half_written(args)?;
    std::process::abort()
}

pub(crate) fn loop_mid_write(args: Args<'_>) -> Answer {
    let [name, mib] = args else {
        return Err(Failure::Usage);
    };
    let mut writer = open(name)?;
    for _ in 0..number::<u64>(mib)? {
        writer.write_all(&noise(1 << 20))?;
    }
    misbehave::spin(args)
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut x: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut step = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[0]
    };
    (0..len).map(|_| step()).collect()
}

pub(crate) fn many_writers(args: Args<'_>) -> Answer {
    many(args, open)
}

pub(crate) fn many_readers(args: Args<'_>) -> Answer {
    many(args, |name| {
        Reader::open(name, None)?.ok_or(Error::NotFound)
    })
}

fn many<T>(args: Args<'_>, open: impl Fn(&str) -> Result<T, Error>) -> Answer {
    let [name, count] = args else {
        return Err(Failure::Usage);
    };
    let mut kept = Vec::new();
    for _ in 0..number(count)? {
        match open(name) {
            Ok(stream) => kept.push(stream),
            Err(error) => return Ok(format!("opened {} {}", kept.len(), describe_error(&error))),
        }
    }
    Ok(format!("opened {}", kept.len()))
}

fn half_written(args: Args<'_>) -> Result<Writer, Failure> {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    let mut writer = open(name)?;
    writer.write_all(&bytes(0, 100_000))?;
    writer.flush()?;
    Ok(writer)
}

fn open(name: &str) -> Result<Writer, Error> {
    Writer::open(name, &SaveOptions::new())
}
