//! `prospect data`: what training will see of a recipe's data.

use std::path::PathBuf;

use ::data::dataset::Rendered;
use ::data::report::{Lengths, Noted, Part};
use ::data::template::Moment;
use ::data::{OriginReport, Report};
use ::train::error::Result;
use ::train::inputs::Inputs;
use ::train::run;
use serde::Serialize;

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::terminal::{json, on_stdout, print};
use crate::words::{count, things};

/// Steps that are packed to say how well they pack.
const SAMPLED_STEPS: usize = 200;

/// Shows the data.
pub(crate) fn run(arguments: &args::Data) -> Result<Done> {
    let recipe = hub::recipe(&arguments.recipe)?;
    let inputs = Inputs::load(recipe, Moment::now())?;
    let packing = Packing::of(&inputs);
    if arguments.json {
        let eval = inputs.eval.as_ref().map(|(_, report)| report);
        print(&json(&serde_json::json!({
            "train": inputs.report, "eval": eval, "packing": packing, "warnings": run::warnings(&inputs),
        })));
        return Ok(Done::Well);
    }
    describe("training data", &inputs.report);
    if let Some((_, report)) = &inputs.eval {
        print("");
        describe("held-out data", report);
    }
    print("");
    packing.print();
    print("");
    example(&inputs.dataset.rendered(0, &inputs.tokenizer)?);
    for warning in run::warnings(&inputs) {
        print(&format!("\n{} {warning}", on_stdout().yellow().bold().apply_to("warning:")));
    }
    Ok(Done::Well)
}

fn describe(what: &str, report: &Report) {
    let bold = on_stdout().bold().apply_to(what);
    match report.parts.as_slice() {
        [part] => print(&format!("{bold} {}", files(&part.files))),
        parts => print(&format!("{bold} from {}", things(parts.len(), "source"))),
    }
    for part in &report.parts {
        source(part, report.parts.len() > 1, report.examples);
    }
    if let Some(word) = &report.cache {
        print(&format!("  {word}"));
    }
    print(&format!(
        "  {} of {} kept: {} thumbs up, {} thumbs down, {}",
        things(report.examples, "example"),
        count(report.records),
        count(report.desirable),
        count(report.undesirable),
        things(report.distinct_prompts, "distinct prompt"),
    ));
    let dropped = [
        ("dropped, the completion is empty", &report.empty_completions),
        ("dropped, the prompt alone fills max_length", &report.prompts_too_long),
        ("dropped, no token of the completion can be scored", &report.nothing_scored),
        ("dropped, the other half of the pair was", &report.halves),
        ("cut at max_length", &report.cut_completions),
        ("prompt ends in a token that runs into the completion", &report.moved_prompt_tokens),
    ];
    for (why, Noted { count, first }) in dropped {
        if *count > 0 {
            print(&format!("  {count} {why}: first {}", first[0]));
        }
    }
    print("  tokens           shortest    half    90 %    99 %  longest       all");
    for (name, lengths) in [
        ("prompt", report.prompt_tokens),
        ("completion", report.completion_tokens),
        ("both, as cut", report.tokens),
    ] {
        let Lengths { min, p50, p90, p99, max, total } = lengths;
        print(&format!(
            "  {name:<16} {:>8}{:>8}{:>8}{:>8}{:>9}{:>10}",
            count(min),
            count(p50),
            count(p90),
            count(p99),
            count(max),
            count(total)
        ));
    }
}

