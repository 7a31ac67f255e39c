//! Sessions of people who are signed in. A cookie holds the token, so that every replica knows it,
//! and nothing is kept on the server. Forms carry a second secret that is made of it, which other
//! sites do not know.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::serve::app::{App, Console, is_for_loopback};
use crate::serve::problem::{Problem, Result};
use crate::serve::token::TokenRight;

/// Time after which a browser forgets the token, in seconds: a working day.
const MAX_AGE: u32 = 12 * 60 * 60;

/// Client that a page is for.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) form_key: String,
    /// False where no token is asked for, and so no one can sign out.
    pub(super) has_token: bool,
    /// True if the client may see the health of the store.
    pub(super) sees_health: bool,
}

impl User {
    /// Returns what pages show of a client.
    pub(super) fn of(app: &App, session: &Session) -> Self {
        let sees_health = app.authorize(session.token, TokenRight::Metrics, None);
        Self {
            form_key: session.form_key.clone(),
            has_token: session.token.is_some(),
            sees_health: sees_health.is_ok(),
        }
    }
}

/// A client that is signed in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Token, by its place in the manifest; none where none is asked for.
    pub(super) token: Option<usize>,
    /// Secret of forms.
    pub(super) form_key: String,
}

impl Session {
    /// Returns the session of a request.
    pub(super) fn of(app: &App, console: &Console, headers: &HeaderMap) -> Result<Self> {
        if !app.options.has_auth {
            return if is_for_loopback(headers) {
                Ok(Self {
                    token: None,
                    form_key: form_key(&console.secret),
                })
            } else {
                let what = "without tokens, requests for other hosts are refused";
                let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
                Err(error.hint("open the console at 127.0.0.1 or localhost, or use tokens"))
            };
        }
        let found = cookies(headers, console.token_cookie()).find_map(|value| {
            let sent = String::from_utf8(hex::decode(value).ok()?).ok()?;
            let token = app.known_token(&sent)?;
            Some(Self {
                token: Some(token),
                form_key: form_key(sent.as_bytes()),
            })
        });
        found.ok_or_else(|| {
            let what = "you are not signed in";
            Problem::new(StatusCode::UNAUTHORIZED, "denied", what).hint("sign in with a token")
        })
    }

    /// Refuses a form that another site made.
    pub(super) fn check_form(&self, sent: Option<&str>) -> Result<()> {
        same_key(&self.form_key, sent)
    }
}

impl Console {
    /// Returns the name of the cookie that holds the token. Browsers accept the prefix only with
    /// TLS, and then from no other host.
    pub(super) fn token_cookie(&self) -> &'static str {
        if self.is_tls {
            "__Host-persist-token"
        } else {
            "persist-token"
        }
    }

    /// Returns the name of the cookie that the form of the sign-in repeats.
    pub(super) fn form_cookie(&self) -> &'static str {
        if self.is_tls {
            "__Host-persist-form"
        } else {
            "persist-form"
        }
    }

    /// Returns the header that sets a cookie, or removes it where the value is empty.
    pub(super) fn cookie(&self, headers: &HeaderMap, name: &str, value: &str) -> HeaderValue {
        // A proxy that ends TLS says so. A client that lies about it gets a cookie that it cannot
        // use.
        let proxied = headers.get("x-forwarded-proto");
        let proxied = proxied.and_then(|value| value.to_str().ok()).unwrap_or("");
        // Of several proxies, the first is the one that the client is connected to.
        let first = proxied.split(',').next().unwrap_or("").trim();
        let is_secure = self.is_tls || first.eq_ignore_ascii_case("https");
        let secure = if is_secure { "; Secure" } else { "" };
        let age = if value.is_empty() { 0 } else { MAX_AGE };
        let text =
            format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Returns the values of a cookie. A page of another port of this host may have set one, too.
pub(super) fn cookies<'a>(
    headers: &'a HeaderMap,
    name: &'a str,
) -> impl Iterator<Item = &'a str> + 'a {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let pairs = lines.filter_map(|line| line.to_str().ok());
    pairs
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(move |(key, value)| (key == name).then_some(value))
}

