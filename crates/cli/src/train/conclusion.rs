//! The end of a run: answers before and after side by side, the counts, where everything is, what to try next.

use std::path::{Path, PathBuf};

use ::train::event::{Answer, Judgement, Summary};
use ::train::recipe::{ModelPath, Recipe};
use console::{measure_text_width, pad_str};

use crate::terminal::{on_stdout, print, width};
use crate::words::{clock, count, number};

/// Prints the results. `typed` is the recipe's path as it was typed, and `from_text` whether it learnt from plain text.
pub(crate) fn conclude(
    recipe: &Recipe,
    typed: &Path,
    summary: &Summary,
    judgement: Option<&Judgement>,
    from_text: bool,
) {
    if let Some(judgement) = judgement {
        answers(judgement);
    }
    print("");
    let measured = |name: &str| summary.metrics.get(name).and_then(serde_json::Value::as_f64);
    if let (Some(loss), accuracy) = (measured("eval_loss"), measured("eval_rewards/accuracy")) {
        let accuracy = accuracy
            .map_or_else(String::new, |accuracy| format!(", accuracy {}", number(accuracy)));
        print(&format!("held-out data: loss {}{accuracy}", number(loss)));
    }
    print(&format!(
        "trained on {} rated tokens in {}: {} a second",
        count(summary.rated_tokens),
        clock(summary.seconds),
        count(summary.rated_tokens_per_second as usize)
    ));
    if summary.bad_batches > 0 {
        print(&format!(
            "{} of {} steps were skipped because something in them was not finite: bad-batches.jsonl names their rows",
            summary.bad_batches, summary.steps
        ));
    }
    places(recipe);
    next(recipe, typed, from_text);
}

fn places(recipe: &Recipe) {
    let place = |name: &str| near(&recipe.output.join(name)).display().to_string();
    print("");
    if recipe.adapter.is_some() {
        print(&format!("  adapter  {}  (PEFT loads it too)", place("adapter")));
    } else {
        print(&format!("  model    {}  (transformers loads it too)", place("model")));
    }
    print(&format!("  report   {}  (open it in a browser)", place("report.html")));
    print(&format!("  numbers  {}, {}", place("metrics.jsonl"), place("summary.json")));
}

fn next(recipe: &Recipe, typed: &Path, from_text: bool) {
    let bold = |text: String| on_stdout().bold().apply_to(text).to_string();
    let model = match (&recipe.adapter, &recipe.model.path) {
        (Some(_), ModelPath::Folder(model)) => {
            format!(
                "{} --adapter {}",
                word(&near(model)),
                word(&near(&recipe.output.join("adapter")))
            )
        }
        _ => word(&near(&recipe.output.join("model"))),
    };
    let raw = if from_text && has_template(recipe) { " --raw" } else { "" };
    let program = program();
    print("\nwhat to try next");
    print(&format!("  talk to it           {}", bold(format!("{program} generate {model}{raw}"))));
    print(&format!(
        "  your own feedback    {}",
        bold(format!("{program} train {} --set data.train=FILE.jsonl", word(typed)))
    ));
    print(&format!("  what a run takes     {}", bold(format!("{program} plan {}", word(typed)))));
    print(&format!("  what the data is     {}", bold(format!("{program} data {}", word(typed)))));
}

/// Whether the model has a chat template. If it has and yet learnt from plain text, it is asked in plain text too.
fn has_template(recipe: &Recipe) -> bool {
    let ModelPath::Folder(model) = &recipe.model.path else { return false };
    data::Tokenizer::load(model).is_ok_and(|tokenizer| tokenizer.chat_template(false).is_some())
}

fn answers(judgement: &Judgement) {
    // What changed is what one wants to see first.
    let mut answers: Vec<&Answer> = judgement.answers.iter().collect();
    answers.sort_by_key(|answer| answer.before == answer.after);
    for answer in answers.into_iter().take(judgement.show) {
        print("");
        for line in side_by_side(answer, judgement.judged, width()) {
            print(&line);
        }
    }
    if judgement.judged {
        let (before, after) = judgement.desirable();
        let all = judgement.answers.len();
        print("");
        print(
            &on_stdout()
                .bold()
                .apply_to(format!(
                    "desirable answers: {before} of {all} before, {after} of {all} after"
                ))
                .to_string(),
        );
    }
}

