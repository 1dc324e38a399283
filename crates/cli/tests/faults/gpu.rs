//! A GPU is too old, held by others, or lost in the middle: what the program says, and that it goes on.
//!
//! The driver is `gpu.c`, found in NVIDIA's place: the program does all it does on a GPU, and the kernels compute
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::place::Place;
use crate::{all, compiled, ended_with_words, leftovers, share};

/// Heads of 8 elements have no flash kernel.
pub(crate) const ON_GPU: &str = " --set train.device=cuda --set train.attention=standard";

/// What of a GPU's memory is left for its kernels.
const MARGIN: u64 = 192 << 20;

/// CUDA's numbers of the ways a GPU is lost: its memory is damaged (ECC), a launch fails, an illegal address, the device
/// is unavailable, the driver does not know.
const LOST: [&str; 5] = ["214", "719", "700", "46", "999"];

/// What must be the same whatever happened on the way. The metrics are not: where no kernel writes, they are what
/// memory held before.
const RESULT: [&str; 2] =
    ["run/adapter/adapter_model.safetensors", "run/adapter/adapter_config.json"];

/// The folder with the driver, compiled once; none where there is no C compiler.
pub(crate) fn driver() -> Option<&'static Path> {
    static DRIVER: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let built = DRIVER.get_or_init(|| compiled("gpu.c", "libcuda.so.1"));
    built.as_ref().and_then(|(_, library)| library.parent())
}

/// Runs the program on the GPU as the variables say it is; none where there is no driver.
pub(crate) fn run(place: &Place, arguments: &str, gpu: &[(&str, &str)]) -> Option<Output> {
    run_in(&place.path("."), arguments, gpu)
}

/// The same in another folder.
fn run_in(folder: &Path, arguments: &str, gpu: &[(&str, &str)]) -> Option<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prospect"));
    command.args(arguments.split_whitespace()).current_dir(folder);
    command.env("NO_COLOR", "1").env("LD_LIBRARY_PATH", driver()?).stdin(Stdio::null());
    // Products as a machine with the driver alone computes them.
    command.env("PROSPECT_GEMM", "own");
    command.envs(gpu.iter().copied());
    Some(command.output().unwrap())
}

fn train() -> String {
    format!("{}{ON_GPU}", crate::TRAIN)
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Calls that an undisturbed run makes of the GPU, and its result; none where there is no driver.
fn undisturbed() -> Option<&'static (usize, Vec<String>)> {
    static RESULTS: OnceLock<Option<(usize, Vec<String>)>> = OnceLock::new();
    let results = RESULTS.get_or_init(|| {
        let place = Place::new();
        let counting = place.path("count").display().to_string();
        let output = run(&place, &train(), &[("GPU_COUNT", &counting)])?;
        assert!(output.status.success(), "{}", said(&output));
        let count = place.read("count");
        let (calls, most) = count.split_once(' ').unwrap();
        // What was planned is what was reserved, and all that was.
        let summary = place.json("run/summary.json");
        assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"]);
        assert_eq!(summary["planned_peak_bytes"].as_u64().unwrap(), most.parse::<u64>().unwrap());
        Some((calls.parse().unwrap(), results(&place)))
    });
    results.as_ref()
}

fn results(place: &Place) -> Vec<String> {
    RESULT.iter().map(|name| place.tidy(&crate::result(place, name))).collect()
}

