//! An agent that remembers a conversation. It saves its memory after every turn, so whatever stops
//! it, the next run goes on from the last turn that was acknowledged.
//!
//! - `say TEXT…` remembers each text as a turn and answers it.
//! - `follow LINE…` takes a whole conversation and goes on from the first line not remembered.
//! - `recall [WORD]` tells what it remembers.

mod memory;
#[cfg(test)]
mod tests;

use std::error::Error;

use memory::Memory;
use persist_guest::agent;

agent!(run);

const USAGE: &str = "usage: say TEXT…            remember each TEXT as a turn of the conversation
       follow LINE…         a conversation, one line each (`Speaker: text` or plain text):
                            go on from the first line that is not remembered
       recall [WORD]        the last turns, or those that hold WORD";

fn run(args: Vec<String>) -> Result<String, Box<dyn Error>> {
    let (command, rest) = args.split_first().ok_or(USAGE)?;
    match (command.as_str(), rest) {
        ("say", [_, ..]) => say(rest),
        ("follow", [_, ..]) => follow(rest),
        ("recall", []) => recall(None),
        ("recall", [word]) => recall(Some(word)),
        _ => Err(USAGE.into()),
    }
}

fn say(texts: &[String]) -> Result<String, Box<dyn Error>> {
    let mut memory = Memory::load()?;
    let mut answers = Vec::new();
    for text in texts {
        let echo = match memory.last_about(text) {
            Some((turn, word)) => format!("you spoke of \"{word}\" before, in turn {turn}"),
            None => "that is new to me".into(),
        };
        memory.add(text)?;
        answers.push(format!("turn {}: {echo}", memory.turns().len()));
    }
    Ok(answers.join("\n"))
}

fn follow(lines: &[String]) -> Result<String, Box<dyn Error>> {
    let mut memory = Memory::load()?;
    let known = memory.turns().len();
    memory.check_beginning_of(lines)?;
    for line in &lines[known..] {
        memory.add(line)?;
    }
    Ok(format!(
        "remembered {known} turns, added {}",
        lines.len() - known
    ))
}

fn recall(word: Option<&str>) -> Result<String, Box<dyn Error>> {
    let memory = Memory::load()?;
    let count = memory.turns().len();
    let numbered = memory
        .turns()
        .iter()
        .enumerate()
        .map(|(at, turn)| format!("turn {}: {turn}", at + 1));
    let mut answer = vec![format!("I remember {count} turns.")];
    match word.map(str::to_lowercase) {
        Some(word) => answer.extend(numbered.filter(|turn| turn.to_lowercase().contains(&word))),
        None => answer.extend(numbered.skip(count.saturating_sub(3))),
    }
    Ok(answer.join("\n"))
}
