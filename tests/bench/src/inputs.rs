//! The states that are saved: the same bytes on every machine and in every run.

use fastrand::Rng;

/// Text that people wrote for other people, and that does not change.
const PROSE: [&str; 5] = [
    include_str!("../../../LICENSE-APACHE"),
    include_str!("../../../LICENSE-MIT"),
    include_str!("../../../wit/store.wit"),
    include_str!("../../../wit/types.wit"),
    include_str!("../../../wit/world.wit"),
];

const SEED: u64 = 3;
const PAGE: usize = 4096;
/// Numbers in one embedding, a usual length.
const DIMENSIONS: usize = 768;

/// A kind of state that agents have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Messages of a conversation, and their times, as JSON.
    Json,
    /// Records in a binary form like MessagePack's.
    Records,
    /// A guest's linear memory: 60 % pages of zeros, the rest structures, text and pointers.
    Memory,
    /// Unit vectors of f32.
    Embeddings,
    /// Data that was compressed already.
    Noise,
    Zeros,
}

impl Input {
    pub(crate) const ALL: [Self; 6] = [
        Self::Json,
        Self::Records,
        Self::Memory,
        Self::Embeddings,
        Self::Noise,
        Self::Zeros,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON memory",
            Self::Records => "binary records",
            Self::Memory => "linear memory",
            Self::Embeddings => "f32 embeddings",
            Self::Noise => "compressed",
            Self::Zeros => "zeros",
        }
    }

    /// `len` bytes of it.
    pub(crate) fn state(self, len: usize) -> Vec<u8> {
        let mut rng = Rng::with_seed(SEED);
        let prose = Prose::new();
        // A little more than asked for: whole records.
        let mut state = Vec::with_capacity(len + len / 8 + PAGE);
        let mut number = 0;
        while state.len() < len {
            match self {
                Self::Json => json(&mut state, &mut rng, &prose, number),
                Self::Records => record(&mut state, &mut rng, &prose, number),
                Self::Memory => page(&mut state, &mut rng, &prose, number),
                Self::Embeddings => embedding(&mut state, &mut rng),
                Self::Noise => state.extend_from_slice(&rng.u64(..).to_le_bytes()),
                Self::Zeros => state.resize(len, 0),
            }
            number += 1;
        }
        state.truncate(len);
        state
    }
}

/// Writes new sentences out of old ones: each word is one that followed the word before somewhere.
/// Random words would compress worse than what people write, a text repeated would compress better.
struct Prose {
    words: Vec<&'static str>,
    /// For each word, where in `words` there is the same one.
    same: Vec<Vec<usize>>,
}

impl Prose {
    fn new() -> Self {
        let words: Vec<_> = PROSE
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect();
        let mut places = std::collections::HashMap::<_, Vec<_>>::new();
        for (place, word) in words.iter().enumerate() {
            places.entry(*word).or_default().push(place);
        }
        let same = words.iter().map(|word| places[word].clone()).collect();
        Self { words, same }
    }

    fn sentence(&self, rng: &mut Rng) -> String {
        let mut at = rng.usize(..self.words.len());
        let mut text = String::new();
        for _ in 0..rng.usize(6..40) {
            text.push_str(self.words[at]);
            text.push(' ');
            let same = &self.same[at];
            at = (same[rng.usize(..same.len())] + 1) % self.words.len();
        }
        text.pop();
        text
    }
}

fn json(state: &mut Vec<u8>, rng: &mut Rng, prose: &Prose, number: u64) {
    let role = ["user", "assistant", "tool"][rng.usize(..3)];
    let text = prose.sentence(rng).replace('\\', "").replace('"', "\\\"");
    let line = format!(
        "{{\"id\":\"{:016x}\",\"turn\":{number},\"role\":\"{role}\",\"at\":{},\"importance\":{:.4},\
         \"text\":\"{text}\",\"recalled\":[{},{}]}}\n",
        rng.u64(..),
        1_780_000_000_000 + number * 4_000 + rng.u64(..4_000),
        rng.f64(),
        rng.u64(..=number),
        rng.u64(..=number),
    );
    state.extend_from_slice(line.as_bytes());
}

/// A map of five, with keys in short strings and numbers in big-endian, as MessagePack has them.
fn record(state: &mut Vec<u8>, rng: &mut Rng, prose: &Prose, number: u64) {
    let key = |state: &mut Vec<u8>, name: &str| {
        state.push(0xa0 | name.len() as u8);
        state.extend_from_slice(name.as_bytes());
    };
    state.push(0x85);
    key(state, "id");
    state.push(0xcf);
    state.extend_from_slice(&number.to_be_bytes());
    key(state, "at");
    state.push(0xcf);
    state.extend_from_slice(&(1_780_000_000_000 + number * 250 + rng.u64(..250)).to_be_bytes());
    key(state, "score");
    state.push(0xcb);
    state.extend_from_slice(&rng.f64().to_be_bytes());
    key(state, "hash");
    state.extend_from_slice(&[0xc4, 16]);
    state.extend_from_slice(&rng.u128(..).to_be_bytes());
    key(state, "note");
    let note = prose.sentence(rng);
    state.push(0xda);
    state.extend_from_slice(&(note.len() as u16).to_be_bytes());
    state.extend_from_slice(note.as_bytes());
}

/// A page of a heap: nothing, objects of 32 bytes with pointers to others, or text.
fn page(state: &mut Vec<u8>, rng: &mut Rng, prose: &Prose, number: u64) {
    let end = state.len() + PAGE;
    let base = number as u32 * PAGE as u32;
    match rng.u32(..10) {
        0..6 => {}
        6..9 => {
            while state.len() < end {
                let near = base.saturating_sub(rng.u32(..64) * 1024) & !15;
                let fields = [
                    0x0010_0000 + rng.u32(..24) * 32, // what it is
                    near + rng.u32(..256) * 16,       // what it points to
                    rng.u32(..200),                   // a length
                    256,                              // a capacity
                    number as u32,
                    rng.u32(..),
                    0,
                    1,
                ];
                state.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            }
        }
        _ => {
            while state.len() < end {
                state.extend_from_slice(prose.sentence(rng).as_bytes());
                state.push(0);
            }
        }
    }
    state.resize(end, 0);
}

fn embedding(state: &mut Vec<u8>, rng: &mut Rng) {
    // The sum of a few uniform numbers is close to a normal one.
    let mut normal = || (0..6).map(|_| rng.f32() - 0.5).sum::<f32>();
    let vector: Vec<f32> = (0..DIMENSIONS).map(|_| normal()).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    state.extend(vector.iter().flat_map(|x| (x / length).to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_the_same_bytes_and_as_many_as_asked_for() {
        for input in Input::ALL {
            let state = input.state(100_000);
            assert_eq!(state.len(), 100_000, "{input:?}");
            assert!(state == input.state(100_000), "{input:?}");
        }
    }

    #[test]
    fn most_pages_of_a_linear_memory_are_zero() {
        let state = Input::Memory.state(8 << 20);
        let zero = state
            .chunks(PAGE)
            .filter(|page| page.iter().all(|&byte| byte == 0));
        let share = zero.count() as f64 / (state.len() / PAGE) as f64;
        assert!((0.57..0.63).contains(&share), "{share}");
    }
}
