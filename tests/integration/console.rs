//! The console of `persist serve`, over HTTP, as a browser without JavaScript uses it.

use std::collections::BTreeSet;
use std::path::Path;

use persist_tests::{guest, has_program, tempdir, text, toolchains};
use serde_json::json;

use crate::serve::{Reply, Service, manifest, token};

/// A browser with the cookies that the service set.
struct Browser<'a> {
    service: &'a Service,
    cookies: Vec<String>,
}

impl<'a> Browser<'a> {
    fn new(service: &'a Service) -> Self {
        let cookies = Vec::new();
        Self { service, cookies }
    }

    /// Returns a browser that signed in with the token of the service.
    fn signed_in(service: &'a Service) -> Self {
        let mut browser = Self::new(service);
        let key = field(&browser.page("/sign-in"), "/sign-in", "key");
        let token = service.token.clone();
        let reply = browser.post("/sign-in", &[("key", &key), ("token", &token)], &[]);
        assert_eq!(
            (reply.status.as_u16(), reply.header("location")),
            (303, "/")
        );
        browser
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let cookies = self.cookies.join("; ");
        let mut all = vec![("cookie", cookies.as_str())];
        all.extend(headers);
        let reply = self.service.plain(method, path, &all, body);
        for set in reply.headers.get_all("set-cookie") {
            let set = set.to_str().expect("text");
            assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
            let pair = set.split(';').next().expect("a pair");
            let name = pair.split('=').next().expect("a name");
            self.cookies
                .retain(|cookie| cookie.split('=').next() != Some(name));
            if !set.contains("Max-Age=0") {
                self.cookies.push(pair.to_owned());
            }
        }
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        reply
    }

    fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    fn page(&mut self, path: &str) -> String {
        let reply = self.get(path);
        let page = text(&reply.body).to_owned();
        assert_eq!(reply.status, 200, "{path}: {page}");
        page
    }

    fn post(&mut self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &[&form, headers].concat(), &query(fields))
    }

    /// Sends the first form of a page with this action, and returns the page that it leads to.
    fn submit(&mut self, page: &str, action: &str, more: &[(&str, &str)]) -> String {
        let fields = fields(page, action);
        let mut fields: Vec<_> = fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        fields.retain(|(key, _)| more.iter().all(|(other, _)| key != other));
        fields.extend(more);
        let reply = self.post(action, &fields, &[]);
        assert_eq!(reply.status, 303, "{action}: {}", text(&reply.body));
        let location = reply.header("location").to_owned();
        self.page(&location)
    }
}

/// Writes fields as a form or a query does.
fn query(fields: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        bytes.collect()
    };
    let pairs = fields
        .iter()
        .map(|(k, v)| format!("{}={}", encoded(k), encoded(v)));
    pairs.collect::<Vec<_>>().join("&")
}

fn name_page(agent: &str, name: &str) -> String {
    format!("/name?{}", query(&[("agent", agent), ("name", name)]))
}

/// Returns the values of an attribute, in the order of a page.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<String> {
    let mark = format!(" {name}=\"");
    let parts = page.split(mark.as_str()).skip(1);
    let values = parts.map(|rest: &'a str| rest.split('"').next().expect("a value"));
    values
        .map(|value| {
            let value = value.replace("&lt;", "<").replace("&gt;", ">");
            value.replace("&quot;", "\"").replace("&amp;", "&")
        })
        .collect()
}

/// Returns the fields of the first form of a page with this action.
fn fields(page: &str, action: &str) -> Vec<(String, String)> {
    let mark = format!("action=\"{action}\"");
    let (_, form) = page
        .split_once(&mark)
        .unwrap_or_else(|| panic!("no {action}: {page}"));
    let (form, _) = form.split_once("</form>").expect("a whole form");
    let inputs = form.split("<input").skip(1);
    let inputs = inputs.map(|input| {
        let input = input.split('>').next().expect("a whole input");
        let one = |name| {
            attributes(input, name)
                .into_iter()
                .next()
                .unwrap_or_default()
        };
        (one("name"), one("value"))
    });
    inputs.collect()
}

fn field(page: &str, action: &str, name: &str) -> String {
    let fields = fields(page, action);
    let found = fields.into_iter().find(|(key, _)| key == name);
    found.unwrap_or_else(|| panic!("no {name}: {page}")).1
}

/// Saves a state under a name of the agent `bot`.
fn save(service: &Service, name: &str, state: &str, headers: &[(&str, &str)]) {
    let name: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/v1/agents/bot/names/{name}/state");
    assert!(
        service
            .send("PUT", &path, headers, state)
            .status
            .is_success()
    );
}

