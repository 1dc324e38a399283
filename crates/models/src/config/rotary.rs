//! `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` of transformers 4, to [`Rope`]s.

use serde_json::{Map, Value};

use super::families::Family;
use super::layers::LayerWindow;
use super::source::Source;
use super::{Rope, RopeScaling};
use crate::error::Result;

/// Keys of a rotary embedding; each kind reads some of them and lets the others lie.
const KEYS: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "finetuned",
];
/// And those that are lists.
const LISTS: [&str; 2] = ["short_factor", "long_factor"];

/// The model's embeddings, and which one each layer has.
pub(super) fn of_layers(
    source: &Source,
    family: &Family,
    head_dim: usize,
    max_position_embeddings: usize,
    turns: &[bool],
    windows: &[LayerWindow],
) -> Result<(Vec<Rope>, Vec<Option<usize>>)> {
    // Some kinds of embedding read it, and none computes something else without it.
    source.know("original_max_position_embeddings");
    let reader = Reader { source, family, head_dim, max_position_embeddings };
    let Some(local_theta) = family.rotary.local_theta else {
        let theta = source.number("rope_theta", family.rotary.theta)?;
        // Where both stand, the old spelling has the word.
        let table = match source.table("rope_scaling")?.filter(|table| !table.fields.is_empty()) {
            Some(table) => Some(table),
            None => source.table("rope_parameters")?,
        };
        source.know("rope_parameters");
        let rope = reader.rope(table, theta, true)?;
        return Ok((vec![rope], turns.iter().map(|turns| turns.then_some(0)).collect()));
    };
    let (global, local) = reader.of_each_kind(local_theta)?;
    let layers = windows.iter().zip(turns);
    let layer_ropes =
        layers.map(|(window, turns)| turns.then_some(usize::from(window.sliding))).collect();
    Ok((vec![global, local], layer_ropes))
}

struct Reader<'a> {
    source: &'a Source,
    family: &'a Family,
    head_dim: usize,
    max_position_embeddings: usize,
}