#[test]
fn a_gpu_that_is_lost_costs_no_more_than_the_work_since_the_last_checkpoint() {
    let Some((calls, whole)) = undisturbed() else { return };
    let some = share(10, 200);
    // The last calls give the GPU back: losing it then costs nothing.
    let end = calls - 20;
    let jobs: Vec<(usize, &str)> =
        (0..some).map(|i| (1 + i * (end - 1) / (some - 1), LOST[i % LOST.len()])).collect();
    all("lost GPU", &jobs, |(at, with)| {
        let what = format!("lost with {with} at call {at} of {calls}");
        let place = Place::new();
        let Some(output) =
            run(&place, &train(), &[("GPU_LOST_AT", &at.to_string()), ("GPU_LOST_WITH", with)])
        else {
            return Ok(());
        };
        ended_with_words(&what, &output)?;
        if output.status.code() != Some(1) {
            return Err(format!("{what}: ended with {:?}\n{}", output.status, said(&output)));
        }
        if let Some(left) = leftovers(&place.path("run")).first() {
            return Err(format!("{what}: {left} is left"));
        }
        // The machine works again.
        let resume = if place.path("run/recipe.toml").exists() { " --resume" } else { "" };
        let Some(output) = run(&place, &format!("{}{resume}", train()), &[]) else {
            return Ok(());
        };
        if !output.status.success() {
            return Err(format!("{what}: going on failed\n{}", said(&output)));
        }
        if &results(&place) != whole {
            return Err(format!("{what}: the result differs"));
        }
        Ok(())
    });
}

/// What is wrong with the GPU, what the program says where it is asked for, and whether `device = "auto"` takes the
/// CPU.
struct Unfit {
    gpu: &'static [(&'static str, &'static str)],
    says: &'static str,
    auto_takes_cpu: bool,
}

const UNFIT: [Unfit; 8] = [
    Unfit {
        gpu: &[("GPU_DRIVER", "11080")],
        says: "error: no GPU can be used: the NVIDIA driver is too old: it knows CUDA 11.8, 12.2 is needed\n  hint: install driver 535 or newer",
        auto_takes_cpu: true,
    },
    Unfit {
        gpu: &[("GPU_CAPABILITY", "75")],
        says: "error: no GPU can be used: a GPU that computes nothing has compute capability 7.5, 8.0 is needed\n  hint: Prospect's kernels need an Ampere GPU",
        auto_takes_cpu: true,
    },
    Unfit {
        gpu: &[("GPU_INIT", "100")],
        says: "error: no GPU can be used: the NVIDIA driver shows no GPU\n  hint: look at CUDA_VISIBLE_DEVICES",
        auto_takes_cpu: true,
    },
    Unfit {
        gpu: &[("GPU_INIT", "803")],
        says: "error: cuInit failed on the GPU: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)\n  hint: the driver's kernel module and library may differ after an update: restart the machine",
        auto_takes_cpu: false,
    },
    Unfit {
        gpu: &[("GPU_INIT", "999")],
        says: "error: cuInit failed on the GPU: CUDA_ERROR_UNKNOWN (999)\n  hint: the driver's kernel module and library may differ after an update: restart the machine",
        auto_takes_cpu: false,
    },
    // Others hold all but 200 MiB, of which the context and the kernels take most.
    Unfit {
        gpu: &[("GPU_FREE", "209715200")],
        says: "error: this run needs 32.3 MiB at the least, 8.0 MiB is allowed: 23.8 GiB of the GPU's 24.0 GiB are taken\n  hint: close the other programs on the GPU (see `nvidia-smi`)",
        auto_takes_cpu: false,
    },
    // Others take it all between the look and the reservation.
    Unfit {
        gpu: &[("GPU_TAKEN", "25769803776")],
        says: "error: cuMemAlloc failed on the GPU: CUDA_ERROR_OUT_OF_MEMORY (2)\n  hint: other programs hold the GPU's memory (see `nvidia-smi`)",
        auto_takes_cpu: false,
    },
    Unfit {
        gpu: &[("GPU_LOST_AT", "1"), ("GPU_LOST_WITH", "46")],
        says: "(46)\n  hint: the GPU stopped working; the last checkpoint is whole",
        auto_takes_cpu: false,
    },
];