fn state(service: &Service, name: &str) -> Option<String> {
    let reply = service.get(&format!("/v1/agents/bot/names/{name}/state"));
    (reply.status == 200).then(|| text(&reply.body).to_owned())
}

#[test]
fn a_session_begins_with_a_token_and_ends() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let mut browser = Browser::new(&service);
    let refused = browser.get("/name?agent=bot&name=x");
    assert_eq!(refused.status, 303);
    let location = refused.header("location").to_owned();
    assert_eq!(location, "/sign-in?next=%2Fname%3Fagent%3Dbot%26name%3Dx");
    let page = browser.page(&location);
    let (key, next) = (
        field(&page, "/sign-in", "key"),
        field(&page, "/sign-in", "next"),
    );
    assert_eq!(next, "/name?agent=bot&name=x");
    let good = service.token.clone();
    for (key, token, status) in [
        ("", good.as_str(), 403),
        ("00", &good, 403),
        (&key, "persist_00", 401),
    ] {
        let reply = browser.post("/sign-in", &[("key", key), ("token", token)], &[]);
        assert_eq!(reply.status, status, "{key}");
        assert!(
            !text(&reply.body).contains("persist_00"),
            "a token is not repeated"
        );
    }
    let other_site = [("sec-fetch-site", "cross-site")];
    let fields = [("key", key.as_str()), ("token", &good)];
    assert_eq!(browser.post("/sign-in", &fields, &other_site).status, 403);
    // The answer to the wrong token set another key.
    let mut browser = Browser::signed_in(&service);
    assert!(browser.page("/").contains("<h1>Agents</h1>"));
    assert_eq!(browser.get("/sign-in").status, 303, "signed in already");
    assert_eq!(
        browser.get("/v1/agents").status,
        401,
        "only the console takes the cookie"
    );
    let key = field(&browser.page("/"), "/sign-out", "key");
    assert_eq!(browser.post("/sign-out", &[("key", "00")], &[]).status, 403);
    assert_eq!(
        browser
            .post("/sign-out", &[("key", &key)], &other_site)
            .status,
        403
    );
    assert_eq!(browser.post("/sign-out", &[("key", &key)], &[]).status, 303);
    assert_eq!(browser.get("/").status, 303);
    assert_eq!(browser.get("/events").status, 401, "the stream is no page");
}

#[test]
fn what_an_agent_chose_is_text_on_every_page() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "\u{202e}gpj.exe\u{2066}",
        "..",
        "a&name=b#c?d",
        "{{x}} & 'y'",
    ];
    for name in hostile {
        let state = json!({ name: [name, 1.50, { "deep": name }] }).to_string();
        let ascii: String = name.chars().filter(char::is_ascii).collect();
        let headers = [
            ("persist-label-turn", ascii.as_str()),
            ("content-type", ascii.as_str()),
        ];
        save(&service, name, &state, &headers);
        save(&service, name, &format!("{name}\n{state}\n"), &headers);
        let agent: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/v1/agents/{agent}/sessions/{agent}/names/{agent}/state");
        assert_eq!(service.send("PUT", &path, &[], name).status, 201);
    }
    let mut browser = Browser::signed_in(&service);
    let mut todo = vec!["/".to_owned()];
    todo.extend(hostile.map(|text| format!("/?{}", query(&[("q", text)]))));
    let mut seen = BTreeSet::new();
    while let Some(path) = todo.pop() {
        // The response with the changes does not end.
        let is_endless = path == "/changes";
        if is_endless || !path.starts_with('/') || !seen.insert(path.clone()) {
            continue;
        }
        let reply = browser.get(&path);
        let body = text(&reply.body);
        assert_eq!(reply.status, 200, "{path}: {body}");
        if path.starts_with("/download") {
            assert!(
                reply
                    .header("content-disposition")
                    .starts_with("attachment; filename=")
            );
        } else if reply.header("content-type").starts_with("text/html") {
            let lower = body.to_ascii_lowercase();
            for markup in ["<script>", "<img", "<style", " style=", "javascript:"] {
                assert!(!lower.contains(markup), "{path}: {markup}");
            }
            assert!(!body.contains(" onerror=alert(1)>"), "{path}");
            let unseen = ['\u{202e}', '\u{2066}'];
            let hrefs = attributes(body, "href");
            // Attributes hold the name itself, for forms; no one sees them.
            for part in body.split('<') {
                let shown = part.split_once('>').map_or("", |(_, shown)| shown);
                assert!(!shown.contains(unseen), "{path}: {shown:?}");
            }
            todo.extend(hrefs);
        }
    }
    let kinds = [
        "/agent?",
        "/name?",
        "/version?",
        "/diff?",
        "/download?",
        "/?q=",
    ];
    for kind in kinds {
        let count = seen.iter().filter(|path| path.starts_with(kind)).count();
        assert!(count >= hostile.len(), "{kind}: {count}");
    }
    let found = browser.page(&format!("/?{}", query(&[("q", "SCRIPT>ALERT")])));
    let link = query(&[("agent", "bot"), ("name", hostile[0])]);
    let links = attributes(&found, "href");
    let decoded = |text: &str| text.replace("%28", "(").replace("%29", ")").to_lowercase();
    assert!(
        links
            .iter()
            .any(|href| decoded(href) == decoded(&format!("/name?{link}")))
    );
}

