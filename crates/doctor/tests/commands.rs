//! The commands as a person types them.

use clap::Parser;
use doctor::cli::{DoctorArgs, StackArgs, run_doctor, run_doctor_with, run_stack};
use doctor::prospect::{Engine, Opened, SelfTest, Size};
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Doctor {
    #[command(flatten)]
    args: DoctorArgs,
}

#[derive(Parser)]
struct Stack {
    #[command(flatten)]
    args: StackArgs,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/doctor").join(name).join("root")
}

fn run(arguments: &[&str]) -> (u8, String) {
    let mut out = Vec::new();
    let code = match arguments[0] {
        "doctor" => run_doctor(&Doctor::try_parse_from(arguments).expect("parses").args, &mut out),
        _ => run_stack(&Stack::try_parse_from(arguments).expect("parses").args, &mut out),
    };
    (code, String::from_utf8(out).expect("UTF-8"))
}

fn check(arguments: &[&str], code: u8, says: &[&str]) {
    let (got, text) = run(arguments);
    assert_eq!(got, code, "{arguments:?}\n{text}");
    for word in says {
        assert!(text.contains(word), "{arguments:?} does not say '{word}':\n{text}");
    }
}

#[test]
fn the_json_has_exactly_the_promised_shape() {
    let root = fixture("summary-production").display().to_string();
    let (code, text) = run(&[
        "doctor", "--root", &root, "--python", "/env", "--gpu", "RTX 3090", "--driver", "535.183",
        "--json",
    ]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let keys = |v: &serde_json::Value| {
        v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&json), ["machine", "prospect", "python", "findings"]);
    let finding = &json["findings"][0];
    assert_eq!(keys(finding), ["rule", "severity", "layer", "title", "evidence", "why", "mend"]);
    assert_eq!(keys(&finding["evidence"][0]), ["path", "value"]);
    assert_eq!(keys(&finding["mend"]), ["pip", "uv", "conda"]);
    assert_eq!(json["python"]["packages"]["trl"], "0.11.4");
    assert_eq!(json["machine"]["gpus"][0]["compute"], "8.6");
}

fn sizes() -> Engine {
    let size = |name: &str, billions: f64| Size {
        name: name.into(),
        billions,
        cpu_gib: billions * 1.1,
        gpu_gib: billions,
        flops_per_token: 9e9 * billions,
    };
    Engine {
        sizes: vec![
            size("Qwen2.5-0.5B", 0.5),
            size("Llama-3.1-8B", 8.0),
            size("Llama-3.1-70B", 70.0),
        ],
        assumption: "4-bit weights, one example of 1,024 tokens at a time".into(),
        cpu_flops: Some(90e9),
        ..Engine::default()
    }
}

#[test]
fn a_laptop_without_a_gpu_reads_one_calm_screen() {
    let root = fixture("machine-laptop-without-gpu").display().to_string();
    let args = Doctor::try_parse_from(["doctor", "--root", &root, "--color", "never"]);
    let mut out = Vec::new();
    let code = run_doctor_with(&args.expect("parses").args, sizes(), &mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(code, 0);
    for says in [
        "training works here, for models up to the size of Llama-3.1-8B: it takes 8.8 of 50 GiB",
        "rated tokens a second, about: Qwen2.5-0.5B 20, Llama-3.1-8B 1 (from 90 GFLOP/s, measured now)",
        "a GPU would need compute capability 8.0",
        "it would train up to: 8 GB Qwen2.5-0.5B, 12 GB Llama-3.1-8B",
        "4-bit weights",
    ] {
        assert!(text.contains(says), "no '{says}' in:\n{text}");
    }
    for frightening in ["✗", "!", "error", "fail"] {
        assert!(!text.contains(frightening), "'{frightening}' in:\n{text}");
    }
    assert!(text.lines().count() <= 24, "more than a screen:\n{text}");
}

#[test]
fn what_the_engine_says_of_a_gpu_is_told() {
    let args =
        Doctor::try_parse_from(["doctor", "--gpu", "RTX 3090", "--color", "never", "--verbose"])
            .expect("parses")
            .args;
    let opened = Opened {
        open_seconds: 0.21,
        modules: 1,
        kernels: 3,
        compiled: Ok(0.08),
        cublaslt: Ok(("13.4.1".into(), "/cache/prospect/lib/libcublasLt.so.13".into())),
        places: vec![("the loader path".into(), "asked of the system's loader".into())],
        nccl: None,
    };
    let run = |gpu| {
        let mut out = Vec::new();
        let code = run_doctor_with(&args, Engine { gpu: Some(gpu), ..sizes() }, &mut out);
        (code, String::from_utf8_lossy(&out).into_owned())
    };
    let (code, text) = run(Ok(opened.clone()));
    assert_eq!(code, 0, "{text}");
    for says in [
        "opened in 210 ms, the driver compiled 3 kernels in 80 ms",
        "13.4.1 from /cache/prospect/lib/libcublasLt.so.13",
        "the loader path: asked of the system's loader",
    ] {
        assert!(text.contains(says), "no '{says}' in:\n{text}");
    }
    let (_, text) = run(Ok(Opened { cublaslt: Err("not found".into()), ..opened.clone() }));
    assert!(text.contains("--fetch cublas") && text.contains("not found"), "{text}");
    for broken in [
        Err("cuCtxCreate: out of memory".to_string()),
        Ok(Opened { compiled: Err("cuModuleLoadData: invalid PTX".into()), ..opened }),
    ] {
        let (code, text) = run(broken);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("[machine: prospect-cuda-fails]"), "{text}");
        assert!(text.contains("training works here"), "the CPU is left: {text}");
    }
}

