//! When the host is killed: seeded, spread over the conversation and over the stages of a save.

use anyhow::{Result, ensure};
use fastrand::Rng;

/// Kill after `turn` was acknowledged and `fraction` of the time of one save has passed.
#[derive(Debug, PartialEq)]
pub(crate) struct Moment {
    pub(crate) turn: usize,
    /// From 0 to 1.
    pub(crate) fraction: f64,
}

/// Turns before the first kill, to measure how long a save takes.
const BEFORE: usize = 3;
/// Turns after the last, so that the agent has something to go on with.
const AFTER: usize = 4;
/// Turns for each kill: a killed host may have gone on for two, and must not reach the next moment.
const EACH: usize = 4;

/// `kills` moments in a conversation of `turns` turns, in order. One from each stretch of the
/// conversation, and one from each stretch of a save: chance alone would leave stages out.
pub(crate) fn moments(seed: u64, turns: usize, kills: usize) -> Result<Vec<Moment>> {
    let room = turns.saturating_sub(BEFORE + AFTER);
    let most = room / EACH;
    ensure!(
        kills <= most,
        "{turns} turns are too few for {kills} kills; at most {most}, or more turns"
    );
    let mut random = Rng::with_seed(seed);
    let mut stages: Vec<usize> = (0..kills).collect();
    random.shuffle(&mut stages);
    let moments = stages.into_iter().enumerate().map(|(kill, stage)| {
        let stretch = BEFORE + room * kill / kills..BEFORE + room * (kill + 1) / kills;
        Moment {
            turn: random.usize(stretch),
            fraction: (stage as f64 + random.f64()) / kills as f64,
        }
    });
    Ok(moments.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_moments_again_and_another_seed_others() -> Result<()> {
        assert_eq!(moments(7, 300, 20)?, moments(7, 300, 20)?);
        assert_ne!(moments(7, 300, 20)?, moments(8, 300, 20)?);
        Ok(())
    }

    #[test]
    fn kills_cover_the_conversation_and_the_stages_of_a_save() -> Result<()> {
        for seed in 0..50 {
            let moments = moments(seed, 300, 20)?;
            assert!(moments.is_sorted_by(|a, b| a.turn < b.turn));
            assert!(moments.iter().all(|moment| (3..296).contains(&moment.turn)));
            let mut stages: Vec<_> = moments.iter().map(|m| (m.fraction * 20.0) as u32).collect();
            stages.sort_unstable();
            assert!(stages.into_iter().eq(0..20));
        }
        Ok(())
    }

    #[test]
    fn more_kills_than_the_conversation_has_room_for_are_refused() -> Result<()> {
        assert_eq!(moments(1, 60, 13)?.len(), 13);
        assert!(moments(1, 60, 14).is_err());
        assert!(moments(1, 2, 1).is_err());
        assert!(moments(1, 2, 0)?.is_empty());
        Ok(())
    }
}
