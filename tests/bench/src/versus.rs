//! All contenders on every input and size, and whether Persist does what it set out to.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::contenders::{self, Contender, Subject};
use crate::inputs::Input;
use crate::measure::{median, millis, ratio, size, time};
use crate::table::Table;
use crate::{MIB, Options};

/// From this size on, the commands take part: below it, starting a process is most of what they do.
const COMMANDS_FROM: usize = MIB;

/// Names of contenders, which are columns.
const OBJECT_STORE: &str = "object_store + flate2";
const OPENDAL: &str = "opendal + flate2";
const PIGZ: &str = "pigz -p2";
const ZSTD: &str = "zstd -3";

/// Target of Persist: save this much faster than object_store with flate2 as it comes,
const SAVE_AIM: f64 = 4.0;
/// and load this much faster than `gzip -dc`.
const LOAD_AIM: f64 = 2.0;

/// Bytes of a trailer and its index, about: more is not what "no larger" asks about.
const TRAILER: f64 = 2048.0;

/// One contender on one input of one size.
struct Measured {
    name: &'static str,
    save: Duration,
    load: Duration,
    stored: u64,
}

/// One line of the tables: the first contender is Persist.
struct Case {
    input: Input,
    size: usize,
    measured: Vec<Measured>,
}

impl Case {
    fn persist(&self) -> &Measured {
        &self.measured[0]
    }

    fn of(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.name == name)
    }

    /// How many times as long as Persist another takes.
    fn times(&self, name: &str, what: impl Fn(&Measured) -> Duration) -> Option<f64> {
        let other = self.of(name)?;
        Some(ratio(what(other), what(self.persist())))
    }

    fn share(&self, name: &str) -> Option<f64> {
        Some(self.of(name)?.stored as f64 / self.size as f64)
    }
}

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let mut cases = Vec::new();
    for input in Input::ALL {
        for size in options.sizes() {
            cases.push(measure(input, size, options.rounds(size), place)?);
            eprintln!("measured {}, {}", input.name(), self::size(size));
        }
    }
    let mut text = saves(&cases)?;
    text += &loads(&cases)?;
    text += &aims(&cases)?;
    Ok(text)
}

