//! How results are printed: for people, or one JSON value a line.

use std::fmt;
use std::io;

use persist_host::snapshot::{self, Info, Name};
use serde_json::{Value, json};

use crate::address::Address;
use crate::exit;
use crate::stdio::{results, say};
use crate::text::{bytes, one_line, quoted, rfc3339, seen, time};

/// Destination and format of the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
    /// Nothing beside results and errors.
    pub(crate) quiet: bool,
    /// The options that lead another command to the same store, each with a space behind it, as a
    /// shell takes them.
    pub(crate) options: &'static str,
}

impl Out {
    /// Reports what a command did, as JSON or as `text` makes of it. With --quiet and without
    /// --json, success prints nothing.
    pub(crate) fn print(self, value: &Value, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.quiet && !self.json {
            return Ok(());
        }
        self.result(value, text)
    }

    /// Prints what a command was asked for, as JSON or as `text` makes of it.
    pub(crate) fn result(self, value: &Value, text: impl FnOnce() -> String) -> io::Result<()> {
        let line = if self.json { seen(value) } else { text() };
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes results.
    pub(crate) fn write(self, bytes: &[u8]) -> io::Result<()> {
        results(bytes)
    }

    /// Says something beside the results that a person may want to know.
    pub(crate) fn note(self, what: fmt::Arguments<'_>) {
        if !self.quiet {
            say(what);
        }
    }

    /// The command that does this to an address, as it can be pasted into a shell.
    pub(crate) fn command(self, verb: &str, address: &str) -> String {
        let end_of_options = if address.starts_with('-') { "-- " } else { "" };
        format!(
            "persist {verb} {}{end_of_options}{}",
            self.options,
            quoted(address)
        )
    }

    /// The command that does this to several addresses, without a question.
    pub(crate) fn command_for(self, verb: &str, addresses: &[String]) -> String {
        if let [address] = addresses {
            return self.command(verb, address);
        }
        let is_like_option = addresses.iter().any(|address| address.starts_with('-'));
        let end_of_options = if is_like_option { "-- " } else { "" };
        let words: Vec<_> = addresses.iter().map(|address| quoted(address)).collect();
        let options = self.options;
        format!(
            "persist {verb} {options}--yes {end_of_options}{}",
            words.join(" ")
        )
    }

    /// Reports an error of one entry on standard error, on one line: what a file says of itself may
    /// look like lines of ours.
    pub(crate) fn error(self, code: u8, what: fmt::Arguments<'_>) {
        let what = what.to_string();
        if self.json {
            exit::print_json(code, &what, None);
        } else {
            say(format_args!("error: {}", one_line(&what)));
        }
    }

    /// Reports something that was listed and cannot be read, so that the list can go on.
    pub(crate) fn damaged(self, address: &str, why: &snapshot::Error) -> io::Result<()> {
        let code = exit::snapshot_code(why);
        if !self.json {
            self.error(code, format_args!("{address}: {why}"));
            if let Some(hint) = why.hint() {
                say(format_args!("hint: {}", one_line(&hint)));
            }
            return Ok(());
        }
        let error = exit::value(code, &why.to_string(), why.hint().as_deref());
        self.result(&extend(located(address), error), String::new)
    }
}

/// Returns the keys that every line about a name has: its address, and the parts of the address.
pub(crate) fn located(address: &str) -> Value {
    let parsed = address.parse::<Address>().ok();
    let part = |part: fn(&Address) -> Option<&Name>| {
        let part = parsed.as_ref().and_then(part);
        part.map(Name::as_str)
    };
    json!({
        "address": address,
        "agent": part(|address| Some(&address.agent)),
        "session": part(|address| address.session.as_ref()),
        "name": part(|address| Some(&address.name)),
        "version": parsed.as_ref().and_then(|address| address.version),
    })
}

/// Adds the keys of one object to another.
pub(crate) fn extend(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// Returns the information about a version, with the address that it can be reached at.
pub(crate) fn info(address: &str, info: &Info) -> Value {
    let labels = info.labels.iter();
    let labels: serde_json::Map<_, _> = labels
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    extend(
        located(address),
        json!({
            "parent": info.parent,
            "deleted": info.deleted,
            "size": info.size,
            "stored_size": info.stored_size,
            "sha256": info.sha256,
            "created_at": rfc3339(info.created_at),
            "media_type": info.media_type,
            "labels": labels,
        }),
    )
}

/// Returns the information about a version, with its address and the change that was made.
pub(crate) fn event(event: &str, address: &str, info: &Info) -> Value {
    extend(json!({ "event": event }), self::info(address, info))
}

/// All that is known of a version.
pub(crate) fn details(address: &str, info: &Info, pinned: bool) -> String {
    let mut lines = vec![
        format!("address     {address}"),
        format!("version     {}", info.version),
        format!(
            "parent      {}",
            info.parent
                .map_or("none".into(), |parent| parent.to_string())
        ),
        format!("created     {}", time(info.created_at)),
    ];
    if info.deleted {
        lines.push("deleted     yes".into())
    } else {
        lines.push(format!(
            "size        {} ({} bytes)",
            bytes(info.size),
            info.size
        ))
    }
    lines.push(format!(
        "at rest     {} ({} bytes)",
        bytes(info.stored_size),
        info.stored_size
    ));
    lines.push(format!("sha256      {}", info.sha256));
    if pinned {
        lines.push("pinned      yes".into());
    }
    lines.extend(
        info.media_type
            .iter()
            .map(|text| format!("media type  {}", one_line(text))),
    );
    let labels = info.labels.iter();
    lines.extend(labels.map(|(k, v)| format!("label       {}={}", one_line(k), one_line(v))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_for_another_address_ends_its_options() {
        let out = Out {
            json: false,
            quiet: false,
            options: "--storage 's3://b?region=r' ",
        };
        assert_eq!(
            out.command("restore", "-dash/x@1"),
            "persist restore --storage 's3://b?region=r' -- -dash/x@1"
        );
    }
}
