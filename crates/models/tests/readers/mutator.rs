//! Broken files from sound ones, the same for the same reader and number.

/// What numbers and nesting in text are tried with.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "1e999",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775808",
    "1e-400",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "[[[[[[[[",
    "{\"a\":",
    "\"\\ud800\"",
    "\\u0000",
    "../x",
    "/etc/passwd",
    "{{",
    "{%",
    "%}",
    "\u{feff}",
    "\u{0}",
];

/// Numbers that length fields are tried with.
const LENGTHS: [u64; 10] =
    [0, 1, 7, 8, 0xff, 0xffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 1 << 40];

pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(reader: &str, index: u64) -> Mutator {
        let name = reader.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(131) + u64::from(byte));
        Mutator { state: name ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn range(&mut self, bytes: &[u8], longest: usize) -> std::ops::Range<usize> {
        let start = self.below(bytes.len());
        let len = self.below(longest.min(bytes.len() - start) + 1);
        start..start + len
    }

    /// One of the seeds with one to six changes.
    pub(crate) fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let index = self.below(seeds.len());
        let mut bytes = seeds[index].clone();
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                return bytes;
            }
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(12) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let range = self.range(bytes, 64);
                bytes.drain(range);
            }
            4 => {
                let range = self.range(bytes, 256);
                let copy = bytes[range].to_vec();
                bytes.splice(at..at, copy);
            }
            // The end of another seed.
            5 => {
                let index = self.below(seeds.len());
                let other = &seeds[index];
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            // A length field: at the front, where safetensors have theirs, or anywhere.
            6 => {
                let length = LENGTHS[self.below(LENGTHS.len())].to_le_bytes();
                let at = if self.below(2) == 0 { 0 } else { at };
                let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&length[..width]);
            }
            // A number of the text.
            7 | 8 => {
                let digit = bytes[at..].iter().position(u8::is_ascii_digit);
                if let Some(start) = digit.map(|offset| at + offset) {
                    let end = bytes[start..].iter().position(|byte| !byte.is_ascii_digit());
                    let end = end.map_or(bytes.len(), |len| start + len);
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(start..end, word.bytes());
                }
            }
            // A string of the text.
            9 => {
                let quote = bytes[at..].iter().position(|byte| *byte == b'"').map(|o| at + o + 1);
                if let Some(start) = quote {
                    let end = bytes[start..].iter().position(|byte| *byte == b'"');
                    let end = end.map_or(bytes.len(), |len| start + len);
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(start..end, word.bytes());
                }
            }
            10 => {
                let word = WORDS[self.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
            // Deep nesting.
            _ => {
                let opening = [&b"["[..], b"{\"a\":", b"(", b"{% if x %}", b"{{"][self.below(5)];
                let times = 1 << self.below(12);
                bytes.splice(at..at, opening.repeat(times));
            }
        }
    }
}
