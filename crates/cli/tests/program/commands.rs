//! plan, data, eval, generate, merge.

use crate::place::Place;
use expect_test::expect;

#[test]
fn a_plan_that_does_not_fit_names_changes_that_do() {
    let place = Place::new();
    let came = place.well("plan recipe.toml --json --set train.memory_limit=300KiB");
    let plan: serde_json::Value = serde_json::from_str(&came.stdout).unwrap();
    assert_eq!(plan["fits"], false);
    let changes = plan["changes"].as_array().unwrap();
    assert!(!changes.is_empty());
    for change in changes {
        assert_eq!(change["fits"], true, "{change}");
        // What it says comes true.
        let sets: Vec<String> = change["set"]
            .as_array()
            .unwrap()
            .iter()
            .map(|set| format!("--set {}", set.as_str().unwrap()))
            .collect();
        let plan = place.well(&format!(
            "plan recipe.toml --json --set train.memory_limit=300KiB {}",
            sets.join(" ")
        ));
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_eq!(
            (&plan["fits"], &plan["peak_bytes"]),
            (&true.into(), &change["peak_bytes"]),
            "{change}"
        );
    }
    let came = place.run("train recipe.toml --set train.memory_limit=200KiB");
    assert_eq!(came.code, Some(1), "memory is the machine's");
    assert!(
        came.stderr.contains("200.0 KiB is allowed\n  hint: `prospect plan`"),
        "{}",
        came.stderr
    );
    assert!(place.well("plan recipe.toml").stdout.starts_with("memory  "));
}

