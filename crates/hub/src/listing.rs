//! What a revision holds: `GET /api/{models,datasets}/<id>/revision/<revision>?blobs=true`, which gives the commit and
//! for each file its size, its git hash and, for a large file, its sha256.
//!
//! All of it is a stranger's word: a commit or hash that is none, and a path that leaves the folder, is refused.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hash::Expected;
use crate::repository::{Repository, is_hex, is_path};

/// The files of a commit.
pub(crate) struct Listing {
    /// 40 digits.
    pub(crate) commit: String,
    /// Its files.
    pub(crate) files: Vec<File>,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its path in the repository, of plain names.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its hash, which is its name in the cache.
    pub(crate) hash: Expected,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: Option<u64>,
}

impl Listing {
    /// Reads the hub's answer about a repository.
    pub(crate) fn read(text: &str, repository: &Repository) -> Result<Listing> {
        let odd = |what: String| {
            Error::machine(
                format!("the hub's list of '{repository}' {what}"),
                "nothing was written for it; if HF_ENDPOINT is set, check that it is a hub",
            )
        };
        let answer: Answer =
            serde_json::from_str(text).map_err(|error| odd(format!("is not one: {error}")))?;
        if !is_hex(&answer.sha, 40) {
            return Err(odd("names a commit that is none".to_owned()));
        }
        let mut files = Vec::new();
        for sibling in answer.siblings {
            let path = sibling.rfilename;
            if !is_path(&path) {
                return Err(odd(format!("holds the path {path:?}, which leaves its folder")));
            }
            let (hash, size) = match sibling.lfs {
                Some(lfs) if is_hex(&lfs.sha256, 64) => {
                    (Some(Expected::Sha256(lfs.sha256)), lfs.size.or(sibling.size))
                }
                Some(_) => (None, None),
                None => {
                    let hash = sibling.blob_id.filter(|hash| is_hex(hash, 40));
                    (hash.map(Expected::Git), sibling.size)
                }
            };
            let (Some(hash), Some(size)) = (hash, size) else {
                return Err(odd(format!("gives no size and hash of {path}")));
            };
            files.push(File { path, size, hash });
        }
        Ok(Listing { commit: answer.sha, files })
    }
}
