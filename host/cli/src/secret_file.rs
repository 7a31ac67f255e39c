//! Files with secrets that runs of an agent get.

use anyhow::Result;
use persist_host::wasm::HttpPolicy;

use crate::error::Usage;

/// Adds the headers in a file, one `Name: value` a line, to requests to a host.
pub(crate) fn with_headers(
    mut policy: HttpPolicy,
    option: &str,
    host: &str,
    file: &str,
) -> Result<HttpPolicy> {
    let text = secret_text(option, host, file)?;
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: &str| {
            let place = format!("{option} {host}: line {} of the file", n + 1);
            Usage::new(format!("{place}: {why}"))
        };
        let Some((name, value)) = line.split_once(':') else {
            return Err(wrong("not a header")
                .with_hint("write `Name: value`, such as `Authorization: Bearer TOKEN`")
                .into());
        };
        let added = policy.header(host, name.trim(), value.trim());
        policy = added.map_err(|error| wrong(&error.to_string()))?;
    }
    Ok(policy)
}

/// Reads the file of a secret. Where there is none, its name may be the secret.
pub(crate) fn secret_text(option: &str, name: &str, file: &str) -> Result<String> {
    let hint = "write the name of a file that holds it; the value itself is seen by other users";
    let cannot = |why: &str| {
        let what = format!("{option} {name}: cannot read the file: {why}");
        Usage::new(what).with_hint(hint)
    };
    if file == "-" {
        return Err(cannot("it cannot be standard input").into());
    }
    let bytes = std::fs::read(file).map_err(|error| cannot(&error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text"))?;
    if text.contains('\0') {
        return Err(cannot("it has a NUL character").into());
    }
    Ok(text)
}

/// Returns a text without the line break at its end.
pub(crate) fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