/// Every contender, by turns; one turn before that counts for nothing.
fn measure(input: Input, size: usize, rounds: usize, place: &Path) -> Result<Case> {
    let place = tempfile::tempdir_in(place)?;
    let subject = Subject {
        state: input.state(size).into(),
        file: place.path().join("state"),
    };
    std::fs::write(&subject.file, &subject.state)?;
    let mut contenders = contenders::all(place.path(), size >= COMMANDS_FROM)?;
    let mut turns = contenders.iter().map(|_| Vec::new()).collect::<Vec<_>>();
    for round in 0..=rounds {
        for (contender, turns) in contenders.iter_mut().zip(&mut turns) {
            let turn = turn(contender.as_mut(), &subject)?;
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    let measured = contenders.iter().zip(turns).map(|(contender, turns)| {
        let (mut saves, mut loads): (Vec<_>, Vec<_>) =
            turns.iter().map(|turn| (turn.save, turn.load)).unzip();
        Measured {
            name: contender.name(),
            save: median(&mut saves),
            load: median(&mut loads),
            stored: turns[0].stored,
        }
    });
    Ok(Case {
        input,
        size,
        measured: measured.collect(),
    })
}

struct Turn {
    save: Duration,
    load: Duration,
    stored: u64,
}

fn turn(contender: &mut dyn Contender, subject: &Subject) -> Result<Turn> {
    let (save, stored) = time(|| contender.save(subject))?;
    let (load, loaded) = time(|| contender.load())?;
    let same = loaded.is_none_or(|loaded| loaded == subject.state);
    ensure!(same, "{} loads other bytes", contender.name());
    Ok(Turn { save, load, stored })
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.1}x"))
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{share:.3}"))
}

fn saves(cases: &[Case]) -> Result<String> {
    let mut table = Table::new([
        "state",
        "size",
        "save ms",
        OBJECT_STORE,
        OPENDAL,
        PIGZ,
        ZSTD,
        "at rest",
        "flate2",
        PIGZ,
        ZSTD,
    ]);
    for case in cases {
        let slower = |name| times(case.times(name, |measured| measured.save));
        table.row([
            case.input.name().into(),
            size(case.size),
            millis(case.persist().save),
            slower(OBJECT_STORE),
            slower(OPENDAL),
            slower(PIGZ),
            slower(ZSTD),
            share(case.share("persist")),
            share(case.share(OBJECT_STORE)),
            share(case.share(PIGZ)),
            share(case.share(ZSTD)),
        ]);
    }
    let mut text = String::new();
    writeln!(text, "### Save\n")?;
    writeln!(
        text,
        "Milliseconds of Persist's save, and how many times as long the others take (more than 1: \
         Persist is faster). \
         \"At rest\" and the columns after it: bytes stored for each byte of state.\n\n{table}"
    )?;
    Ok(text)
}

fn loads(cases: &[Case]) -> Result<String> {
    let mut table = Table::new([
        "state",
        "size",
        "load ms",
        "MB/s",
        OBJECT_STORE,
        OPENDAL,
        "gzip -dc",
        "zstd -dc",
    ]);
    for case in cases {
        let slower = |name| times(case.times(name, |measured| measured.load));
        let load = case.persist().load;
        table.row([
            case.input.name().into(),
            size(case.size),
            millis(load),
            format!("{:.0}", case.size as f64 / load.as_secs_f64() / 1e6),
            slower(OBJECT_STORE),
            slower(OPENDAL),
            slower(PIGZ),
            slower(ZSTD),
        ]);
    }
    let mut text = String::new();
    writeln!(text, "### Load\n")?;
    writeln!(
        text,
        "Milliseconds of Persist's load, with every checksum verified, and how many times as long \
         the others take. The \
         commands write to /dev/null; `gzip -dc` reads what pigz wrote.\n\n{table}"
    )?;
    Ok(text)
}

/// Aims, and the cases that miss them.
fn aims(cases: &[Case]) -> Result<String> {
    let save = |measured: &Measured| measured.save;
    let load = |measured: &Measured| measured.load;
    // Two measurements of the same thing differ by more than this.
    let noise = 0.95;
    let faster = |case: &Case| Some(case.times(OBJECT_STORE, save)? >= SAVE_AIM);
    let pigz_time = |case: &Case| Some(case.times(PIGZ, save)? >= noise);
    let pigz_size =
        |case: &Case| Some(case.persist().stored as f64 <= case.of(PIGZ)?.stored as f64 + TRAILER);
    let loads = |case: &Case| Some(case.times(PIGZ, load)? >= LOAD_AIM);
    let mut text = String::from("### Aims\n\n");
    for (aim, holds) in [
        (
            format!("save {SAVE_AIM}x as fast as {OBJECT_STORE}"),
            &faster as &dyn Fn(&Case) -> Option<bool>,
        ),
        (format!("save not behind {PIGZ}"), &pigz_time),
        (
            format!("no larger than {PIGZ}, but for the trailer"),
            &pigz_size,
        ),
        (format!("load {LOAD_AIM}x as fast as `gzip -dc`"), &loads),
    ] {
        let asked: Vec<_> = cases
            .iter()
            .filter_map(|case| Some((case, holds(case)?)))
            .collect();
        let missed = asked.iter().filter(|(_, holds)| !holds);
        let missed: Vec<_> = missed
            .map(|(case, _)| format!("{} {}", case.input.name(), size(case.size)))
            .collect();
        let met = asked.len() - missed.len();
        write!(text, "- {aim}: met in {met} of {} cases", asked.len())?;
        if missed.is_empty() || met == 0 {
            writeln!(text, ".")?;
        } else {
            writeln!(text, "; missed: {}.", missed.join(", "))?;
        }
    }
    Ok(text)
}