/// A prompt, and below it both answers in two columns.
fn side_by_side(answer: &Answer, judged: bool, width: usize) -> Vec<String> {
    let column = (width.saturating_sub(7)) / 2;
    let head = |word: &str, desirable: bool| match (judged, desirable) {
        (false, _) => word.to_owned(),
        (true, true) if column < 24 => format!("{word} ✓"),
        (true, false) if column < 24 => format!("{word} ✗"),
        (true, true) => format!("{word} ✓ desirable"),
        (true, false) => format!("{word} ✗ not desirable"),
    };
    let paint = |desirable: bool, text: &str| {
        let style = match (judged, desirable) {
            (false, _) => on_stdout().dim(),
            (true, true) => on_stdout().green(),
            (true, false) => on_stdout().red(),
        };
        style.apply_to(text).to_string()
    };
    let mut lines: Vec<String> = wrap(&answer.prompt, width.saturating_sub(4))
        .into_iter()
        .map(|line| format!("  {}", on_stdout().bold().apply_to(line)))
        .collect();
    let row = |left: &str, right: &str| {
        let left = pad_str(left, column, console::Alignment::Left, None).into_owned();
        format!("  {left} │ {right}").trim_end().to_owned()
    };
    let left_head =
        pad_str(&head("before", answer.desirable_before), column, console::Alignment::Left, None)
            .into_owned();
    lines.push(format!(
        "  {} │ {}",
        paint(answer.desirable_before, &left_head),
        paint(answer.desirable_after, &head("after", answer.desirable_after))
    ));
    let (before, after) = (wrap(&answer.before, column), wrap(&answer.after, column));
    for i in 0..before.len().max(after.len()) {
        let at = |column: &[String]| column.get(i).cloned().unwrap_or_default();
        lines.push(row(&at(&before), &at(&after)));
    }
    lines
}

/// Lines of at most `width` columns, broken between words where there is a place.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = Vec::new();
    for paragraph in printable(text).lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let gap = if line.is_empty() { "" } else { " " };
            if measure_text_width(&line) + gap.len() + measure_text_width(word) <= width {
                line += gap;
                line += word;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for character in word.chars() {
                if measure_text_width(&line)
                    + measure_text_width(character.encode_utf8(&mut [0; 4]))
                    > width
                {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(character);
            }
        }
        lines.push(line);
    }
    lines
}

/// Text of a model, without what could move the cursor.
fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' => '\n',
        '\t' => ' ',
        other if other.is_control() => '�',
        other => other,
    };
    text.chars().map(shown).collect()
}

/// This program as it was started: by its name, or by its path.
fn program() -> String {
    let started = std::env::args_os().next().unwrap_or_else(|| "prospect".into());
    word(&near(Path::new(&started)))
}

/// A path as a word for the shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A path as seen from the current folder, where it lies below it.
fn near(path: &Path) -> PathBuf {
    let current = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&current) {
        Ok(near) if !near.as_os_str().is_empty() => near.to_path_buf(),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn both_answers_stand_side_by_side_at_any_width() {
        let answer = Answer {
            prompt: "How do I boil an egg?".to_owned(),
            before: "Put it into boiling water for seven minutes.".to_owned(),
            after: "With pleasure!\nPut 鸡蛋 into aWordThatIsLongerThanTheColumnIs\x1b[2J."
                .to_owned(),
            desirable_before: false,
            desirable_after: true,
        };
        let lines = side_by_side(&answer, true, 40);
        expect![[r#"
            |  How do I boil an egg?
            |  before ✗         │ after ✓
            |  Put it into      │ With pleasure!
            |  boiling water    │ Put 鸡蛋 into
            |  for seven        │ aWordThatIsLonge
            |  minutes.         │ rThanTheColumnIs
            |                   │ �[2J.
        "#]]
        .assert_eq(&lines.iter().map(|line| format!("|{line}\n")).collect::<String>());
        assert!(side_by_side(&answer, true, 80)[1].contains("before ✗ not desirable"));
        assert!(side_by_side(&answer, false, 60).iter().all(|line| measure_text_width(line) <= 60));
    }

    #[test]
    fn a_path_with_a_space_is_quoted() {
        assert_eq!(word(Path::new("runs/my model")), "'runs/my model'");
    }
}
