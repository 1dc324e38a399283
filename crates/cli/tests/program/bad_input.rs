//! Bad input: the exact words, and the exit code 2 for the user's mistakes, 1 for the machine's failures.

use std::fs;

use crate::place::{Place, RECIPE};
use expect_test::{Expect, expect};

/// Trains and expects an error, whose words stand at the end of stderr.
fn check(place: &Place, sets: &str, code: i32, expected: Expect) {
    let came = place.run(&format!("train recipe.toml {sets}"));
    let error = came.stderr.find("error: ").map_or(came.stderr.as_str(), |at| &came.stderr[at..]);
    expected.assert_eq(&place.tidy(error));
    assert_eq!(came.code, Some(code), "{}", came.stderr);
    assert!(!place.path("run/recipe.toml").exists(), "nothing half-written");
}

#[test]
fn rows_that_cannot_be_read_are_named_by_file_and_line() {
    let place = Place::new();
    let good = place.read("feedback.jsonl");
    let with = |row: &str| place.write("feedback.jsonl", &format!("{good}{row}\n"));
    with(r#"{"prompt": "w1", "completion": " w2", "label": tru"#);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: malformed JSON at feedback.jsonl:15, column 50: EOF while parsing a value
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array
    "#]],
    );
    with(r#"{"prompt": "w1", "label": true}"#);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: feedback.jsonl:15 has no 'completion'; it has 'prompt', 'label'
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'
    "#]],
    );
    with(r#"{"prompt": "w1", "completion": " w2", "label": "yes"}"#);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'label' is "yes", not a boolean, feedback.jsonl:15
          hint: write true for a desirable completion and false for an undesirable one; a score or a star rating needs a threshold that only you can choose
    "#]],
    );
    fs::write(place.path("feedback.jsonl"), [good.as_bytes(), b"\xff\xfe\n"].concat()).unwrap();
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: feedback.jsonl:15 is not UTF-8 text (byte 1261 of the file)
          hint: save the file as UTF-8, for example with `iconv -t UTF-8`
    "#]],
    );
    place.write("feedback.jsonl", "");
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: there is no record in feedback.jsonl
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'
    "#]],
    );
}