/// Derives the secret of forms. It tells nothing about the token, and the hash in the manifest
/// tells nothing about it.
fn form_key(secret: &[u8]) -> String {
    let hash = Sha256::new_with_prefix(b"persist console form\0");
    hex::encode(hash.chain_update(secret).finalize())
}

/// Compares the secret of a form in constant time.
pub(super) fn same_key(expected: &str, sent: Option<&str>) -> Result<()> {
    let sent = sent.unwrap_or("");
    if !expected.is_empty() && bool::from(expected.as_bytes().ct_eq(sent.as_bytes())) {
        return Ok(());
    }
    Err(foreign("the form is not of this session"))
}

/// Refuses a form that a page of another origin sent. Browsers tell the origin, and scripts cannot
/// change it.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A proxy may change the host, but not this header.
    if let Some(site) = text("sec-fetch-site") {
        return if matches!(site, "same-origin" | "none") {
            Ok(())
        } else {
            Err(foreign("a page of another site sent the form"))
        };
    }
    let Some(origin) = text("origin") else {
        return Ok(());
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    if host.is_some() && host == text("host") {
        return Ok(());
    }
    Err(foreign("a page of another site sent the form"))
}

fn foreign(what: &str) -> Problem {
    let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
    error.hint("go back, load the page again, and send its form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, value.parse().expect("a value"))
        });
        lines.collect()
    }

    #[test]
    fn a_form_of_another_origin_is_refused() {
        for (lines, is_same) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("origin", "null"), ("host", "a:1")], false),
            (&[("origin", "http://a:1"), ("host", "a:1")], true),
            (&[("origin", "http://a:2"), ("host", "a:1")], false),
            (&[("origin", "http://a:1")], false),
        ] {
            assert_eq!(check_origin(&headers(lines)).is_ok(), is_same, "{lines:?}");
        }
    }

    #[test]
    fn a_form_key_is_no_token_and_not_its_hash() {
        let key = form_key(b"persist_1");
        assert_ne!(key, form_key(b"persist_2"));
        assert_ne!(key, hex::encode(Sha256::digest(b"persist_1")));
        assert!(same_key(&key, Some(&key)).is_ok());
        assert!(same_key(&key, Some("")).is_err());
        assert!(same_key(&key, None).is_err());
        assert!(same_key("", Some("")).is_err(), "no key is no secret");
    }

    #[test]
    fn cookies_are_found_among_others() {
        let headers = headers(&[("cookie", "a=1; persist-token=x; b=2;persist-token=y")]);
        let found: Vec<_> = cookies(&headers, "persist-token").collect();
        assert_eq!(found, ["x", "y"]);
        assert_eq!(cookies(&headers, "token").count(), 0);
    }

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites() {
        let console = |is_tls| Console {
            secret: [0; 32],
            is_tls,
        };
        let set = |console: &Console, lines: &[(&'static str, &str)]| {
            let cookie = console.cookie(&headers(lines), console.token_cookie(), "00");
            cookie.to_str().expect("text").to_owned()
        };
        let plain = set(&console(false), &[]);
        assert!(
            plain.starts_with("persist-token=00; Path=/; Max-Age="),
            "{plain}"
        );
        assert!(plain.contains("; HttpOnly; SameSite=Strict"), "{plain}");
        assert!(!plain.contains("Secure"), "{plain}");
        let tls = set(&console(true), &[]);
        assert!(tls.starts_with("__Host-"), "{tls}");
        assert!(tls.ends_with("; Secure"), "{tls}");
        for (scheme, is_secure) in [
            ("https", true),
            ("HTTPS", true),
            ("https, http", true),
            ("http, https", false),
        ] {
            let proxied = set(&console(false), &[("x-forwarded-proto", scheme)]);
            assert_eq!(proxied.ends_with("; Secure"), is_secure, "{scheme}");
        }
    }
}
