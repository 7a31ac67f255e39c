//! `examples/model-chat` and `examples/model-chat-python`: a conversation with a model behind an
//! HTTP API. The model is a scripted server of our own that speaks the chat-completions format: no
//! real one would answer the same each time, or wait to be killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use persist_tests::http_server::{HttpServer, Received, respond};
use persist_tests::{guest_in, guest_on, persist, run_ok, tempdir, text};
use serde_json::{Value, json};

/// Answers with the number of messages that it heard, and the last of them.
fn reply(request: &Received) -> String {
    let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
    let messages = asked["messages"].as_array().expect("an array");
    let last = messages.last().expect("one")["content"].as_str();
    let content = format!("{} heard: {}", messages.len(), last.expect("text"));
    json!({ "choices": [{ "message": { "role": "assistant", "content": content } }] }).to_string()
}

fn model() -> HttpServer {
    HttpServer::start(|request, stream| {
        respond(
            stream,
            "200 OK",
            "content-type: application/json\r\n",
            &reply(request),
        );
    })
}

/// `persist run` of the agent in Rust, allowed to ask `model`.
fn agent(dir: &Path, model: &HttpServer, message: &[&str]) -> Command {
    let component = guest_on("wasm32-wasip1", "model_chat");
    agent_of(&component, dir, model, message)
}

fn agent_of(component: &Path, dir: &Path, model: &HttpServer, message: &[&str]) -> Command {
    let mut command = persist(dir);
    command
        .args(["run", "--agent", "bot", "--env", "MODEL=small", "--env"])
        .arg(format!("MODEL_URL={}", model.url("/v1/chat/completions")))
        .args(["--allow-http", &format!("127.0.0.1:{}", model.port())])
        .arg(component)
        .arg("--")
        .args(message);
    command
}

fn ask(dir: &Path, model: &HttpServer, message: &[&str]) -> String {
    answer(&mut agent(dir, model, message))
}

fn answer(agent: &mut Command) -> String {
    let output = agent.output().expect("persist starts");
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    text(&output.stdout).trim_end().to_owned()
}

/// Contents of the saved messages.
fn messages(dir: &Path) -> Vec<String> {
    let saved: Value =
        serde_json::from_str(&run_ok(dir, &["cat", "bot/conversation"])).expect("JSON");
    let messages = saved.as_array().expect("an array").iter();
    messages
        .map(|message| message["content"].as_str().expect("text").to_owned())
        .collect()
}

#[test]
fn the_model_hears_the_conversation_that_the_store_keeps() {
    let dir = tempdir();
    let model = model();
    assert_eq!(ask(dir.path(), &model, &["hello"]), "1 heard: hello");
    assert_eq!(ask(dir.path(), &model, &["more"]), "3 heard: more");
    let asked: Value = serde_json::from_slice(&model.received()[1].body).expect("JSON");
    assert_eq!(
        asked,
        json!({ "model": "small", "messages": [
            { "role": "user", "content": "hello" },
            { "role": "assistant", "content": "1 heard: hello" },
            { "role": "user", "content": "more" },
        ] })
    );
    assert_eq!(
        messages(dir.path()),
        ["hello", "1 heard: hello", "more", "3 heard: more"]
    );
}

#[test]
fn a_host_that_is_killed_while_the_model_thinks_loses_and_doubles_no_turn() {
    let dir = tempdir();
    // The first answer never comes.
    let silent = HttpServer::start(|_, _| sleep(Duration::from_secs(600)));
    kill_once_it_asked(agent(dir.path(), &silent, &["hello"]), &silent);
    assert_eq!(messages(dir.path()), ["hello"]);

    let model = model();
    // The same message again is the same turn, with the same key.
    assert_eq!(ask(dir.path(), &model, &["hello"]), "1 heard: hello");
    assert_eq!(key(&silent), key(&model));
    assert_eq!(messages(dir.path()), ["hello", "1 heard: hello"]);
}

/// Kills the host of an agent when the model has heard a question.
fn kill_once_it_asked(mut agent: Command, model: &HttpServer) {
    let mut killed = agent.stdout(Stdio::null()).spawn().expect("persist starts");
    while model.received().is_empty() {
        let ended = killed.try_wait().expect("it can be asked");
        assert_eq!(ended, None, "the agent ended before it asked the model");
        sleep(Duration::from_millis(10));
    }
    killed.kill().expect("killed");
    killed.wait().expect("it ends");
}

/// Key of the first question that a model heard.
fn key(model: &HttpServer) -> String {
    let asked = model.received().remove(0);
    asked.header("idempotency-key").expect("a key").to_owned()
}

#[test]
fn the_agent_in_python_is_killed_and_continues_as_the_one_in_rust() {
    let Some(component) = guest_in("python", "model_chat") else {
        return;
    };
    let dir = tempdir();
    let dir = dir.path();
    let silent = HttpServer::start(|_, _| sleep(Duration::from_secs(600)));
    kill_once_it_asked(agent_of(&component, dir, &silent, &["hello"]), &silent);
    assert_eq!(messages(dir), ["hello"]);

    let broken = HttpServer::start(|_, stream| {
        respond(stream, "429 Too Many Requests", "", "slow down");
    });
    let output = agent_of(&component, dir, &broken, &[]).output();
    let output = output.expect("persist starts");
    assert_eq!(output.status.code(), Some(9));
    let said = text(&output.stderr);
    assert!(
        said.contains("the model's server answered 429: slow down"),
        "{said}"
    );
    // A model that the operator does not allow.
    let denied = persist(dir)
        .args([
            "run",
            "--agent",
            "bot",
            "--env",
            "MODEL_URL=http://127.0.0.1:9/",
        ])
        .arg(&component)
        .output();
    let said = text(&denied.expect("persist starts").stderr).to_owned();
    assert!(
        said.contains("cannot ask the model: HTTP-request-denied"),
        "{said}"
    );

    let model = model();
    let python = |message: &[&str]| answer(&mut agent_of(&component, dir, &model, message));
    assert_eq!(python(&["hello"]), "1 heard: hello");
    assert_eq!(key(&silent), key(&model));
    assert_eq!(messages(dir), ["hello", "1 heard: hello"]);
    // Larger than one write to the host takes.
    let long = "é".repeat(5000);
    assert_eq!(python(&[&long]), format!("3 heard: {long}"));
    // The agent in Rust continues the conversation.
    assert_eq!(ask(dir, &model, &["more"]), "5 heard: more");
}

#[test]
fn an_error_of_the_model_is_an_error_and_keeps_the_message() {
    let dir = tempdir();
    let broken = HttpServer::start(|_, stream| {
        respond(stream, "429 Too Many Requests", "", "slow down");
    });
    let output = agent(dir.path(), &broken, &["hello"]).output();
    let output = output.expect("persist starts");
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("429 Too Many Requests: slow down"));
    assert_eq!(messages(dir.path()), ["hello"]);
    assert_eq!(ask(dir.path(), &model(), &[]), "1 heard: hello");
}