#[test]
fn the_page_names_rule_evidence_reason_and_mend() {
    let root = fixture("summary-production").display().to_string();
    check(
        &["doctor", "--root", &root, "--python", "/env", "--color", "never"],
        1,
        &[
            "[rules: datasets-pyarrow]",
            "METADATA: datasets 2.14.0",
            "PyExtensionType",
            "mend: pip install 'pyarrow<21'",
            "3 errors, 2 warnings",
        ],
    );
}

#[test]
fn wrong_arguments_name_the_thing_and_hint() {
    check(&["doctor", "--python", "/no/such/place"], 2, &["'/no/such/place'", "hint:"]);
    check(&["doctor", "--gpu", "RTX 9999"], 2, &["unknown GPU 'RTX 9999' in --gpu", "RTX 3090"]);
    check(&["doctor", "--gpu", "RTX 3090", "--driver", "new"], 2, &["'new' in --driver"]);
    check(&["doctor", "--explain", "trl-loss"], 2, &["unknown rule 'trl-loss'"]);
    check(&["stack", "show", "productoin"], 2, &["unknown profile 'productoin'", "production"]);
    check(&["stack", "check", "/no/such/file"], 2, &["neither a profile nor a readable file"]);
    check(
        &["stack", "show", "current-580", "--driver", "535.183"],
        2,
        &["needs driver 580", "current-525"],
    );
    check(&["stack", "matrix", "numpyy"], 2, &["no matrix of 'numpyy'"]);
}

#[test]
fn a_failed_self_test_is_an_error_and_a_passed_one_a_line() {
    let args = Doctor::try_parse_from(["doctor", "--gpu", "RTX 3090", "--color", "never"])
        .expect("parses")
        .args;
    let test = |passed| {
        let test = SelfTest {
            component: "gemm (GPU)".into(),
            passed,
            error: "off by 7e-4".into(),
            speed: Some("57 TFLOP/s".into()),
            share_of_peak: Some(0.8),
        };
        Engine { self_tests: vec![test], ..Engine::default() }
    };
    let mut out = Vec::new();
    assert_eq!(run_doctor_with(&args, test(false), &mut out), 1);
    assert!(String::from_utf8_lossy(&out).contains("gemm (GPU) differs from its reference"));
    let mut out = Vec::new();
    run_doctor_with(&args, test(true), &mut out);
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("off by 7e-4; 57 TFLOP/s, 80 % of the card's figure"), "{text}");
}

#[test]
fn every_rule_explains_itself() {
    for rule in doctor::rules::shipped() {
        check(&["doctor", "--explain", &rule.id], 0, &[&rule.id, &rule.when]);
    }
}

#[test]
fn every_profile_shows_in_every_format_and_in_order() {
    for profile in doctor::stack::profiles::all() {
        assert!(profile.packages().len() > 30, "{}", profile.name);
        for format in ["pip", "uv", "conda", "dockerfile", "lock"] {
            let (code, text) = run(&["stack", "show", &profile.name, "--format", format]);
            assert_eq!(code, 0);
            assert!(text.contains("torch=="), "{text}");
        }
        let (_, text) = run(&["stack", "show", &profile.name, "--format", "pip"]);
        let place = |what: &str| {
            text.find(what).unwrap_or_else(|| panic!("no '{what}' in {}", profile.name))
        };
        assert!(
            place("nvidia-smi") < place("-m venv") && place("-m venv") < place("prospect-lock.txt")
        );
        assert!(
            place("prospect-lock.txt") < place("prospect doctor")
                && place("prospect doctor") < place("torch.ones")
        );
    }
}

#[test]
fn every_profile_resolves_and_holds_under_all_three_layers() {
    for profile in doctor::stack::profiles::all() {
        // The lowest set that satisfies the extra is shipped as the resolver gave it, numpy 2 included.
        let code = u8::from(
            profile.name == "production-extra"
                && profile.version("numpy").is_some_and(|v| v.release()[0] >= 2),
        );
        check(&["stack", "check", &profile.name], code, &["a resolver chooses"]);
    }
}