#[test]
fn each_change_has_its_undo() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    for turn in ["one", "two", "three"] {
        save(&service, "x", turn, &[]);
    }
    let of = |name| state(&service, name);
    let mut browser = Browser::signed_in(&service);
    let page = browser.page(&name_page("bot", "x"));
    // A bad turn, with one click.
    let page = browser.submit(&page, "/undo", &[]);
    assert_eq!(of("x").as_deref(), Some("two"));
    assert!(
        page.contains("Version 4: ") && page.contains(">restored<"),
        "{page}"
    );
    let page = browser.submit(&page, "/undo", &[]);
    assert_eq!(of("x").as_deref(), Some("three"), "an undo is undone");
    let page = browser.submit(&page, "/restore", &[("version", "1")]);
    assert_eq!(of("x").as_deref(), Some("one"));
    let page = browser.submit(&page, "/undo", &[]);
    assert_eq!(of("x").as_deref(), Some("three"));
    let page = browser.submit(&page, "/delete", &[]);
    assert_eq!(of("x"), None);
    assert!(page.contains(">deleted<"), "{page}");
    let page = browser.submit(&page, "/undo", &[]);
    assert_eq!(of("x").as_deref(), Some("three"));
    let page = browser.submit(&page, "/pin", &[("version", "2")]);
    assert!(page.contains("Version 2 is pinned."), "{page}");
    let page = browser.submit(&page, "/unpin", &[]);
    assert!(page.contains("Version 2 is not pinned any more."), "{page}");
    assert_eq!(
        service.get("/v1/agents/bot/names/x/pins").json()["pins"],
        json!([])
    );
    browser.submit(&page, "/pin", &[("version", "2")]);
    assert_eq!(
        service.get("/v1/agents/bot/names/x/pins").json()["pins"],
        json!([2])
    );
    let version = browser.page("/version?agent=bot&name=x&version=2");
    let copy = browser.submit(&version, "/fork", &[("to-name", "copy")]);
    assert_eq!(of("copy").as_deref(), Some("two"));
    assert!(
        copy.contains(">forked<") && copy.contains("bot/x@2"),
        "{copy}"
    );
    browser.submit(&copy, "/undo", &[]);
    assert_eq!(of("copy"), None, "there was nothing before the fork");
    for (name, version) in [("x", 4), ("copy", 1)] {
        let path = format!("/version?agent=bot&name={name}&version={version}");
        let page = browser.page(&path);
        assert!(page.contains("persist serve, 127.0.0.1"), "{path}: {page}");
    }
}

#[test]
fn a_form_of_an_old_page_changes_nothing() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    save(&service, "x", "one", &[]);
    save(&service, "x", "two", &[]);
    let mut browser = Browser::signed_in(&service);
    let page = browser.page(&name_page("bot", "x"));
    save(&service, "x", "three", &[]);
    for action in ["/undo", "/restore", "/delete"] {
        let fields = fields(&page, action);
        let fields: Vec<_> = fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let reply = browser.post(action, &fields, &[]);
        assert_eq!(reply.status, 409, "{action}");
        assert!(
            text(&reply.body).contains("a newer version was saved"),
            "{action}"
        );
        let mut without_key = fields.clone();
        without_key.retain(|(key, _)| *key != "key");
        assert_eq!(
            browser.post(action, &without_key, &[]).status,
            403,
            "{action}"
        );
    }
    save(&service, "y", "other", &[]);
    let version = browser.page("/version?agent=bot&name=x&version=1");
    let fields = fields(&version, "/fork");
    let mut fields: Vec<_> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    fields.retain(|(key, _)| *key != "to-name");
    fields.push(("to-name", "y"));
    let reply = browser.post("/fork", &fields, &[]);
    assert_eq!(reply.status, 409);
    assert!(text(&reply.body).contains("choose another name"));
    assert_eq!(state(&service, "x").as_deref(), Some("three"));
    assert_eq!(state(&service, "y").as_deref(), Some("other"));
}

