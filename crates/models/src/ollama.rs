//! A Modelfile: what Ollama needs beside a GGUF file. Ollama's templates are Go's, not Jinja's, so the chat template is
//! shown a few conversations, taken apart into what stands around each message, and put together again in Go's words;
//! what does not come out the same that way is left out, and Ollama goes by the template inside the GGUF.
//!
//! The Modelfile's words are those of Ollama's `docs/modelfile.md` and `docs/template.md`.

use std::path::Path;

use data::template::{ChatTemplate, Conversation, Moment};
use data::{Tokenizer, files};
use serde_json::{Map, Value, json};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::generate;

/// Sampling that generation_config.json asks for, and Ollama's names for it.
const PARAMETERS: [(&str, &str); 5] = [
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("repetition_penalty", "repeat_penalty"),
];

/// The Modelfile of a model folder whose GGUF lies beside it as `gguf`, and what the user should know.
pub fn modelfile(base: &Path, gguf: &str) -> Result<(String, Vec<String>)> {
    let (config, tokenizer) = (ModelConfig::load(base)?, Tokenizer::load(base)?);
    let mut lines = vec![format!("FROM ./{gguf}")];
    let mut notes = Vec::new();
    if tokenizer.chat_template(false).is_some() {
        let template = ChatTemplate::of(&tokenizer, Moment::now())?;
        if template.reads_clock() {
            notes.push(
                "the chat template writes the date, which stays today's in Ollama".to_owned(),
            );
        }
        match go_template(&template, tokenizer.bos_token()) {
            Some((text, system)) => {
                lines.push(format!("TEMPLATE \"\"\"{text}\"\"\""));
                if !system {
                    notes.push("the chat template has no turn for a system message: Ollama leaves one out".to_owned());
                }
            }
            None => notes.push(
                "the chat template cannot be said in Ollama's words: the Modelfile has none, and Ollama goes by \
                 the one inside the GGUF"
                    .to_owned(),
            ),
        }
    }
    let mut stops: Vec<String> = Vec::new();
    for id in generate::stop_tokens(&config, &tokenizer) {
        let token = tokenizer.token(id).filter(|token| !token.contains(['"', '\n']));
        stops.extend(token.filter(|token| !stops.contains(token)));
    }
    lines.extend(stops.iter().map(|stop| format!("PARAMETER stop \"{stop}\"")));
    let path = base.join("generation_config.json");
    if path.exists() {
        let text = files::read_to_string(&path)?;
        let generation: Value = serde_json::from_str(&text).unwrap_or_default();
        if generation.get("do_sample") == Some(&json!(true)) {
            for (theirs, ollamas) in PARAMETERS {
                if let Some(number) = generation.get(theirs).filter(|value| value.is_number()) {
                    lines.push(format!("PARAMETER {ollamas} {number}"));
                }
            }
        }
    }
    Ok((lines.join("\n") + "\n", notes))
}

/// What stands before and after a message's text.
#[derive(Clone, Debug, PartialEq)]
struct Around {
    before: String,
    after: String,
}

impl Around {
    /// Finds the text in a block, once.
    fn of(block: &str, text: &str) -> Option<Around> {
        let (before, after) = block.split_once(text)?;
        let plain = !after.contains(text);
        plain.then(|| Around { before: before.to_owned(), after: after.to_owned() })
    }

    fn put(&self, text: &str) -> String {
        format!("{}{text}{}", self.before, self.after)
    }
}

/// Texts that no template holds.
const SYSTEM: &str = "systemtext7";
const USER: &str = "usertext7";
const ANSWER: &str = "answertext7";

