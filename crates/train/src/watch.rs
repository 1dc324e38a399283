//! What may spoil a run while it runs, each said once with a number and what to do.
//!
//! A warning is a function of the metrics alone: a resumed run reads those of the steps before and says what the
//! whole run would have said.

use std::collections::VecDeque;

use crate::error::Result;
use crate::event::Metrics;
use crate::learner::Learner;
use crate::recipe::Recipe;
use crate::recipe::objective::ObjectiveName;

/// Watches the metrics of a run.
pub struct Watch {
    window: usize,
    clamped: Option<Recent>,
    raw: Recent,
    margins: Recent,
    /// The best mean margin so far: its mean, its standard error and its last step.
    best: Option<(f64, f64, usize)>,
    shrank: bool,
}

/// The last values of a metric.
struct Recent {
    name: &'static str,
    values: VecDeque<f64>,
}

impl Recent {
    fn of(name: &'static str) -> Recent {
        Recent { name, values: VecDeque::new() }
    }

    /// Takes a step's value in; true once there are `window` of them. What was not finite is left out.
    fn take(&mut self, metrics: &Metrics, window: usize) -> bool {
        let value = metrics.iter().find(|(name, _)| name == self.name).map(|(_, value)| *value);
        let Some(value) = value.filter(|value| value.is_finite()) else { return false };
        self.values.push_back(value);
        if self.values.len() > window {
            self.values.pop_front();
        }
        self.values.len() == window
    }

    fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// Of the mean.
    fn standard_error(&self) -> f64 {
        let (mean, count) = (self.mean(), self.values.len().max(1) as f64);
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / count).sqrt() / count.sqrt()
    }
}

impl Watch {
    /// Of a run of `steps` steps.
    pub fn new(recipe: &Recipe, steps: usize) -> Watch {
        Watch {
            window: (steps / 4).clamp(20, 100),
            clamped: (recipe.objective.name == ObjectiveName::Kto)
                .then(|| Recent::of("kl_clamped")),
            raw: Recent::of("kl_raw"),
            margins: Recent::of("rewards/margins"),
            best: None,
            shrank: false,
        }
    }

    /// Takes in the metrics of step `step` (from 1) and says what is new.
    pub fn see(&mut self, step: usize, metrics: &Metrics) -> Vec<String> {
        let mut said = Vec::new();
        self.raw.take(metrics, self.window);
        let full = self.clamped.as_mut().is_some_and(|clamped| clamped.take(metrics, self.window));
        if let Some(share) = self.clamped.as_ref().map(Recent::mean)
            && full
            && share > 0.5
        {
            said.push(format!(
                "the KL baseline was clamped at 0 in {:.0} % of the groups of the last {} steps; before the clamp it is {} in the mean\n  hint: with a baseline of 0 kto learns as apo_zero_unpaired does and pays for the KL all the same: write objective.name = \"apo_zero_unpaired\", or lower optimizer.learning_rate so that the policy stays nearer to its reference",
                100.0 * share,
                self.window,
                short(self.raw.mean()),
            ));
            self.clamped = None;
        }
        if !self.shrank && self.margins.take(metrics, self.window) {
            said.extend(self.shrinking(step));
        }
        said
    }

    /// The mean margin fell to less than half of its best, by more than chance.
    fn shrinking(&mut self, step: usize) -> Option<String> {
        let (mean, error) = (self.margins.mean(), self.margins.standard_error());
        let (best, best_error, at) = match self.best {
            Some(best) if best.0 >= mean => best,
            _ => {
                self.best = Some((mean, error, step));
                return None;
            }
        };
        let chance = 4.0 * best_error.hypot(error);
        if mean >= best / 2.0 || best - mean <= chance {
            return None;
        }
        self.shrank = true;
        Some(format!(
            "rewards/margins shrank from {} in the {window} steps up to step {at} to {} in the last {window}\n  hint: what told thumbs up from thumbs down, or chosen from rejected, is being unlearnt: lower optimizer.learning_rate, or end the run where the margins were best by train.max_steps = {at}",
            short(best),
            short(mean),
            window = self.window,
        ))
    }
}

/// Four significant digits.
fn short(value: f64) -> String {
    let digits = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 9);
    format!("{value:.*}", digits as usize)
}

/// Adam moves a value by about the learning rate. Where that is less than half the distance to the next f32, the
/// value stays what it was.
pub fn rounding(learner: &mut Learner, learning_rate: f64) -> Result<Option<String>> {
    // Of each exponent, how many values have it; 0 has none and moves always.
    let mut exponents = [0u64; 256];
    for (_, tensor, _) in learner.parameters_mut() {
        for value in tensor.to_vec::<f32>()? {
            if value != 0.0 && value.is_finite() {
                exponents[(value.to_bits() >> 23 & 0xff) as usize] += 1;
            }
        }
    }
    Ok(lost(&exponents, learning_rate))
}

