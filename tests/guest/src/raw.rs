//! Scenarios that the SDK would not let through: the bare imports.

use persist_guest::__private::persist::snapshot::{store, types};
use persist_guest::Error;

use crate::{Answer, Args, Failure, bytes, describe_bytes, number};

pub(crate) fn save(args: Args<'_>) -> Answer {
    let [name, size] = args else {
        return Err(Failure::Usage);
    };
    store::save(name, &bytes(0, number(size)?), &no_options()).map_err(Error::from)?;
    Ok("saved".into())
}

pub(crate) fn write(args: Args<'_>) -> Answer {
    let [name, size] = args else {
        return Err(Failure::Usage);
    };
    let writer = store::Writer::open(name, &no_options()).map_err(Error::from)?;
    writer
        .write(&bytes(0, number(size)?))
        .map_err(Error::from)?;
    Ok("written".into())
}

pub(crate) fn read(args: Args<'_>) -> Answer {
    let [name, offset, len] = args else {
        return Err(Failure::Usage);
    };
    let Some(reader) = store::Reader::open(name, None).map_err(Error::from)? else {
        return Ok("none".into());
    };
    let chunk = reader
        .read(number(offset)?, number(len)?)
        .map_err(Error::from)?;
    Ok(describe_bytes(&chunk))
}

fn no_options() -> types::SaveOptions {
    types::SaveOptions {
        expect: types::Expect::Any,
        media_type: None,
        labels: Vec::new(),
    }
}
