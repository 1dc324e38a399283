//! `quantization_config` of config.json: which methods are read, and what to do about the others.
//!
//! Methods as transformers 5.23 names them in `quant_method`.

use serde_json::{Map, Value};

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
