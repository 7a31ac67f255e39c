//! Recognizes secrets in texts where they do not belong, and keeps them out of messages.
//!
//! People put the content of a key file where its path belongs, or a password into a URL. Every
//! text that comes from a setting, an argument or a URL passes [`redact`] before it is shown, and
//! [`secret_in`] decides whether a setting is refused.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

/// Stands where a secret was.
const HIDDEN: &str = "(not shown)";

/// Names of values that are secret wherever they stand.
const SECRET_NAMES: [&str; 16] = [
    "private_key",
    "private_key_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "accesskeyid",
    "secretaccesskey",
    "sessiontoken",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// Parameters of a storage URL that may be shown. The value of any other may be a secret.
const SHOWN_PARAMETERS: [&str; 7] = [
    "endpoint",
    "region",
    "profile",
    "path_style",
    "encryption",
    "kms_key",
    "checksums",
];

/// Beginnings of tokens that services give out.
const TOKEN_STARTS: [&str; 14] = [
    "ya29.",
    "GOCSPX-",
    "AIzaSy",
    "1//0",
    "ghp_",
    "gho_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
    // Session tokens of AWS.
    "AQoDYXdz",
    "FQoDYXdz",
    "FQoGZXIvYXdz",
    "FwoGZXIvYXdz",
    "IQoJb3JpZ2lu",
];

/// Returns the kind of secret that `text` holds, such as `a private key`; none where it may be
/// shown.
///
/// ```
/// use persist_host::storage::secret_in;
///
/// assert_eq!(secret_in("/etc/keys/account.json"), None);
/// assert_eq!(secret_in("https://user:password@host"), Some("a password in a URL"));
/// ```
pub fn secret_in(text: &str) -> Option<&'static str> {
    spans(text).first().map(|span| span.kind)
}

/// Replaces every secret in `text` by `(not shown)`.
///
/// ```
/// use persist_host::storage::redact;
///
/// assert_eq!(redact("https://user:password@host/x"), "https://(not shown)@host/x");
/// ```
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut spans = spans(text);
    // A text may pass here twice.
    spans.retain(|span| !text[span.range.start..].starts_with(HIDDEN));
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_by_key(|span| span.range.start);
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for Span { range, .. } in spans {
        // One secret may hold another.
        if range.end <= end {
            continue;
        }
        if range.start >= end {
            redacted.push_str(&text[end..range.start]);
            redacted.push_str(HIDDEN);
        }
        end = range.end;
    }
    redacted.push_str(&text[end..]);
    Cow::Owned(redacted)
}

/// A part of a text that is secret.
#[derive(Debug)]
struct Span {
    range: Range<usize>,
    kind: &'static str,
}

/// Finds all secrets, the largest kinds first.
fn spans(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut add = |range: Range<usize>, kind| spans.push(Span { range, kind });
    if let Some(kind) = whole(text) {
        add(0..text.len(), kind);
        return spans;
    }
    if let Some(start) = text.find("-----BEGIN") {
        add(start..text.len(), "a private key");
    }
    if let Some(range) = named(text) {
        add(range, "the content of a key file");
    }
    for range in runs(text) {
        if let Some(kind) = token(&text[range.clone()]) {
            add(range, kind);
        }
    }
    urls(text, &mut add);
    spans
}

/// Returns the kind of a text that is nothing but the content of a file, plain or encoded.
fn whole(text: &str) -> Option<&'static str> {
    let start = text.trim_start();
    if start.starts_with('{') && start.contains('"') {
        return Some("the content of a file");
    }
    // Some encoders break their lines.
    let packed: String = text.split_ascii_whitespace().collect();
    is_encoded(&packed, 2).then_some("the content of a file in base64")
}

/// Returns the range of a value whose name is secret, with the object that it stands in.
fn named(text: &str) -> Option<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let found = SECRET_NAMES.iter().flat_map(|name| {
        lower.match_indices(name).filter_map(|(at, name)| {
            let after = lower[at + name.len()..].trim_start_matches(['"', '\'', '\\', ' ', '\t']);
            let value = after.strip_prefix([':', '='])?;
            let value = value.trim_start_matches(['"', '\'', '\\', ' ', '\t']);
            (!value.trim().is_empty()).then_some(at)
        })
    });
    let at = found.min()?;
    let start = text[..at].find('{').unwrap_or(at);
    Some(start..text.len())
}

/// Splits a text into runs of the characters that tokens are made of.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.%".contains(&byte);
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|byte| is_part(*byte))?;
        let len = bytes[start..].iter().position(|byte| !is_part(*byte));
        at = len.map_or(bytes.len(), |len| start + len);
        Some(start..at)
    })
}