/// Starts a service with a token for `bot-1` that may only read, beside one for everything.
fn with_reader(dir: &Path) -> (Service, Service) {
    let (all, first) = token(dir, "admin", "*");
    let (reader, second) = token(dir, "read", "bot-1");
    let file = manifest(dir, &guest("test_guest"), &format!("{first}\n{second}"));
    let service = Service::of(dir, &file, all, &[]);
    (service, Service::of(dir, &file, reader, &[]))
}

#[test]
fn a_token_sees_its_agents_and_the_buttons_that_it_may_use() {
    let dir = tempdir();
    let (service, reading) = with_reader(dir.path());
    for agent in ["bot-1", "bot-2"] {
        for turn in ["one", "two"] {
            let path = format!("/v1/agents/{agent}/names/x/state");
            assert!(service.send("PUT", &path, &[], turn).status.is_success());
        }
    }
    let mut browser = Browser::signed_in(&reading);
    for path in ["/", "/?q=x"] {
        let page = browser.page(path);
        assert!(
            page.contains("bot-1") && !page.contains("bot-2"),
            "{path}: {page}"
        );
    }
    let page = browser.page(&name_page("bot-1", "x"));
    for action in ["undo", "restore", "delete", "pin"] {
        assert!(!page.contains(&format!("action=\"/{action}\"")), "{page}");
    }
    let version = browser.page("/version?agent=bot-1&name=x&version=1");
    assert!(!version.contains("action=\"/fork\""), "{version}");
    assert_eq!(browser.get(&name_page("bot-2", "x")).status, 403);
    let key = field(&page, "/sign-out", "key");
    let change = [
        ("key", key.as_str()),
        ("agent", "bot-1"),
        ("name", "x"),
        ("version", "1"),
        ("head", "2"),
        ("to-agent", "bot-1"),
        ("to-name", "y"),
    ];
    for action in ["/undo", "/restore", "/delete", "/fork", "/pin", "/unpin"] {
        assert_eq!(browser.post(action, &change, &[]).status, 403, "{action}");
    }
    let mut browser = Browser::signed_in(&service);
    assert!(browser.page("/").contains("bot-2"));
}

#[test]
fn a_list_links_to_no_agent_that_the_token_may_not_read() {
    let dir = tempdir();
    let (service, reading) = with_reader(dir.path());
    let others = (0..30).map(|number| format!("another-{number:02}"));
    for agent in others.chain(["bot-1".to_owned()]) {
        let path = format!("/v1/agents/{agent}/names/x/state");
        assert_eq!(service.send("PUT", &path, &[], "x").status, 201);
    }
    let page = Browser::signed_in(&reading).page("/");
    assert!(page.contains("bot-1"), "{page}");
    assert!(!page.contains("another-"), "{page}");
    let page = Browser::signed_in(&service).page("/");
    assert!(page.contains("/?after=another-24"), "{page}");
}

/// Sends the form that runs an agent, and returns the page of its result.
fn run(browser: &mut Browser<'_>, page: &str, args: &str) -> Reply {
    let mut fields = fields(page, "/run");
    fields.push(("args".into(), args.into()));
    let fields: Vec<_> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    browser.post("/run", &fields, &[])
}

