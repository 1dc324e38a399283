//! Counter-based random numbers: a value is a function of a key and a counter, so there is no
//! state to save and any step of a run can be computed directly.
//!
//! The mixing function is SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014).

/// SplitMix64's output function.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 random bits for a list of counters, each word mixed in turn.
pub(crate) fn bits(counters: &[u64]) -> u64 {
    counters.iter().fold(0, |state, &counter| mix(state ^ mix(counter)))
}

/// A number in [0, 1) with 53 random bits.
pub(crate) fn unit(counters: &[u64]) -> f64 {
    (bits(counters) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixing_function_is_splitmix64() {
        // The first outputs of SplitMix64 from seed 0, as published with xoshiro.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn units_spread_over_the_interval() {
        let mean = (0..1000).map(|index| unit(&[7, index])).sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
    }
}
