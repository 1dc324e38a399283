//! What loading a dataset did to its rows, for people to read before they train.

use std::path::PathBuf;

use serde::Serialize;

use crate::load::{Found, OriginReport};
use crate::template::Moment;

/// How many places are named for each kind of finding.
const NAMED: usize = 5;

/// A kind of finding: how often, and where first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Noted {
    /// How many records.
    pub count: usize,
    /// The first few, as `file:line`.
    pub first: Vec<String>,
}

impl Noted {
    pub(crate) fn add(&mut self, source: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(source());
        }
    }

    /// What was found while reading, its places named by `source`.
    pub(crate) fn of(found: &Found, source: impl Fn(usize, usize) -> String) -> Self {
        let first = found.first.iter().map(|&(file, line)| source(file as usize, line as usize));
        Self { count: found.count, first: first.collect() }
    }

    fn places(&self) -> String {
        let more = if self.count > self.first.len() { ", ..." } else { "" };
        format!("{}{more}", self.first.join(", "))
    }
}

/// The spread of a length in tokens; percentiles by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half are at most this long.
    pub p50: usize,
    /// 90 % are at most this long.
    pub p90: usize,
    /// 99 % are at most this long.
    pub p99: usize,
    /// The longest.
    pub max: usize,
    /// The sum of all.
    pub total: usize,
}

impl Lengths {
    pub(crate) fn of(lengths: impl Iterator<Item = usize>) -> Self {
        let mut sorted: Vec<usize> = lengths.collect();
        sorted.sort_unstable();
        let rank = |percent: usize| match sorted.len() {
            0 => 0,
            count => sorted[(count * percent).div_ceil(100).clamp(1, count) - 1],
        };
        Self {
            min: rank(0),
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: rank(100),
            total: sorted.iter().sum(),
        }
    }
}

/// What became of one origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Its files.
    pub files: Vec<PathBuf>,
    /// How it was read.
    #[serde(flatten)]
    pub read: OriginReport,
    /// Examples kept.
    pub examples: usize,
    /// Its weight, if origins have weights.
    pub weight: Option<f64>,
    /// Examples of it in an epoch.
    pub per_epoch: usize,
}

/// What was read, dropped and cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The files, in the order read.
    pub files: Vec<PathBuf>,
    /// Where they belong, and how they were read.
    pub parts: Vec<Part>,
    /// Where tokens were read from or written to, in words; none where they were only in memory.
    pub cache: Option<String>,
    /// Records read; a pair counts as two.
    pub records: usize,
    /// Examples kept.
    pub examples: usize,
    /// Kept examples with a desirable completion.
    pub desirable: usize,
    /// Kept examples with an undesirable completion.
    pub undesirable: usize,
    /// Dropped because the completion has no text.
    pub empty_completions: Noted,
    /// Dropped because the prompt alone fills `max_length`.
    pub prompts_too_long: Noted,
    /// Dropped because no token of the completion is scored.
    pub nothing_scored: Noted,
    /// Dropped because the other half of the pair was.
    pub halves: Noted,
    /// Completions cut at `max_length`.
    pub cut_completions: Noted,
    /// The end of the prompt tokenizes differently with the completion behind it, so the
    /// completion begins earlier and is scored from there.
    pub moved_prompt_tokens: Noted,
    /// Prompt lengths of the kept examples.
    pub prompt_tokens: Lengths,
    /// Completion lengths before cutting.
    pub completion_tokens: Lengths,
    /// Lengths of prompt and cut completion.
    pub tokens: Lengths,
    /// Distinct prompts among the examples, by tokens.
    pub distinct_prompts: usize,
    /// The moment the chat template wrote into prompts, if it writes one. A resumed run must use
    /// the same.
    pub template_moment: Option<Moment>,
}

/// Weights of which one should be changed, not both (arXiv 2402.01306, equation 8).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Imbalance {
    /// The range `desirable_weight` should be in.
    pub desirable_weight: (f64, f64),
    /// The range `undesirable_weight` should be in.
    pub undesirable_weight: (f64, f64),
}

