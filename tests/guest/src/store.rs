//! Scenarios of one call to the store.

use std::collections::BTreeMap;

use persist_guest as persist;
use persist_guest::calls::{self, Input, Next};
use persist_guest::{Expect, SaveOptions, Version};

use crate::{Answer, Args, Failure, bytes, describe, describe_bytes, number, version};

pub(crate) fn save(args: Args<'_>) -> Answer {
    let [name, text] = args else {
        return Err(Failure::Usage);
    };
    version(persist::save(name, text)?)
}

pub(crate) fn save_expect(args: Args<'_>) -> Answer {
    let [name, expect, text] = args else {
        return Err(Failure::Usage);
    };
    version(persist::save_with(
        name,
        text,
        &SaveOptions::new().expect(self::expect(expect)?),
    )?)
}

pub(crate) fn save_labels(args: Args<'_>) -> Answer {
    let [name, text, media_type, labels @ ..] = args else {
        return Err(Failure::Usage);
    };
    let mut options = SaveOptions::new();
    if *media_type != "-" {
        options = options.media_type(*media_type);
    }
    for label in labels {
        let (key, value) = label.split_once('=').ok_or(Failure::Usage)?;
        options = options.label(key, value);
    }
    version(persist::save_with(name, text, &options)?)
}

pub(crate) fn big_save(args: Args<'_>) -> Answer {
    let [name, size] = args else {
        return Err(Failure::Usage);
    };
    version(persist::save(name, bytes(0, number(size)?))?)
}

pub(crate) fn zeros_save(args: Args<'_>) -> Answer {
    let [name, size] = args else {
        return Err(Failure::Usage);
    };
    version(persist::save(name, vec![0; number(size)?])?)
}

pub(crate) fn head(args: Args<'_>) -> Answer {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    Ok(match persist::head(name)? {
        Expect::Version(version) => version.to_string(),
        Expect::Absent => "absent".into(),
        Expect::Any => "any".into(),
    })
}

pub(crate) fn save_at_head(args: Args<'_>) -> Answer {
    let [name, text] = args else {
        return Err(Failure::Usage);
    };
    let options = SaveOptions::new().expect(persist::head(name)?);
    version(persist::save_with(name, text, &options)?)
}

pub(crate) fn update(args: Args<'_>) -> Answer {
    let (name, word, mut beside) = match args {
        [name, word] => (name, word, None),
        [name, word, beside] => (name, word, Some(*beside)),
        _ => return Err(Failure::Usage),
    };
    let joined = |words: &[u8], word: &str| [words, b" ", word.as_bytes()].concat();
    persist::update(name, |words| {
        let words = words.unwrap_or_default();
        if let Some(other) = beside {
            persist::save(name, joined(&words, other))?;
        }
        beside = beside.filter(|other| *other != "once");
        match *word {
            "throw" => Err(Failure::Text("no luck".into())),
            "none" => Ok(None),
            word => Ok(Some(joined(&words, word))),
        }
    })?;
    let words = persist::load(name)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&words).trim_start().into())
}

/// Holds a conversation whose words are `quick`, `throw` and `race`, and replies `again` and
/// `throw`.
pub(crate) fn conversation(args: Args<'_>) -> Answer {
    let (name, said) = args.split_first().ok_or(Failure::Usage)?;
    let mut races = said == ["race"];
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    calls::run(name, &said, |heard: &mut Vec<String>, input| {
        if races {
            races = false;
            conversation(&[name, "other"])?;
        }
        let (text, kind) = match input {
            Input::Message(words) => (words.join(" "), "model"),
            Input::Reply(text) => (text.into(), "tool"),
        };
        if text == "throw" {
            return Err(Failure::Text("no luck".into()));
        }
        heard.push(text.clone());
        let is_call = match input {
            Input::Message(_) => text != "quick",
            Input::Reply(_) => text == "again",
        };
        if is_call {
            return Ok(Next::call(kind, &BTreeMap::from([("messages", heard)]))?);
        }
        let is_json = text.starts_with('{');
        let counted = format!("{} {text}", heard.len());
        Ok(Next::Answer(if is_json { text } else { counted }))
    })
}

