//! A folder with a model, feedback and a recipe, in which the program is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a command came to.
pub(crate) struct Came {
    /// The exit code; none after a signal that was not caught.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// See the module.
pub(crate) struct Place {
    folder: TempDir,
}

/// The recipe that tests change by `--set`.
pub(crate) const RECIPE: &str = r#"
output = "run"
[model]
path = "model"
[adapter]
r = 4
[data]
train = "feedback.jsonl"
eval = "held-out.jsonl"
max_length = 32
[objective]
name = "kto"
[optimizer]
learning_rate = 5e-3
[train]
max_steps = 12
batch_size = 4
log_every = 4
eval_every = 6
save_every = 5
[generate]
prompts = "prompts.jsonl"
max_new_tokens = 6
show = 1
desirable = { contains = "w5" }
"#;

/// Settings that make it supervised fine-tuning.
pub(crate) const SFT: &str = "--set objective.name=sft --set data.train=demonstrations.jsonl --set data.eval=demonstrations.jsonl";

/// Settings that make it learn from pairs.
pub(crate) const DPO: &str =
    "--set objective.name=dpo --set data.train=pairs.jsonl --set data.eval=pairs.jsonl";

/// Settings that make it learn from pairs without a reference.
pub(crate) fn without_reference(objective: &str) -> String {
    DPO.replace("=dpo", &format!("={objective}"))
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place { folder: TempDir::new().unwrap() };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto");
        place.copy(&fixtures.join("model"), "model");
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(&fs::read_to_string(fixtures.join("dataset.json")).unwrap())
                .unwrap();
        let lines = |rows: &[serde_json::Value]| {
            rows.iter().map(|row| format!("{row}\n")).collect::<String>()
        };
        place.write("feedback.jsonl", &lines(&rows));
        place.write("held-out.jsonl", &lines(&rows[..6]));
        let prompts: Vec<serde_json::Value> =
            rows[..4].iter().map(|row| serde_json::json!({"prompt": row["prompt"]})).collect();
        place.write("prompts.jsonl", &lines(&prompts));
        // Pairs: each thumbs-up completion beside a thumbs-down one after the same prompt.
        let of = |label: bool| rows.iter().filter(move |row| row["label"] == label);
        let pairs: Vec<serde_json::Value> = of(true)
            .zip(of(false))
            .map(|(up, down)| {
                serde_json::json!({"prompt": up["prompt"], "chosen": up["completion"], "rejected": down["completion"]})
            })
            .collect();
        place.write("pairs.jsonl", &lines(&pairs));
        let demonstrations: Vec<serde_json::Value> = of(true)
            .map(
                |row| serde_json::json!({"prompt": row["prompt"], "completion": row["completion"]}),
            )
            .collect();
        place.write("demonstrations.jsonl", &lines(&demonstrations));
        place.write("recipe.toml", RECIPE);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Copies a folder of files.
    pub(crate) fn copy(&self, from: &Path, to: &str) {
        fs::create_dir_all(self.path(to)).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, self.path(to).join(from.file_name().unwrap())).unwrap();
        }
    }

    /// The program with arguments, split at spaces.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prospect"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("NO_COLOR", "1").env("COLUMNS", "80").stdin(Stdio::null());
        // No test asks a server, and none finds what a user has of the hub.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "hub").env_remove("HF_HUB_CACHE");
        // What is tested here is the CPU's, also where there is a GPU.
        command.env("CUDA_VISIBLE_DEVICES", "");
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Came {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Came {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs the program to its end with variables set, in so much address space and time; an error where it takes
    /// more.
    pub(crate) fn confined(
        &self,
        arguments: &str,
        environment: &[(String, String)],
        memory_kib: usize,
        time: Duration,
    ) -> Result<Came, String> {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -v {memory_kib}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_prospect")]);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("NO_COLOR", "1").env("COLUMNS", "80").stdin(Stdio::null());
        // No test asks a server, and none finds what a user has of the hub.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "hub").env_remove("HF_HUB_CACHE");
        command.env("CUDA_VISIBLE_DEVICES", ""); // its address space would be more than all of the limit
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // Into files, so that a program that says much does not wait for its reader.
        let outside = TempDir::new().unwrap();
        let file = |name: &str| fs::File::create(outside.path().join(name)).unwrap();
        let mut child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > time => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return Err(format!("it still runs after {} s", time.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let text = |name: &str| {
            String::from_utf8_lossy(&fs::read(outside.path().join(name)).unwrap()).into_owned()
        };
        Ok(Came { code: status.code(), stdout: text("stdout"), stderr: text("stderr") })
    }

    /// Runs the program, which must end well.
    pub(crate) fn well(&self, arguments: &str) -> Came {
        let came = self.run(arguments);
        assert_eq!(came.code, Some(0), "{arguments}\n{}", came.stderr);
        came
    }

    /// The program in the background.
    pub(crate) fn start(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs the program with lines to read.
    pub(crate) fn typing(&self, arguments: &str, lines: &str) -> Came {
        self.write(".typed", lines);
        let typed = fs::File::open(self.path(".typed")).unwrap();
        let output = self.command(arguments).stdin(typed).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Came {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Waits until a file has so many lines.
    pub(crate) fn wait_for_lines(&self, name: &str, lines: usize) {
        let start = Instant::now();
        while fs::read_to_string(self.path(name)).unwrap_or_default().lines().count() < lines {
            assert!(start.elapsed() < Duration::from_secs(60), "{name} has no {lines} lines");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Text without the folder's path.
    pub(crate) fn tidy(&self, text: &str) -> String {
        let real = self.folder.path().canonicalize().unwrap();
        text.replace(&format!("{}/", real.display()), "")
            .replace(&format!("{}/", self.folder.path().display()), "")
            .replace(&real.display().to_string(), "HERE")
    }
}