#[test]
fn the_tables_state_their_assumptions() {
    check(
        &["stack", "table", "speed"],
        0,
        &[
            "71 TFLOP/s",
            "Llama-2-7B",
            "1687",
            "9,995",
            "one H200 (not an RTX 3090)",
            "Nothing here was measured on your card",
        ],
    );
    check(&["stack", "table", "vram"], 0, &["NF4 at 0.516", "14-16", "the arena of KTO"]);
}

#[test]
fn the_imports_between_wheels_are_a_table_that_says_what_it_means() {
    check(
        &["stack", "matrix", "imports"],
        0,
        &[
            "trl 0.11.4",
            "peft 0.16.0 .. 0.17.1",
            "under 5.23.0 lacks",
            "AutoModelForVision2Seq",
            "HybridCache",
            "computed from the wheels on",
        ],
    );
    let (_, csv) = run(&["stack", "matrix", "imports", "--format", "csv"]);
    let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(cells.len() > 15 && cells.iter().all(|n| *n == 19), "{csv}");
}

#[test]
fn flash_attn_is_a_table_of_wheels_and_every_profile_names_the_computed_one() {
    check(&["stack", "matrix", "flash-attn"], 0, &["2.7.4.post1", "cu123", "MAX_JOBS", "SDPA"]);
    for profile in doctor::stack::profiles::all() {
        let (_, text) = run(&["stack", "show", &profile.name]);
        let torch = profile.version("torch").expect("it has torch");
        let torch: pep440_rs::Version = torch.to_string().parse().expect("a version");
        let cuda = doctor::stack::builds::torch_cuda(&torch).expect("known");
        let python = profile.python.parse().expect("a version");
        let cxx11 = doctor::stack::builds::torch_is_cxx11(&torch);
        let computed = doctor::stack::builds::flash_attn_wheel(&torch, cuda, cxx11, &python, None);
        assert_eq!(computed.as_ref().ok(), profile.flash_attn.as_ref(), "{}", profile.name);
        match computed {
            Ok(wheel) => assert!(text.contains(&wheel), "{text}"),
            Err(why) => assert!(text.contains(&why), "no '{why}' in {text}"),
        }
    }
}

#[test]
fn an_environment_without_flash_attn_is_told_the_wheel_or_what_a_build_needs() {
    let page = |name: &str| {
        let root = fixture(name).display().to_string();
        run(&["doctor", "--root", &root, "--python", "/env", "--color", "never"]).1
    };
    let text = page("stack-p1");
    assert!(text.contains("flash_attn-2.6.3+cu123torch2.4cxx11abiFALSE-cp310"), "{text}");
    let text = page("stack-current-580-plain");
    for says in
        ["no prebuilt wheel fits: those known are for CUDA 12", "nvcc (not found)", "MAX_JOBS=4"]
    {
        assert!(text.contains(says), "no '{says}' in {text}");
    }
}

/// The matrix of trl computed from the index agrees with the one computed from the wheels by other means.
#[test]
fn the_matrix_of_trl_is_the_one_computed_from_the_wheels() {
    let known = include_str!("../../../fixtures/doctor-trl-matrix.csv");
    let (_, text) = run(&["stack", "matrix", "trl", "--format", "csv"]);
    let index = doctor::stack::index::Index::shipped();
    let mut compared = 0;
    for line in known.lines().skip(1) {
        let mut cells = line.split(',');
        let (version, _python, transformers) =
            (cells.next().unwrap_or(""), cells.next(), cells.next().unwrap_or(""));
        let Ok(version) = version.parse() else { continue };
        let Some(release) = index.release("trl", &version) else { continue };
        let ours = release
            .needs()
            .into_iter()
            .find(|n| n.name.as_ref() == "transformers")
            .expect("trl requires transformers");
        let ours = doctor::python::requirements::plain(&ours).replace("transformers", "");
        if transformers.starts_with(['>', '<']) && !transformers.contains(" AND ") {
            assert!(
                ours == transformers || ours.contains(transformers),
                "trl {version}: {ours}, not {transformers}"
            );
            compared += 1;
        }
    }
    assert!(compared > 60, "only {compared} compared");
    assert!(text.lines().next().is_some_and(|head| head.starts_with("trl,python,")), "{text}");
}

/// `--gpu` and `--driver` without `--root` ask about this machine's Python with another card: its own kernel module,
/// whatever it is, must not be held against the supposed driver.
#[test]
fn a_supposed_driver_is_not_compared_with_the_real_one() {
    let (_, text) = run(&["doctor", "--gpu", "RTX 3090", "--driver", "535.183", "--json"]);
    assert!(!text.contains("driver-library-mismatch") && !text.contains("driver.kernel"), "{text}");
}
