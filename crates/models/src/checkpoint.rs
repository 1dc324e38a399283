//! Safetensors as Hugging Face writes them: one file, or shards with an index; read through a memory map.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::files;
use engine::mapped::Mapped;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::config::quantization::instead_of;
use crate::error::{Error, Result};

mod multimodal;

use multimodal::Multimodal;

/// The tensors of a folder.
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<(PathBuf, Mapped)>,
    places: BTreeMap<String, Place>,
    multimodal: Option<Multimodal>,
}

/// Where a tensor lies.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// One tensor of a checkpoint.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Rows, columns, ...
    pub shape: &'a [usize],
    /// Row-major elements, little-endian.
    pub bytes: &'a [u8],
    /// The file it is in.
    pub file: &'a Path,
}

impl Checkpoint {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        let (single, index) =
            (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        // Where a folder has both, transformers takes the single file.
        let paths = if single.exists() {
            vec![single]
        } else if index.exists() {
            shards(folder, &index)?
        } else {
            return Err(Error::input(
                format!(
                    "'{}' has neither model.safetensors nor model.safetensors.index.json",
                    folder.display()
                ),
                "only safetensors are read, never pickle (.bin, .pt); convert with `AutoModel.from_pretrained(...).save_pretrained(...)`",
            ));
        };
        let mut checkpoint = Checkpoint::open_files(folder, paths)?;
        checkpoint.multimodal = Multimodal::take(&mut checkpoint.places);
        Ok(checkpoint)
    }

    /// Whether a folder has weights that [`Checkpoint::open`] looks for. An index without any of its shards is none: other
    /// programs fetch it alone.
    pub fn is_in(folder: &Path) -> bool {
        if folder.join("model.safetensors").exists() {
            return true;
        }
        let index = folder.join("model.safetensors.index.json");
        let shards = || shards(folder, &index);
        index.exists() && shards().map_or(true, |shards| shards.iter().any(|path| path.exists()))
    }

    /// Opens one file, such as an adapter's.
    pub fn open_file(path: &Path) -> Result<Checkpoint> {
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        Checkpoint::open_files(&folder, vec![path.to_path_buf()])
    }

    fn open_files(folder: &Path, paths: Vec<PathBuf>) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint {
            folder: folder.to_path_buf(),
            files: Vec::new(),
            places: BTreeMap::new(),
            multimodal: None,
        };
        for path in paths {
            if path.is_dir() {
                return Err(Error::input(
                    format!("cannot read '{}': it is a folder", path.display()),
                    "the weights are a file; download it again",
                ));
            }
            let map = Mapped::open(&path).map_err(|error| {
                Error::input(
                    format!("cannot read '{}': {error}", path.display()),
                    "check the path; the download may be incomplete",
                )
            })?;
            checkpoint.add(path, map)?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: PathBuf, map: Mapped) -> Result<()> {
        let broken = |why: String| {
            Error::input(
                format!("'{}' is not a whole safetensors file: {why}", path.display()),
                "download it again; it may be cut short or be a Git LFS pointer",
            )
        };
        // `deserialize` checks the header's length, every tensor's range and that the file ends where they do.
        let tensors =
            SafeTensors::deserialize(map.bytes()).map_err(|error| broken(error.to_string()))?;
        let base = map.bytes().as_ptr() as usize;
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - base;
            let place = Place {
                file: self.files.len(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                start,
                end: start + view.data().len(),
            };
            self.places.insert(name.to_owned(), place);
        }
        self.files.push((path, map));
        Ok(())
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// A tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<Stored<'_>> {
        self.places.get(name).map(|place| self.stored(place))
    }

    fn stored<'a>(&'a self, place: &'a Place) -> Stored<'a> {
        let (file, map) = &self.files[place.file];
        Stored {
            dtype: place.dtype,
            shape: &place.shape,
            bytes: &map.bytes()[place.start..place.end],
            file,
        }
    }

    /// A tensor that must be there with this shape.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let Some(stored) = self.get(name) else {
            return Err(Error::input(
                format!("'{}' has no tensor {name}", self.folder.display()),
                "config.json and the safetensors belong to different models, or a shard is missing",
            ));
        };
        if stored.shape != shape {
            return Err(Error::input(
                format!(
                    "{name} in '{}' has shape {:?}, expected {shape:?}",
                    stored.file.display(),
                    stored.shape
                ),
                "config.json and the safetensors belong to different models",
            ));
        }
        Ok(stored)
    }
}

impl Stored<'_> {
    /// The elements as f32; exact for f32, bf16 and f16.
    pub fn to_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        match self.dtype {
            Dtype::F32 => convert(self.bytes, out, f32::from_le_bytes),
            Dtype::BF16 => convert(self.bytes, out, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => convert(self.bytes, out, |b| half::f16::from_le_bytes(b).to_f32()),
            other => {
                let hint = match other {
                    Dtype::F8_E4M3 | Dtype::F8_E5M2 => instead_of("fp8"),
                    _ => "weights are read from F32, BF16 and F16".to_owned(),
                };
                let message = format!("{name} in '{}' holds {other:?}", self.file.display());
                return Err(Error::input(message, hint));
            }
        }
        Ok(())
    }
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = read(*bytes);
    }
}

/// The files an index names, each once.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |why: String| {
        Error::input(format!("'{}' {why}", index.display()), "download the index again")
    };
    let text = files::read_to_string(index)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let Some(map) = value.get("weight_map").and_then(serde_json::Value::as_object) else {
        return Err(wrong("has no weight_map".to_owned()));
    };
    let mut names: Vec<&str> = Vec::new();
    for (tensor, file) in map {
        match file.as_str() {
            // A name with a separator could leave the folder.
            Some(file)
                if !file.is_empty()
                    && Path::new(file).file_name() == Some(std::ffi::OsStr::new(file)) =>
            {
                names.push(file);
            }
            _ => return Err(wrong(format!("places {tensor} in {file}, which is no file name"))),
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests;