#[test]
fn an_agent_is_run_with_a_form() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let mut browser = Browser::signed_in(&service);
    // Nothing is saved in this session before.
    let agent = "/agent?agent=bot&session=monday";
    let page = browser.page(agent);
    let reply = run(
        &mut browser,
        &page,
        "save\r\n<b>note\r\n<script>alert(1)</script>",
    );
    let result = text(&reply.body).to_owned();
    assert_eq!(reply.status, 200, "{result}");
    assert!(result.contains("\nversion 1</pre>"), "the answer: {result}");
    assert!(
        result.contains("&lt;script&gt;alert(1)&lt;/script&gt;</textarea>"),
        "the arguments, to run again: {result}"
    );
    let versions: Vec<_> = attributes(&result, "href")
        .into_iter()
        .filter(|href| href.starts_with("/version?"))
        .collect();
    let version = "/version?agent=bot&session=monday&name=%3Cb%3Enote&version=1";
    assert_eq!(versions, [version]);
    let page = browser.page(version);
    for who in ["token", "persist serve, 127.0.0.1"] {
        assert!(page.contains(who), "{who}: {page}");
    }
    // The same form again, as when the page of the result is loaded again.
    let page = browser.page(agent);
    let first = run(&mut browser, &page, "save\nx\none");
    assert!(!text(&first.body).contains("This form was sent before."));
    let again = run(&mut browser, &page, "save\nx\none");
    assert!(text(&again.body).contains("This form was sent before."));
    let history = "/v1/agents/bot/sessions/monday/names/x/history";
    let count = || {
        service.get(history).json()["versions"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(count(), Some(1), "it ran once");
    run(&mut browser, &page, "save\nx\ntwo");
    assert_eq!(count(), Some(2), "other arguments are another run");
    let reply = run(&mut browser, text(&first.body), "save\nx\nthree");
    let undone = browser.submit(text(&reply.body), "/undo", &[]);
    assert!(undone.contains("from version <bdi>2</bdi>"), "{undone}");
    // All arguments, and answers that are hostile, are text.
    let hostile = "echo\n<img src=x onerror=alert(1)>\n\n\u{202e}gpj\n</pre><script>x</script>";
    let reply = run(&mut browser, &page, hostile);
    let result = text(&reply.body);
    assert!(
        result.contains(
            "&lt;img src=x onerror=alert(1)&gt;\n\n\\u{202e}gpj\n&lt;/pre&gt;&lt;script&gt;x"
        ),
        "{result}"
    );
    assert!(
        !result.contains("<img") && !result.contains("<script>"),
        "{result}"
    );
    assert!(result.contains("The run saved nothing."), "{result}");
    // An agent that fails keeps what it saved, and its reason is text.
    let reply = run(&mut browser, &page, "error\n<script>no luck");
    let result = text(&reply.body);
    assert_eq!(reply.status, 422, "{result}");
    assert!(result.contains("role=\"alert\"") && result.contains("&lt;script&gt;no luck"));
    assert!(!result.contains("<script>"), "{result}");
}

#[test]
fn output_of_a_run_is_text_and_is_cut() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("wasi_guest"), &[]);
    let mut browser = Browser::signed_in(&service);
    let page = browser.page("/agent?agent=bot");
    // "<i>é" and a byte that is no UTF-8, to both streams.
    let reply = run(&mut browser, &page, "print\nnone\nout:3c693ec3a9ff");
    let result = text(&reply.body);
    assert!(result.contains("<h2>Output</h2>"), "{result}");
    assert!(result.contains("&lt;i&gt;é\u{fffd}</pre>"), "{result}");
    assert!(!result.contains("<h2>Error output</h2>"), "{result}");
    let reply = run(&mut browser, &page, "flood\nnotes\n200000");
    let result = text(&reply.body);
    assert!(
        result.contains("The first 65536 of 200000 bytes are shown."),
        "{result}"
    );
    assert!(result.len() < 100_000, "{}", result.len());
    assert!(result.contains(">Undo</button>"), "{result}");
}

#[test]
fn a_form_runs_agents_of_the_manifest_for_tokens_that_may() {
    let dir = tempdir();
    let (runner, first) = token(dir.path(), "run,read", "bot-1");
    let (reader, second) = token(dir.path(), "read,save", "*");
    let file = manifest(
        dir.path(),
        &guest("test_guest"),
        &format!("{first}\n{second}"),
    );
    let mut service = Service::of(
        dir.path(),
        &file,
        runner,
        &["--queue", "1", "--grace", "1ms"],
    );
    let mut browser = Browser::signed_in(&service);
    let page = browser.page("/agent?agent=bot-1");
    let reply = run(&mut browser, &page, "save\nx\none");
    assert_eq!(reply.status, 200);
    assert!(
        !text(&reply.body).contains("action=\"/undo\""),
        "no right to save"
    );
    let mut fields = fields(&page, "/run");
    fields.push(("args".into(), "save\nx\ntwo".into()));
    let with = |key: &'static str, value: &'static str| {
        let other = fields.iter().filter(move |(name, _)| name != key);
        let mut all: Vec<_> = other.map(|(k, v)| (k.as_str(), v.as_str())).collect();
        all.push((key, value));
        all
    };
    for (fields, status) in [
        (with("key", ""), 403),
        (with("key", "00"), 403),
        (with("agent", "bot-2"), 403),
        (with("agent", ""), 400),
    ] {
        assert_eq!(
            browser.post("/run", &fields, &[]).status,
            status,
            "{fields:?}"
        );
    }
    let other_site = [("sec-fetch-site", "cross-site")];
    let same = with("once", "other");
    assert_eq!(browser.post("/run", &same, &other_site).status, 403);
    let history = service.get("/v1/agents/bot-1/names/x/history").json();
    assert_eq!(history["versions"].as_array().map(Vec::len), Some(1));
    service.token = reader;
    let mut browser = Browser::signed_in(&service);
    for agent in ["bot-1", "other"] {
        let page = browser.page(&format!("/agent?agent={agent}"));
        assert!(!page.contains("action=\"/run\""), "{agent}: {page}");
    }
    let key = field(&browser.page("/"), "/sign-out", "key");
    let run = [("key", key.as_str()), ("agent", "bot-1"), ("args", "echo")];
    assert_eq!(browser.post("/run", &run, &[]).status, 403);
}