/// The template in Go's words, and whether it has a turn for a system message; none where the parts do not make the
/// whole.
fn go_template(template: &ChatTemplate, bos: Option<&str>) -> Option<(String, bool)> {
    let render = |messages: &[(&str, &str)], add_generation_prompt: bool| -> Option<String> {
        let messages: Vec<Map<String, Value>> = messages
            .iter()
            .map(|(role, content)| {
                let parts = [("role", role), ("content", content)];
                parts.map(|(key, text)| (key.to_owned(), json!(text))).into_iter().collect()
            })
            .collect();
        let conversation = Conversation {
            messages: &messages.iter().collect::<Vec<_>>(),
            tools: None,
            template_kwargs: &Map::new(),
            add_generation_prompt,
        };
        let text = template.render(&conversation).ok()?;
        // llama.cpp puts the token of the beginning there itself.
        Some(bos.and_then(|bos| text.strip_prefix(bos)).unwrap_or(&text).to_owned())
    };
    let one = render(&[("user", USER)], false)?;
    let begun = render(&[("user", USER)], true)?.strip_prefix(&one)?.to_owned();
    let two = render(&[("user", USER), ("assistant", ANSWER)], false)?;
    let answer = Around::of(two.strip_prefix(&one)?, ANSWER)?;
    let three = render(&[("user", USER), ("assistant", ANSWER), ("user", USER)], false)?;
    let user = Around::of(three.strip_prefix(&two)?, USER)?;
    let head = one.strip_suffix(&user.put(USER))?.to_owned();
    let system = render(&[("system", SYSTEM), ("user", USER)], false)
        .and_then(|text| Around::of(text.strip_suffix(&user.put(USER))?, SYSTEM));
    // Another conversation than those it was learnt from comes out the same.
    let mut messages =
        vec![("user", "a b"), ("assistant", "c"), ("user", "d"), ("assistant", "e"), ("user", "f")];
    let compose = |messages: &[(&str, &str)]| -> String {
        let block = |(role, text): &(&str, &str)| match (*role, &system) {
            ("user", _) => user.put(text),
            ("assistant", _) => answer.put(text),
            (_, Some(system)) => system.put(text),
            (_, None) => String::new(),
        };
        messages.iter().map(block).chain([begun.clone()]).collect()
    };
    if render(&messages, true)? != format!("{head}{}", compose(&messages)) {
        return None;
    }
    messages.insert(0, ("system", "g"));
    if system.is_some() && render(&messages, true)? != compose(&messages) {
        return None;
    }
    let go = |text: &str| text.replace("{{", "{{ \"{{\" }}");
    let block =
        |around: &Around| format!("{}{{{{ .Content }}}}{}", go(&around.before), go(&around.after));
    let mut text = String::new();
    if !head.is_empty() {
        text += &format!("{{{{ if not .System }}}}{}{{{{ end }}}}", go(&head));
    }
    text += "{{ range .Messages }}";
    if let Some(system) = &system {
        text += &format!("{{{{ if eq .Role \"system\" }}}}{}{{{{ end }}}}", block(system));
    }
    text += &format!("{{{{ if eq .Role \"user\" }}}}{}{{{{ end }}}}", block(&user));
    text += &format!("{{{{ if eq .Role \"assistant\" }}}}{}{{{{ end }}}}", block(&answer));
    text += &format!("{{{{ end }}}}{}", go(&begun));
    // Three quotation marks would end it.
    (!text.contains("\"\"\"")).then_some((text, system.is_some()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::testing::fixture;

    fn shown(template: &str, expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        let copy = |from: &str, name: &str| {
            std::fs::copy(fixture(from).join(name), folder.path().join(name)).unwrap();
        };
        copy("models/llama_tied", "config.json");
        copy("data/tokenizer", "tokenizer.json");
        copy("data/tokenizer", "tokenizer_config.json");
        let text = std::fs::read_to_string(fixture("data/templates").join(template)).unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), text).unwrap();
        let generation =
            json!({"do_sample": true, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05});
        std::fs::write(folder.path().join("generation_config.json"), generation.to_string())
            .unwrap();
        let (text, notes) = modelfile(folder.path(), "model.gguf").unwrap();
        expected.assert_eq(&format!("{text}notes: {notes:?}"));
    }

    #[test]
    fn turns_are_said_in_gos_words() {
        shown(
            "chatml.jinja",
            expect![[r#"
            FROM ./model.gguf
            TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system
            {{ .Content }}<|im_end|>
            {{ end }}{{ if eq .Role "user" }}<|im_start|>user
            {{ .Content }}<|im_end|>
            {{ end }}{{ if eq .Role "assistant" }}<|im_start|>assistant
            {{ .Content }}<|im_end|>
            {{ end }}{{ end }}<|im_start|>assistant
            """
            PARAMETER stop "<pad>"
            PARAMETER stop "</s>"
            PARAMETER temperature 0.7
            PARAMETER top_k 20
            PARAMETER repeat_penalty 1.05
            notes: []"#]],
        );
        shown(
            "instruct.jinja",
            expect![[r#"
            FROM ./model.gguf
            TEMPLATE """{{ range .Messages }}{{ if eq .Role "user" }}[INST]{{ .Content }}[/INST]{{ end }}{{ if eq .Role "assistant" }} {{ .Content }}</s>{{ end }}{{ end }}"""
            PARAMETER stop "<pad>"
            PARAMETER stop "</s>"
            PARAMETER temperature 0.7
            PARAMETER top_k 20
            PARAMETER repeat_penalty 1.05
            notes: ["the chat template has no turn for a system message: Ollama leaves one out"]"#]],
        );
    }

    #[test]
    fn what_cannot_be_taken_apart_is_left_to_the_gguf() {
        shown(
            "python.jinja",
            expect![[r#"
            FROM ./model.gguf
            PARAMETER stop "<pad>"
            PARAMETER stop "</s>"
            PARAMETER temperature 0.7
            PARAMETER top_k 20
            PARAMETER repeat_penalty 1.05
            notes: ["the chat template cannot be said in Ollama's words: the Modelfile has none, and Ollama goes by the one inside the GGUF"]"#]],
        );
    }
}
