//! Checkpoints that another method quantized, told by the names of their tensors: config.json names the method, but older
//! folders say it in a file of its own, or nowhere.

use safetensors::tensor::Dtype;

use super::bitsandbytes::is_codes;
use crate::checkpoint::Checkpoint;
use crate::config::quantization::instead_of;
use crate::error::{Error, Result};

/// What a tensor's name ends with, and the method whose it is.
const ENDINGS: [(&str, &str); 9] = [
    (".qweight", "gptq or awq"),
    (".qzeros", "gptq or awq"),
    (".weight_scale_inv", "fp8"),
    (".weight_scale", "fp8 or compressed-tensors"),
    (".weight_packed", "compressed-tensors"),
    (".W_q", "hqq"),
    (".codebooks", "aqlm"),
    ("_blocks", "mxfp4"),
    ("._data", "quanto"),
];

/// Refuses a checkpoint with a tensor of another method.
pub(super) fn refuse(checkpoint: &Checkpoint) -> Result<()> {
    let method = |name: &str| ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
    let found = checkpoint.names().find_map(|name| Some((name, method(name)?.1)));
    let Some((name, method)) = found else { return Ok(()) };
    Err(Error::input(
        format!("'{}' is quantized by {method}: it holds {name}", checkpoint.folder().display()),
        instead_of(method.split(' ').next().unwrap_or(method)),
    ))
}

/// Refuses embeddings and a head that are quantized: they are looked up and multiplied dense.
pub(super) fn refuse_quantized_tables(checkpoint: &Checkpoint) -> Result<()> {
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let Some(stored) = checkpoint.get(name) else { continue };
        if stored.dtype == Dtype::I8 || is_codes(checkpoint, name) {
            let module = name.trim_end_matches(".weight");
            return Err(Error::input(
                format!("{name} in '{}' is quantized", stored.file.display()),
                format!(
                    "Prospect holds embeddings and head dense: quantize the model again with llm_int8_skip_modules=[\"{module}\"]"
                ),
            ));
        }
    }
    Ok(())
}