#[test]
fn a_form_runs_only_agents_of_the_manifest_and_waits_in_the_queue() {
    let dir = tempdir();
    let service = Service::with(
        dir.path(),
        &guest("test_guest"),
        &["--queue", "1", "--grace", "1ms"],
    );
    let saved = service.send("PUT", "/v1/agents/other/names/x/state", &[], "x");
    assert_eq!(saved.status, 201);
    let mut browser = Browser::signed_in(&service);
    assert!(
        !browser
            .page("/agent?agent=other")
            .contains("action=\"/run\"")
    );
    let key = field(&browser.page("/"), "/sign-out", "key");
    let form = [("key", key.as_str()), ("agent", "other"), ("args", "echo")];
    let reply = browser.post("/run", &form, &[]);
    assert_eq!(reply.status, 404);
    assert!(text(&reply.body).contains("the manifest has no agent"));
    let page = browser.page("/agent?agent=bot");
    std::thread::scope(|scope| {
        let path = "/v1/agents/bot/run";
        let looping = scope.spawn(|| service.run(path, &["save-and-loop", "y", "hello"], &[]));
        while service.get("/v1/agents/bot/names/y").status != 200 {
            std::thread::yield_now();
        }
        let busy = run(&mut browser, &page, "echo");
        assert_eq!(
            (busy.status.as_u16(), busy.header("retry-after")),
            (429, "1")
        );
        assert!(text(&busy.body).contains("role=\"alert\""));
        service.signal("-TERM");
        // Aborted: an answer, or a closed connection.
        let _ = looping.join();
    });
}

#[test]
fn a_large_state_is_shown_piece_by_piece() {
    const MAX_PAGE: usize = 1 << 20;
    let dir = tempdir();
    let service = Service::start(dir.path());
    let small = json!({ "id": 12345678901234567890_u64, "list": [1, 2] }).to_string();
    save(&service, "small", &small, &[]);
    let large = format!("[{}0]", "\"é<b>\",".repeat(1 << 20));
    save(&service, "large", &large, &[]);
    let small = "/version?agent=bot&name=small&version=1";
    let path = "/version?agent=bot&name=large&version=1";
    let mut browser = Browser::signed_in(&service);
    let page = browser.page(small);
    assert!(
        page.contains("class=\"tree\"") && page.contains("12345678901234567890"),
        "{page}"
    );
    let page = browser.page(&format!("{small}&view=hex"));
    assert!(page.contains("00000000  7b 22 69 64"), "{page}");
    for view in [
        "",
        "&view=tree",
        "&view=text",
        "&view=hex",
        "&view=text&offset=4000001",
    ] {
        let page = browser.page(&format!("{path}{view}"));
        assert!(page.len() < MAX_PAGE, "{view}: {}", page.len());
        assert!(
            page.contains(">Next</a>") && !page.contains("<b>"),
            "{view}"
        );
        assert!(
            !page.contains('\u{fffd}'),
            "{view}: no character is cut in two"
        );
    }
    assert!(
        browser
            .page(&format!("{path}&view=tree"))
            .contains("larger than 4 MiB")
    );
    let end = large.len();
    let page = browser.page(&format!("{path}&view=text&offset={}", end - 9));
    assert!(page.contains(&format!("to {end} of {end}")), "{page}");
    let outside = browser.get(&format!("{path}&offset={}", end + 1));
    assert_eq!(outside.status, 400);
    let download = browser.get(&path.replace("/version", "/download"));
    assert_eq!(
        download.header("content-disposition"),
        "attachment; filename=\"large@1\""
    );
    assert!(download.body == large.as_bytes());
}

