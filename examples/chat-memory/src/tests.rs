use persist_guest::{Error, Expect, double, history, load, names, restore, save, stat};

use crate::memory::Memory;

fn run(args: &[&str]) -> Result<String, String> {
    crate::run(args.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
}

const LINES: [&str; 4] = [
    "Ann: Is the harbour open?",
    "Bo: From nine: not before.",
    "They wait.",
    "Ann: Then to the harbour!",
];

fn follow(lines: &[&str]) -> Result<String, String> {
    run(&[&["follow"], lines].concat())
}

#[test]
fn each_turn_is_answered_from_memory() {
    assert_eq!(
        run(&["say", "The harbour is closed"]).as_deref(),
        Ok("turn 1: that is new to me")
    );
    assert_eq!(
        run(&["say", "We wait", "Harbour or station?"]).as_deref(),
        Ok("turn 2: that is new to me\nturn 3: you spoke of \"harbour\" before, in turn 1")
    );
}

#[test]
fn every_turn_is_a_version_that_says_its_number() -> Result<(), Error> {
    assert!(follow(&LINES).is_ok());
    for info in history("memory") {
        let info = info?;
        assert_eq!(info.label("turn"), Some(info.version.to_string().as_str()));
        assert_eq!(info.media_type.as_deref(), Some("application/json"));
    }
    assert_eq!(stat("memory", None)?.map(|head| head.version), Some(4));
    assert_eq!(names("").collect::<Result<Vec<_>, _>>()?, ["memory"]);
    Ok(())
}

#[test]
fn follow_goes_on_where_it_stopped() {
    assert_eq!(
        follow(&LINES[..1]).as_deref(),
        Ok("remembered 0 turns, added 1")
    );
    assert_eq!(follow(&LINES).as_deref(), Ok("remembered 1 turns, added 3"));
    assert_eq!(follow(&LINES).as_deref(), Ok("remembered 4 turns, added 0"));
    assert_eq!(
        run(&["recall", "HARBOUR"]),
        Ok([
            "I remember 4 turns.",
            "turn 1: Ann: Is the harbour open?",
            "turn 4: Ann: Then to the harbour!"
        ]
        .join("\n"))
    );
}

#[test]
fn follow_goes_on_after_a_failed_save() {
    assert!(follow(&LINES[..2]).is_ok());
    // Loading answers, the save that follows does not.
    let mut memory = Memory::load().expect("it was saved");
    double::fail_next(Error::Timeout);
    let error = memory.add(LINES[2]).expect_err("the save failed");
    assert!(
        error.starts_with("turn 3 was not saved: timeout"),
        "{error}"
    );
    assert_eq!(follow(&LINES).as_deref(), Ok("remembered 2 turns, added 2"));
}

#[test]
fn another_conversation_is_refused_at_the_turn_where_it_differs() -> Result<(), Error> {
    assert!(follow(&LINES[..3]).is_ok());
    let error = follow(&[LINES[0], "Bo: No.", LINES[2]]).expect_err("it differs");
    assert!(
        error.contains("in turn 2 I remember \"Bo: From nine: not before.\", it says \"Bo: No.\""),
        "{error}"
    );
    let error = follow(&LINES[..2]).expect_err("it is shorter");
    assert!(
        error.contains("in turn 3 I remember \"They wait.\", it ends before"),
        "{error}"
    );
    assert_eq!(stat("memory", None)?.map(|head| head.version), Some(3));
    Ok(())
}

#[test]
fn two_runs_at_once_do_not_overwrite_each_other() {
    let mut one = Memory::load().expect("empty");
    let mut other = Memory::load().expect("empty");
    assert_eq!(one.add("from one"), Ok(()));
    let error = other.add("from the other").expect_err("one was first");
    assert_eq!(
        error,
        "turn 1 was not saved: another run saved a turn meanwhile; run me again"
    );
    assert_eq!(one.add("from one again"), Ok(()));
    assert_eq!(
        run(&["recall"]).as_deref(),
        Ok("I remember 2 turns.\nturn 1: from one\nturn 2: from one again")
    );
}

#[test]
fn archives_of_other_programs_are_refused_and_kept() -> Result<(), Error> {
    for foreign in [
        "",
        "not JSON",
        "[]",
        "{}",
        r#"{"turns":[],"mood":"good"}"#,
        r#"{"turns":[{"text":7}]}"#,
    ] {
        double::reset();
        save("memory", foreign)?;
        for command in ["say", "follow", "recall"] {
            let error = run(&[command, "x"]).expect_err(foreign);
            assert!(
                error.starts_with("unreadable: version 1 of memory is not what this agent reads"),
                "{error}"
            );
        }
        assert_eq!(load("memory")?.as_deref(), Some(foreign.as_bytes()));
    }
    Ok(())
}

#[test]
fn an_earlier_version_is_an_earlier_conversation() -> Result<(), Error> {
    assert!(follow(&LINES).is_ok());
    restore("memory", 2, Expect::Any)?;
    assert_eq!(follow(&LINES).as_deref(), Ok("remembered 2 turns, added 2"));
    Ok(())
}

#[test]
fn anything_else_is_told_the_usage() {
    for args in [
        &[][..],
        &["say"],
        &["follow"],
        &["recall", "a", "b"],
        &["forget"],
    ] {
        assert_eq!(run(args), Err(crate::USAGE.into()));
    }
}