fn lost(exponents: &[u64; 256], learning_rate: f64) -> Option<String> {
    // Half the distance between neighbours: 24 binary digits below the first.
    let half_step = |exponent: usize| 2f64.powi(exponent.max(1) as i32 - 127 - 24);
    let all: u64 = exponents.iter().sum();
    let rounded: u64 =
        (0..256).filter(|i| learning_rate <= half_step(*i)).map(|i| exponents[i]).sum();
    if all == 0 || 2 * rounded <= all {
        return None;
    }
    let mut above = 0;
    let largest = (0..256).rev().find(|i| {
        above += exponents[*i];
        100 * above > all
    });
    Some(format!(
        "optimizer.learning_rate = {learning_rate:e} is less than half the distance between neighbouring f32 at {:.0} % of the trained values: their updates round away\n  hint: write {:.0e} or more, which moves 99 % of them",
        100.0 * rounded as f64 / all as f64,
        2.0 * half_step(largest.unwrap_or(255)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(window: usize, kto: bool) -> Watch {
        Watch {
            window,
            clamped: kto.then(|| Recent::of("kl_clamped")),
            raw: Recent::of("kl_raw"),
            margins: Recent::of("rewards/margins"),
            best: None,
            shrank: false,
        }
    }

    /// The steps at which something is said, with what, until the hint.
    fn said(watch: &mut Watch, name: &str, values: &[f64]) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let metrics = vec![(name.to_owned(), *value), ("kl_raw".to_owned(), -0.25)];
            for text in watch.see(i + 1, &metrics) {
                assert!(text.contains("\n  hint: "), "{text}");
                all.push((i + 1, text.split('\n').next().unwrap_or("").to_owned()));
            }
        }
        all
    }

    #[test]
    fn a_kl_clamped_in_most_batches_is_said_once() {
        let clamped = |share: usize| -> Vec<f64> {
            (0..60).map(|i| f64::from(u8::from(i % 10 < share))).collect()
        };
        assert_eq!(said(&mut watch(10, true), "kl_clamped", &clamped(5)), []);
        assert_eq!(
            said(&mut watch(10, true), "kl_clamped", &clamped(6)),
            [(10, "the KL baseline was clamped at 0 in 60 % of the groups of the last 10 steps; before the clamp it is -0.2500 in the mean".to_owned())]
        );
        assert_eq!(said(&mut watch(10, false), "kl_clamped", &clamped(9)), []);
    }

    #[test]
    fn margins_that_shrink_are_said_once_and_noise_is_not() {
        let noise = |i: usize| if i.is_multiple_of(2) { 0.1 } else { -0.1 };
        let rising: Vec<f64> = (0..100).map(|i| i as f64 / 50.0 + noise(i)).collect();
        assert_eq!(said(&mut watch(10, true), "rewards/margins", &rising), []);
        let flat: Vec<f64> = (0..100).map(noise).collect();
        assert_eq!(said(&mut watch(10, true), "rewards/margins", &flat), []);
        let falling: Vec<f64> =
            (0..100).map(|i| if i < 50 { 2.0 } else { 0.2 } + noise(i)).collect();
        let words = said(&mut watch(10, true), "rewards/margins", &falling);
        assert_eq!(words.len(), 1, "{words:?}");
        assert_eq!(words[0].0, 57, "once seven of ten are low, beyond chance: {words:?}");
        let with_gaps: Vec<f64> = falling.iter().flat_map(|v| [*v, f64::NAN]).collect();
        assert_eq!(said(&mut watch(10, true), "rewards/margins", &with_gaps).len(), 1);
    }

    #[test]
    fn an_update_below_half_a_step_of_f32_is_what_rounds_away() {
        // 0.5 and -0.75 have the exponent 126: neighbours are 2^-24 apart.
        let mut exponents = [0u64; 256];
        exponents[(0.75f32.to_bits() >> 23) as usize] = 3;
        exponents[(1e-6f32.to_bits() >> 23) as usize] = 1;
        let half = 2f64.powi(-25);
        assert_eq!(0.75f32 + half as f32, 0.75, "ties go to even");
        assert_ne!(0.75f32 + 1.01 * half as f32, 0.75);
        assert_eq!(lost(&exponents, 1.01 * half), None);
        let said = lost(&exponents, half).unwrap();
        assert!(said.contains("at 75 % of the trained values"), "{said}");
        assert!(said.contains("write 6e-8 or more"), "{said}");
        assert_eq!(lost(&[0; 256], 0.0), None, "nothing but zeros");
    }
}