#[test]
fn lists_tell_the_saves_of_agents_and_sessions() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    for agent in 0..30 {
        let path = format!("/v1/agents/bot-{agent:02}/sessions/monday/names/x/state");
        assert_eq!(service.send("PUT", &path, &[], "one").status, 201);
    }
    let path = "/v1/agents/bot-00/names/x/state";
    assert!(service.send("PUT", path, &[], "two").status.is_success());
    let mut browser = Browser::signed_in(&service);
    let page = browser.page("/");
    assert_eq!(page.matches("<rect class=\"bar\"").count(), 25, "{page}");
    assert!(
        page.contains("<span>2</span>"),
        "both scopes of bot-00: {page}"
    );
    assert!(
        page.contains("bot-24") && !page.contains("bot-25"),
        "{page}"
    );
    let next = attributes(&page, "href");
    let next = next.iter().find(|href| href.starts_with("/?after="));
    let page = browser.page(next.expect("a second page"));
    assert!(
        page.contains("bot-29") && !page.contains("More agents"),
        "{page}"
    );
    let page = browser.page("/agent?agent=bot-00");
    let (_, sessions) = page.split_once("<h2>Sessions</h2>").expect("sessions");
    assert!(sessions.contains("<span>1</span>"), "{sessions}");
}

#[test]
fn the_health_of_the_store_says_what_to_do() {
    let dir = tempdir();
    let (all, first) = token(dir.path(), "admin", "*");
    let (metrics, second) = token(dir.path(), "read,metrics", "bot-1");
    let (reader, third) = token(dir.path(), "read", "*");
    let more = format!("{first}\n{second}\n{third}");
    let file = manifest(dir.path(), &guest("test_guest"), &more);
    let mut service = Service::of(dir.path(), &file, all, &[]);
    save(&service, "x", "one", &[]);
    save(&service, "<b>y", "two", &[]);
    let mut browser = Browser::signed_in(&service);
    let page = browser.page("/health");
    assert!(page.contains("No problem is known."), "{page}");
    assert!(page.contains("2 versions and 2 names of 1 agent"), "{page}");
    assert!(
        !page.contains("checked;"),
        "only where it is asked for: {page}"
    );
    let page = browser.page("/health?check=1");
    assert!(
        page.contains("2 versions of 2 names checked; 0 findings."),
        "{page}"
    );
    // A version that is damaged.
    let files = walk(&dir.path().join("store/bot"));
    let file = files
        .iter()
        .find(|file| file.to_string_lossy().contains("/x/"));
    let file = file.expect("a file");
    std::fs::remove_file(file).expect("removed");
    std::fs::write(file, "damaged").expect("written");
    let page = browser.page("/health?check=1");
    assert!(page.contains("class=\"badge bad\""), "{page}");
    assert!(page.contains("run `persist repair`"), "{page}");
    for (token, path, status) in [
        (&metrics, "/health", 200),
        (&metrics, "/health?check=1", 403),
        (&reader, "/health", 403),
    ] {
        service.token = token.clone();
        let mut browser = Browser::signed_in(&service);
        assert_eq!(browser.get(path).status, status, "{path}");
        let is_linked = browser.page("/").contains("href=\"/health\"");
        assert_eq!(is_linked, token == &metrics);
    }
}

/// Returns the files below a directory.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let below = paths.flat_map(|path| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    });
    below.collect()
}

#[test]
fn pages_of_a_state_of_100_mib_are_small() {
    const SIZE: usize = 100 << 20;
    let dir = tempdir();
    let service = Service::start(dir.path());
    let json = format!("[{}0]", "0,".repeat(SIZE / 2));
    let text = "é".repeat(SIZE / 2);
    save(&service, "json", &json, &[]);
    save(&service, "text", &text, &[]);
    save(&service, "json", &text, &[]);
    let before = service.peak_memory();
    let mut browser = Browser::signed_in(&service);
    for (name, view, shown) in [
        ("json", "&view=tree", "larger than 4 MiB"),
        ("json", "&view=text&offset=90000000", ">Next</a>"),
        ("text", "", ">Download</a>"),
        ("text", "&view=hex&offset=104857000", ">Back</a>"),
    ] {
        let path = format!("/version?agent=bot&name={name}&version=1{view}");
        let page = browser.page(&path);
        assert!(page.len() < 1 << 20, "{path}: {}", page.len());
        assert!(page.contains(shown), "{path}");
    }
    let page = browser.page("/diff?agent=bot&name=json&from=1&to=2");
    assert!(
        page.len() < 1 << 20 && page.contains("differs in"),
        "{}",
        page.len()
    );
    let grown = service.peak_memory() - before;
    assert!(grown < 64 << 20, "the pages took {grown} bytes");
}

