//! The `when` of a rule: comparisons of facts, joined by `and`, `or`, `not` and parentheses.
//!
//! `trl <= 0.11.4 and transformers >= 4.46` · `gpu.pcie_width < 8` · `torch.build == "cpu" and gpus` ·
//! `driver.kernel != driver.library` · `throttle contains "thermal"`. A name alone asks whether the fact is known
//! and not false, zero or empty. A comparison with an unknown fact is false, so a rule never fires on what was not
//! seen. Versions compare as specifiers of PEP 440 (`==2.4.1` holds for `2.4.1+cu121`).

use crate::table::{Fact, Scope, Value};
use pep440_rs::{Operator, Version, VersionSpecifier};
use std::str::FromStr;

/// A parsed `when`.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// One of them holds.
    Any(Vec<Expression>),
    /// All of them hold.
    All(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// The fact is known and not empty.
    Known(String),
    /// Two sides compare so.
    Compare(String, Comparison, Side),
}

/// How two sides compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `==`
    Same,
    /// `!=`
    Other,
    /// `contains`
    Contains,
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// A version or a number.
    Literal(String),
    /// A word in quotes.
    Word(String),
    /// Another fact.
    Name(String),
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

/// Parses a `when`; the error says what was expected where.
pub fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let parsed = parser.any(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(parsed),
        Some(rest) => Err(format!("'{rest}' after the end of the expression")),
    }
}

fn tokens(text: &str) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '"' => rest[1..].find('"').map(|end| end + 2).ok_or("a quote without its end")?,
            '<' | '>' | '=' | '!' => rest.find(|c| !"<>=!".contains(c)).unwrap_or(rest.len()),
            c if c.is_ascii_alphanumeric() => rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
                .unwrap_or(rest.len()),
            c => return Err(format!("unexpected character '{c}'")),
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

impl<'a> Parser<'a> {
    fn take(&mut self, word: &str) -> bool {
        let is = self.tokens.get(self.at) == Some(&word);
        self.at += usize::from(is);
        is
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, String> {
        let token = self.tokens.get(self.at).ok_or(format!("{expected} expected at the end"))?;
        self.at += 1;
        Ok(token)
    }

    fn any(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > 50 {
            return Err("parentheses nested too deep".into());
        }
        let mut parts = vec![self.all(depth)?];
        while self.take("or") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = vec![self.one(depth)?];
        while self.take("and") {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Expression, String> {
        if self.take("not") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err("')' expected".into()) };
        }
        let name = self.next("a fact")?;
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("a fact's name expected, found '{name}'"));
        }
        let comparison = match self.tokens.get(self.at).copied() {
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::AtMost,
            Some(">") => Comparison::More,
            Some(">=") => Comparison::AtLeast,
            Some("==") => Comparison::Same,
            Some("!=") => Comparison::Other,
            Some("contains") => Comparison::Contains,
            _ => return Ok(Expression::Known(name.into())),
        };
        self.at += 1;
        let side = self.next("a value")?;
        let side = match side.chars().next() {
            Some('"') => Side::Word(side.trim_matches('"').into()),
            Some(c) if c.is_ascii_digit() => Side::Literal(side.into()),
            Some(c) if c.is_ascii_alphabetic() => Side::Name(side.into()),
            _ => return Err(format!("a value expected, found '{side}'")),
        };
        Ok(Expression::Compare(name.into(), comparison, side))
    }
}

impl Expression {
    /// Whether it holds, the facts of one thing looked up before the common ones.
    pub fn holds(&self, scopes: &[&Scope]) -> bool {
        let fact = |name: &str| scopes.iter().find_map(|s| s.get(name));
        match self {
            Expression::Any(parts) => parts.iter().any(|p| p.holds(scopes)),
            Expression::All(parts) => parts.iter().all(|p| p.holds(scopes)),
            Expression::Not(inner) => !inner.holds(scopes),
            Expression::Known(name) => fact(name).is_some_and(|f| truthy(&f.value)),
            Expression::Compare(name, comparison, side) => {
                let Some(left) = fact(name) else { return false };
                match side {
                    Side::Literal(text) => compare_literal(left, *comparison, text),
                    Side::Word(text) => compare_word(left, *comparison, text),
                    Side::Name(other) => {
                        fact(other).is_some_and(|right| compare_facts(left, *comparison, right))
                    }
                }
            }
        }
    }