#[test]
fn the_data_is_shown_as_training_sees_it() {
    let place = Place::new();
    place.write(
        "feedback.jsonl",
        &format!(
            "{}{}\n{}\n",
            place.read("feedback.jsonl"),
            r#"{"prompt": "w1 w2", "completion": "", "label": true}"#,
            format_args!(
                "{{\"prompt\": \"{}\", \"completion\": \" w1\", \"label\": true}}",
                vec!["w3"; 40].join(" ")
            ),
        ),
    );
    let came = place.well("data recipe.toml --set data.max_length=18");
    expect![[r#"
        training data feedback.jsonl
          JSON lines, 16 rows, read as "unpaired" of plain text: the first row has prompt, completion, label
          14 examples of 16 kept: 7 thumbs up, 7 thumbs down, 14 distinct prompts
          1 dropped, the completion is empty: first feedback.jsonl:15
          1 dropped, the prompt alone fills max_length: first feedback.jsonl:16
          1 cut at max_length: first feedback.jsonl:14
          tokens           shortest    half    90 %    99 %  longest       all
          prompt                  3       6       8       8        8        86
          completion              3       7      11      11       11        99
          both, as cut            9      13      17      18       18       184

        held-out data held-out.jsonl
          JSON lines, 6 rows, read as "unpaired" of plain text: the first row has prompt, completion, label
          6 examples of 6 kept: 3 thumbs up, 3 thumbs down, 6 distinct prompts
          tokens           shortest    half    90 %    99 %  longest       all
          prompt                  3       6       8       8        8        38
          completion              4       6       9       9        9        41
          both, as cut           10      12      17      17       17        79

        packing the first 4 steps of an epoch
                 282 rows as packed
                 368 rows if each completion brought its own prompt: 23 % saved
                 424 rows if they were padded as well: 33 % saved
                  14 prompts are shared, by 28 completions (those of the KL estimate included)

        example feedback.jsonl:1 (thumbs down), as the model sees it; what is learnt from stands between ⟦ and ⟧
        w19 w32 w57 w24 w36 w16 w16 w46⟦w52 w54 w55 w29 w24 w4 w39 w9 </s>⟧
          8 prompt tokens, 9 completion tokens

        warning: 3 of 16 records are dropped or cut, 18.8 %
          hint: more than 5 % is rarely meant: the next lines say why

        warning: 1 record dropped: the completion is empty (feedback.jsonl:15)
          hint: an answer without text teaches nothing: mend or remove it

        warning: 1 record dropped: the prompt alone fills max_length (feedback.jsonl:16)
          hint: raise data.max_length, or shorten them; `prospect data` shows all lengths

        warning: 1 record cut at max_length; their ends, eos included, are not trained (feedback.jsonl:14)
          hint: raise data.max_length, or shorten them; `prospect data` shows all lengths
    "#]].assert_eq(&place.tidy(&came.stdout));
}

#[test]
fn an_adapter_is_measured_asked_and_merged() {
    let place = Place::new();
    place.well("train recipe.toml --set train.max_steps=40");
    let summary = place.json("run/summary.json");
    let came = place.well("eval recipe.toml --adapter run/adapter --json");
    let measured: serde_json::Value = serde_json::from_str(&came.stdout).unwrap();
    for name in ["eval_loss", "eval_rewards/margins", "eval_auc"] {
        let (one, other) =
            (measured[name].as_f64().unwrap(), summary["metrics"][name].as_f64().unwrap());
        assert!((one - other).abs() < 1e-5, "{name}: {one} and {other}");
    }
    let before = place.well("eval recipe.toml --json");
    let before: serde_json::Value = serde_json::from_str(&before.stdout).unwrap();
    assert_eq!(before["eval_loss"], 0.5, "without an adapter nothing has moved");

    let question = ["generate", "--prompt", "w1", "--max-new-tokens", "8"].join(" ");
    let ask = |model: &str| {
        place.well(&question.replacen("generate", &format!("generate {model}"), 1)).stdout
    };
    let answer = ask("run");
    assert_eq!(answer, ask("model --adapter run/adapter"));
    assert_ne!(answer, ask("model"));
    place.well("merge model --adapter run/adapter --out merged");
    assert_eq!(answer, ask("merged"));
    let came = place.run("merge model --adapter run/adapter --out merged");
    assert_eq!(came.code, Some(2), "{}", came.stderr);
    // A run that has only a checkpoint answers from it.
    std::fs::remove_dir_all(place.path("run/adapter")).unwrap();
    assert_eq!(answer, ask("run"));
}

#[test]
fn a_conversation_goes_through_the_template_and_keeps_its_history() {
    let place = Place::new();
    place.write(
        "model/chat_template.jinja",
        "{% for message in messages %}{{ message.content }} {% endfor %}",
    );
    let options = "--max-new-tokens 6";
    let came = place
        .typing(&format!("generate model {options}"), "w1 w2\nw3\n/reset\nw1 w2\n\n/quit\nw9\n");
    assert_eq!(came.code, Some(0), "{}", came.stderr);
    let answers: Vec<&str> = came.stdout.lines().collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(answers[0], answers[2], "/reset forgets");
    let alone = place.typing(&format!("generate model {options}"), "w3\n").stdout;
    assert_ne!(answers[1], alone.trim_end(), "the second question was read after the first");
    let sampled = |seed: u64| {
        place
            .typing(&format!("generate model {options} --temperature 1.5 --seed {seed}"), "w1\n")
            .stdout
    };
    assert_eq!(sampled(1), sampled(1));
    assert!((2..9).any(|seed| sampled(seed) != sampled(1)));
    // The conversation outgrows the model's 128 positions and goes on.
    let long = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20\n".repeat(8);
    let came = place.typing(&format!("generate model {options}"), &long);
    assert_eq!((came.code, came.stdout.lines().count()), (Some(0), 8), "{}", came.stderr);
    assert!(came.stderr.contains("oldest question and answer are forgotten"), "{}", came.stderr);
}

#[test]
fn without_a_gpu_there_is_nothing_to_tune() {
    let place = Place::new();
    let came = place.run("tune recipe.toml --set train.device=cpu");
    expect![[r#"
        error: there is nothing to tune: device: CPU, because device = "cpu"
          hint: tune where the run will be: on a machine with an NVIDIA GPU, without train.device = "cpu"
    "#]].assert_eq(&came.stderr);
    assert_eq!((came.code, came.stdout.as_str()), (Some(2), ""));
    assert!(!place.path("run").exists());
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    for command in
        ["", "train", "plan", "data", "eval", "tune", "generate", "merge", "export", "inspect"]
    {
        let came = place.well(&format!("{command} --help"));
        assert!(came.stdout.contains("Usage: prospect"), "{}", came.stdout);
    }
    for mistake in [
        "",
        "trian recipe.toml",
        "train",
        "train recipe.toml --sett x=1",
        "generate model --top-p 0",
        "tune recipe.toml --steps 0",
    ] {
        assert_eq!(place.run(mistake).code, Some(2), "{mistake}");
    }
}
