//! The learning rate over the optimizer steps, as transformers 5.23's `get_scheduler` computes it.

use crate::recipe::schedule::{Schedule, ScheduleName};

/// The factor of the learning rate in step `step` (from 0) of `steps`.
pub fn factor(schedule: &Schedule, step: usize, steps: usize) -> f64 {
    let warmup = warmup_steps(schedule, steps);
    if step < warmup {
        return step as f64 / warmup.max(1) as f64;
    }
    let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    match schedule.name {
        ScheduleName::Constant => 1.0,
        ScheduleName::Linear => (1.0 - progress).max(0.0),
        ScheduleName::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
    }
}

/// Steps in which the rate rises.
pub fn warmup_steps(schedule: &Schedule, steps: usize) -> usize {
    match (schedule.warmup_steps, schedule.warmup_ratio) {
        (Some(warmup), _) => warmup,
        (None, Some(ratio)) => (ratio * steps as f64).ceil() as usize,
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(
        name: ScheduleName,
        warmup_steps: Option<usize>,
        warmup_ratio: Option<f64>,
    ) -> Vec<f64> {
        let schedule = Schedule { name, warmup_steps, warmup_ratio };
        (0..6).map(|step| (factor(&schedule, step, 6) * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn rates_are_transformers() {
        // transformers.get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=6) by hand.
        assert_eq!(factors(ScheduleName::Linear, Some(2), None), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(
            factors(ScheduleName::Cosine, Some(2), None),
            [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464]
        );
        assert_eq!(factors(ScheduleName::Constant, Some(1), None), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(
            factors(ScheduleName::Linear, None, Some(0.3)),
            factors(ScheduleName::Linear, Some(2), None)
        );
        assert_eq!(factors(ScheduleName::Linear, Some(0), None)[..2], [1.0, 0.8333]);
    }
}
