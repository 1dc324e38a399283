//! The page around the charts.

use std::fmt::Write;

use serde_json::Value;

use super::chart::{Kind, Line, Range, figure};
use super::{Run, escape};
use crate::words::{clock, count, number};

const STYLE: &str = include_str!("style.css");

/// Prompts in the table; answers.json has all.
const SHOWN: usize = 100;

/// The whole page.
pub(super) fn page(run: &Run<'_>) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{name} · Prospect</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n",
        name = escape(&run.name)
    );
    html += &header(run);
    html += &tiles(run);
    html += &warnings(run);
    html += &charts(run);
    html += &answers(run);
    html += &recipe(run);
    let version = run.start.get("prospect").and_then(Value::as_str).unwrap_or("");
    let _ = write!(
        html,
        "<footer>Prospect {} · made from recipe.toml, metrics.jsonl, answers.json and summary.json beside this file</footer>\n</main></body></html>\n",
        escape(version)
    );
    html
}

/// The value of a key of the resolved recipe, without quotes.
fn key<'a>(run: &'a Run<'_>, table: &str, key: &str) -> Option<&'a str> {
    let mut inside = table.is_empty();
    for line in run.recipe.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name == table;
        } else if inside
            && let Some((found, value)) = line.split_once(" = ")
            && found == key
        {
            return Some(value.trim_matches('"'));
        }
    }
    None
}

fn header(run: &Run<'_>) -> String {
    let name_of =
        |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
    let mut facts: Vec<String> = Vec::new();
    facts.extend(key(run, "model", "path").map(name_of));
    facts.extend(key(run, "objective", "name").map(str::to_owned));
    facts.push(match key(run, "adapter", "r") {
        Some(r) => format!("LoRA r = {r}"),
        None if run.recipe.is_empty() => String::new(),
        None => "all weights".to_owned(),
    });
    let quantization = key(run, "model", "quantization").filter(|form| *form != "none");
    facts.extend(quantization.map(str::to_owned));
    facts.retain(|fact| !fact.is_empty());
    let facts: Vec<String> =
        facts.iter().map(|fact| format!("<span>{}</span>", escape(fact))).collect();
    let state = if run.summary.is_null() {
        format!("<span class=\"state going\">after step {}</span>", count(run.series.last_step()))
    } else {
        "<span class=\"state\">finished</span>".to_owned()
    };
    format!(
        "<header><p class=\"brand\">Prospect</p><h1>{}</h1><p class=\"facts\">{}{state}</p></header>\n",
        escape(&run.name),
        facts.join("")
    )
}

fn tiles(run: &Run<'_>) -> String {
    let mut html = String::from("<section class=\"tiles\">");
    let mut tile = |name: &str, value: String, note: String| {
        let _ = write!(
            html,
            "<div class=\"card tile\"><h2>{name}</h2><p>{value}</p><small>{note}</small></div>"
        );
    };
    let of = |name: &str| run.summary.get(name).and_then(Value::as_f64);
    if let (Some(all), Some(before), Some(after)) =
        (of("prompts"), of("desirable_before"), of("desirable_after"))
    {
        tile(
            "desirable answers",
            format!("{before}<em> → </em>{after}"),
            format!("of {all}, before and after"),
        );
    }
    let last = |name: &str| {
        let held_out = run.series.last(&format!("eval_{name}"));
        held_out
            .map(|value| (value, "held-out data"))
            .or(run.series.last(name).map(|value| (value, "last step")))
    };
    for (name, word) in [
        ("loss", "loss"),
        ("rewards/margins", "margins"),
        ("rewards/accuracy", "accuracy"),
        ("auc", "AUC"),
    ] {
        if let Some((value, of)) = last(name) {
            tile(word, number(value), of.to_owned());
        }
    }
    tile(
        "steps",
        count(run.series.last_step()),
        format!("{} epochs", number(run.series.last_epoch())),
    );
    if let (Some(rate), Some(seconds)) = (of("rated_tokens_per_second"), of("seconds")) {
        tile(
            "rated tokens a second",
            count(rate as usize),
            format!("training took {}", clock(seconds)),
        );
    }
    if let (Some(peak), Some(planned)) = (of("peak_bytes"), of("planned_peak_bytes")) {
        tile(
            "peak memory",
            train::fit::bytes(peak as u64),
            if peak == planned {
                "to the byte as planned".to_owned()
            } else {
                format!("{} planned", train::fit::bytes(planned as u64))
            },
        );
    }
    html + "</section>\n"
}

