//! What a person probably meant by a key that does not exist.

use super::reference::tables;

/// What transformers, TRL, PEFT and bitsandbytes call a key, and where Prospect has it.
pub(super) const NAMES_ELSEWHERE: &[(&str, &str)] = &[
    ("adam_beta1", "optimizer.beta1"),
    ("adam_beta2", "optimizer.beta2"),
    ("adam_epsilon", "optimizer.eps"),
    ("alpha", "adapter.lora_alpha"),
    ("attn_implementation", "train.attention"),
    ("bnb_4bit_quant_type", "model.quantization"),
    ("bnb_4bit_use_double_quant", "model.double_quant"),
    ("chosen_format", "data.formats"),
    ("completion_format", "data.formats"),
    ("cpo_alpha", "objective.sft_weight"),
    ("data_seed", "seed"),
    ("dataset_name", "data.train"),
    ("dataset_prepared_path", "data.cache"),
    ("datasets", "data.train"),
    ("dpo_label_smoothing", "objective.label_smoothing"),
    ("dropout", "adapter.lora_dropout"),
    ("eval_dataset", "data.eval"),
    ("eval_steps", "train.eval_every"),
    ("field_chosen", "data.columns"),
    ("field_completion", "data.columns"),
    ("field_label", "data.columns"),
    ("field_prompt", "data.columns"),
    ("field_rejected", "data.columns"),
    ("init_lora_weights", "adapter.init"),
    ("load_in_4bit", "model.quantization"),
    ("load_in_8bit", "model.quantization"),
    ("logging_steps", "train.log_every"),
    ("lora_r", "adapter.r"),
    ("lora_target_modules", "adapter.target_modules"),
    ("loss_type", "objective.loss_type"),
    ("lr", "optimizer.learning_rate"),
    ("lr_scheduler_type", "schedule.name"),
    ("max_prompt_length", "data.max_length"),
    ("max_seq_length", "data.max_length"),
    ("model_name_or_path", "model.path"),
    ("num_train_epochs", "train.epochs"),
    ("optim", "optimizer.name"),
    ("output_dir", "output"),
    ("per_device_train_batch_size", "train.batch_size"),
    ("pref_beta", "objective.beta"),
    ("pref_ftx", "objective.sft_weight"),
    ("pref_loss", "objective.loss_type"),
    ("prompt_format", "data.formats"),
    ("rank", "adapter.r"),
    ("rejected_format", "data.formats"),
    ("rpo_alpha", "objective.sft_weight"),
    ("save_steps", "train.save_every"),
    ("save_total_limit", "train.keep_checkpoints"),
    ("test_datasets", "data.eval"),
    ("torch_dtype", "model.dtype"),
    ("train_dataset", "data.train"),
    ("train_sampling_strategy", "data.order"),
    ("use_bnb_nested_quant", "model.double_quant"),
];

/// What others call a table.
pub(super) const TABLES_ELSEWHERE: &[(&str, &str)] = &[
    ("dataset", "data"),
    ("generation", "generate"),
    ("lora", "adapter"),
    ("loss", "objective"),
    ("lr_scheduler", "schedule"),
    ("peft", "adapter"),
    ("scheduler", "schedule"),
    ("training", "train"),
];

/// What others call a value.
pub(super) const VALUES_ELSEWHERE: &[(&str, &str)] = &[
    ("4bit", "nf4"),
    ("8bit", "int8"),
    ("adamw_bnb_8bit", "adamw_8bit"),
    ("adamw_torch", "adamw"),
    ("adamw_torch_fused", "adamw"),
    ("bfloat16", "bf16"),
    ("constant_with_warmup", "constant"),
    ("eager", "standard"),
    ("flash_attention_2", "flash"),
    ("float32", "f32"),
    ("fp32", "f32"),
    ("gpu", "cuda"),
    ("hinge", "dpo"),
    ("int4", "nf4"),
    ("ipo", "dpo"),
    ("llm_int8", "int8"),
    ("random", "shuffled"),
    ("sigmoid", "dpo"),
];

/// The table that was meant by one that does not exist.
pub(super) fn for_unknown_table<'a>(unknown: &str, tables: &[&'a str]) -> Option<&'a str> {
    called(unknown, TABLES_ELSEWHERE, tables).or_else(|| nearest(unknown, tables))
}

/// The choice that was meant by one that does not exist.
pub(super) fn for_unknown_choice<'a>(unknown: &str, choices: &[&'a str]) -> Option<&'a str> {
    called(unknown, VALUES_ELSEWHERE, choices).or_else(|| nearest(unknown, choices))
}

/// What is called `name` elsewhere, if it is one of `names` here.
fn called<'a>(name: &str, elsewhere: &[(&str, &str)], names: &[&'a str]) -> Option<&'a str> {
    let (_, here) = elsewhere.iter().find(|(other, _)| *other == name)?;
    names.iter().copied().find(|name| name == here)
}

/// A hint for a key that `table` (`""` for the top of the recipe), which has the keys `names`, has not.
pub(super) fn for_unknown_key(table: &str, names: &[&str], unknown: &str) -> String {
    if let Some((_, here)) = NAMES_ELSEWHERE.iter().find(|(name, _)| *name == unknown) {
        return match here.split_once('.') {
            Some((table, key)) => format!("Prospect calls it '{key}' in [{table}]"),
            None => format!("Prospect calls it '{here}', at the top of the recipe"),
        };
    }
    if let Some(near) = nearest(unknown, names) {
        return format!("did you mean '{near}'?");
    }
    for other in tables() {
        if let Some(key) = other.keys.iter().find(|key| key.name == unknown && other.path != table)
        {
            return match other.path {
                "" => format!(
                    "'{}' stands at the top of the recipe, before the first table",
                    key.name
                ),
                path => format!("'{}' belongs in [{path}]", key.name),
            };
        }
    }
    match table {
        "" => format!("at the top stand {}", names.join(", ")),
        table => format!("[{table}] has {}", names.join(", ")),
    }
}

/// The nearest of `names`, if it is near enough to be what was meant: one edit in three letters.
pub(super) fn nearest<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&text.to_lowercase(), name);
    let near = names.iter().copied().min_by_key(|name| distance(name))?;
    (distance(near) <= near.chars().count().div_ceil(3)).then_some(near)
}
