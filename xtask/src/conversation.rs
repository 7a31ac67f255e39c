//! The conversation that the demo's agent remembers: a public text of three hundred turns, from a
//! pinned package, fetched once and kept in the target directory.

use crate::machine::{self, Workspace};
use crate::pypi;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use yaml_rust2::YamlLoader;

/// Description of the text, for the user who is shown it.
pub(crate) const SOURCE: &str = "chatterbot-corpus 1.3.3 from PyPI (BSD License)";

const REQUIREMENT: &str = "chatterbot-corpus==1.3.3 \
     --hash=sha256:86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154\n";
const WHEEL: &str = "chatterbot_corpus-1.3.3-py2.py3-none-any.whl";
/// 129 + 88 + 50 + 34 turns.
const FILES: [&str; 4] = [
    "conversations.yml",
    "literature.yml",
    "greetings.yml",
    "food.yml",
];

/// The turns in order, each a line that begins with its speaker: `A: ` or `B: `.
pub(crate) fn turns(workspace: &Workspace) -> Result<Vec<String>> {
    let english = fetch(workspace)?.join("chatterbot_corpus/data/english");
    let mut turns = Vec::new();
    for file in FILES {
        let path = english.join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", workspace.short(&path).display()))?;
        turns.extend(parse(&text).with_context(|| format!("{file} is not a corpus"))?);
    }
    Ok(turns)
}

/// The turns of one file of the corpus: a list `conversations` of lists of what is said in turn.
fn parse(text: &str) -> Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(text)?;
    let document = documents.first().context("it is empty")?;
    let conversations = document["conversations"]
        .as_vec()
        .context("it has no conversations")?;
    let mut turns = Vec::new();
    for conversation in conversations {
        let said = conversation
            .as_vec()
            .context("a conversation is not a list")?;
        for (said, speaker) in said.iter().zip(["A", "B"].iter().cycle()) {
            let said = said.as_str().context("a turn is not text")?;
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            turns.push(format!("{speaker}: {words}"));
        }
    }
    Ok(turns)
}

/// The unpacked package; downloaded where it is not there yet.
fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("conversation");
    let unpacked = folder.join("chatterbot-corpus-1.3.3");
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    println!("Fetching the conversation: {SOURCE}");
    fs::create_dir_all(&folder)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT)?;
    let python = pypi::python()?;
    // pip compares the hash, also of a file that it finds in the folder. Only data is read, so the
    // Python that the package asks for does not matter.
    let mut pip = pypi::pip(python, "download", &requirements);
    pip.arg("--ignore-requires-python")
        .arg("--dest")
        .arg(&folder);
    machine::run(&mut pip)?;
    unpack(python, &folder.join(WHEEL), &unpacked)?;
    Ok(unpacked)
}

/// Unpacks beside the folder and renames, so that a folder that is there is whole.
fn unpack(python: &str, wheel: &Path, folder: &Path) -> Result<()> {
    ensure!(wheel.is_file(), "pip fetched no {WHEEL}");
    let partial = wheel.with_extension("partial");
    let mut zip = Command::new(python);
    zip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&partial);
    machine::run(&mut zip)?;
    Ok(fs::rename(&partial, folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = "\
categories:
- conversations
conversations:
- - Who are you?
  - It's not your powers of observation I doubt, but merely the paradoxical nature
    of asking a masked man who is. But tell me, do you like music?
  - 'Both, sir: \"music\"  and ''silence'''
- - Hello
  - Hi
";

    #[test]
    fn speakers_alternate_and_each_conversation_begins_with_the_first() -> Result<()> {
        let speakers: Vec<_> = parse(CORPUS)?
            .iter()
            .map(|turn| turn[..2].to_owned())
            .collect();
        assert_eq!(speakers, ["A:", "B:", "A:", "A:", "B:"]);
        Ok(())
    }

    #[test]
    fn a_turn_that_goes_on_in_the_next_line_is_one_line() -> Result<()> {
        let turns = parse(CORPUS)?;
        assert!(turns[1].ends_with(
            "paradoxical nature of asking a masked man who is. But tell me, do you like music?"
        ));
        assert_eq!(turns[2], "A: Both, sir: \"music\" and 'silence'");
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_corpus_is_refused() {
        for text in [
            "",
            "categories: []",
            "conversations: [[1, 2]]",
            "conversations: [talk]",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
