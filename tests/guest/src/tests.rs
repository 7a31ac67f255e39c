//! The scenarios against the double, so that what fails in the sandbox is the host's.

fn run(line: &str) -> Result<String, String> {
    crate::run(line.split(' ').map(String::from).collect())
}

fn ok(line: &str) -> String {
    run(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn changes_answer_their_version_and_loads_their_text() {
    assert_eq!(ok("save a one"), "version 1");
    assert_eq!(ok("save-expect a 1 two"), "version 2");
    assert_eq!(ok("load a"), "2 two");
    assert_eq!(ok("load a 1"), "1 one");
    assert_eq!(ok("delete a 2"), "version 3");
    assert_eq!(ok("load a"), "none");
    assert_eq!(ok("restore a 1"), "version 4");
    assert_eq!(ok("fork a b 2"), "version 1");
    assert_eq!(ok("names "), "a\nb");
    assert_eq!(ok("names  1 a"), "b");
    assert_eq!(ok("history a").lines().count(), 4);
    assert!(ok("history a 3 1").starts_with("version 2 parent 1 saved size 3 "));
    assert!(ok("limits").contains("\nmax-chunk 1048576\n"));
}

#[test]
fn errors_answer_their_case_and_details() {
    for (line, error) in [
        ("save-expect a 3 text", "conflict none"),
        ("delete a", "not-found"),
        ("load a 1", "not-found"),
        ("history a 3 0", "invalid a limit is 0; the minimum is 1"),
        ("big-save a 16777217", "too-large 16777217"),
        ("error some words", "some words"),
    ] {
        assert_eq!(run(line), Err(error.into()), "{line}");
    }
    ok("save a one");
    assert_eq!(run("save-expect a absent text"), Err("conflict 1".into()));
    assert!(run("nonsense").is_err_and(|usage| usage.contains("read-stream NAME")));
}

#[test]
fn labels_come_back() {
    ok("save-labels a text text/plain turn=1 mood=good");
    assert!(ok("stat a").ends_with(" media-type text/plain labels turn=1,mood=good name a"));
}

#[test]
fn streams_carry_the_made_up_bytes() {
    assert_eq!(ok("stream a 3 1000"), "version 1");
    ok("big-save b 3000");
    assert_eq!(ok("read-stream a"), ok("big-load b"));
    assert_eq!(
        ok("big-load a"),
        crate::describe_bytes(&crate::bytes(0, 3000))
    );
    assert_eq!(ok("stream-expect a 1 text"), "version 2");
    assert_eq!(ok("unfinished a"), "unfinished");
    assert_eq!(ok("many-writers a 3"), "opened 3");
    assert_eq!(ok("many-readers c 3"), "opened 0 not-found");
    assert_eq!(ok("load a"), "2 text");
}
