//! Options of a run: input, environment, secrets, and HTTP with an allow-list.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use persist_tests::http_server::{HttpServer, respond};
use persist_tests::{guest, persist, run_fails, run_ok, tempdir, text};

fn agent() -> String {
    guest("wasi_guest").to_str().expect("text").to_owned()
}

/// Runs the agent with options, and returns its answer.
fn ask(dir: &Path, options: &[&str], args: &[&str]) -> String {
    let agent = agent();
    let words = [&["run"], options, &[&agent, "--"], args].concat();
    run_ok(dir, &words).trim_end().to_owned()
}

fn with_input(dir: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = persist(dir)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn an_input_is_the_agents_standard_input() {
    let dir = tempdir();
    let file = dir.path().join("input");
    fs::write(&file, "from a file").expect("written");
    let file = file.to_str().expect("text");
    let store = dir.path().join("store");
    assert_eq!(ask(&store, &[], &["stdin"]), "");
    assert_eq!(ask(&store, &["--input", file], &["stdin"]), "from a file");
    let words = ["run", "--input", "-", &agent(), "--", "stdin"];
    let piped = with_input(&store, &words, b"from a pipe");
    assert_eq!(text(&piped.stdout), "from a pipe\n");
    let missing = run_fails(
        &store,
        &["run", "--input", "none", &agent(), "--", "stdin"],
        1,
    );
    assert!(missing.contains("cannot read none"), "{missing}");
}

#[test]
fn an_argument_may_be_longer_than_a_command_line_allows() {
    let dir = tempdir();
    let file = dir.path().join("long");
    fs::write(&file, "x".repeat(3 << 20)).expect("written");
    let option = ["--arg-file", file.to_str().expect("text")];
    let store = dir.path().join("store");
    assert_eq!(ask(&store, &option, &["length"]), (3 << 20).to_string());
    fs::write(&file, b"\xff").expect("written");
    let words = ["run", option[0], option[1], &agent(), "--", "length"];
    let refused = run_fails(&store, &words, 2);
    assert!(refused.contains("is not UTF-8 text"), "{refused}");
}

#[test]
fn variables_and_secrets_are_in_the_agents_environment_alone() {
    let dir = tempdir();
    let file = dir.path().join("key");
    fs::write(&file, "s3cr3t-0f-the-agent\n").expect("written");
    let secret = format!("API_KEY={}", file.display());
    let store = dir.path().join("store");
    assert_eq!(ask(&store, &[], &["env"]), "");
    let options = ["--env", "MODEL=small", "--secret", &secret];
    assert_eq!(
        ask(&store, &options, &["env"]),
        "MODEL=small\nAPI_KEY=s3cr3t-0f-the-agent"
    );
    // Nothing that the command logs or keeps shows it.
    let agent = agent();
    let words = [&["run"], &options[..], &[&agent, "--", "length", "x"]].concat();
    let logged = persist(&store)
        .args(&words)
        .env("RUST_LOG", "trace")
        .output();
    let logged = logged.expect("persist starts");
    assert!(logged.status.success());
    assert!(!text(&logged.stderr).contains("s3cr3t"));
    for file in walk(&store) {
        let bytes = fs::read(&file).expect("readable");
        assert!(!bytes.windows(6).any(|it| it == b"s3cr3t"), "{file:?}");
    }
    let refused = run_fails(&store, &["run", "--env", "MODEL", &agent, "--", "env"], 2);
    assert!(refused.contains("NAME=VALUE"), "{refused}");
}

#[test]
fn an_agent_has_the_settings_of_its_table_unless_an_option_sets_them() {
    let dir = tempdir();
    fs::write(dir.path().join("key.txt"), "s3cr3t-0f-the-agent\n").expect("written");
    let settings = dir.path().join("persist.toml");
    let table = "[agents.wasi_guest]\nenv = { MODEL = \"small\", PLACE = \"here\" }\n\
                 secrets = { API_KEY = \"key.txt\" }\nlimits = { memory = \"10KiB\" }\n\
                 [agents.other]\nsecrets = { KEY = \"none\" }\n";
    fs::write(&settings, table).expect("written");
    let store = dir.path().join("store");
    let config = ["--config", settings.to_str().expect("text")];
    let agent = agent();
    let limited = run_fails(
        &store,
        &["run", config[0], config[1], &agent, "--", "env"],
        9,
    );
    assert!(limited.contains("10 KiB"), "{limited}");
    let options = [
        &config[..],
        &["--limit", "memory=16MiB", "--env", "MODEL=large"],
    ]
    .concat();
    let answer = ask(&store, &options, &["env"]);
    let mut variables: Vec<_> = answer.lines().collect();
    variables.sort();
    let expected = ["API_KEY=s3cr3t-0f-the-agent", "MODEL=large", "PLACE=here"];
    assert_eq!(variables, expected);
    let unlimited = [
        &config[..],
        &["--limit", "memory=16MiB", "--agent", "third"],
    ]
    .concat();
    assert_eq!(ask(&store, &unlimited, &["env"]), "");
    let of_other = [
        &["run"],
        &config[..],
        &["--agent", "other", &agent, "--", "env"],
    ]
    .concat();
    let refused = run_fails(&store, &of_other, 2);
    assert!(refused.contains("agents.\"other\""), "{refused}");
    let shown = run_ok(&store, &[&["settings"], &config[..]].concat());
    assert!(
        shown.contains("env: MODEL,PLACE; secrets: API_KEY="),
        "{shown}"
    );
    assert!(
        !shown.contains("s3cr3t") && !shown.contains("small"),
        "{shown}"
    );
}

#[test]
fn a_secret_in_place_of_a_file_or_a_variable_is_not_printed() {
    let dir = tempdir();
    let agent = agent();
    for (option, value) in [
        ("--secret", "KEY=pl4nted-secret"),
        ("--secret", "pl4nted-secret"),
        (
            "--http-headers",
            "api.example.com=Authorization: pl4nted-secret",
        ),
        ("--http-headers", "Authorization: Bearer pl4nted-secret"),
        ("--env", "pl4nted-secret"),
    ] {
        for command in ["run", "chat"] {
            let refused = run_fails(dir.path(), &[command, option, value, &agent], 2);
            assert!(!refused.contains("pl4nted"), "{option}: {refused}");
            assert!(refused.contains(option), "{refused}");
            assert!(refused.contains("hint: write"), "{refused}");
        }
    }
    let twice = ["run", "--input", "-", "--arg-file", "-", &agent];
    assert!(run_fails(dir.path(), &twice, 2).contains("only once"));
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").flatten();
    let files = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    });
    files.collect()
}

