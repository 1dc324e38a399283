//! A checkpoint is the same bytes whether it is copied and written by the thread, or written between two steps.

use std::collections::BTreeMap;
use std::path::Path;

use data::template::Moment;
use engine::device::Device;
use tempfile::TempDir;
use train::checkpoint::{self, Contents};
use train::checksum;
use train::fit::Policy;
use train::inputs::Inputs;
use train::recipe::Recipe;
use train::session::Session;
use train::writer::Writer;

fn inputs(folder: &Path, head: &str) -> Inputs {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto");
    let rows: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(fixtures.join("dataset.json")).unwrap()).unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("train.jsonl"), lines).unwrap();
    let recipe = format!(
        "[model]\npath = \"{}\"\n{head}\n[data]\ntrain = \"{}/train.jsonl\"\nmax_length = 32\n[train]\nbatch_size = 4\n",
        fixtures.join("model").display(),
        folder.display()
    );
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe).unwrap();
    Inputs::load(Recipe::read(&path, &[]).unwrap(), Moment::now()).unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn a_checkpoint_written_by_the_thread_is_that_written_between_two_steps() {
    let heads = [
        "[adapter]\nr = 4",
        "[adapter]\nr = 4\n[optimizer]\nname = \"adamw_8bit\"",
        "[adapter]\nr = 1\nuse_dora = true\nmodules_to_save = [\"lm_head\", \"norm\"]\nrank_pattern = { down_proj = 3 }",
        "[adapter]\nr = 3\ninit = \"pissa\"\nuse_dora = true",
        "quantization = \"nf4\"\n[adapter]\nr = 2\ninit = \"pissa_niter_2\"\nrank_pattern = { v_proj = 1 }\nmodules_to_save = [\"embed_tokens\"]",
        "quantization = \"nf4\"\n[adapter]\nr = 2\ninit = \"loftq\"",
        "",
    ];
    for head in heads {
        let place = TempDir::new().unwrap();
        let inputs = inputs(place.path(), head);
        let policy = Policy::all(1000, 2);
        let device = Device::cpu(64 << 20).unwrap();
        let mut session = Session::open(&device, &inputs, &policy).unwrap();
        let packed = session.packed(0);
        assert!(session.step(0, &packed).unwrap().applied);

        let (direct, copied) = (place.path().join("direct"), place.path().join("copied"));
        for output in [&direct, &copied] {
            std::fs::create_dir(output).unwrap();
            std::fs::write(output.join("run.json"), "{}").unwrap();
        }
        let contents = Contents::of(&mut session.learner, 1, 0, "base");
        let one = contents.write(&direct, 2).unwrap();
        let mut writer = Writer::open(&copied, 2).unwrap();
        writer.start(1, contents.copied().unwrap()).unwrap();
        let other = writer.wait().unwrap().unwrap();
        assert_eq!(other.step, 1);
        assert!(files(&one) == files(&other.place), "{head}");
        let tensors: u64 = files(&one)
            .iter()
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum();
        assert!(tensors > contents.bytes() as u64, "the headers come on top");

        // What was saved is what is restored, and what is saved then is the same again.
        let (state, folder) = checkpoint::newest(&direct).0.unwrap();
        let again = Device::cpu(64 << 20).unwrap();
        let mut again = Session::open(&again, &inputs, &policy).unwrap();
        checkpoint::restore(&mut again.learner, &folder, &state).unwrap();
        let restored = Contents::of(&mut again.learner, 1, 0, "base");
        assert!(files(&restored.write(&copied, 2).unwrap()) == files(&one), "{head}");

        // And the run goes on as the one that nobody stopped.
        drop((contents, restored));
        let packed = session.packed(1);
        for (session, output) in [(&mut session, &direct), (&mut again, &copied)] {
            assert!(session.step(1, &packed).unwrap().applied);
            Contents::of(&mut session.learner, 2, 0, "base").write(output, 2).unwrap();
        }
        let second = |output: &Path| files(&output.join("checkpoint-2"));
        assert!(second(&direct) == second(&copied), "{head}");
    }
}

#[test]
fn an_error_of_the_thread_comes_back_and_nothing_is_left() {
    let place = TempDir::new().unwrap();
    let inputs = inputs(place.path(), "[adapter]\nr = 4");
    let policy = Policy::all(1000, 2);
    let device = Device::cpu(64 << 20).unwrap();
    let mut session = Session::open(&device, &inputs, &policy).unwrap();
    let contents = Contents::of(&mut session.learner, 1, 0, "base");
    // A file stands where the checkpoint's folder has to be made.
    let output = place.path().join("output");
    std::fs::create_dir(&output).unwrap();
    checksum::write_sealed(&output.join("run.json"), &serde_json::json!({})).unwrap();
    std::fs::write(output.join("checkpoint-1"), "in the way").unwrap();
    let mut writer = Writer::open(&output, 2).unwrap();
    writer.start(1, contents.copied().unwrap()).unwrap();
    let error = writer.wait().err().unwrap();
    assert!(error.message.contains("checkpoint-1'"), "{error}");
    assert!(writer.wait().unwrap().is_none(), "said once");
    let names: Vec<String> = files(&output).into_keys().collect();
    assert_eq!(names, ["checkpoint-1", "run.json"]);
}
