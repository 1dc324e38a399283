//! NVIDIA's cards as their data sheets have them: what a person may name with `--gpu`, and what measured speeds are
//! held against.
//!
//! Products are dense bf16 with f32 accumulation; GeForce cards compute those at half the rate that advertisements name
//! (GA102, AD102 and GB202 whitepapers, tables of tensor throughput "with FP32 accumulate").

/// A card.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// Its name, without the maker's.
    pub name: &'static str,
    /// Compute capability.
    pub compute: &'static str,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The power limit it comes with, in watts.
    pub watts: f64,
    /// TFLOP/s of products; 0 where it has no bf16.
    pub tflops: f64,
    /// Memory bandwidth in GB/s.
    pub bandwidth: f64,
}

const fn card(
    name: &'static str,
    compute: &'static str,
    memory_mib: u64,
    watts: f64,
    tflops: f64,
    bandwidth: f64,
) -> Card {
    Card { name, compute, memory_mib, watts, tflops, bandwidth }
}

/// The cards known.
pub const CARDS: &[Card] = &[
    card("RTX 3060", "8.6", 12_288, 170.0, 25.5, 360.0),
    card("RTX 3080", "8.6", 10_240, 320.0, 59.5, 760.0),
    card("RTX 3090", "8.6", 24_576, 350.0, 71.0, 936.0),
    card("RTX 3090 Ti", "8.6", 24_576, 450.0, 80.0, 1008.0),
    card("RTX 4060 Ti", "8.9", 16_384, 165.0, 44.1, 288.0),
    card("RTX 4080", "8.9", 16_384, 320.0, 97.5, 717.0),
    card("RTX 4090", "8.9", 24_576, 450.0, 165.2, 1008.0),
    card("RTX 5090", "12.0", 32_768, 575.0, 209.5, 1792.0),
    card("RTX A6000", "8.6", 49_152, 300.0, 154.8, 768.0),
    card("A10", "8.6", 24_576, 150.0, 125.0, 600.0),
    card("A100 40GB", "8.0", 40_960, 400.0, 312.0, 1555.0),
    card("A100 80GB", "8.0", 81_920, 400.0, 312.0, 2039.0),
    card("L4", "8.9", 24_576, 72.0, 121.0, 300.0),
    card("L40S", "8.9", 49_152, 350.0, 362.0, 864.0),
    card("H100 PCIe", "9.0", 81_920, 350.0, 756.0, 2000.0),
    card("H100", "9.0", 81_920, 700.0, 989.0, 3350.0),
    card("H200", "9.0", 144_384, 700.0, 989.0, 4800.0),
    card("B200", "10.0", 184_320, 1000.0, 2250.0, 8000.0),
    card("T4", "7.5", 16_384, 70.0, 0.0, 320.0),
    card("V100", "7.0", 16_384, 300.0, 0.0, 900.0),
];

/// The card that the driver calls by this name, such as `NVIDIA H100 80GB HBM3`: all words of its own name are in it, and
/// of several the one with most words.
pub fn named(driver: &str) -> Option<&'static Card> {
    let words = |name: &str| -> Vec<String> {
        name.replace(['-', '_'], " ").split_whitespace().map(str::to_lowercase).collect()
    };
    let theirs = words(driver);
    let ours = |card: &&Card| words(card.name).iter().all(|word| theirs.contains(word));
    // A laptop's card of the same name is another chip.
    let laptop = theirs.iter().any(|word| word == "laptop" || word == "mobile");
    CARDS.iter().filter(ours).max_by_key(|card| words(card.name).len()).filter(|_| !laptop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_the_drivers_name_for_it() {
        for (driver, name) in [
            ("NVIDIA GeForce RTX 3090", Some("RTX 3090")),
            ("NVIDIA GeForce RTX 3090 Ti", Some("RTX 3090 Ti")),
            ("NVIDIA H100 80GB HBM3", Some("H100")),
            ("NVIDIA H100 PCIe", Some("H100 PCIe")),
            ("NVIDIA A100-SXM4-80GB", Some("A100 80GB")),
            ("NVIDIA GeForce RTX 3080 Laptop GPU", None),
            ("NVIDIA GeForce GTX 1080", None),
        ] {
            assert_eq!(named(driver).map(|card| card.name), name, "{driver}");
        }
    }
}