impl Report {
    /// TRL's check of the weights against the label counts: the recommended ranges, if neither
    /// weight is in its own.
    pub fn imbalance(&self, desirable_weight: f64, undesirable_weight: f64) -> Option<Imbalance> {
        let desirable = self.desirable.max(1) as f64;
        let undesirable = self.examples.saturating_sub(self.desirable.max(1)).max(1) as f64;
        if desirable == undesirable {
            return None;
        }
        // Decimal rounding of the exact value, as Python's `round(value, 2)`.
        let round = |value: f64| format!("{value:.2}").parse::<f64>().unwrap_or(value);
        let wanted = undesirable * undesirable_weight / desirable;
        let other = desirable * desirable_weight / undesirable;
        let ranges = Imbalance {
            desirable_weight: (round(wanted), round(wanted * 1.33)),
            undesirable_weight: (round(other / 1.33), round(other)),
        };
        let within = |weight: f64, range: (f64, f64)| range.0 <= weight && weight <= range.1;
        let fits = within(desirable_weight, ranges.desirable_weight)
            || within(undesirable_weight, ranges.undesirable_weight);
        (!fits).then_some(ranges)
    }

    /// Records that are not trained on as they are, of all that were read, if they are more than one in twenty.
    pub fn many_lost(&self) -> Option<(usize, usize)> {
        let cut = self.cut_completions.count;
        let lost = self.records.saturating_sub(self.examples) + cut;
        (20 * lost > self.records).then_some((lost, self.records))
    }

    /// What happened to records, a sentence each.
    pub fn lost(&self) -> Vec<String> {
        let sentence = |text: &String| text.split('\n').next().unwrap_or_default().to_owned();
        self.noted().iter().map(sentence).collect()
    }

    /// What a user should know, each with what to do.
    pub fn warnings(&self) -> Vec<String> {
        let many = self.many_lost().map(|(lost, all)| {
            format!(
                "{lost} of {all} records are dropped or cut, {:.1} %\n  hint: more than 5 % is rarely meant: the next lines say why",
                100.0 * lost as f64 / all as f64
            )
        });
        many.into_iter().chain(self.noted()).collect()
    }

    fn noted(&self) -> Vec<String> {
        let longer = "raise data.max_length, or shorten them; `prospect data` shows all lengths";
        let noted = [
            (
                &self.empty_completions,
                "dropped: the completion is empty",
                "an answer without text teaches nothing: mend or remove it",
            ),
            (&self.prompts_too_long, "dropped: the prompt alone fills max_length", longer),
            (
                &self.nothing_scored,
                "dropped: no token of the completion can be scored",
                "look at it in `prospect data`: the chat template renders nothing of the completion",
            ),
            (
                &self.halves,
                "dropped: the other half of the pair was dropped",
                "a pair needs both of its answers: mend the other half",
            ),
            (
                &self.cut_completions,
                "cut at max_length; their ends, eos included, are not trained",
                longer,
            ),
            (
                &self.moved_prompt_tokens,
                "tokenize the end of the prompt differently when the completion follows; that \
                 end is trained as part of the completion",
                "let the prompt end where a token ends: a space belongs to the completion as a rule",
            ),
        ];
        let mut warnings = Vec::new();
        for (noted, what, hint) in noted {
            if noted.count > 0 {
                let records = if noted.count == 1 { "record" } else { "records" };
                warnings.push(format!(
                    "{} {records} {what} ({})\n  hint: {hint}",
                    noted.count,
                    noted.places()
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let lengths = Lengths::of(1..=200);
        assert_eq!((lengths.min, lengths.p50, lengths.p90), (1, 100, 180));
        assert_eq!((lengths.p99, lengths.max, lengths.total), (198, 200, 20100));
        assert_eq!(Lengths::of(std::iter::empty()), Lengths::default());
    }

    #[test]
    fn unequal_classes_ask_for_one_of_two_weights() {
        let counts = |desirable, undesirable| Report {
            examples: desirable + undesirable,
            desirable,
            undesirable,
            ..Report::default()
        };
        assert_eq!(counts(5, 5).imbalance(1.0, 7.0), None);
        assert_eq!(
            counts(30, 10).imbalance(1.0, 1.0),
            Some(Imbalance { desirable_weight: (0.33, 0.44), undesirable_weight: (2.26, 3.0) })
        );
        assert_eq!(counts(30, 10).imbalance(1.0, 2.5), None);
        assert_eq!(counts(30, 10).imbalance(0.4, 1.0), None);
    }
}
