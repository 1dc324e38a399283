//! `[generate]`: answers before and after, side by side, and the rule they are judged by.

use super::paths::Folders;
use super::setting::Setting;
use super::source::{Kind, Value};
use super::table::{A_MILLION, AT_LEAST_0, At, Table, table};
use crate::error::Result;
use std::path::PathBuf;

table! {
    /// `[generate]`: at the end of the run, answer held-out prompts as before and as after training and
    /// show both. A recipe without this table shows none.
    pub struct Generate["generate"] {
        /// A JSONL file of prompts that training has not seen: each row has a `prompt`, text or messages.
        pub prompts: PathBuf;
        /// An answer ends here at the latest.
        pub max_new_tokens: usize = 64, A_MILLION;
        /// 0 takes the likeliest token every time. Above 0 tokens are drawn by their probabilities, and more
        /// freely the larger it is; at 1 the answers show how often the model would say what. The draws are a
        /// function of `seed`.
        pub temperature: f64 = 0.0, AT_LEAST_0;
        /// The rule by which an answer counts as desirable; without one nothing is counted. Below.
        pub desirable: Option<Desirable>;
        /// How many prompts are printed with both answers. All are judged.
        pub show: usize = 5, AT_LEAST_0;
    }
}

table! {
    /// `desirable` in `[generate]`: a plain rule on an answer's text, white space at both ends aside. All
    /// that is written must hold; letters count as written.
    pub struct Desirable["generate.desirable"] {
        /// The answer begins with this.
        pub starts_with: Option<String>;
        /// The answer ends with this.
        pub ends_with: Option<String>;
        /// Each of these occurs in the answer.
        pub contains: Vec<String> = Vec::new();
        /// None of these occurs in the answer.
        pub not_contains: Vec<String> = Vec::new();
    }
}

impl Desirable {
    /// Whether an answer follows the rule.
    pub fn judge(&self, answer: &str) -> bool {
        let answer = answer.trim();
        self.starts_with.as_ref().is_none_or(|text| answer.starts_with(text))
            && self.ends_with.as_ref().is_none_or(|text| answer.ends_with(text))
            && self.contains.iter().all(|text| answer.contains(text))
            && !self.not_contains.iter().any(|text| answer.contains(text))
    }
}

impl Setting for Desirable {
    fn expects() -> String {
        "a table such as { ends_with = \"!\" }".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::Table(entries) if entries.is_empty() => Err(at.wrong(value, "has no rule")),
            Kind::Table(entries) => Table::read(entries, folders),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        let rules: Vec<String> =
            Table::write(self).iter().map(|(key, value)| format!("{key} = {value}")).collect();
        Some(format!("{{ {} }}", rules.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_desirable_if_every_rule_holds() {
        let rule = Desirable {
            starts_with: Some("Dear".into()),
            ends_with: Some(".".into()),
            contains: vec!["you".into(), "thank".into()],
            not_contains: vec!["!".into()],
        };
        assert!(rule.judge("  Dear friend, thank you.\n"));
        for answer in
            ["dear friend, thank you.", "Dear friend, thank you", "Dear you.", "Dear! thank you."]
        {
            assert!(!rule.judge(answer), "{answer}");
        }
    }
}