#[test]
fn a_gpu_that_does_not_fit_is_refused_with_words_or_left_alone_and_nothing_is_left_behind() {
    all("unfit GPU", &UNFIT, |unfit| {
        let what = format!("{:?}", unfit.gpu);
        let place = Place::new();
        let Some(output) = run(&place, &train(), unfit.gpu) else { return Ok(()) };
        ended_with_words(&what, &output)?;
        if output.status.code() != Some(1) || !said(&output).contains(unfit.says) {
            return Err(format!("{what}: {:?}\n{}", output.status, said(&output)));
        }
        if place.path("run").exists() {
            return Err(format!("{what}: the folder is left"));
        }
        if unfit.auto_takes_cpu {
            let auto = format!("{} --set train.device=auto", crate::TRAIN);
            let Some(output) = run(&place, &auto, unfit.gpu) else { return Ok(()) };
            if !output.status.success() || !said(&output).contains("device: CPU, because ") {
                return Err(format!("{what}: auto: {:?}\n{}", output.status, said(&output)));
            }
        }
        Ok(())
    });
}

#[test]
fn a_run_that_just_fits_has_inputs_and_the_table_wait_in_the_hosts_memory() {
    let place = Place::new();
    // The recipe's paths are relative to the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let run = |what: &str, bytes: u64, gpu: &[(&str, &str)]| {
        let arguments = format!(
            "{what} recipes/quickstart.toml --set output={} --set train.memory_limit={bytes} --set train.device=cuda --set train.max_steps=2 --set generate.max_new_tokens=2 --set train.token_budget=4000",
            place.path("run").display()
        );
        run_in(&root, &arguments, gpu)
    };
    // So little that nothing fits: the plan says what the run takes at the least.
    let Some(output) = run("plan --json", MARGIN + 1, &[]) else { return };
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["fits"], false, "{plan}");
    let least = plan["peak_bytes"].as_u64().unwrap();

    let Some(output) = run("train", MARGIN + least, &[]) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let policy = place.json("run/run.json")["policy"].clone();
    assert!(policy["host_layers"].as_u64().unwrap() > 0, "{policy}");
    let summary = place.json("run/summary.json");
    assert_eq!(summary["peak_bytes"], least);
    assert_eq!(summary["planned_peak_bytes"], least);

    // The host cannot pin its pages.
    fs::remove_dir_all(place.path("run")).unwrap();
    let Some(output) = run("train", MARGIN + least, &[("GPU_NO_PINS", "1")]) else { return };
    let words = "error: cuMemHostRegister failed on the GPU: CUDA_ERROR_OUT_OF_MEMORY (2)\n  hint: the host has too little memory";
    assert!(said(&output).contains(words), "{}", said(&output));
    assert_eq!((output.status.code(), place.path("run").exists()), (Some(1), false));
}

#[test]
fn adapters_of_every_kind_take_what_is_planned_on_a_gpu() {
    let place = Place::new();
    // Where no kernel writes, rows have no length: DoRA's magnitudes are those of an adapter that is there already.
    let came = place.run("train recipe.toml --set output=dora --set train.device=cpu --set train.max_steps=1 --set adapter.use_dora=true");
    assert_eq!(came.code, Some(0), "{}", came.stderr);
    let saved = "--set adapter.modules_to_save=lm_head";
    for (output, sets) in [
        ("on-dora", "--set adapter.init_from=dora/adapter".to_owned()),
        (
            "on-dora-nf4",
            "--set adapter.init_from=dora/adapter --set model.quantization=nf4 --set objective.reference=start --set train.token_budget=40"
                .to_owned(),
        ),
        ("saved", format!("{saved} --set adapter.rank_pattern={{down_proj=2}}")),
        ("pissa", "--set model.quantization=nf4 --set adapter.init=pissa_niter_2".to_owned()),
        ("olora", "--set model.quantization=int8 --set adapter.init=olora".to_owned()),
        ("dense", "--set adapter.init=pissa".to_owned()),
        ("loftq", format!("--set model.quantization=nf4 --set adapter.init=loftq {saved}")),
    ] {
        let train = format!("train recipe.toml --set output={output} --set train.max_steps=2 {sets}{ON_GPU}");
        let Some(came) = run(&place, &train, &[]) else { return };
        assert!(came.status.success(), "{output}: {}", said(&came));
        let summary = place.json(&format!("{output}/summary.json"));
        assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"], "{output}");
    }
}