pub(crate) fn huge_texts(_: Args<'_>) -> Answer {
    let huge = "n".repeat(18 << 20);
    let label = SaveOptions::new().label("a", &huge);
    let many = (0..10_000).fold(SaveOptions::new(), |options, _| options.label("a", "b"));
    let refused = [
        persist::load(&huge).err(),
        persist::names(&huge).next().and_then(Result::err),
        persist::save_with("k", "", &label).err(),
        persist::save_with("k", "", &many).err(),
        persist::Writer::open("k", &label).err(),
    ];
    let is_refused = |error: &Option<_>| matches!(error, Some(persist::Error::Invalid(_)));
    if refused.iter().all(is_refused) {
        Ok("all refused".into())
    } else {
        Err(Failure::Text(format!("{refused:?}")))
    }
}

pub(crate) fn load(args: Args<'_>) -> Answer {
    let (name, at) = name_and_version(args)?;
    Ok(match persist::load_snapshot(name, at)? {
        Some(loaded) => format!(
            "{} {}",
            loaded.info.version,
            String::from_utf8_lossy(&loaded.state)
        ),
        None => "none".into(),
    })
}

pub(crate) fn big_load(args: Args<'_>) -> Answer {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    Ok(persist::load(name)?.map_or("none".into(), |state| describe_bytes(&state)))
}

pub(crate) fn load_uncaught(args: Args<'_>) -> Answer {
    let [name] = args else {
        return Err(Failure::Usage);
    };
    match persist::load_snapshot(name, Some(99)) {
        Ok(_) => Ok("loaded".into()),
        Err(error) => Err(Failure::Text(error.to_string())),
    }
}

pub(crate) fn stat(args: Args<'_>) -> Answer {
    let (name, at) = name_and_version(args)?;
    Ok(persist::stat(name, at)?.map_or("none".into(), |info| describe(&info)))
}

pub(crate) fn history(args: Args<'_>) -> Answer {
    let infos = match args {
        [name] => persist::history(name).collect::<Result<_, _>>()?,
        [name, before, limit] => {
            persist::history_page(name, Some(number(before)?), number(limit)?)?
        }
        _ => return Err(Failure::Usage),
    };
    Ok(infos.iter().map(describe).collect::<Vec<_>>().join("\n"))
}

pub(crate) fn names(args: Args<'_>) -> Answer {
    let names = match args {
        [prefix] => persist::names(prefix).collect::<Result<_, _>>()?,
        [prefix, limit] => persist::names_page(prefix, None, number(limit)?)?,
        [prefix, limit, after] => persist::names_page(prefix, Some(after), number(limit)?)?,
        _ => return Err(Failure::Usage),
    };
    Ok(names.join("\n"))
}

pub(crate) fn delete(args: Args<'_>) -> Answer {
    let (name, expect) = match args {
        [name] => (name, Expect::Any),
        [name, expect] => (name, self::expect(expect)?),
        _ => return Err(Failure::Usage),
    };
    version(persist::delete(name, expect)?)
}

pub(crate) fn restore(args: Args<'_>) -> Answer {
    let (name, at, expect) = match args {
        [name, at] => (name, at, Expect::Any),
        [name, at, expect] => (name, at, self::expect(expect)?),
        _ => return Err(Failure::Usage),
    };
    version(persist::restore(name, number(at)?, expect)?)
}

pub(crate) fn fork(args: Args<'_>) -> Answer {
    let (name, new_name, at) = match args {
        [name, new_name] => (name, new_name, None),
        [name, new_name, at] => (name, new_name, Some(number(at)?)),
        _ => return Err(Failure::Usage),
    };
    version(persist::fork(name, at, new_name, Expect::Any)?)
}

pub(crate) fn limits(_: Args<'_>) -> Answer {
    let limits = persist::limits();
    Ok(format!(
        "max-inline {}\nmax-chunk {}\nmax-state {}\nmax-name {}\nmax-page {}",
        limits.max_inline, limits.max_chunk, limits.max_state, limits.max_name, limits.max_page
    ))
}

pub(crate) fn expect(text: &str) -> Result<Expect, Failure> {
    Ok(match text {
        "any" => Expect::Any,
        "absent" => Expect::Absent,
        version => Expect::Version(number(version)?),
    })
}

fn name_and_version<'a>(args: Args<'a>) -> Result<(&'a str, Option<Version>), Failure> {
    match args {
        [name] => Ok((name, None)),
        [name, at] => Ok((name, Some(number(at)?))),
        _ => Err(Failure::Usage),
    }
}
