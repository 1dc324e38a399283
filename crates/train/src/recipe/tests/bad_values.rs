//! Recipes with bad values, and exactly what each is told.

use super::{Place, SHORTEST};
use expect_test::{Expect, expect};

/// Lines that follow [`SHORTEST`], so the first of them is line 5.
fn check(lines: &str, expected: Expect) {
    check_whole(&format!("{SHORTEST}{lines}"), expected);
}

fn check_whole(recipe: &str, expected: Expect) {
    expected.assert_eq(&Place::new().error(recipe, &[]));
}

#[test]
fn wrong_types() {
    check(
        "[optimizer]\nlearning_rate = \"fast\"",
        expect![[r#"
        [optimizer] learning_rate = "fast" is a string, recipe.toml:6
          hint: write a number of at least 0"#]],
    );
    check(
        "[train]\nbatch_size = 4.5",
        expect![[r#"
        [train] batch_size = 4.5 is a number with a fraction, recipe.toml:6
          hint: write an integer from 1 to 1000000"#]],
    );
    check(
        "[train]\nbatch_size = true",
        expect![[r#"
        [train] batch_size = true is a boolean, recipe.toml:6
          hint: write an integer from 1 to 1000000"#]],
    );
    check(
        "[adapter]\nuse_rslora = 1",
        expect![[r#"
        [adapter] use_rslora = 1 is an integer, recipe.toml:6
          hint: write true or false"#]],
    );
    check(
        "[objective]\nname = 3",
        expect![[r#"
            [objective] name = 3 is an integer, recipe.toml:6
              hint: write "kto", "apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo" or "sft""#]],
    );
    check(
        "order = [\"shuffled\"]",
        expect![[r#"
        [data] order = ["shuffled"] is a list, recipe.toml:5
          hint: write "shuffled" or "sequential""#]],
    );
    check(
        "eval = [\"held-out.jsonl\", 7]",
        expect![[r#"
            [data] eval = 7 is an integer, recipe.toml:5
              hint: write a path or a list of paths"#]],
    );
    check(
        "[adapter]\ntarget_modules = { q_proj = true }",
        expect![[r#"
            [adapter] target_modules = { q_proj = true } is a table, recipe.toml:6
              hint: write "all-linear", a list of module names or a regular expression"#]],
    );
    check(
        "[train]\nmemory_limit = [24]",
        expect![[r#"
        [train] memory_limit = [24] is a list, recipe.toml:6
          hint: write a size such as "24GiB""#]],
    );
    check(
        "[generate]\nprompts = \"prompts.jsonl\"\ndesirable = \"polite\"",
        expect![[r#"
        [generate] desirable = "polite" is a string, recipe.toml:7
          hint: write a table such as { ends_with = "!" }"#]],
    );
    check_whole(
        "output = 2026-11-23\n[model]\npath = \"model\"",
        expect![[r#"
        output = 2026-11-23 is a date, recipe.toml:1
          hint: write a string"#]],
    );
    check_whole(
        "[model]\npath = [\"model\"]",
        expect![[r#"
        [model] path = ["model"] is a list, recipe.toml:2
          hint: write a folder or a hub id"#]],
    );
}

#[test]
fn impossible_values() {
    check(
        "[optimizer]\nlearning_rate = -1e-6",
        expect![[r#"
        [optimizer] learning_rate = -1e-6 is out of range, recipe.toml:6
          hint: write a number of at least 0"#]],
    );
    check(
        "[optimizer]\nlearning_rate = nan",
        expect![[r#"
        [optimizer] learning_rate = nan is no finite number, recipe.toml:6
          hint: write a number of at least 0"#]],
    );
    check(
        "[optimizer]\nmax_grad_norm = inf",
        expect![[r#"
        [optimizer] max_grad_norm = inf is no finite number, recipe.toml:6
          hint: write a number of at least 0"#]],
    );
    check(
        "[optimizer]\nbeta2 = 1.0",
        expect![[r#"
        [optimizer] beta2 = 1.0 is out of range, recipe.toml:6
          hint: write a number from 0 to below 1"#]],
    );
    check(
        "[optimizer]\neps = 0",
        expect![[r#"
        [optimizer] eps = 0 is out of range, recipe.toml:6
          hint: write a number above 0"#]],
    );
    check(
        "[objective]\nbeta = 0.0",
        expect![[r#"
        [objective] beta = 0.0 is out of range, recipe.toml:6
          hint: write a number above 0"#]],
    );
    check(
        "[objective]\nname = \"dpo\"\nlabel_smoothing = 0.5",
        expect![[r#"
        [objective] label_smoothing = 0.5 is out of range, recipe.toml:7
          hint: write a number from 0 to below 0.5"#]],
    );
    check(
        "[adapter]\nr = 0",
        expect![[r#"
        [adapter] r = 0 is out of range, recipe.toml:6
          hint: write an integer from 1 to 65536"#]],
    );
    check(
        "[adapter]\nr = -8",
        expect![[r#"
        [adapter] r = -8 is out of range, recipe.toml:6
          hint: write an integer from 1 to 65536"#]],
    );
    check(
        "[adapter]\nr = 1_000_000_000_000",
        expect![[r#"
        [adapter] r = 1_000_000_000_000 is out of range, recipe.toml:6
          hint: write an integer from 1 to 65536"#]],
    );
    check(
        "[adapter]\nlora_dropout = 1",
        expect![[r#"
        [adapter] lora_dropout = 1 is out of range, recipe.toml:6
          hint: write a number from 0 to below 1"#]],
    );
    check(
        "[adapter]\ntarget_modules = \"q_proj\"",
        expect![[r#"
        [adapter] target_modules = "q_proj" is not known, recipe.toml:6
          hint: write "all-linear", or a list: target_modules = ["q_proj"]"#]],
    );
    check(
        "[adapter]\nexclude_modules = \"down_proj\"",
        expect![[r#"
        [adapter] exclude_modules = "down_proj" is not known, recipe.toml:6
          hint: write a list: exclude_modules = ["down_proj"]"#]],
    );
    check(
        "[adapter]\nrank_pattern = 8",
        expect![[r#"
        [adapter] rank_pattern = 8 is an integer, recipe.toml:6
          hint: write a table from patterns to integers from 1 to 65536, such as { down_proj = 32 }"#]],
    );
    check(
        "[adapter]\nrank_pattern = { q_proj = 0 }",
        expect![[r#"
        [adapter] rank_pattern = 0 for 'q_proj' is out of range, recipe.toml:6
          hint: write a table from patterns to integers from 1 to 65536, such as { down_proj = 32 }"#]],
    );
    check(
        "[adapter.alpha_pattern]\nq_proj = \"much\"",
        expect![[r#"
        [adapter] alpha_pattern = "much" is a string, recipe.toml:6
          hint: write a table from patterns to numbers of at least 0, such as { down_proj = 64 }"#]],
    );
    check(
        "[adapter]\ninit = \"pisa\"",
        expect![[r#"
        [adapter] init = "pisa" is not known, recipe.toml:6
          hint: did you mean "pissa"? It may be "default", "gaussian", "pissa", "pissa_niter_16", "olora" or "loftq""#]],
    );
    check(
        "[adapter]\ninit = \"pissa_niter_many\"",
        expect![[r#"
        [adapter] init = "pissa_niter_many" says no number of steps, recipe.toml:6
          hint: write a number from 0 to 1000 behind pissa_niter_, such as 16"#]],
    );
    check(
        "[adapter]\nuse_dorra = true",
        expect![[r#"
        unknown key 'use_dorra' in [adapter], recipe.toml:6
          hint: did you mean 'use_dora'?"#]],
    );
    check(
        "[adapter]\nlora_bias = true",
        expect![[r#"
        unknown key 'lora_bias' in [adapter], recipe.toml:6
          hint: [adapter] has r, lora_alpha, lora_dropout, use_rslora, use_dora, target_modules, exclude_modules, layers_to_transform, rank_pattern, alpha_pattern, modules_to_save, init, init_from"#]],
    );
    check(
        "[adapter]\ntarget_modules = []",
        expect![[r#"
            [adapter] target_modules = [] is empty, recipe.toml:6
              hint: write "all-linear", a list of module names or a regular expression"#]],
    );
    check(
        "[schedule]\nwarmup_ratio = 1.5",
        expect![[r#"
        [schedule] warmup_ratio = 1.5 is out of range, recipe.toml:6
          hint: write a number from 0 to 1"#]],
    );
    check(
        "[schedule]\nwarmup_steps = 0.1",
        expect![[r#"
        [schedule] warmup_steps = 0.1 is a number with a fraction, recipe.toml:6
          hint: write an integer of at least 0"#]],
    );
    check(
        "[train]\nepochs = 0",
        expect![[r#"
        [train] epochs = 0 is out of range, recipe.toml:6
          hint: write a number above 0"#]],
    );
    check(
        "[train]\nmax_steps = 99999999999999999999999999999999999999999",
        expect![[r#"
            [train] max_steps = 99999999999999999999999999999999999999999 is out of range, recipe.toml:6
              hint: write an integer of at least 1"#]],
    );
    check(
        "[train]\nthreads = 0",
        expect![[r#"
        [train] threads = 0 is out of range, recipe.toml:6
          hint: write an integer from 1 to 1024"#]],
    );
    check(
        "[train]\nmemory_limit = \"much\"",
        expect![[r#"
        [train] memory_limit = "much" is no size, recipe.toml:6
          hint: write a number and a unit: "24GiB", "1.5GiB", "800MB""#]],
    );
    check(
        "[train]\nmemory_limit = \"24 parsecs\"",
        expect![[r#"
        [train] memory_limit = "24 parsecs" is no size, recipe.toml:6
          hint: write a number and a unit: "24GiB", "1.5GiB", "800MB""#]],
    );
    check(
        "[train]\nmemory_limit = \"0GiB\"",
        expect![[r#"
        [train] memory_limit = "0GiB" is out of range, recipe.toml:6
          hint: write a size such as "24GiB""#]],
    );
    check(
        "max_length = 1",
        expect![[r#"
        [data] max_length = 1 is out of range, recipe.toml:5
          hint: write an integer from 2 to 10000000"#]],
    );
    check(
        "eval = []",
        expect![[r#"
            [data] eval = [] is empty, recipe.toml:5
              hint: write a path or a list of paths"#]],
    );
    check(
        "[generate]\nprompts = \"prompts.jsonl\"\ndesirable = {}",
        expect![[r#"
        [generate] desirable = {} has no rule, recipe.toml:7
          hint: write a table such as { ends_with = "!" }"#]],
    );
    check(
        "[generate]\nprompts = \"prompts.jsonl\"\n[generate.desirable]\ncontains = \"\"",
        expect![[r#"
            [generate.desirable] contains = "" is empty, recipe.toml:8
              hint: write a string or a list of strings"#]],
    );
    check_whole(
        "seed = -1",
        expect![[r#"
        seed = -1 is out of range, recipe.toml:1
          hint: write an integer of at least 0"#]],
    );
}

#[test]
fn unknown_names() {
    check(
        "[objective]\nname = \"ktoo\"",
        expect![[r#"
            [objective] name = "ktoo" is not known, recipe.toml:6
              hint: did you mean "kto"? It may be "kto", "apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo" or "sft""#]],
    );
    check(
        "[objective]\nname = \"ppo\"",
        expect![[r#"
            [objective] name = "ppo" is not known, recipe.toml:6
              hint: did you mean "dpo"? It may be "kto", "apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo" or "sft""#]],
    );
    check(
        "[optimizer]\nname = \"AdamW\"",
        expect![[r#"
        [optimizer] name = "AdamW" is not known, recipe.toml:6
          hint: did you mean "adamw"? It may be "adamw" or "adamw_8bit""#]],
    );
    check(
        "[train]\nattention = \"sdpa\"",
        expect![[r#"
        [train] attention = "sdpa" is not known, recipe.toml:6
          hint: it may be "flash" or "standard""#]],
    );
    check(
        "[train]\ndevice = \"gpu\"",
        expect![[r#"
            [train] device = "gpu" is not known, recipe.toml:6
              hint: did you mean "cuda"? It may be "auto", "cpu" or "cuda""#]],
    );
    check(
        "[schedule]\nname = \"\"",
        expect![[r#"
        [schedule] name = "" is not known, recipe.toml:6
          hint: it may be "linear", "cosine" or "constant""#]],
    );
    check_whole(
        "[model]\npath = \"model\"\nquantization = \"int4\"",
        expect![[r#"
        [model] quantization = "int4" is not known, recipe.toml:3
          hint: did you mean "nf4"? It may be "none", "nf4", "fp4" or "int8""#]],
    );
}

#[test]
fn a_long_value_is_shown_in_part() {
    let names = ["\"a module with a long name\""; 12].join(",\n  ");
    check(
        &format!("[adapter]\nuse_rslora = [\n  {names}\n]"),
        expect![[r#"
        [adapter] use_rslora = [ "a module with a long name", "a module with a long name... is a list, recipe.toml:6
          hint: write true or false"#]],
    );
}
