//! What is meant: `owner/name`, `owner/name@revision`, `datasets/owner/name`, `datasets/owner/name@revision/path`.

use std::fmt;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights, configuration, tokenizer.
    Model,
    /// Rows.
    Dataset,
}

/// A repository of the hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// What it holds.
    pub kind: Kind,
    /// `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit; `main` where none is written.
    pub revision: String,
}

impl Repository {
    /// Reads `owner/name` or `owner/name@revision`; none where a text is neither.
    pub fn model(text: &str) -> Option<Repository> {
        let (id, revision) = match text.split_once('@') {
            None => (text, "main"),
            Some((id, revision)) => (id, revision),
        };
        (is_id(id) && is_path(revision)).then(|| Repository {
            kind: Kind::Model,
            id: id.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// Reads `datasets/owner/name`, with `@revision` or without, and the path within it, if one follows. A revision
    /// with slashes in it is one of the hub's own, `refs/convert/...` or `refs/pr/...`.
    pub fn dataset(text: &str) -> Option<(Repository, Option<&str>)> {
        let rest = text.strip_prefix("datasets/")?;
        let (owner, rest) = rest.split_once('/')?;
        let end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, path) = match rest.strip_prefix('@') {
            None => ("main", rest),
            Some(rest) => {
                let parts = if rest.starts_with("refs/") { 3 } else { 1 };
                let end = rest.match_indices('/').nth(parts - 1).map_or(rest.len(), |(at, _)| at);
                rest.split_at(end)
            }
        };
        let path = path.strip_prefix('/').filter(|path| !path.is_empty());
        let id = format!("{owner}/{name}");
        let valid = is_id(&id) && is_path(revision) && path.is_none_or(is_path);
        let revision = revision.to_owned();
        valid.then_some((Repository { kind: Kind::Dataset, id, revision }, path))
    }

    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }

    /// Whether the revision is a commit, which never changes.
    pub(crate) fn is_commit(&self) -> bool {
        is_hex(&self.revision, 40)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Dataset {
            f.write_str("datasets/")?;
        }
        f.write_str(&self.id)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Letters, digits, `-`, `_`, `.`; the hub keeps `--` and `..` for itself.
fn is_id(id: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    id.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

/// A relative path of plain names: none leaves the folder it is put under.
pub(crate) fn is_path(path: &str) -> bool {
    path.len() <= 1024
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.contains(['\\', ':'])
                && !part.chars().any(char::is_control)
        })
}

/// Whether a text is a hash of so many digits, in small letters.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_an_owner_a_name_and_a_revision() {
        let shown = |text: &str| Repository::model(text).map(|it| (it.id, it.revision));
        let owned = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(shown("Qwen/Qwen3-0.6B"), owned("Qwen/Qwen3-0.6B", "main"));
        assert_eq!(shown("a/b@v1.0"), owned("a/b", "v1.0"));
        assert_eq!(shown("a/b@refs/pr/3"), owned("a/b", "refs/pr/3"));
        for wrong in [
            "a", "a/b/c", "/a/b", "a/", "../b", "a/..", "a/b@", "a/b@../x", "a--b/c", "a/b c",
            "a/b@x\n",
        ] {
            assert_eq!(shown(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_data_set_may_name_a_path_within_it() {
        let shown =
            |text: &'static str| Repository::dataset(text).map(|(it, path)| (it.to_string(), path));
        assert_eq!(shown("datasets/a/b"), Some(("datasets/a/b".to_owned(), None)));
        assert_eq!(
            shown("datasets/a/b@v1/data/train.jsonl"),
            Some(("datasets/a/b@v1".to_owned(), Some("data/train.jsonl")))
        );
        assert_eq!(
            shown("datasets/a/b@refs/convert/parquet/default"),
            Some(("datasets/a/b@refs/convert/parquet".to_owned(), Some("default")))
        );
        for wrong in ["datasets/a", "a/b", "datasets/a/b/../../c", "datasets/../b", "datasets/a/b@"]
        {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
