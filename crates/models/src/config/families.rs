//! The families: what each one fixes that its `config.json` leaves out.

/// What a family's code in transformers fixes.
pub(super) struct Family {
    /// `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// q, k and v have a bias: always, never, or as `attention_bias` says.
    pub(super) qkv_bias: Bias,
    /// The attention's output has a bias.
    pub(super) o_bias: Bias,
    /// The MLP has biases.
    pub(super) mlp_bias: Bias,
    /// Query and key heads are normed.
    pub(super) qk_norm: bool,
    /// When `sliding_window` holds.
    pub(super) window: Window,
    /// `head_dim` where config.json has none; else hidden_size / num_attention_heads.
    pub(super) head_dim: Option<usize>,
    /// `num_key_value_heads` where config.json lacks the key; else, and where it is null, num_attention_heads.
    pub(super) num_key_value_heads: Option<usize>,
    /// `max_position_embeddings` where config.json lacks it.
    pub(super) max_position_embeddings: usize,
    /// `eos_token_id` where config.json lacks the key.
    pub(super) eos_token_id: Option<u32>,
}

/// `sliding_window` where config.json lacks the key, in every family that has windows.
pub(super) const SLIDING_WINDOW: usize = 4096;

pub(super) enum Bias {
    Always,
    Never,
    /// The named key of config.json, false where it is missing.
    Key(&'static str),
}

pub(super) enum Window {
    /// The family has none, whatever config.json says.
    Never,
    /// In every layer, where the key is not null.
    Always,
    /// Where `use_sliding_window` is true: in the layers that `layer_types` names, or from `max_window_layers` on.
    UpperLayers,
}

/// The model types that are known, for messages.
pub const SUPPORTED: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Every family, as transformers 5.23's modeling and configuration files have them.
pub(super) const FAMILIES: [Family; 4] = [
    Family {
        model_type: "llama",
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        mlp_bias: Bias::Key("mlp_bias"),
        qk_norm: false,
        window: Window::Never,
        head_dim: None,
        num_key_value_heads: None,
        max_position_embeddings: 2048,
        eos_token_id: Some(2),
    },
    Family {
        model_type: "mistral",
        qkv_bias: Bias::Never,
        o_bias: Bias::Never,
        mlp_bias: Bias::Never,
        qk_norm: false,
        window: Window::Always,
        head_dim: None,
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        eos_token_id: Some(2),
    },
    Family {
        model_type: "qwen2",
        qkv_bias: Bias::Always,
        o_bias: Bias::Never,
        mlp_bias: Bias::Never,
        qk_norm: false,
        window: Window::UpperLayers,
        head_dim: None,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        eos_token_id: None,
    },
    Family {
        model_type: "qwen3",
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        mlp_bias: Bias::Never,
        qk_norm: true,
        window: Window::UpperLayers,
        head_dim: Some(128),
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        eos_token_id: None,
    },
];