#[test]
fn without_an_allowed_host_no_request_is_sent() {
    let server = HttpServer::answering("hello");
    let dir = tempdir();
    let url = server.url("/");
    let output = persist(dir.path())
        .args(["run", &agent(), "--", "get", &url])
        .output()
        .expect("persist starts");
    assert_eq!(text(&output.stdout), "error ErrorCode::HttpRequestDenied\n");
    let host = format!("http://127.0.0.1:{}", server.port());
    let hint = format!("add --allow-http {host} ");
    assert!(
        text(&output.stderr).contains(&hint),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(server.received().len(), 0);
    assert_eq!(
        ask(dir.path(), &["--allow-http", &host], &["get", &url]),
        "200 hello"
    );
}

#[test]
fn an_allowed_host_is_not_its_neighbour() {
    let server = HttpServer::answering("hello");
    let other = HttpServer::answering("other");
    let dir = tempdir();
    let host = format!("127.0.0.1:{}", server.port());
    let option = ["--allow-http", &host];
    for url in [
        other.url("/"),
        format!("http://localhost:{}/", server.port()),
        format!(
            "http://127.0.0.1:{}@127.0.0.1:{}/",
            server.port(),
            other.port()
        ),
    ] {
        let answer = ask(dir.path(), &option, &["get", &url]);
        assert!(answer.starts_with("error "), "{url}: {answer}");
    }
    assert_eq!(server.received().len() + other.received().len(), 0);
}

#[test]
fn a_name_that_resolves_to_a_private_address_is_refused() {
    let server = HttpServer::answering("secrets of this machine");
    let dir = tempdir();
    let port = server.port();
    // Resolvers read this name as 127.0.0.1, as they would any name of an attacker's.
    let url = format!("http://2130706433:{port}/");
    let by_name = format!("http://2130706433:{port}");
    let refused = ask(dir.path(), &["--allow-http", &by_name], &["get", &url]);
    assert_eq!(refused, "error ErrorCode::DestinationIpProhibited");
    assert_eq!(server.received().len(), 0);
    let by_address = format!("http://127.0.0.1:{port}");
    let options = ["--allow-http", &by_name, "--allow-http", &by_address];
    assert_eq!(
        ask(dir.path(), &options, &["get", &url]),
        "200 secrets of this machine"
    );
    let local = format!("localhost:{port}");
    let url = format!("http://localhost:{port}/");
    assert_eq!(
        ask(dir.path(), &["--allow-http", &local], &["get", &url]),
        "200 secrets of this machine"
    );
}

#[test]
fn a_redirect_is_checked_as_a_request() {
    let inner = HttpServer::answering("inner");
    let target = inner.url("/");
    let outer = HttpServer::start(move |_, stream| {
        respond(stream, "302 Found", &format!("location: {target}\r\n"), "");
    });
    let dir = tempdir();
    let outer_host = format!("127.0.0.1:{}", outer.port());
    let inner_host = format!("127.0.0.1:{}", inner.port());
    let option = ["--allow-http", &outer_host];
    // The host follows nothing by itself.
    assert_eq!(ask(dir.path(), &option, &["get", &outer.url("/")]), "302");
    let followed = ask(dir.path(), &option, &["follow", &outer.url("/")]);
    assert_eq!(followed, "error ErrorCode::HttpRequestDenied");
    assert_eq!(inner.received().len(), 0);
    let options = ["--allow-http", &outer_host, "--allow-http", &inner_host];
    assert_eq!(
        ask(dir.path(), &options, &["follow", &outer.url("/")]),
        "200 inner"
    );
}

#[test]
fn a_header_of_the_host_is_hidden_from_the_agent() {
    let server = HttpServer::answering("hello");
    let other = HttpServer::answering("other");
    let dir = tempdir();
    let file = dir.path().join("headers");
    fs::write(&file, "Authorization: Bearer s3cr3t\n\nx-team: 7\n").expect("written");
    let host = format!("127.0.0.1:{}", server.port());
    let other_host = format!("127.0.0.1:{}", other.port());
    let headers = format!("{host}={}", file.display());
    let allow = ["--allow-http", &host, "--allow-http", &other_host];
    let options = [&allow[..], &["--http-headers", &headers]].concat();
    let store = dir.path().join("store");
    let own = ["get", &server.url("/"), "authorization", "of the agent"];
    assert_eq!(ask(&store, &options, &own), "200 hello");
    ask(&store, &options, &["get", &other.url("/")]);
    let received = &server.received()[0];
    assert_eq!(received.header("authorization"), Some("Bearer s3cr3t"));
    assert_eq!(received.header("x-team"), Some("7"));
    assert_eq!(received.header("host"), Some(host.as_str()));
    assert_eq!(other.received()[0].header("authorization"), None);

    fs::write(&file, "Authorization Bearer s3cr3t\n").expect("written");
    let agent = agent();
    let words = [&["run"], &options[..], &[&agent, "--", "env"]].concat();
    let refused = run_fails(&store, &words, 2);
    assert!(
        refused.contains("line 1 of the file: not a header"),
        "{refused}"
    );
    assert!(!refused.contains("s3cr3t"), "{refused}");
    let words = ["run", "--http-headers", &headers, &agent, "--", "env"];
    fs::write(&file, "Authorization: Bearer s3cr3t\n").expect("written");
    let refused = run_fails(&store, &words, 2);
    assert!(refused.contains("no request there is allowed"), "{refused}");
}

#[test]
fn requests_bytes_and_time_are_limited() {
    let server = HttpServer::start(|request, stream| match request.line.as_str() {
        "GET /big" => respond(stream, "200 OK", "", &"x".repeat(100_000)),
        "GET /slow" => {
            // The rest of the body never comes.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin");
            std::thread::sleep(Duration::from_secs(60));
        }
        "GET /silent" => std::thread::sleep(Duration::from_secs(60)),
        _ => respond(stream, "200 OK", "", "ok"),
    });
    let dir = tempdir();
    let host = format!("127.0.0.1:{}", server.port());
    let ask = |limit: &str, args: &[&str]| {
        let options = ["--allow-http", &host, "--limit", limit];
        ask(dir.path(), &options, args)
    };
    let many = ["get-many", &server.url("/"), "4"];
    let quota = |name: &str, max: &str| format!("quota exceeded: the limit `{name}` is {max}");
    assert_eq!(ask("http-requests=4", &many), "200 ok");
    let refused = ask("http-requests=3", &many);
    assert!(refused.contains(&quota("http-requests", "3")), "{refused}");
    assert_eq!(server.received().len(), 7);

    let big = ["get", &server.url("/big")];
    assert!(ask("http-bytes=100000", &big).starts_with("200 xxx"));
    let refused = ask("http-bytes=99999", &big);
    assert!(refused.contains(&quota("http-bytes", "99999")), "{refused}");
    let sent = ["post-bytes", &server.url("/"), "100000"];
    let refused = ask("http-bytes=99999", &sent);
    assert!(refused.contains(&quota("http-bytes", "99999")), "{refused}");

    for path in ["/slow", "/silent"] {
        let refused = ask("http-time=500ms", &["get", &server.url(path)]);
        assert!(
            refused.to_lowercase().contains("timeout"),
            "{path}: {refused}"
        );
    }
}

#[test]
fn a_body_is_sent_and_read_whole() {
    let server = HttpServer::start(|request, stream| {
        let body = String::from_utf8_lossy(&request.body).to_uppercase();
        respond(stream, "201 Created", "", &body);
    });
    let dir = tempdir();
    let host = format!("127.0.0.1:{}", server.port());
    let long = "abc".repeat(20_000);
    let url = server.url("/a?b=c");
    let answer = ask(dir.path(), &["--allow-http", &host], &["post", &url, &long]);
    assert_eq!(answer, format!("201 {}", long.to_uppercase()));
    assert_eq!(server.received()[0].line, "POST /a?b=c");
}

#[test]
fn what_is_no_host_is_refused_with_the_option() {
    let dir = tempdir();
    for host in ["https://a/path", "me@a", "a:0", "m\u{fc}ller.de"] {
        let words = ["run", "--allow-http", host, &agent(), "--", "env"];
        let refused = run_fails(dir.path(), &words, 2);
        assert!(refused.contains("--allow-http"), "{refused}");
    }
}
