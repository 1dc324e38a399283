//! `[model]`: which weights, and how they are held.

use super::paths::ModelPath;
use super::setting::choice;
use super::table::table;

table! {
    /// `[model]`: the model that learns.
    pub struct Model["model"] {
        /// A folder as Hugging Face writes it (`config.json`, safetensors, `tokenizer.json`), or a hub id
        /// `owner/name`, with `@revision` for a branch, tag or commit: it is fetched once into the cache that
        /// Python's huggingface_hub uses, with the token of `HF_TOKEN` where it is private.
        pub path: ModelPath;
        /// `"nf4"` holds the linear layers in 4 bits as bitsandbytes does: about a quarter of the memory
        /// of bf16 for a small loss of accuracy. `"fp4"` takes the same memory and is off by a third more:
        /// for adapters that were trained on it. `"int8"` takes twice as much as 4 bits and is off by a
        /// tenth of what `"nf4"` is: the better choice where it fits. Only with `[adapter]`: quantized
        /// weights cannot be trained themselves. A model that bitsandbytes stored quantized is taken as it is,
        /// with `"none"`.
        pub quantization: Quantization = Quantization::None;
        /// With `"nf4"` and `"fp4"`, also quantize the scales: 0.516 instead of 0.563 bytes per weight.
        /// Loading takes a little longer; speed and quality stay. TRL's default is false.
        pub double_quant: bool = true;
        /// What the weights that are not quantized are held in. `"f32"` is TRL's default and exact;
        /// `"bf16"` halves their memory.
        pub dtype: Dtype = Dtype::F32;
    }
}

choice! {
    /// How the weights of linear layers are held.
    pub enum Quantization {
        /// In `dtype`.
        None = "none",
        /// NormalFloat in 4 bits, blocks of 64 (arXiv 2305.14314).
        Nf4 = "nf4",
        /// A float of 4 bits, blocks of 64, as bitsandbytes has it.
        Fp4 = "fp4",
        /// 8 bits with a scale a row: LLM.int8() (arXiv 2208.07339).
        Int8 = "int8",
    }
}

choice! {
    /// What weights are held in.
    pub enum Dtype {
        /// 4 bytes.
        F32 = "f32",
        /// 2 bytes: the range of f32 with 8 bits of precision.
        Bf16 = "bf16",
    }
}
