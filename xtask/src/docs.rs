//! Documents made from the code: the reference of recipes and of the command line.

use std::path::Path;
use std::process::{Command, Stdio};

/// A generated document.
pub(crate) struct Document {
    /// Its path from the root.
    pub(crate) path: &'static str,
    pub(crate) text: String,
}

/// Writes every generated document.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    for Document { path, text } in documents(root)? {
        std::fs::write(root.join(path), text)
            .map_err(|error| format!("cannot write {path}: {error}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Every generated document as it should be.
pub(crate) fn documents(root: &Path) -> Result<Vec<Document>, String> {
    let recipes = Document { path: "docs/recipes.md", text: train::recipe::reference::markdown() };
    let help = |arguments: &[&str]| help(root, arguments);
    Ok(vec![recipes, Document { path: "docs/cli.md", text: command_line(&help)? }])
}

/// The page on the command line: the program's own help, then that of each command in it.
fn command_line(help: &dyn Fn(&[&str]) -> Result<String, String>) -> Result<String, String> {
    let mut page = String::from(
        "<!-- Made by `cargo xtask docs` from the program's own help; edit the doc comments in crates/cli. -->\n\n\
         # The program `prospect`\n",
    );
    let top = help(&[])?;
    page += &format!("\n```text\n{}\n```\n", top.trim());
    for command in commands(&top) {
        page += &format!("\n## prospect {command}\n\n```text\n{}\n```\n", help(&[command])?.trim());
    }
    Ok(page)
}

/// The commands that a help text lists: the indented names below `Commands:`.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.trim().is_empty());
    // A name stands after two spaces; a line that goes on with a description is indented further.
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

/// What `prospect COMMAND --help` prints, 100 columns wide and without colours.
fn help(root: &Path, command: &[&str]) -> Result<String, String> {
    let run = Command::new(crate::cargo())
        .args(["run", "--quiet", "--package", "prospect", "--"])
        .args(command)
        .arg("--help")
        .current_dir(root)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null()) // with no terminal on any side, the width is the one given
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !run.status.success() {
        return Err(format!(
            "`prospect {} --help` failed:\n{}",
            command.join(" "),
            String::from_utf8_lossy(&run.stderr)
        ));
    }
    let text = String::from_utf8_lossy(&run.stdout);
    Ok(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "Fine-tune\n\nUsage: prospect [COMMAND]\n\nCommands:\n  train  Run a recipe,\n         in full\n  plan   Plan\n  help   Print this message\n\nOptions:\n  -h, --help\n";

    #[test]
    fn every_command_gets_a_section_with_its_own_help() {
        let help = |command: &[&str]| match command {
            [] => Ok(TOP.to_owned()),
            [command] => Ok(format!("help of {command}\n")),
            _ => Err("one command at a time".to_owned()),
        };
        let page = command_line(&help).unwrap();
        assert!(page.contains("## prospect train\n\n```text\nhelp of train\n```\n"), "{page}");
        assert!(page.contains("## prospect plan\n"), "{page}");
        assert_eq!(page.matches("\n## ").count(), 2, "{page}");
    }
}
