//! An agent that computes for a long time, and goes on where it was stopped: by a crash, by its
//! limit of CPU time, by a kill.
//!
//! `checkpoint N EVERY` looks for the number up to N with the longest Collatz sequence, and saves
//! how far it is after each EVERY numbers. Run it again until it answers. What it answers does not
//! depend on how often it was stopped, as a checkpoint holds all that the rest of the computation
//! needs, and a run begins with nothing else.

use persist_guest::{Error, Expect, SaveOptions, Version, agent, load_snapshot, save_with};

agent!(run);

const USAGE: &str =
    "usage: N EVERY: looks at the numbers 1 to N, and saves how far it is after each EVERY";
const NAME: &str = "progress";

fn run(args: Vec<String>) -> Result<String, String> {
    let numbers = args.iter().map(|arg| arg.parse());
    let numbers: Vec<u64> = numbers
        .collect::<Result<_, _>>()
        .map_err(|_| USAGE.to_owned())?;
    match numbers[..] {
        [last, every] if every > 0 => compute(last, every).map_err(|error| match error {
            Error::Conflict(_) => "another run computes the same; let it go on".into(),
            error => error.to_string(),
        }),
        _ => Err(USAGE.into()),
    }
}

fn compute(last: u64, every: u64) -> Result<String, Error> {
    let (mut progress, mut head) = Progress::load(last)?;
    while progress.done < last {
        let stop = last.min(progress.done.saturating_add(every));
        progress.advance(stop);
        head = Some(progress.save(last, head)?);
    }
    let Progress {
        longest,
        start,
        steps,
        ..
    } = progress;
    Ok(format!(
        "up to {last}, the longest sequence begins at {start} and has {longest} steps; all have \
         {steps}"
    ))
}

/// All that the rest of the computation needs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Progress {
    /// The numbers 1 to this one were looked at.
    done: u64,
    /// The longest sequence so far, and the number that it begins with.
    longest: u64,
    start: u64,
    /// The steps of all sequences so far.
    steps: u64,
}

impl Progress {
    /// The last checkpoint of the same computation, and its version.
    fn load(last: u64) -> Result<(Self, Option<Version>), Error> {
        let Some(snapshot) = load_snapshot(NAME, None)? else {
            return Ok((Self::default(), None));
        };
        let text = String::from_utf8_lossy(&snapshot.state);
        let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[of, done, longest, start, steps]) if of == last => {
                let progress = Self {
                    done,
                    longest,
                    start,
                    steps,
                };
                Ok((progress, Some(snapshot.info.version)))
            }
            _ => Err(Error::Invalid(format!(
                "{NAME} is of another computation; run this one in a session of its own"
            ))),
        }
    }

    /// Saves a checkpoint, unless another run did meanwhile: two of them would only undo each
    /// other's work.
    fn save(&self, last: u64, head: Option<Version>) -> Result<Version, Error> {
        let state = format!(
            "{last} {} {} {} {}",
            self.done, self.longest, self.start, self.steps
        );
        let options = SaveOptions::new()
            .expect(Expect::head(head))
            .media_type("text/plain")
            .label("done", self.done.to_string());
        Ok(save_with(NAME, state, &options)?.version)
    }

    fn advance(&mut self, to: u64) {
        for number in self.done + 1..=to {
            let steps = sequence(number);
            self.steps += steps;
            if steps > self.longest {
                (self.longest, self.start) = (steps, number);
            }
        }
        self.done = to;
    }
}

/// The steps from a number to 1: half of an even one, and three times an odd one and one more.
fn sequence(mut number: u64) -> u64 {
    let mut steps = 0;
    while number > 1 {
        number = match number % 2 {
            0 => number / 2,
            _ => 3 * number + 1,
        };
        steps += 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use persist_guest::{double, history, restore, stat};

    fn answer(args: [&str; 2]) -> Result<String, String> {
        run(args.map(str::to_owned).to_vec())
    }

    #[test]
    fn it_answers_the_same_however_often_it_is_stopped() {
        let expected =
            "up to 1000, the longest sequence begins at 871 and has 178 steps; all have 59542";
        assert_eq!(answer(["1000", "100"]).as_deref(), Ok(expected));
        assert_eq!(history(NAME).count(), 10);
        // Stopped after each of its checkpoints.
        for version in 1..=10 {
            restore(NAME, version, Expect::Any).expect("restores");
            assert_eq!(answer(["1000", "100"]).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_save_that_fails_stops_it_and_the_next_run_goes_on() {
        let expected = answer(["500", "50"]).expect("an answer");
        double::reset();
        assert!(answer(["500", "500"]).is_ok());
        double::reset();
        let (mut progress, head) = Progress::load(500).expect("nothing yet");
        progress.advance(50);
        progress.save(500, head).expect("saves");
        progress.advance(100);
        double::fail_next(Error::Timeout);
        assert!(progress.save(500, Some(1)).is_err());
        assert_eq!(answer(["500", "50"]), Ok(expected));
        assert_eq!(
            stat(NAME, None).expect("answers").map(|head| head.version),
            Some(10)
        );
    }

    #[test]
    fn the_progress_of_another_computation_is_refused_and_kept() {
        assert!(answer(["100", "10"]).is_ok());
        let told = answer(["200", "10"]).expect_err("refused");
        assert!(told.contains("another computation"), "{told}");
        assert_eq!(history(NAME).count(), 10);
    }

    #[test]
    fn anything_else_is_told_the_usage() {
        for args in [["", "1"], ["1", "0"], ["-1", "1"]] {
            assert_eq!(answer(args), Err(USAGE.into()));
        }
    }
}
