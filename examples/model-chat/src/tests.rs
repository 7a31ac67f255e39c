use persist_guest::{history, json};

use crate::conversation::{Message, NAME, Question, Role, turn};

fn messages() -> Vec<(Role, String)> {
    let saved = json::load::<Vec<Message>>(NAME).expect("readable");
    let saved = saved.unwrap_or_default().into_iter();
    saved
        .map(|message| (message.role, message.content))
        .collect()
}

fn user(text: &str) -> (Role, String) {
    (Role::User, text.into())
}

fn assistant(text: &str) -> (Role, String) {
    (Role::Assistant, text.into())
}

/// Replies with the number of messages that it was asked with.
fn counting(question: &Question<'_>) -> Result<String, Box<dyn std::error::Error>> {
    Ok(format!("reply to {}", question.messages.len()))
}

#[test]
fn the_model_hears_the_whole_conversation() {
    assert_eq!(
        turn(Some("one"), &mut counting).expect("a reply"),
        "reply to 1"
    );
    assert_eq!(
        turn(Some("two"), &mut counting).expect("a reply"),
        "reply to 3"
    );
    assert_eq!(
        messages(),
        [
            user("one"),
            assistant("reply to 1"),
            user("two"),
            assistant("reply to 3")
        ]
    );
}

#[test]
fn an_interrupted_turn_is_neither_lost_nor_doubled() {
    let mut keys = Vec::new();
    let mut failing = |question: &Question<'_>| {
        keys.push(question.idempotency_key.clone());
        Err("killed".into())
    };
    assert!(turn(Some("one"), &mut failing).is_err());
    assert_eq!(messages(), [user("one")]);
    // The same message is a retry, with the same key.
    assert!(turn(Some("one"), &mut failing).is_err());
    assert_eq!(keys, ["turn-1", "turn-1"]);
    assert_eq!(turn(None, &mut counting).expect("a reply"), "reply to 1");
    assert_eq!(messages(), [user("one"), assistant("reply to 1")]);
    // The same words again, after the reply, are a turn of their own.
    turn(Some("one"), &mut counting).expect("a reply");
    assert_eq!(messages().len(), 4);
    assert!(turn(None, &mut counting).is_err());
}

#[test]
fn another_message_waits_for_the_reply_to_the_interrupted_one() {
    turn(Some("one"), &mut |_| Err("killed".into())).expect_err("killed");
    turn(Some("two"), &mut counting).expect("a reply");
    assert_eq!(
        messages(),
        [
            user("one"),
            assistant("reply to 1"),
            user("two"),
            assistant("reply to 3")
        ]
    );
}

#[test]
fn two_runs_at_once_do_not_mix_their_turns() {
    let mut raced = |question: &Question<'_>| {
        if question.messages.len() == 1 {
            turn(Some("one"), &mut counting)?;
        }
        counting(question)
    };
    let error = turn(Some("one"), &mut raced).expect_err("the other run was first");
    assert!(error.to_string().contains("conflict"), "{error}");
    assert_eq!(messages(), [user("one"), assistant("reply to 1")]);
    assert_eq!(history(NAME).count(), 2);
}