/// Returns the kind of secret that a run of characters is.
fn token(run: &str) -> Option<&'static str> {
    if run.contains('%') {
        let decoded = percent_decode_str(run).decode_utf8_lossy();
        let is_key = named(&decoded).is_some() || decoded.contains("-----BEGIN");
        return is_key.then_some("the content of a key file");
    }
    if has_key_id(run) {
        return Some("an access key ID");
    }
    let is_hex = run.len() >= 24 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && run.to_ascii_lowercase().starts_with("7b22") {
        return Some("the content of a file in hexadecimal");
    }
    if TOKEN_STARTS.iter().any(|start| run.starts_with(start)) && run.len() >= 20 {
        return Some("an access token");
    }
    if is_encoded(run, 2) {
        return Some("the content of a file in base64");
    }
    // A path or a name may hold one behind a dot, a hyphen or an underscore.
    let parts = run.split(['.', '-', '_', '=']);
    parts
        .clone()
        .any(is_random)
        .then_some("a secret key or token")
}

/// Returns whether a run holds the ID of an access key of Amazon or an HMAC key of Google.
fn has_key_id(run: &str) -> bool {
    ["AKIA", "ASIA", "GOOG"].iter().any(|start| {
        run.match_indices(start).any(|(at, _)| {
            let rest = run[at + start.len()..].bytes();
            let rest = rest.take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            rest.count() >= 12
        })
    })
}

/// Returns whether a run is as long and as mixed as secret keys are: Amazon's have 40 characters of
/// base64.
fn is_random(run: &str) -> bool {
    let class = |byte: u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let classes: Vec<_> = run.bytes().map(class).collect();
    let has = |class| classes.contains(&class);
    // Paths are long as well, and within their words little changes.
    let changes = classes
        .windows(2)
        .filter(|pair| pair[0] != pair[1] && !pair.contains(&3))
        .count();
    classes.len() >= 40 && has(0) && has(1) && has(2) && changes * 100 >= classes.len() * 25
}

/// Returns whether a text is the base64 of something that is a secret, up to `depth` times.
fn is_encoded(text: &str, depth: usize) -> bool {
    if depth == 0 || text.len() < 24 {
        return false;
    }
    let Some(decoded) = base64_decoded(text) else {
        return false;
    };
    let Ok(decoded) = std::str::from_utf8(&decoded[..utf8_len(&decoded)]) else {
        return false;
    };
    let start = decoded.trim_start();
    let is_json = start
        .strip_prefix('{')
        .is_some_and(|rest| rest.trim_start().starts_with(['"', '\'']));
    is_json
        || start.starts_with("-----BEGIN")
        || named(decoded).is_some()
        || is_encoded(start.trim_end(), depth - 1)
}

/// Returns the length of the longest beginning that is UTF-8.
fn utf8_len(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(error) => error.valid_up_to(),
    }
}

/// Decodes either alphabet of base64, with or without padding, as far as it goes.
fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() * 3 / 4);
    let mut bits = 0_u32;
    let mut count = 0;
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            // A token of three parts: the first of them tells.
            b'.' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The lowest eight bits are left.
            decoded.push((bits >> count) as u8);
        }
    }
    Some(decoded)
}

