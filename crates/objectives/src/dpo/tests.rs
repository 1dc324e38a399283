//! The losses of pairs, worked by hand.

use super::*;
use crate::Logps;

fn config(loss_type: LossType, beta: f64, label_smoothing: f64) -> DpoConfig {
    DpoConfig { loss_type, beta, label_smoothing, discopop_tau: 0.5 }
}

/// A pair with these log-ratios, of 4 and 2 tokens.
fn pair(chosen: f64, rejected: f64) -> Pair {
    Pair {
        chosen: Logps { policy: chosen - 20.0, reference: -20.0, tokens: 4 },
        rejected: Logps { policy: rejected - 30.0, reference: -30.0, tokens: 2 },
    }
}

/// One pair with log-ratios 1.5 and -0.5, beta 0.5: h = 1, bw = 0.75, bl = -0.25; per token 0.375 and -0.25.
fn check(loss_type: LossType, label_smoothing: f64, expected: f64, slopes: [f64; 2]) {
    let outcome = loss(&config(loss_type, 0.5, label_smoothing), &[pair(1.5, -0.5)], 1.0);
    let found = [outcome.loss, outcome.dlogps[0], outcome.dlogps[1]];
    for (found, expected) in found.into_iter().zip([expected, slopes[0], slopes[1]]) {
        assert!((found - expected).abs() < 1e-14, "{loss_type:?}: {found}, expected {expected}");
    }
    assert_eq!(outcome.rewards, [0.75, -0.25]);
}

#[test]
fn one_pair_of_each_loss_worked_by_hand() {
    // s(1) = 0.7310585786300049, s(-1) = 0.2689414213699951, -log s(1) = 0.31326168751822286.
    let half = 0.134_470_710_684_997_55; // 0.5 * s(-1)
    check(LossType::Sigmoid, 0.0, 0.313_261_687_518_222_86, [-half, half]);
    // h = 1: the margin is reached.
    check(LossType::Hinge, 0.0, 0.0, [0.0, 0.0]);
    // 0.375 + 0.25 - 1 = -0.375; its square is 0.140625; slopes 2 * -0.375 / 4 and -2 * -0.375 / 2.
    check(LossType::Ipo, 0.0, 0.140_625, [-0.1875, 0.375]);
    // 1.5 - 1 = 0.5 and -0.5 + 1 = 0.5.
    check(LossType::SppoHard, 0.0, 0.5, [1.0, 1.0]);
    // s(-0.75) = 0.320821300824607, s(0.75) = 0.679178699175393, s(-0.25) = 0.43782349911420193,
    // s(0.25) = 0.5621765008857981. 0.320821300824607 + 0.43782349911420193 = 0.7586447999388089
    // 0.679178699175393 * 0.320821300824607 / 2 = 0.10894749688090702
    // 0.5621765008857981 * 0.43782349911420193 / 2 = 0.12306704136879917
    check(
        LossType::ApoZero,
        0.0,
        0.758_644_799_938_808_9,
        [-0.108_947_496_880_907_02, 0.123_067_041_368_799_17],
    );
}

#[test]
fn label_smoothing_mixes_in_the_pair_turned_round() {
    // e = 0.1: 0.9 * 0.31326168751822286 + 0.1 * 1.3132616875182228 = 0.41326168751822284
    // dl/dh = -(0.9 * 0.2689414213699951 - 0.1 * 0.7310585786300049) = -0.16894142136999513
    let half = 0.084_470_710_684_997_56;
    check(LossType::Sigmoid, 0.1, 0.413_261_687_518_222_84, [-half, half]);
    // robust: (0.9 * 0.31326168751822286 - 0.1 * 1.3132616875182228) / 0.8 = 0.18826168751822286
    // dl/dh = -(0.9 * 0.2689414213699951 + 0.1 * 0.7310585786300049) / 0.8 = -0.3939414213699951
    let half = 0.196_970_710_684_997_55;
    check(LossType::Robust, 0.1, 0.188_261_687_518_222_86, [-half, half]);
}

const ALL: [LossType; 12] = [
    LossType::Sigmoid,
    LossType::SigmoidNorm,
    LossType::Hinge,
    LossType::Ipo,
    LossType::ExoPair,
    LossType::NcaPair,
    LossType::Robust,
    LossType::BcoPair,
    LossType::SppoHard,
    LossType::ApoZero,
    LossType::ApoDown,
    LossType::Discopop,
];

#[test]
fn log_ratios_of_ten_thousand_stay_finite() {
    for loss_type in ALL {
        for (chosen, rejected) in [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4)] {
            let config = DpoConfig { discopop_tau: 0.05, ..config(loss_type, 0.5, 0.1) };
            let outcome = loss(&config, &[pair(chosen, rejected)], 1.0);
            let numbers = [outcome.loss, outcome.dlogps[0], outcome.dlogps[1]];
            assert!(
                numbers.iter().all(|number| number.is_finite()),
                "{loss_type:?} at {chosen}, {rejected}: {numbers:?}"
            );
        }
    }
}

#[test]
fn a_nan_comes_out_as_one() {
    for loss_type in ALL {
        let outcome = loss(&config(loss_type, 0.5, 0.1), &[pair(f64::NAN, -1.0)], 1.0);
        assert!(outcome.loss.is_nan() && outcome.dlogps[0].is_nan(), "{loss_type:?}");
    }
}