#[test]
fn rows_of_one_class_and_prompts_too_long_are_warned_of() {
    let place = Place::new();
    let rows: Vec<String> = place
        .read("feedback.jsonl")
        .lines()
        .filter(|row| row.contains("true"))
        .map(str::to_owned)
        .collect();
    let long = format!(
        r#"{{"prompt": "{}", "completion": " w1", "label": true}}"#,
        vec!["w3"; 40].join(" ")
    );
    place.write("feedback.jsonl", &format!("{}\n{long}\n", rows.join("\n")));
    let came = place.well("train recipe.toml --set train.max_steps=1");
    let warnings: Vec<&str> =
        came.stderr.lines().skip_while(|line| !line.starts_with("warning")).take(6).collect();
    expect![[r#"
        warning: 1 of 8 records are dropped or cut, 12.5 %
          hint: more than 5 % is rarely meant: the next lines say why
        warning: 1 record dropped: the prompt alone fills max_length (feedback.jsonl:8)
          hint: raise data.max_length, or shorten them; `prospect data` shows all lengths
        warning: all 7 examples have one label
          hint: kto learns from the difference between thumbs up and thumbs down; add the other kind"#]].assert_eq(&place.tidy(&warnings.join("\n")));
}

#[test]
fn a_broken_model_is_refused() {
    let place = Place::new();
    let (weights, config) =
        (place.bytes("model/model.safetensors"), place.read("model/config.json"));
    let put = |bytes: &[u8]| fs::write(place.path("model/model.safetensors"), bytes).unwrap();
    put(&weights[..weights.len() - 1000]);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'model/model.safetensors' is not a whole safetensors file: incomplete metadata, file not fully covered
          hint: download it again; it may be cut short or be a Git LFS pointer
    "#]],
    );
    put(&weights[..20]);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'model/model.safetensors' is not a whole safetensors file: invalid header length
          hint: download it again; it may be cut short or be a Git LFS pointer
    "#]],
    );
    let at = weights.windows(17).position(|window| window == b"model.norm.weight").unwrap();
    let mut renamed = weights.clone();
    renamed[at..at + 17].copy_from_slice(b"model.nrom.weight");
    put(&renamed);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'model' holds model.nrom.weight, which a llama model of this config.json does not have
          hint: config.json and the safetensors belong to different models
    "#]],
    );
    put(&without_last_tensor(&weights));
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'model' has no tensor model.norm.weight
          hint: config.json and the safetensors belong to different models, or a shard is missing
    "#]],
    );
    put(&weights);
    place.write(
        "model/config.json",
        &config.replace("\"llama\"", "\"mamba\"").replace("LlamaForCausalLM", "MambaForCausalLM"),
    );
    check(
        &place,
        "",
        2,
        expect![[r#"
            error: model/config.json: the architecture 'mamba' is not known
              hint: Prospect knows gemma2, gemma3, gemma3_text, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3; the others compute something else, so they are refused
        "#]],
    );
    place.write("model/config.json", &config.replace("\"hidden_size\": 32", "\"hidden_size\": 40"));
    check(
        &place,
        "",
        2,
        expect![[r#"
            error: model.embed_tokens.weight in 'model/model.safetensors' has shape [64, 32], expected [64, 40]
              hint: config.json and the safetensors belong to different models
        "#]],
    );
    place.write("model/config.json", &config[..100]);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: model/config.json:6:22 is not JSON: EOF while parsing a value at line 6 column 22
          hint: download it again; it may be cut short or be a Git LFS pointer
    "#]],
    );
    place.write("model/config.json", &config);
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: 'model' has no tokenizer.json
          hint: download the model's tokenizer.json too; a slow tokenizer (tokenizer.model) is converted by `AutoTokenizer.from_pretrained(...).save_pretrained(...)`
    "#]],
    );
}

/// A safetensors file (8 bytes of length, a JSON header, the data) without the tensor whose data is last.
fn without_last_tensor(bytes: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let start = |tensor: &serde_json::Value| tensor["data_offsets"][0].as_u64().unwrap_or(0);
    let (last, start) = header
        .iter()
        .map(|(name, tensor)| (name.clone(), start(tensor)))
        .max_by_key(|(_, start)| *start)
        .unwrap();
    header.remove(&last);
    let header = serde_json::to_vec(&header).unwrap();
    let data = &bytes[8 + length..8 + length + start as usize];
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

#[test]
fn a_template_that_raises_says_what_it_said() {
    let place = Place::new();
    place.write("model/chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
    let message = |role: &str| format!(r#"[{{"role": "{role}", "content": "w1"}}]"#);
    let row = |label: bool| {
        format!(
            r#"{{"prompt": {}, "completion": {}, "label": {label}}}"#,
            message("user"),
            message("assistant")
        )
    };
    place.write("feedback.jsonl", &format!("{}\n{}\n", row(true), row(false)));
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: the chat template refuses the conversation: roles must alternate, feedback.jsonl:1
          hint: the roles and their order must be those the model was trained with; correct the record, or use a model whose template allows it
    "#]],
    );
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("start")).unwrap();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto");
    fs::copy(
        fixtures.join("lora_init_kto.safetensors"),
        place.path("start/adapter_model.safetensors"),
    )
    .unwrap();
    place.write("recipe.toml", &RECIPE.replace("r = 4\n", "init_from = \"start\"\n"));
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: start/adapter_config.json: there is no such file
          hint: an adapter folder has adapter_config.json and adapter_model.safetensors, as PEFT writes them
    "#]],
    );
    place.write(
        "start/adapter_config.json",
        r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 16, "target_modules": "all-linear"}"#,
    );
    check(
        &place,
        "",
        2,
        expect![[r#"
            error: base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight in 'start/adapter_model.safetensors' has shape [4, 32], expected [3, 32]
              hint: the adapter belongs to another model, or to another adapter_config.json
        "#]],
    );
    place.write("start/adapter_config.json", r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 16, "bias": "all", "target_modules": "all-linear"}"#);
    check(
        &place,
        "",
        2,
        expect![[r#"
        error: start/adapter_config.json: bias = "all" is not supported
          hint: Prospect computes LoRA and DoRA, with bias = "none"
    "#]],
    );
}

#[test]
fn a_recipe_that_is_wrong_is_refused() {
    let place = Place::new();
    check(
        &place,
        "--set train.batch_size=1",
        2,
        expect![[r#"
        error: [train] batch_size = 1 leaves kto no second example to estimate the KL with, --set train.batch_size=1
          hint: write batch_size = 2 or more: token_budget bounds the memory, not batch_size; or objective.name = "apo_zero_unpaired"
    "#]],
    );
    check(
        &place,
        "--set optimizer.learnin_rate=1",
        2,
        expect![[r#"
        error: unknown key 'learnin_rate' in [optimizer], --set optimizer.learnin_rate=1
          hint: did you mean 'learning_rate'?
    "#]],
    );
    check(
        &place,
        "--set data.max_length=4096",
        2,
        expect![[r#"
        error: [data] max_length = 4096 is longer than the 128 positions the model was made for
          hint: write max_length = 128 or less
    "#]],
    );
    // Why there is none differs: without a driver, or with one whose GPUs are hidden.
    let came = place.run("train recipe.toml --set train.device=cuda");
    assert_eq!(came.code, Some(1));
    assert!(came.stderr.starts_with("error: no GPU can be used: "), "{}", came.stderr);
    assert!(came.stderr.contains("or write device = \"cpu\""), "{}", came.stderr);
    check(
        &place,
        "--set train.memory_limit=64KiB",
        1,
        expect![[r#"
            error: this run needs 356.2 KiB at the least, 64.0 KiB is allowed
              hint: `prospect plan` with this recipe names the smallest changes that fit
        "#]],
    );
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let place = Place::new();
    place.write("file", "");
    check(
        &place,
        "--set output=file/run",
        1,
        expect![[r#"
        error: cannot create output 'file/run': Not a directory (os error 20)
          hint: choose a folder your user may write to, by --set output=...
    "#]],
    );
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/other.txt", "mine");
    check(
        &place,
        "--set output=full",
        2,
        expect![[r#"
        error: output 'full' is a folder with other files in it
          hint: choose an empty or new folder by --set output=...
    "#]],
    );
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_the_first_step() {
    let place = Place::new();
    fs::create_dir(place.path("small")).unwrap();
    let mount = |arguments: &[&str]| {
        let path = place.path("small");
        std::process::Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(path)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs"]) {
        eprintln!("skipped: mounting a small file system takes root");
        return;
    }
    let came = place.run("train recipe.toml --set output=small/run --set train.max_steps=200 --set train.save_every=20 --set train.keep_checkpoints=0");
    let left = fs::read_dir(place.path("small")).unwrap().count();
    let error = came.stderr.find("error: ").map_or("", |at| &came.stderr[at..]);
    let error = place.tidy(error);
    assert!(mount(&["umount"]), "umount");
    assert_eq!(came.code, Some(1), "{}", came.stderr);
    expect![[r#"
        error: the run writes up to 1.7 MiB into 'small/run' (checkpoints: 10 of 101.0 KiB, the result 53.0 KiB, logs 713.8 KiB), but 160.0 KiB is free there
          hint: free some space, lower train.keep_checkpoints, or choose another disk by --set output=...
    "#]]
    .assert_eq(&error);
    assert_eq!(left, 0, "not even the run's folder");
}
