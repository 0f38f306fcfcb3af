//! A mutating fuzzer that runs inside `cargo test`. cargo-fuzz needs a nightly compiler, and this one is stable.
//!
//! A target answers what an input came to; inputs that come to something new join the corpus, which stands in for coverage.
//! By itself it runs some thousand inputs from a fixed seed. `FUZZ_SECONDS` makes it last, `FUZZ_SEED` takes another way,
//! and `FUZZ_LAST` names a folder for the input each target is given next, for those that end the process (`make soak`).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// How many inputs a target is given when no time is asked for, and how long that may take at most.
const ROUNDS: u64 = 4000;
const BRIEFLY: Duration = Duration::from_secs(4);
/// An input that takes longer is a fault of its own; machines that test are busy.
const SLOW: Duration = Duration::from_secs(20);
const MOST_BYTES: usize = 1 << 16;
const MOST_INPUTS: usize = 4096;

/// Tries what becomes of `corpus`, with `words` mixed in.
///
/// # Panics
/// When `target` does, or takes longer than any input should; the input is printed.
pub fn run<R: Hash>(corpus: &[&[u8]], words: &[&str], target: impl Fn(&[u8]) -> R) {
    let setting = |name: &str| std::env::var(name).ok();
    let seconds: Option<u64> = setting("FUZZ_SECONDS").and_then(|text| text.parse().ok());
    let seed: u64 = setting("FUZZ_SEED").and_then(|text| text.parse().ok()).unwrap_or(1);
    let thread = std::thread::current().name().unwrap_or_default().replace(':', "-");
    let last = setting("FUZZ_LAST").map(|folder| format!("{folder}/{thread}"));
    let mut random = Random(seed);
    let mut inputs: Vec<Vec<u8>> = corpus.iter().map(|input| input.to_vec()).collect();
    inputs.push(Vec::new());
    let (mut seen, mut begun, mut round) = (HashSet::new(), Instant::now(), 0_u64);
    let first = inputs.len() as u64;
    loop {
        // The first ones also make what is made once.
        if round == first {
            begun = Instant::now();
        }
        let over = match seconds {
            Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
            None => round >= ROUNDS || begun.elapsed() >= BRIEFLY,
        };
        if round > first && over {
            break;
        }
        // What is given first is tried as it is.
        let given = usize::try_from(round).ok().filter(|at| *at <= corpus.len()).and_then(|at| inputs.get(at));
        let input = given.cloned().unwrap_or_else(|| mutated(&inputs, words, &mut random));
        if let Some(path) = &last {
            let _ = std::fs::write(path, &input);
        }
        let at = Instant::now();
        let came_to = catch_unwind(AssertUnwindSafe(|| target(&input))).unwrap_or_else(|panic| {
            println!("seed {seed}, round {round}, input {:?}", input.escape_ascii().to_string());
            resume_unwind(panic);
        });
        assert!(at.elapsed() < SLOW, "{:?} for {:?}", at.elapsed(), input.escape_ascii().to_string());
        let mut hasher = DefaultHasher::new();
        came_to.hash(&mut hasher);
        if seen.insert(hasher.finish()) && inputs.len() < MOST_INPUTS {
            inputs.push(input);
        }
        round += 1;
    }
    println!("{round} inputs, {} outcomes", seen.len());
}

/// What an input came to, without its numbers and names: enough to tell one way through the code from another.
#[must_use]
pub fn outcome<T, E: ToString>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => error.to_string().chars().filter(|c| !c.is_ascii_digit()).take(60).collect(),
    }
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// Below `end`; 0 when there is nothing below it.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A piece of something, often a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let most = if self.next().is_multiple_of(2) { 4 } else { length };
        let to = (from + self.below(most + 1)).min(length);
        from..to
    }
}

fn mutated(inputs: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    // The newest inputs are the least tried.
    let recent = inputs.len().saturating_sub(16);
    let chosen = if random.next().is_multiple_of(3) { recent + random.below(16) } else { random.below(inputs.len()) };
    let mut input = inputs.get(chosen.min(inputs.len() - 1)).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        mutate(&mut input, inputs, words, random);
    }
    input.truncate(MOST_BYTES);
    input
}

const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\"'\\{}[](),:;=!<>@$*.-+/%#&?| \n\t0129azAZ";
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "1e400",
    "0.1",
    "-0",
];

fn mutate(input: &mut Vec<u8>, inputs: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let range = random.range(input.len());
    match random.below(11) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let byte = random.byte();
            if let Some(place) = input.get_mut(at) {
                *place = byte;
            }
        }
        2 => {
            let byte = BYTES.get(random.below(BYTES.len())).copied().unwrap_or_default();
            input.insert(at, byte);
        }
        3 => drop(input.drain(range)),
        4 => input.truncate(at),
        5 | 6 => {
            let word = words.get(random.below(words.len())).copied().unwrap_or("a");
            drop(input.splice(range, word.bytes()));
        }
        7 => {
            let number = NUMBERS.get(random.below(NUMBERS.len())).copied().unwrap_or("0");
            drop(input.splice(range, number.bytes()));
        }
        8 => {
            // The same once more, or very often: depth.
            let piece = input.get(range.clone()).unwrap_or_default().to_vec();
            let times = if random.next().is_multiple_of(16) { 3000 } else { 1 + random.below(4) };
            let times = times.min(MOST_BYTES / piece.len().max(1));
            drop(input.splice(range.start..range.start, piece.repeat(times)));
        }
        9 => {
            let other = inputs.get(random.below(inputs.len())).map(Vec::as_slice).unwrap_or_default();
            let piece = other.get(random.range(other.len())).unwrap_or_default().to_vec();
            drop(input.splice(range, piece));
        }
        _ => {
            let moved: Vec<u8> = input.drain(range).collect();
            let at = at.min(input.len());
            drop(input.splice(at..at, moved));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_found() {
        let found = catch_unwind(|| {
            run(&[b"start"], &["open", "sesame"], |input| {
                let step = ["open", "sesame"].map(|word| input.windows(word.len()).any(|w| w == word.as_bytes()));
                assert_ne!(step, [true, true], "both");
                step
            });
        });
        assert!(found.is_err());
    }
}
