//! Tokens to text as they come. A token may hold a part of a character, so text is shown up to its last whole one.

use data::{Result, Tokenizer};

/// The text of an answer while it is written.
pub(crate) struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    ids: Vec<u32>,
    text: String,
    /// Bytes of the text that were handed out.
    shown: usize,
}

impl<'a> Stream<'a> {
    /// No token yet.
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special_tokens: bool) -> Stream<'a> {
        Stream { tokenizer, skip_special_tokens, ids: Vec::new(), text: String::new(), shown: 0 }
    }

    /// Takes a token and hands out the text that is certain now.
    pub(crate) fn push(&mut self, token: u32) -> Result<String> {
        self.ids.push(token);
        self.text = self.tokenizer.decode(&self.ids, self.skip_special_tokens)?;
        let whole = self.text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        Ok(self.hand_out(whole))
    }

    /// The text that was held back, broken characters as they are.
    pub(crate) fn rest(&mut self) -> String {
        self.hand_out(self.text.len())
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How many tokens there are.
    pub(crate) fn tokens(&self) -> usize {
        self.ids.len()
    }

    fn hand_out(&mut self, until: usize) -> String {
        let new = self.text.get(self.shown..until).unwrap_or_default().to_owned();
        self.shown = self.shown.max(until);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_character_in_several_tokens_is_shown_once_it_is_whole() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
        let tokenizer = Tokenizer::load(&folder).unwrap();
        let text = "Grüße, 你好 🙂!";
        let mut stream = Stream::new(&tokenizer, true);
        let mut shown = String::new();
        let mut held_back = 0;
        for id in tokenizer.encode(text, false).unwrap() {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{piece:?}");
            held_back += usize::from(piece.is_empty());
            shown += &piece;
        }
        shown += &stream.rest();
        assert_eq!(shown, text);
        assert!(held_back > 0, "the tokenizer of the fixture splits characters");
    }
}
