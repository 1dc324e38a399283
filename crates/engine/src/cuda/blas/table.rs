//! The tuning table: algorithms that `prospect tune` measured to be faster than the heuristic's first answer.
//!
//! One JSON file in Prospect's cache folder for each machine: GPU, driver and library version, because algorithms
//! are opaque bytes of one version of the library. A product that is not in the table runs as without one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Key;
use super::functions::Algorithm;
use crate::cuda::Properties;
use crate::cuda::gemm::Layout;
use crate::error::{Error, Result};

/// What a table is valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    gpu: String,
    driver: String,
    library: String,
}

impl Machine {
    pub(crate) fn new(
        properties: &Properties,
        (major, minor, patch): (usize, usize, usize),
    ) -> Machine {
        let driver = format!("{}.{}", properties.driver.0, properties.driver.1);
        let library = format!("{major}.{minor}.{patch}");
        Machine { gpu: properties.name.clone(), driver, library }
    }

    /// The table's file in Prospect's cache folder.
    fn file(&self, cache: &Path) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let name = format!("{} cuda {} cublaslt {}.json", self.gpu, self.driver, self.library);
        cache.join("gemm").join(name.chars().map(plain).collect::<String>())
    }
}

/// Algorithms by product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    path: PathBuf,
    machine: Machine,
    algorithms: BTreeMap<Key, Algorithm>,
}

impl Table {
    /// An empty table for a machine.
    pub(crate) fn new(cache: &Path, machine: Machine) -> Table {
        Table { path: machine.file(cache), machine, algorithms: BTreeMap::new() }
    }

    /// The machine's table, if there is one.
    pub(crate) fn find(cache: &Path, machine: &Machine) -> Result<Option<Table>> {
        let path = machine.file(cache);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        let value = serde_json::from_str(&text).map_err(|e| unusable(&path, &e.to_string()))?;
        let algorithms = read(&value, machine).map_err(|reason| unusable(&path, &reason))?;
        Ok(Some(Table { path, machine: machine.clone(), algorithms }))
    }

    /// Writes the table to its file, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let entries: Vec<Value> = self.algorithms.iter().map(|(key, a)| entry(key, a)).collect();
        let Machine { gpu, driver, library } = &self.machine;
        let value = json!({
            "gpu": gpu, "driver": driver, "library": library, "products": entries,
        });
        let beside = self.path.with_extension("new");
        let written = self
            .path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&beside, format!("{value:#}\n")))
            .and_then(|()| std::fs::rename(&beside, &self.path));
        written.map_err(|error| unusable(&self.path, &error.to_string()))
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of products in it.
    pub fn len(&self) -> usize {
        self.algorithms.len()
    }

    /// True where no product is in it.
    pub fn is_empty(&self) -> bool {
        self.algorithms.is_empty()
    }

    pub(crate) fn algorithm(&self, key: &Key) -> Option<Algorithm> {
        self.algorithms.get(key).copied()
    }

    pub(crate) fn insert(&mut self, key: Key, algorithm: Algorithm) {
        self.algorithms.insert(key, algorithm);
    }
}

fn unusable(path: &Path, reason: &str) -> Error {
    Error::Argument {
        op: "matmul",
        what: format!("the tuning table {} cannot be used: {reason}", path.display()),
        hint: "delete it, or make it anew with `prospect tune`",
    }
}

const LAYOUTS: [(&str, Layout); 3] = [
    ("forward", Layout::Forward),
    ("backward_input", Layout::BackwardInput),
    ("backward_weight", Layout::BackwardWeight),
];

fn entry(key: &Key, algorithm: &Algorithm) -> Value {
    let layout = LAYOUTS.iter().find(|(_, layout)| *layout == key.layout).map(|(name, _)| *name);
    // As text: JSON readers may keep numbers of 64 bits as floats.
    let words: Vec<String> = algorithm.0.iter().map(|word| format!("{word:016x}")).collect();
    json!({
        "layout": layout, "rows": key.rows, "m": key.m, "k": key.k, "strides": key.strides,
        "f32": key.wide, "add": key.add, "aligned": key.aligned, "algorithm": words.join(" "),
    })
}

fn read(value: &Value, machine: &Machine) -> std::result::Result<BTreeMap<Key, Algorithm>, String> {
    let Machine { gpu, driver, library } = machine;
    for (name, ours) in [("gpu", gpu), ("driver", driver), ("library", library)] {
        if value[name].as_str() != Some(ours) {
            return Err(format!("its {name} is {}, this machine's is \"{ours}\"", value[name]));
        }
    }
    let products = value["products"].as_array().ok_or("it has no list 'products'")?;
    products
        .iter()
        .enumerate()
        .map(|(i, product)| read_entry(product).ok_or_else(|| format!("product {i} is {product}")))
        .collect()
}

fn read_entry(value: &Value) -> Option<(Key, Algorithm)> {
    let number = |value: &Value| value.as_u64().and_then(|v| usize::try_from(v).ok());
    let layout = value["layout"].as_str()?;
    let strides = value["strides"].as_array().filter(|list| list.len() == 3)?;
    let key = Key {
        layout: LAYOUTS.iter().find(|(name, _)| *name == layout)?.1,
        rows: number(&value["rows"])?,
        m: number(&value["m"])?,
        k: number(&value["k"])?,
        strides: [number(&strides[0])?, number(&strides[1])?, number(&strides[2])?],
        wide: value["f32"].as_bool()?,
        add: value["add"].as_bool()?,
        aligned: value["aligned"].as_bool()?,
    };
    let words = value["algorithm"].as_str()?.split(' ');
    let words: Option<Vec<u64>> = words.map(|w| u64::from_str_radix(w, 16).ok()).collect();
    Some((key, Algorithm(words?.try_into().ok()?)))
}
