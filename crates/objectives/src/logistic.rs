//! The logistic function and its logarithm, without overflow on either side.

/// `1 / (1 + exp(-x))`. The exponential is only taken of what is not positive, so it never overflows;
/// `1 - sigmoid(x)` is `sigmoid(-x)`, which keeps its digits where the subtraction would lose them.
pub(crate) fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))`.
pub(crate) fn log_sigmoid(x: f64) -> f64 {
    // A comparison instead of `f64::min`, which would turn a NaN into 0.
    let negative_part = if x > 0.0 { 0.0 } else { x };
    negative_part - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_and_its_logarithm_hold_their_known_values() {
        assert_eq!(sigmoid(0.0), 0.5);
        // e^-1 = 0.36787944117144233; 1 / (1 + e^-1) = 0.7310585786300049
        assert!((sigmoid(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert!((sigmoid(-1.0) - 0.268_941_421_369_995_1).abs() < 1e-15);
        assert!((log_sigmoid(0.0) + std::f64::consts::LN_2).abs() < 1e-15);
        assert!((log_sigmoid(-1.0) - sigmoid(-1.0).ln()).abs() < 1e-15);
    }

    #[test]
    fn both_stay_finite_far_out_and_pass_a_nan_on() {
        assert_eq!((sigmoid(1e4), sigmoid(-1e4)), (1.0, 0.0));
        assert_eq!((log_sigmoid(1e4), log_sigmoid(-1e4)), (0.0, -1e4));
        assert!(sigmoid(f64::NAN).is_nan() && log_sigmoid(f64::NAN).is_nan());
    }
}