#[test]
fn without_tokens_the_console_takes_only_its_own_forms() {
    let dir = tempdir();
    let file = manifest(dir.path(), &guest("test_guest"), "");
    let service = Service::of(dir.path(), &file, String::new(), &["--no-auth"]);
    for turn in ["one", "two"] {
        let path = "/v1/agents/bot/names/x/state";
        assert!(service.plain("PUT", path, &[], turn).status.is_success());
    }
    let mut browser = Browser::new(&service);
    let page = browser.page(&name_page("bot", "x"));
    let fields = fields(&page, "/undo");
    let fields: Vec<_> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let own = format!("http://{}", service.address);
    for (origin, status) in [("https://example.com", 403), ("null", 403), (&own, 303)] {
        let reply = browser.post("/undo", &fields, &[("origin", origin)]);
        assert_eq!(reply.status, status, "{origin}");
    }
    let rebound = [("host", "example.com")];
    let request = service.plain("GET", "/", &rebound, "");
    assert_eq!(request.status, 403, "a name that leads here");
    drop(service);
    let options = ["--no-auth", "--no-console"];
    let service = Service::of(dir.path(), &file, String::new(), &options);
    for path in ["/", "/sign-in", "/assets/console.css"] {
        assert_eq!(service.plain("GET", path, &[], "").status, 404, "{path}");
    }
}

#[test]
fn a_path_that_is_none_is_a_page_for_a_browser() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let mut browser = Browser::signed_in(&service);
    let html = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (path, status) in [("/none", 404), ("/sign-out", 405)] {
        let reply = browser.send("GET", path, &html, "");
        let page = text(&reply.body);
        assert_eq!(reply.status, status, "{path}: {page}");
        assert!(page.contains("role=\"alert\""), "{path}: {page}");
        assert!(page.contains("action=\"/sign-out\""), "{path}: {page}");
        let reply = service.plain("GET", path, &html, "");
        assert!(!text(&reply.body).contains("action=\"/sign-out\""));
        let reply = service.plain("GET", path, &[("accept", "*/*")], "");
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
}

#[test]
fn requests_of_the_console_are_counted() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let mut browser = Browser::signed_in(&service);
    let wrong = [("key", "00"), ("token", "persist_00")];
    assert_eq!(browser.post("/sign-in", &wrong, &[]).status, 403);
    let metrics = service.get("/metrics");
    let metrics = text(&metrics.body);
    for (method, status) in [("GET", 200), ("POST", 303), ("POST", 403)] {
        let counted = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
             http_route=\"/sign-in\",http_response_status_code=\"{status}\",\
             url_scheme=\"http\"}} 1\n"
        );
        assert!(metrics.contains(&counted), "{counted}: {metrics}");
    }
}

#[test]
fn an_error_is_a_page_that_tells_what_to_do() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    save(&service, "x", "one", &[]);
    let mut browser = Browser::signed_in(&service);
    for (path, status, why) in [
        ("/name?agent=bot&name=none", 404, "nothing is saved here"),
        ("/version?agent=bot&name=x&version=9", 404, "not found"),
        ("/version?agent=bot&name=x", 400, "no version is given"),
        ("/name?name=x", 400, "no agent is given"),
        ("/name?agent=bot&name=%00", 400, "control character"),
        ("/diff?agent=bot&name=x&from=1", 400, "`to`"),
    ] {
        let reply = browser.get(path);
        let page = text(&reply.body);
        assert_eq!(reply.status, status, "{path}: {page}");
        assert!(
            page.contains(why) && page.contains("role=\"alert\""),
            "{path}: {page}"
        );
    }
}

/// Needs Debian's Chromium and Node.js. The tasks are in `tests/browser/console.mjs`.
#[test]
fn people_do_their_tasks_in_a_browser() {
    let modules = toolchains().join("browser");
    if !["node", "chromium"].iter().all(|name| has_program(name)) {
        return;
    }
    assert!(modules.is_dir(), "run `cargo xtask test` to install it");
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("test_guest"), &["--poll", "50ms"]);
    for turn in ["one", "two", "three"] {
        let state = json!({ "turn": turn, "facts": ["likes <b>tea</b>", 1.5, null] });
        let typed = [
            ("content-type", "application/json"),
            ("persist-label-turn", turn),
        ];
        save(&service, "memory", &format!("{state:#}"), &typed);
    }
    for name in ["<script>alert(1)</script>", "\u{202e}gpj.exe", "notes/2026"] {
        save(&service, name, name, &[]);
    }
    let path = "/v1/agents/bot/sessions/monday/names/memory/state";
    assert_eq!(service.send("PUT", path, &[], "in a session").status, 201);
    let images = modules.join("screenshots");
    std::fs::create_dir_all(&images).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/console.mjs");
    let mut node = std::process::Command::new("node");
    node.arg(script)
        .arg(format!("http://{}", service.address))
        .arg(&service.token)
        .arg(images)
        .env("NODE_MODULES", modules);
    let output = node.output().expect("node runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
