//! The code of a Rust file without its comments and literals, so that words can be looked for.

/// The text with every comment, string and character literal blanked out, line for line.
pub(super) fn without_prose(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match prose_end(&chars, at) {
            Some(end) => end,
            None => {
                code.push(chars[at]);
                at += 1;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; none if none begins there.
fn prose_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(position(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(string_end(chars, at + 1)),
        'r' if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            raw_string_end(chars, at + 1)
        }
        // A character, and not a lifetime: 'x' or an escape such as '\n'.
        '\'' if next == Some('\\') => {
            Some((1 + position(chars, at + 3, |c| c == '\'')).min(chars.len()))
        }
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at.min(chars.len())
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of `r"..."` or `r#"..."#`, from after the `r`; none if this is no raw string.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let quote = position(chars, at, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = std::iter::once('"').chain(chars[at..quote].iter().copied()).collect();
    let body = &chars[quote + 1..];
    let length = body.windows(closing.len()).position(|window| window == closing);
    Some(length.map_or(chars.len(), |length| quote + 1 + length + closing.len()))
}

fn position(chars: &[char], from: usize, found: impl Fn(char) -> bool) -> usize {
    let from = from.min(chars.len());
    chars[from..].iter().position(|c| found(*c)).map_or(chars.len(), |index| from + index)
}

/// Whether a character may be part of a word.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        let text = concat!(
            "let a = \"x \\\" y\"; // unsafe\n",
            "/* one /* two */ three */ b('\"', '\\'', '\\u{41}', 'c');\n",
            "fn f<'a>(x: &'a str) {} r#\"raw \" text\"# r\"raw\" br\"raw\" for \"s\"\n",
            "/// doc\nend",
        );
        let code = without_prose(text);
        assert_eq!(code.lines().count(), text.lines().count());
        let words: Vec<&str> = code.split_whitespace().collect();
        let expected = [
            "let", "a", "=", ";", "b(", ",", ",", ",", ");", "fn", "f<'a>(x:", "&'a", "str)", "{}",
            "b", "for", "end",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn what_is_not_closed_ends_with_the_text() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'\\", "\"abc\\"] {
            assert_eq!(without_prose(text).trim(), "", "{text}");
        }
    }
}
