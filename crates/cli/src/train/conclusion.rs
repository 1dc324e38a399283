//! The end of a run: answers before and after, the counts, where everything is, what to try next.

use std::path::Path;

use ::train::event::{Judgement, Summary};
use ::train::recipe::{ModelPath, Recipe};

use crate::terminal::print;
use crate::words::{clock, count};

/// Prints the results.
pub(crate) fn conclude(recipe: &Recipe, summary: &Summary, judgement: Option<&Judgement>) {
    if let Some(judgement) = judgement {
        for answer in judgement.answers.iter().take(judgement.show) {
            print(&format!(
                "\nprompt: {}\n  before: {}\n  after:  {}",
                answer.prompt, answer.before, answer.after
            ));
        }
        if judgement.judged {
            let (before, after) = judgement.desirable();
            let all = judgement.answers.len();
            print(&format!(
                "\ndesirable answers: {before} of {all} before, {after} of {all} after"
            ));
        }
    }
    print(&format!(
        "\n{} rated tokens in {}, {} tokens/s",
        count(summary.rated_tokens),
        clock(summary.seconds),
        count(summary.rated_tokens_per_second as usize)
    ));
    print(&format!("everything is in '{}'", near(&recipe.output).display()));
    if let (Some(_), ModelPath::Folder(model)) = (&recipe.adapter, &recipe.model.path) {
        print(&format!(
            "\ntry next: prospect generate {} --adapter {}",
            near(model).display(),
            near(&recipe.output.join("adapter")).display()
        ));
    }
}

/// A path as seen from the current folder, where it lies below it.
fn near(path: &Path) -> std::path::PathBuf {
    let current = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&current) {
        Ok(near) if !near.as_os_str().is_empty() => near.to_path_buf(),
        _ => path.to_path_buf(),
    }
}
