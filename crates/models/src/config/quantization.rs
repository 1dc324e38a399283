//! `quantization_config` of config.json: which methods are read, and what to do about the others.
//!
//! Methods as transformers 5.23 names them in `quant_method`.

use std::path::Path;

use serde_json::{Map, Value};

use super::source::Source;
use crate::error::Result;
use crate::weights::Quantization;

/// What config.json says of how the linear layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Dense.
    Dense,
    /// Quantized by bitsandbytes.
    Throughout(Quantization),
    /// Quantized by bitsandbytes, but for some: which those are the tensors say.
    InPart,
}

/// Modules that are no linear layer of a block.
const OUTSIDE: [&str; 6] = [
    "lm_head",
    "embed_tokens",
    "vision_tower",
    "multi_modal_projector",
    "model.vision_tower",
    "model.multi_modal_projector",
];

/// How config.json of a folder says that the linear layers are stored.
pub fn stored_quantization(folder: &Path) -> Result<Stored> {
    Ok(match stored(&Source::open(&folder.join("config.json"))?)? {
        (None, _) => Stored::Dense,
        (Some(quantization), false) => Stored::Throughout(quantization),
        (Some(_), true) => Stored::InPart,
    })
}

/// How they are stored, and whether some are left out.
fn stored(config: &Source) -> Result<(Option<Quantization>, bool)> {
    let Some(quantization) = config.table("quantization_config")? else { return Ok((None, false)) };
    let skipped = quantization.get("llm_int8_skip_modules").and_then(Value::as_array);
    let inside = |module: &Value| module.as_str().is_none_or(|module| !OUTSIDE.contains(&module));
    let in_part = skipped.is_some_and(|modules| modules.iter().any(inside));
    if quantization.flag("load_in_8bit", false)? {
        return Ok((Some(Quantization::Int8), in_part));
    }
    if !quantization.flag("load_in_4bit", false)? {
        return Ok((None, false));
    }
    let double_quant = quantization.flag("bnb_4bit_use_double_quant", false)?;
    let stored = match quantization.get("bnb_4bit_quant_type").and_then(Value::as_str) {
        Some("nf4") => Quantization::Nf4 { double_quant },
        // What transformers takes where nothing is said.
        _ => Quantization::Fp4 { double_quant },
    };
    Ok((Some(stored), in_part))
}

/// The method, where it is not one that is read.
pub(super) fn foreign_method(quantization: &Map<String, Value>) -> Option<&str> {
    match quantization.get("quant_method").and_then(Value::as_str) {
        // The tensors of a bitsandbytes checkpoint say themselves how each of them is stored.
        Some("bitsandbytes" | "bitsandbytes_4bit" | "bitsandbytes_8bit") => None,
        Some(method) => Some(method),
        None if ["load_in_4bit", "load_in_8bit"]
            .iter()
            .any(|key| quantization.contains_key(*key)) =>
        {
            None
        }
        None => Some("?"),
    }
}

/// What to do about a checkpoint of another method.
pub(crate) fn instead_of(method: &str) -> String {
    // transformers writes a dense model of these.
    let dequantize = match method {
        "fp8" => Some("FineGrainedFP8Config(dequantize=True)"),
        "mxfp4" => Some("Mxfp4Config(dequantize=True)"),
        "compressed-tensors" => Some("CompressedTensorsConfig(dequantize=True)"),
        _ => None,
    };
    let take = match dequantize {
        Some(config) => format!(
            "save it dense by `AutoModelForCausalLM.from_pretrained(..., quantization_config={config})`, or take the model in bf16"
        ),
        None => "take the model it was made from, in bf16".to_owned(),
    };
    format!(
        "Prospect reads bitsandbytes' nf4, fp4 and int8; {take}, which model.quantization = \"nf4\" quantizes on load"
    )
}