/// The names of files, or of some of them.
fn files(files: &[PathBuf]) -> String {
    const NAMED: usize = 4;
    let names: Vec<String> = files.iter().take(NAMED).map(|it| it.display().to_string()).collect();
    match files.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// As what a source was read and why; of several, its files and its share too.
fn source(part: &Part, one_of_several: bool, all: usize) {
    let OriginReport { format, form, conversational, why, ignored, rows } = &part.read;
    if one_of_several {
        print(&format!("  {}", files(&part.files)));
    }
    let text = if *conversational { "messages" } else { "plain text" };
    print(&format!("  {format}, {}, read as \"{form}\" of {text}: {why}", things(*rows, "row")));
    if !ignored.is_empty() {
        print(&format!("  not read: {}", ignored.join(", ")));
    }
    if let Some(weight) = part.weight {
        print(&format!(
            "  weight {weight}: {} of the {} examples of an epoch, of {} it has",
            count(part.per_epoch),
            count(all),
            count(part.examples)
        ));
    }
}

/// How the steps of an epoch pack: a prompt is computed once however many completions hang on it, and no row is
/// padding.
#[derive(Default, Serialize)]
struct Packing {
    /// Optimizer steps looked at.
    steps: usize,
    /// Rows of the passes, as packed.
    packed_rows: usize,
    /// Rows if each completion brought its own prompt.
    separate_rows: usize,
    /// Rows if each were also padded to the longest of its group.
    padded_rows: usize,
    /// Prompts that several completions share, in those steps.
    shared_prompts: usize,
    /// Completions that hang on them.
    sharing_completions: usize,
}

impl Packing {
    fn of(inputs: &Inputs) -> Packing {
        let batching = inputs.batching(inputs.recipe.train.token_budget.unwrap_or(usize::MAX));
        let epoch = inputs.dataset.epoch(&batching, 0);
        let mut packing = Packing { steps: epoch.steps().min(SAMPLED_STEPS), ..Packing::default() };
        for step in 0..packing.steps {
            let packed = epoch.step(step);
            let mut longest = vec![[(0usize, 0usize); 2]; packed.groups.len()];
            for batch in packed.kl_micro_batches.iter().chain(&packed.micro_batches) {
                packing.packed_rows += batch.rows();
                let mut children = vec![0usize; batch.segments.len()];
                for (segment, completion) in
                    batch.completion_segments().into_iter().zip(&batch.completions)
                {
                    let segment = &batch.segments[segment];
                    let length = segment.position0 + segment.len;
                    packing.separate_rows += length;
                    let (rows, most) = &mut longest[completion.group][completion.role as usize];
                    (*rows, *most) = (*rows + 1, length.max(*most));
                    if let Some(parent) = segment.parent {
                        children[parent] += 1;
                    }
                }
                for shared in children.into_iter().filter(|children| *children > 1) {
                    packing.shared_prompts += 1;
                    packing.sharing_completions += shared;
                }
            }
            packing.padded_rows +=
                longest.iter().flatten().map(|(rows, most)| rows * most).sum::<usize>();
        }
        packing
    }

    fn print(&self) {
        let saved = |of: usize| 100.0 * (1.0 - self.packed_rows as f64 / of.max(1) as f64);
        print(&format!(
            "{} the first {} of an epoch",
            on_stdout().bold().apply_to("packing"),
            things(self.steps, "step")
        ));
        print(&format!("  {:>10} rows as packed", count(self.packed_rows)));
        print(&format!(
            "  {:>10} rows if each completion brought its own prompt: {:.0} % saved",
            count(self.separate_rows),
            saved(self.separate_rows)
        ));
        print(&format!(
            "  {:>10} rows if they were padded as well: {:.0} % saved",
            count(self.padded_rows),
            saved(self.padded_rows)
        ));
        print(&format!(
            "  {:>10} prompts are shared, by {} completions (those of the KL estimate included)",
            count(self.shared_prompts),
            count(self.sharing_completions)
        ));
    }
}

/// An example as the model sees it; the completion stands between the marks.
fn example(rendered: &Rendered) {
    let label = if rendered.label { "thumbs up" } else { "thumbs down" };
    print(&format!(
        "{} {} ({label}), as the model sees it; what is learnt from stands between ⟦ and ⟧",
        on_stdout().bold().apply_to("example"),
        rendered.source
    ));
    print(&format!(
        "{}{}{}{}",
        rendered.prompt,
        on_stdout().bold().apply_to("⟦"),
        on_stdout().cyan().apply_to(&rendered.completion),
        on_stdout().bold().apply_to("⟧")
    ));
    let cut = match rendered.cut_tokens {
        0 => String::new(),
        cut => format!(", {} cut off", things(cut, "token")),
    };
    print(&format!(
        "  {}, {}{cut}",
        things(rendered.prompt_tokens, "prompt token"),
        things(rendered.completion_tokens, "completion token"),
    ));
}
