//! The commands as a person types them.

use clap::Parser;
use doctor::SelfTest;
use doctor::cli::{DoctorArgs, StackArgs, run_doctor, run_doctor_with, run_stack};
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

#[test]
fn a_laptop_without_a_gpu_reads_one_calm_screen() {
    let root = fixture("machine-laptop-without-gpu").display().to_string();
    let (code, text) = run(&["doctor", "--root", &root, "--color", "never"]);
    assert_eq!(code, 0);
    assert!(text.contains("training works here, for models up to about"), "{text}");
    assert!(text.contains("a GPU would need compute capability 8.0"), "{text}");
    for frightening in ["✗", "!", "error", "fail"] {
        assert!(!text.contains(frightening), "'{frightening}' in:\n{text}");
    }
    assert!(text.lines().count() <= 24, "more than a screen:\n{text}");
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
    let test = |passed| SelfTest {
        component: "gemm".into(),
        passed,
        error: "7e-4".into(),
        share_of_peak: Some(0.8),
    };
    let mut out = Vec::new();
    assert_eq!(run_doctor_with(&args, vec![test(false)], &mut out), 1);
    assert!(String::from_utf8_lossy(&out).contains("gemm differs from its reference"));
    let mut out = Vec::new();
    run_doctor_with(&args, vec![test(true)], &mut out);
    assert!(String::from_utf8_lossy(&out).contains("80 % of the card's peak"));
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
        &["71 TFLOP/s", "Llama-2-7B", "1687", "Nothing here was measured"],
    );
    check(&["stack", "table", "vram"], 0, &["NF4 at 0.516", "14-16"]);
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