/// What was warned of, and what to do.
fn warnings(run: &Run<'_>) -> String {
    let lines: Vec<String> = run
        .series
        .warnings()
        .iter()
        .map(|warning| {
            let when = match warning.step {
                0 => "before the first step".to_owned(),
                step => format!("step {}", count(step as usize)),
            };
            format!(
                "<li>{} <small>({when})</small><br><small>{}</small></li>",
                escape(&warning.what),
                escape(&warning.hint)
            )
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("<section class=\"card\"><h2>warnings</h2><ul>{}</ul></section>\n", lines.join(""))
}

/// A metric, its name in the legend, its colour and how it is drawn.
type Drawn = (&'static str, &'static str, &'static str, Kind);

fn charts(run: &Run<'_>) -> String {
    let shown: [(&str, &str, Range, &[Drawn]); 10] = [
        (
            "Loss",
            "what is minimized",
            Range::Free,
            &[
                ("loss", "training", "a", Kind::Noisy),
                ("eval_loss", "held-out", "ink", Kind::Sparse),
            ],
        ),
        (
            "Rewards",
            "beta times the log-ratio to the reference, or where there is none the mean log-probability",
            Range::FromZero,
            &[
                ("rewards/chosen", "up", "up", Kind::Noisy),
                ("rewards/rejected", "down", "down", Kind::Noisy),
                ("eval_rewards/chosen", "up held-out", "up", Kind::Sparse),
                ("eval_rewards/rejected", "down held-out", "down", Kind::Sparse),
            ],
        ),
        (
            "Margins",
            "reward of thumbs up minus thumbs down",
            Range::FromZero,
            &[
                ("rewards/margins", "training", "a", Kind::Noisy),
                ("eval_rewards/margins", "held-out", "ink", Kind::Sparse),
            ],
        ),
        (
            "KL",
            "how far the model has moved from the reference",
            Range::FromZero,
            &[("kl", "training", "b", Kind::Noisy), ("eval_kl", "held-out", "ink", Kind::Sparse)],
        ),
        (
            "Delta",
            "the mean of all rewards so far, which bco compares with",
            Range::FromZero,
            &[
                ("delta", "training", "b", Kind::Noisy),
                ("eval_delta", "held-out", "ink", Kind::Sparse),
            ],
        ),
        (
            "Negative log-probability",
            "per token of what is preferred: what sft_weight weighs",
            Range::Free,
            &[
                ("nll_loss", "training", "b", Kind::Noisy),
                ("eval_nll_loss", "held-out", "ink", Kind::Sparse),
            ],
        ),
        (
            "Accuracy",
            "ratings that the rewards agree with",
            Range::Share,
            &[
                ("rewards/accuracy", "training", "a", Kind::Noisy),
                ("eval_rewards/accuracy", "held-out", "ink", Kind::Sparse),
            ],
        ),
        (
            "AUC",
            "chance that an up is rewarded above a down",
            Range::Share,
            &[("auc", "training", "b", Kind::Noisy), ("eval_auc", "held-out", "ink", Kind::Sparse)],
        ),
        (
            "Gradient norm",
            "before clipping",
            Range::FromZero,
            &[("grad_norm", "training", "c", Kind::Noisy)],
        ),
        (
            "Learning rate",
            "by the schedule",
            Range::FromZero,
            &[("learning_rate", "now", "c", Kind::Exact)],
        ),
    ];
    let mut html = String::from("<section class=\"charts\">");
    let mut any = false;
    for (title, what, range, lines) in shown {
        let lines: Vec<Line<'_>> = lines
            .iter()
            .filter_map(|(metric, name, class, kind)| {
                let points = run.series.get(metric)?;
                Some(Line { name, class, points, kind: *kind })
            })
            .collect();
        if !lines.is_empty() {
            any = true;
            html += &figure(title, what, &lines, range);
        }
    }
    if !any {
        html += "<p class=\"empty\">Nothing was measured yet.</p>";
    }
    html + "</section>\n"
}

fn answers(run: &Run<'_>) -> String {
    let Some(all) = run.answers.get("answers").and_then(Value::as_array) else {
        return String::new();
    };
    let judged = run.answers.get("judged").and_then(Value::as_bool).unwrap_or(false);
    let mut html = String::from(
        "<section class=\"card answers\"><h2>Before and after</h2><div class=\"scroll\"><table><thead><tr><th>prompt</th><th>before</th><th>after</th></tr></thead><tbody>\n",
    );
    for answer in all.iter().take(SHOWN) {
        let text = |name: &str| escape(answer.get(name).and_then(Value::as_str).unwrap_or(""));
        let mark = |name: &str| match answer.get(name).and_then(Value::as_bool) {
            Some(true) if judged => "<span class=\"mark yes\" title=\"desirable\">✓</span>",
            Some(false) if judged => "<span class=\"mark no\" title=\"not desirable\">✗</span>",
            _ => "",
        };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}<span>{}</span></td><td>{}<span>{}</span></td></tr>",
            text("prompt"),
            mark("desirable_before"),
            text("before"),
            mark("desirable_after"),
            text("after")
        );
    }
    html += "</tbody></table></div>";
    if all.len() > SHOWN {
        let _ = write!(html, "<p class=\"empty\">{} more in answers.json</p>", all.len() - SHOWN);
    }
    html + "</section>\n"
}

fn recipe(run: &Run<'_>) -> String {
    let mut html =
        String::from("<details class=\"card recipe\"><summary>Recipe as resolved</summary><pre>");
    for line in run.recipe.lines() {
        if line.starts_with('#') || line.starts_with('[') {
            let class = if line.starts_with('#') { "comment" } else { "table" };
            let _ = writeln!(html, "<span class=\"{class}\">{}</span>", escape(line));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let _ = writeln!(
                html,
                "<span class=\"key\">{}</span> = <span class=\"value\">{}</span>",
                escape(key),
                escape(value)
            );
        } else {
            let _ = writeln!(html, "{}", escape(line));
        }
    }
    html + "</pre></details>\n"
}
