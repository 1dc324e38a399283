//! The list of keys is complete, and so is the page made of it.

use super::super::hints::{NAMES_ELSEWHERE, TABLES_ELSEWHERE, VALUES_ELSEWHERE, nearest};
use super::super::reference::{markdown, tables};

/// The keys whose names are fixed, because recipes of others rely on them.
const FIXED: &[(&str, &str)] = &[
    ("", "output seed"),
    ("model", "path quantization double_quant dtype"),
    (
        "adapter",
        "r lora_alpha lora_dropout use_rslora use_dora target_modules exclude_modules layers_to_transform \
         rank_pattern alpha_pattern modules_to_save init init_from",
    ),
    ("data", "train eval form columns formats max_length order cache"),
    ("data.train", "files form columns formats weight"),
    (
        "objective",
        "name loss_type beta desirable_weight undesirable_weight label_smoothing simpo_gamma discopop_tau \
         sft_weight reference",
    ),
    ("optimizer", "name learning_rate beta1 beta2 eps weight_decay max_grad_norm"),
    ("schedule", "name warmup_steps warmup_ratio"),
    (
        "train",
        "epochs max_steps batch_size gradient_accumulation_steps log_every eval_every save_every save_minutes \
         keep_checkpoints max_bad_batches attention device memory_limit token_budget threads",
    ),
    ("generate", "prompts max_new_tokens temperature desirable show"),
    ("generate.desirable", "starts_with ends_with contains not_contains"),
];

#[test]
fn every_fixed_key_is_there_and_no_other() {
    let tables = tables();
    assert_eq!(tables.len(), FIXED.len());
    for (table, (path, names)) in tables.iter().zip(FIXED) {
        assert_eq!(table.path, *path);
        let ours: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
        assert_eq!(ours, names.split_whitespace().collect::<Vec<_>>(), "[{path}]");
    }
}

#[test]
fn every_key_is_documented_in_sentences_and_on_the_page() {
    let page = markdown();
    for table in tables() {
        for key in table.keys {
            let doc = key.doc.trim();
            assert!(doc.len() > 20 && doc.ends_with('.'), "[{}] {}: {doc:?}", table.path, key.name);
            assert!(page.contains(&format!("| `{}` | {}", key.name, key.expects)), "{}", key.name);
        }
    }
}

#[test]
fn every_name_from_elsewhere_leads_to_a_key() {
    let keys: Vec<String> = tables()
        .iter()
        .flat_map(|table| table.keys.iter().map(|key| format!("{}.{}", table.path, key.name)))
        .collect();
    for (name, here) in NAMES_ELSEWHERE {
        let here = if here.contains('.') { (*here).to_owned() } else { format!(".{here}") };
        assert!(keys.contains(&here), "{name} leads to {here}");
    }
    for (name, here) in TABLES_ELSEWHERE {
        assert!(tables().iter().any(|table| table.path == *here), "{name} leads to {here}");
    }
    let page = markdown();
    for (name, here) in VALUES_ELSEWHERE {
        assert!(page.contains(&format!("\"{here}\"")), "{name} leads to {here}");
    }
    for list in [NAMES_ELSEWHERE, TABLES_ELSEWHERE, VALUES_ELSEWHERE] {
        assert!(list.is_sorted_by_key(|(name, _)| *name));
    }
}

#[test]
fn the_nearest_name_is_near() {
    let names = ["learning_rate", "beta1", "eps"];
    assert_eq!(nearest("lerning_rate", &names), Some("learning_rate"));
    assert_eq!(nearest("learning_rat", &names), Some("learning_rate"));
    assert_eq!(nearest("Beta1", &names), Some("beta1"));
    assert_eq!(nearest("momentum", &names), None);
}