    /// Every fact it names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Expression::Any(parts) | Expression::All(parts) => {
                parts.iter().flat_map(|p| p.names()).collect()
            }
            Expression::Not(inner) => inner.names(),
            Expression::Known(name) => vec![name],
            Expression::Compare(name, _, Side::Name(other)) => vec![name, other],
            Expression::Compare(name, _, _) => vec![name],
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Version(_) => true,
        Value::Number(n) => *n != 0.0,
        Value::Text(t) => !t.is_empty(),
        Value::Flag(f) => *f,
        Value::List(all) => !all.is_empty(),
    }
}

impl Comparison {
    /// The specifier operator of the same meaning; `contains` has none.
    pub fn operator(self) -> Option<Operator> {
        Some(match self {
            Comparison::Less => Operator::LessThan,
            Comparison::AtMost => Operator::LessThanEqual,
            Comparison::More => Operator::GreaterThan,
            Comparison::AtLeast => Operator::GreaterThanEqual,
            Comparison::Same => Operator::Equal,
            Comparison::Other => Operator::NotEqual,
            Comparison::Contains => return None,
        })
    }

    fn orders<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Comparison::Less => left < right,
            Comparison::AtMost => left <= right,
            Comparison::More => left > right,
            Comparison::AtLeast => left >= right,
            Comparison::Same => left == right,
            Comparison::Other => left != right,
            Comparison::Contains => false,
        }
    }
}

fn compare_literal(left: &Fact, comparison: Comparison, literal: &str) -> bool {
    match &left.value {
        Value::Number(n) => literal.parse::<f64>().is_ok_and(|l| comparison.orders(n, &l)),
        Value::Version(version) => {
            let right = Version::from_str(literal).ok();
            let operator = comparison.operator();
            let specifier =
                operator.zip(right).and_then(|(o, v)| VersionSpecifier::from_version(o, v).ok());
            specifier.is_some_and(|s| s.contains(version))
        }
        Value::List(_) | Value::Text(_) => compare_word(left, comparison, literal),
        Value::Flag(_) => false,
    }
}

fn compare_word(left: &Fact, comparison: Comparison, word: &str) -> bool {
    match (&left.value, comparison) {
        (Value::Text(text), Comparison::Contains) => text.contains(word),
        (Value::List(all), Comparison::Contains) => all.iter().any(|one| one == word),
        (Value::Text(text), Comparison::Same) => text == word,
        (Value::Text(text), Comparison::Other) => text != word,
        _ => false,
    }
}

fn compare_facts(left: &Fact, comparison: Comparison, right: &Fact) -> bool {
    match (&left.value, &right.value) {
        (Value::Version(l), Value::Version(r)) => {
            comparison.orders(&l.clone().without_local(), &r.clone().without_local())
        }
        (Value::Number(l), Value::Number(r)) => comparison.orders(l, r),
        (Value::Text(l), Value::Text(r)) => comparison.orders(l, r),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let mut scope = Scope::default();
        scope.version("trl", "0.11.4", "");
        scope.version("transformers", "4.46.0.dev0", "");
        scope.version("torch", "2.4.1+cu121", "");
        scope.version("driver", "535.183.01", "");
        scope.number("width", 4.0, "");
        scope.text("build", "cpu", "");
        scope.list("codes", vec!["79".into(), "13".into()], "");
        parse(text).expect("parses").holds(&[&scope])
    }

    #[test]
    fn comparisons_follow_pep_440() {
        assert!(holds("trl <= 0.11.4 and torch == 2.4.1"));
        assert!(!holds("transformers < 4.46"), "a dev release of 4.46 is no 4.45");
        assert!(!holds("transformers >= 4.46"));
        assert!(holds("driver >= 525.60.13 and driver < 545"));
        assert!(holds("torch != 2.5.1"));
    }

    #[test]
    fn unknown_facts_never_make_a_comparison_true() {
        assert!(!holds("peft < 9"));
        assert!(!holds("peft != 9"));
        assert!(holds("not peft and trl"));
        assert!(!holds("trl < peft"));
    }

    #[test]
    fn numbers_words_and_lists_compare() {
        assert!(holds("width < 8 and build == \"cpu\" and codes contains \"79\""));
        assert!(holds("(width > 8 or width == 4) and not codes contains \"48\""));
    }

    #[test]
    fn what_does_not_parse_is_named() {
        for (text, expected) in [
            ("trl <", "a value expected"),
            ("(trl", "')' expected"),
            ("trl trl", "after the end"),
            ("4 < trl", "a fact's name"),
            ("trl == \"x", "a quote"),
            ("trl & x", "unexpected character"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
