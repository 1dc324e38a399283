//! What a file must be: the sha256 of its bytes, or git's hash of it, `sha1("blob <size>\0" + bytes)`.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Of a large file, 64 digits.
    Sha256(String),
    /// Of a small file, 40 digits.
    Git(String),
}

impl Expected {
    /// The file's name in the cache.
    pub(crate) fn name(&self) -> &str {
        match self {
            Expected::Sha256(hash) | Expected::Git(hash) => hash,
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(crate) fn begin(&self, size: u64) -> Hasher {
        match self {
            Expected::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Expected::Git(_) => {
                let mut sha1 = Sha1::new();
                sha1.update(format!("blob {size}\0"));
                Hasher::Git(sha1)
            }
        }
    }
}

/// A hash in the making.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> String {
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let of = |expected: Expected| {
            let mut hasher = expected.begin(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            hasher.finish()
        };
        // `printf 'hello\n' | git hash-object --stdin`, `... | sha256sum`
        assert_eq!(of(Expected::Git(String::new())), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            of(Expected::Sha256(String::new())),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}