impl Reader<'_> {
    /// That of layers that see everything, and that of those that see a window.
    fn of_each_kind(&self, local_theta: f64) -> Result<(Rope, Rope)> {
        let source = self.source;
        let (mut global, mut local) = (Map::new(), Map::new());
        if let Some(parameters) = source.table("rope_parameters")? {
            for (key, into) in [("full_attention", &mut global), ("sliding_attention", &mut local)]
            {
                if let Some(table) = parameters.table(key)? {
                    *into = table.fields;
                }
            }
            if let Some((key, _)) = parameters.unknown().next() {
                return Err(source.wrong(
                    format!("rope_parameters holds {key} beside or in place of the layers' kinds"),
                    "write it into full_attention or sliding_attention of rope_parameters",
                ));
            }
        }
        // The scaling of the old spelling is that of the layers that see everything.
        if let Some(scaling) = source.table("rope_scaling")? {
            global.extend(scaling.fields);
        }
        let theta = source.number("rope_theta", self.family.rotary.theta)?;
        let local_theta = source.number("rope_local_base_freq", local_theta)?;
        let table = |fields| Some(Source::of(&source.path, fields));
        Ok((self.rope(table(global), theta, false)?, self.rope(table(local), local_theta, false)?))
    }

    /// One embedding from its table. `alone` is false where each kind of layer has one: then `truncate` is read
    /// from where it never stands, and the context before a scaling from the table alone.
    fn rope(&self, table: Option<Source>, theta: f64, alone: bool) -> Result<Rope> {
        let source = self.source;
        let table = table.unwrap_or_else(|| Source::of(&source.path, Map::new()));
        KEYS.iter().chain(&LISTS).for_each(|key| table.know(key));
        if let Some((key, value)) = table.unknown().next() {
            return Err(source.wrong(
                format!("{key} = {value} of the rotary embedding is not known"),
                "if it changes nothing that the model computes, take it out of config.json",
            ));
        }
        let theta = table.number("rope_theta", theta)?;
        let mut kind = ["rope_type", "type"]
            .iter()
            .find_map(|key| table.get(key))
            .map_or(Some("default"), Value::as_str)
            .unwrap_or("?");
        if self.family.rotary.original.is_some() && ["su", "yarn"].contains(&kind) {
            kind = "longrope";
        }
        let dim = self.dim(&table)?;
        let scaling = self.scaling(&table, kind, dim, alone)?;
        let attention_factor = match &scaling {
            RopeScaling::Yarn { factor, .. } => self.yarn_attention(&table, *factor)?,
            RopeScaling::LongRope { original, .. } => self.longrope_attention(&table, *original)?,
            _ => 1.0,
        };
        let rope = Rope { dim, theta, scaling, attention_factor };
        if theta <= 0.0 || rope.factors().iter().any(|factor| *factor <= 0.0) {
            return Err(source.wrong(
                "rope_theta or its factor is not above 0".to_owned(),
                "download config.json again",
            ));
        }
        Ok(rope)
    }

    /// How much of a head turns.
    fn dim(&self, table: &Source) -> Result<usize> {
        let source = self.source;
        let partial = source.number("partial_rotary_factor", 1.0)?;
        let partial = table.number("partial_rotary_factor", partial)?;
        let dim = (self.head_dim as f64 * partial) as usize;
        if partial == 1.0 || (self.family.rotary.partial && partial < 1.0 && dim > 0) {
            return Ok(dim);
        }
        let hint = if self.family.rotary.partial {
            "it is the share of a head that turns, above 0 and at most 1"
        } else {
            "Prospect computes with partial_rotary_factor = 1"
        };
        Err(source.wrong(format!("partial_rotary_factor = {partial} is not supported"), hint))
    }

    fn scaling(&self, table: &Source, kind: &str, dim: usize, alone: bool) -> Result<RopeScaling> {
        Ok(match kind {
            "default" => RopeScaling::Default,
            // It changes frequencies past max_position_embeddings alone, where no run goes.
            "dynamic" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: table.required("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: table.required("factor")?,
                low_freq_factor: table.required("low_freq_factor")?,
                high_freq_factor: table.required("high_freq_factor")?,
                original_max_position_embeddings: self.original(table, alone)?,
            },
            "yarn" => {
                let original = self.original(table, alone)?;
                // Zero is taken for missing.
                let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
                RopeScaling::Yarn {
                    factor: table
                        .number("factor", self.max_position_embeddings as f64 / original)?,
                    beta_fast: or(table.number("beta_fast", 32.0)?, 32.0),
                    beta_slow: or(table.number("beta_slow", 1.0)?, 1.0),
                    truncate: !alone || table.flag("truncate", true)?,
                    original_max_position_embeddings: original,
                }
            }
            "longrope" => RopeScaling::LongRope {
                short: table.numbers("short_factor", dim.div_ceil(2))?,
                long: table.numbers("long_factor", dim.div_ceil(2))?,
                original: self.original(table, alone)? as usize,
            },
            other => {
                return Err(self.source.wrong(
                    format!("rope_type = \"{other}\" is not known"),
                    "Prospect knows default, linear, dynamic, llama3, yarn and longrope",
                ));
            }
        })
    }

    /// The context before a scaling: the key beside the rotary embedding's, if there is one, has the word.
    fn original(&self, table: &Source, alone: bool) -> Result<f64> {
        let key = "original_max_position_embeddings";
        let beside = match self.source.optional_size(key)? {
            Some(size) => Some(size),
            None => self.family.rotary.original,
        };
        let original = match beside.filter(|_| alone) {
            Some(original) => original as f64,
            None => table.number(key, self.max_position_embeddings as f64)?,
        };
        if original <= 1.0 {
            return Err(self.source.wrong(
                format!("{key} = {original} is not above 1"),
                "download config.json again",
            ));
        }
        Ok(original)
    }

    /// YaRN (arXiv 2309.00071, eq. 22), or as DeepSeek writes it with `mscale`.
    fn yarn_attention(&self, table: &Source, factor: f64) -> Result<f64> {
        let scale =
            |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let (above, below) = (table.number("mscale", 0.0)?, table.number("mscale_all_dim", 0.0)?);
        let inferred =
            if above != 0.0 && below != 0.0 { scale(above) / scale(below) } else { scale(1.0) };
        table.number("attention_factor", inferred)
    }

    /// LongRoPE (arXiv 2402.13753, section 3.3).
    fn longrope_attention(&self, table: &Source, original: usize) -> Result<f64> {
        let original = original as f64;
        let factor = table.number("factor", self.max_position_embeddings as f64 / original)?;
        let inferred = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        table.number("attention_factor", inferred)
    }
}
