//! Models and data sets of the Hugging Face hub: downloaded once, checked, and kept in the cache that Python's
//! `huggingface_hub` uses, so that either finds what the other fetched.
//!
//! ```text
//! <cache>/models--<owner>--<name>/
//!   blobs/<etag>                  a file's bytes: the etag is the sha256 of a large file, the git hash of a small one
//!   blobs/<etag>.incomplete       as far as it came; the next download goes on from there
//!   refs/<revision>               the commit that a branch or tag was, written when all files were there
//!   snapshots/<commit>/<path>     a link to the blob
//! <cache>/.locks/models--<owner>--<name>/<etag>.lock
//! ```
//!
//! The layout, the environment variables and the addresses are those of huggingface_hub 2.4.0 (`constants.py`,
//! `file_download.py`, `hf_api.py`). Only files that are data are fetched: safetensors, JSON, text, templates and
//! tokenizers of a model, Parquet and JSON lines of a data set; never a pickle, which is a program.
//!
//! ```text
//! repository   what is meant: owner/name@revision      settings    cache, address, token, from the environment
//! listing      what the hub says a revision holds      wanted      which of it is fetched
//! transport    requests, redirects, patience           download    one file: resumed, counted, checked
//! cache        the folders above                       fetch       all of it together
//! ```

pub mod error;

mod cache;
mod download;
mod fetch;
mod hash;
mod listing;
mod repository;
mod settings;
mod transport;
mod wanted;

pub use fetch::{Event, Hub};
pub use repository::{Kind, Repository};
pub use settings::{Patience, Settings, Token};
