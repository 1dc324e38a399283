//! `cargo xtask exports`: how fast an adapter is merged and a model written as GGUF, and how much of the host's memory that
//! takes, on a model of random weights.
//!
//! Memory is `RssAnon`, looked at often: what the program holds itself. Pages of the mapped checkpoint come on top as far
//! as the machine has room, and go where it has none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use engine::device::{Device, Kind};
use engine::random::Stream;
use models::adapter;
use models::config::ModelConfig;
use models::lora::{Adapter, LoraConfig};

const USAGE: &str = "usage: cargo xtask exports [--shape SHAPE] [--layers N] [--program FILE]";

/// Between two looks at a program's memory.
const LOOK: Duration = Duration::from_millis(20);

/// Makes the model and the adapter, and measures.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (mut shape, mut layers, mut program) = ("7b", None, None);
    for pair in arguments.chunks(2) {
        match pair {
            ["--shape", name] => shape = name,
            ["--layers", count] => layers = Some(*count),
            ["--program", file] => program = Some(Path::new(file).to_path_buf()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let program = match program {
        Some(program) => program,
        None => {
            let built = Command::new(crate::cargo())
                .current_dir(root)
                .args(["build", "--release", "--package", "prospect"])
                .status();
            if !built.is_ok_and(|status| status.success()) {
                return Err("the program does not build".to_owned());
            }
            root.join("target/release/prospect")
        }
    };
    let work = root.join("target/exports");
    let _ = std::fs::remove_dir_all(&work); // of the measurement before
    let (model, adapter) = (work.join("model"), work.join("adapter"));
    let tokenizer = work.join("tokenizer");
    let failed = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&tokenizer).map_err(failed)?;
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = root.join("assets/quickstart/model").join(name);
        std::fs::copy(from, tokenizer.join(name)).map_err(failed)?;
    }
    let words = |path: &Path| path.display().to_string();
    let (model_word, tokenizer) = (words(&model), words(&tokenizer));
    let mut wanted = vec!["--shape", shape, "--format", "bf16", "--tokenizer", &tokenizer];
    if let Some(count) = layers {
        wanted.extend(["--layers", count]);
    }
    wanted.push(&model_word);
    crate::random_model::run(&wanted)?;
    write_adapter(&model, &adapter)?;
    let bytes = size(&model);
    println!("{shape}, bf16: {:.2} GB; an adapter of rank 16 on every linear layer", bytes / 1e9);
    let adapter = words(&adapter);
    let out = words(&work.join("out"));
    let merge = ["merge", &model_word, "--adapter", &adapter, "--out", &out];
    measure(&program, "merge", bytes, &merge, &work)?;
    for kind in ["f16", "bf16", "q8_0", "q4_0"] {
        let export = ["export", "--model", &model_word, "--to", "gguf", "--type", kind, &out];
        measure(&program, &format!("gguf {kind}"), bytes, &export, &work)?;
    }
    let export = [
        "export",
        "--model",
        &model_word,
        "--adapter",
        &adapter,
        "--to",
        "gguf",
        "--type",
        "q8_0",
        &out,
    ];
    measure(&program, "gguf q8_0, merged", bytes, &export, &work)?;
    std::fs::remove_dir_all(&work).map_err(failed)
}

/// An adapter of noise, so that nothing is left out as zero.
fn write_adapter(model: &Path, out: &Path) -> Result<(), String> {
    let lora = LoraConfig { r: 16, lora_alpha: 32.0, ..LoraConfig::default() };
    let wrong = |error: models::error::Error| error.to_string();
    let config = ModelConfig::load(model).map_err(wrong)?;
    let plan = Device::plan_for(Kind::Cpu);
    Adapter::zeros(&plan, &config, &lora).map_err(wrong)?;
    let device = Device::cpu(plan.peak_bytes()).map_err(|error| error.to_string())?;
    let mut adapter = Adapter::zeros(&device, &config, &lora).map_err(wrong)?;
    for (i, (_, tensor)) in adapter.tensors_mut().into_iter().enumerate() {
        let values = Stream::new(1, i as u64).uniforms(tensor.shape().len(), 0.01);
        tensor.write(&values).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(out).map_err(|error| error.to_string())?;
    adapter::write(&mut adapter, "model", out).map_err(wrong)
}

/// Bytes of the files of a folder, or of a file.
fn size(path: &Path) -> f64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0.0, |it| it.len() as f64);
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| of(&entry.path())).sum(),
        Err(_) => of(path),
    }
}

/// Runs the program, and removes what it wrote.
fn measure(
    program: &Path,
    what: &str,
    bytes: f64,
    arguments: &[&str],
    work: &Path,
) -> Result<(), String> {
    let out = work.join("out");
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut held = 0.0f64;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        held = held.max(anonymous(child.id()));
        std::thread::sleep(LOOK);
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{what} failed"));
    }
    println!(
        "{what:<18} {seconds:7.1} s, {:5.0} MB/s read, {:6.2} GB written, {:5.0} MB held at most",
        bytes / 1e6 / seconds,
        size(&out) / 1e9,
        held / 1e6
    );
    let _ = std::fs::remove_dir_all(&out); // a folder or a file
    let _ = std::fs::remove_file(&out);
    Ok(())
}

/// Bytes that a process holds beside the files it maps.
fn anonymous(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    1024.0 * kilobytes.unwrap_or(0.0)
}