/// Finds passwords and signatures of URLs, and `user:password@host`.
fn urls(text: &str, add: &mut impl FnMut(Range<usize>, &'static str)) {
    let is_end = |c: char| c.is_whitespace() || c == '"' || c == '`';
    let mut at = 0;
    for word in text.split_inclusive(is_end) {
        let start = at;
        at += word.len();
        let word = word.trim_end_matches(is_end);
        let host = word.find("://").map_or(0, |scheme| scheme + 3);
        let end = word[host..].find(['/', '?', '#']);
        let end = end.map_or(word.len(), |end| host + end);
        let user = word[host..end].rfind('@').map(|user| host..host + user);
        if let Some(user) = user
            && (host > 0 || word[user.clone()].contains(':'))
            && !user.is_empty()
        {
            add(start + user.start..start + user.end, "a password in a URL");
        }
        if let Some(query) = word.find(['?', '#']) {
            parameters(&word[query + 1..], start + query + 1, add);
        }
    }
}

/// Finds the values of parameters that may not be shown, in a query that begins at `at`.
fn parameters(query: &str, mut at: usize, add: &mut impl FnMut(Range<usize>, &'static str)) {
    for parameter in query.split_inclusive(['&', ';', '#']) {
        let start = at;
        at += parameter.len();
        let parameter = parameter.trim_end_matches(['&', ';', '#', ')', ',', ':']);
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if value.is_empty() || SHOWN_PARAMETERS.contains(&name) {
            continue;
        }
        let from = start + name.len() + 1;
        add(from..from + value.len(), "a secret in a URL");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_FILE: &str = r#"{"type": "service_account", "private_key_id": "0123456789abcdef",
        "private_key": "-----BEGIN PRIVATE KEY-----\nPLANTED\n-----END PRIVATE KEY-----\n"}"#;
    const BASE64: &str = "eyJ0eXBlIjogInNlcnZpY2VfYWNjb3VudCIsICJwcml2YXRlX2tleSI6ICJQTEFOVEVEIn0=";

    #[test]
    fn secrets_are_recognized_and_replaced() {
        let wrapped = format!("{}\n{}\n", &BASE64[..40], &BASE64[40..]);
        for (secret, planted) in [
            (KEY_FILE, "PLANTED"),
            (
                "{\"type\": \"external_account\", \"x\": \"PLANTED\"}",
                "PLANTED",
            ),
            ("{ \"a\": 1, \"private_key\": \"PLANTED", "PLANTED"),
            ("\"client_secret\": \"PLANTED\",", "PLANTED"),
            ("%7B%22private_key%22%3A%22PLANTED%22%7D", "PLANTED"),
            ("-----BEGIN PRIVATE KEY-----\nPLANTED", "PLANTED"),
            (BASE64, "InNlcnZp"),
            (&wrapped, "InNlcnZp"),
            (
                "ZXlKMGVYQmxJam9nSW5ObGNuWnBZMlZmWVdOamIzVnVkQ0o5",
                "ZXlKMGVY",
            ),
            ("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t", "LS0tLS1"),
            (
                "7b2274797065223a2022736572766963655f6163636f756e74227d",
                "7b22",
            ),
            ("AKIAIOSFODNN7EXAMPLE", "AKIA"),
            ("/etc/AKIAIOSFODNN7EXAMPLE", "AKIA"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalr"),
            (
                "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "wJalr",
            ),
            ("[default]\naws_secret_access_key = PLANTED\n", "PLANTED"),
            ("AWS_SECRET_ACCESS_KEY=PLANTED", "PLANTED"),
            ("ya29.PLANTED-0123456789-0123456789", "PLANTED"),
            (
                "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.PLANTED.c2ln",
                "PLANTED",
            ),
            ("GOOG1EPLANTED0123456789ABCDEF", "PLANTED"),
            (
                "FwoGZXIvYXdzEJr//////////wEaDPLANTEDtoken1234567890abcdef",
                "PLANTED",
            ),
            (
                "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMPLANTED",
                "PLANTED",
            ),
            ("https://user:PLANTED@host:9000", "PLANTED"),
            ("https://PLANTED@host", "PLANTED"),
            ("user:PLANTED@host:9000", "PLANTED"),
            ("s3://user:PLANTED@bucket/prefix", "PLANTED"),
            ("s3://bucket?X-Amz-Signature=PLANTED", "PLANTED"),
            ("s3://bucket?region=a&sig=PLANTED&profile=b", "PLANTED"),
            ("gs://bucket/a?secret=PLANTED", "PLANTED"),
            ("gs://bucket#access_token=PLANTED", "PLANTED"),
            ("\"s3://bucket?token=PLANTED\" is not a storage", "PLANTED"),
            ("s3://bucket?credentials=/PLANTED.json", "PLANTED"),
        ] {
            assert!(secret_in(secret).is_some(), "{secret}");
            let shown = redact(secret);
            assert!(!shown.contains(planted), "{secret}: {shown}");
            let message = format!("PERSIST_STORAGE: {secret} is wrong (set AWS_ACCESS_KEY_ID)");
            let shown = redact(&message);
            assert!(shown.starts_with("PERSIST_STORAGE: "), "{shown}");
            // Agents answer with objects that are none of ours to hide.
            if !secret.contains('\n') && !secret.contains("external_account") {
                assert!(!shown.contains(planted), "{message}: {shown}");
            }
        }
        let shown = redact("\"s3://u:p@bucket?region=a&sig=b\" is not a storage");
        assert_eq!(
            shown,
            "\"s3://(not shown)@bucket?region=a&sig=(not shown)\" is not a storage"
        );
        assert_eq!(redact(&shown), shown);
    }

    #[test]
    fn texts_of_every_day_are_shown() {
        for text in [
            "",
            "/etc/keys/account.json",
            "/home/User1/Projects/Agents2/target/debug/build/Store_3/data",
            "file:///var/lib/agents",
            "s3://my-bucket/production?endpoint=http://127.0.0.1:9000&region=us-east-1&profile=minio",
            "gs://my-bucket/a/b~c",
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "projects/my-project/locations/europe-west3/keyRings/agents-2/cryptoKeys/store-1",
            "alias/aws/s3",
            "persist=debug,warn",
            "memory=64MiB,cpu=5s",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "/nix/store/0c0r5qz1v3ld4bb1l2h9n8m3k5x7y2wz-persist-0.1.0/bin",
            "/tmp/.tmpAbC123/store",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            "no AWS credentials in the profile a (~/.aws/credentials, ~/.aws/config)",
            "objects.insert was refused: forbidden, status 403, request ABPtcPq",
            "is it there? look again; sooner = better",
            "bot/me@home",
        ] {
            assert_eq!(secret_in(text), None, "{text}");
            assert_eq!(redact(text), text);
        }
    }
}
