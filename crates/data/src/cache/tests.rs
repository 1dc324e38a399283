//! The cache gives what was put in, is made anew where it is not what it should be, and is not needed.

use std::fs;

use super::*;
use crate::{DataOptions, Dataset, Form, Order, Report, Tokenizer};

fn held(path: &Path) -> io::Result<Bytes> {
    Ok(Arc::new(fs::read(path)?))
}

struct Place {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Place {
    fn new() -> Place {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data");
        let place = Place {
            folder: tempfile::tempdir().expect("folder"),
            tokenizer: Tokenizer::load(&fixtures.join("tokenizer")).expect("tokenizer"),
        };
        let rows = fs::read(fixtures.join("rows/paired-kto.jsonl")).expect("rows");
        fs::write(place.path("a.jsonl"), rows).expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, max_length: Option<usize>, cached: bool, now: u64) -> (Dataset, Report) {
        let origin = Origin { files: vec![self.path("a.jsonl")], ..Origin::default() };
        let cache = Cache { folder: self.path("tokens"), least: 0, map: held };
        let options = DataOptions { form: Form::Unpaired, max_length, now: Moment(now) };
        let cache = cached.then_some(&cache);
        Dataset::open(&[origin], cache, &self.tokenizer, &options).expect("dataset")
    }

    /// The files of the cache.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("tokens")).map(|it| it.flatten().collect());
        let entries: Vec<fs::DirEntry> = entries.unwrap_or_default();
        entries.into_iter().map(|entry| entry.path()).collect()
    }

    /// What the cache gives is what memory gives; the word on it is this.
    fn check(&self, max_length: Option<usize>, word: &str) {
        let (cached, mut report) = self.load(max_length, true, 0);
        let (plain, expected) = self.load(max_length, false, 0);
        let said = report.cache.take().expect("a word");
        assert!(said.starts_with(word), "{said}");
        assert_eq!(report, expected);
        assert!(cached.examples().eq(plain.examples()));
        let batching = crate::Batching {
            order: Order::Shuffled,
            seed: 3,
            batch_size: 4,
            gradient_accumulation_steps: 2,
            token_budget: 100,
            mismatched: true,
            together: false,
            scored_prompts: false,
        };
        for step in 0..plain.steps_per_epoch(&batching) {
            let packed = |dataset: &Dataset| dataset.epoch(&batching, 1).step(step);
            assert_eq!(packed(&cached), packed(&plain));
        }
    }
}

#[test]
fn tokens_are_made_once_and_are_those_of_memory() {
    let place = Place::new();
    place.check(None, "tokens are kept in");
    place.check(None, "tokens are read from");
    place.check(Some(12), "tokens are read from");
    assert_eq!(place.kept().len(), 1);
    // Other data are other tokens.
    let rows = fs::read_to_string(place.path("a.jsonl")).expect("rows");
    fs::write(place.path("a.jsonl"), rows.lines().next().expect("a row")).expect("written");
    place.check(None, "tokens are kept in");
    assert_eq!(place.kept().len(), 2);
}

#[test]
fn a_damaged_file_is_made_anew() {
    let place = Place::new();
    place.check(None, "tokens are kept in");
    let path = &place.kept()[0];
    let sound = fs::read(path).expect("read");
    let damages = (0..sound.len()).step_by(97).map(|at| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    });
    let cuts = [0, 1, 40, 64, sound.len() / 2, sound.len() - 1].map(|at| sound[..at].to_vec());
    for bytes in damages.chain(cuts) {
        assert!(check(&bytes, 1).is_none());
    }
    assert!(check(&sound, 1).is_some());
    fs::write(path, &sound[..sound.len() - 1]).expect("written");
    let (_, report) = place.load(None, true, 0);
    assert!(report.cache.expect("a word").ends_with("anew: the file was damaged"));
    assert_eq!(fs::read(path).expect("read"), sound);
}

#[test]
fn where_nothing_can_be_written_tokens_stay_in_memory() {
    let place = Place::new();
    // A file in the place of the folder.
    fs::write(place.path("tokens"), "").expect("written");
    place.check(None, "tokens stay in memory");
}

#[test]
fn a_template_that_shows_the_date_is_rendered_anew_on_another_day() {
    let place = Place::new();
    let folder = place.path("model");
    fs::create_dir(&folder).expect("folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixtures.join(name), folder.join(name)).expect("copied");
    }
    let template = "{{ strftime_now('%d %b') }}{% for m in messages %}{{ m.content }}{% endfor %}";
    fs::write(folder.join("chat_template.jinja"), template).expect("written");
    let row = r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}], "label": true}"#;
    fs::write(place.path("a.jsonl"), row).expect("written");
    let place = Place { tokenizer: Tokenizer::load(&folder).expect("tokenizer"), ..place };
    let day = 24 * 3600;
    for (now, word) in
        [(0, "kept in"), (day - 1, "read from"), (day, "kept in"), (day, "read from")]
    {
        let (dataset, report) = place.load(None, true, now);
        let said = report.cache.expect("a word");
        assert!(said.contains(word), "{now}: {said}");
        assert_eq!(report.template_moment, Some(Moment(now)));
        let shown = dataset.rendered(0, &place.tokenizer).expect("rendered").prompt;
        assert!(shown.starts_with(if now < day { "01 Jan" } else { "02 Jan" }), "{shown}");
    }
}

#[test]
fn what_killed_programs_left_goes_after_a_day() {
    let place = Place::new();
    fs::create_dir(place.path("tokens")).expect("folder");
    for (name, age) in [(".x.tokens.1.tmp", 2), (".y.tokens.2.tmp", 0), ("z.tokens", 9)] {
        let file = fs::File::create(place.path("tokens").join(name)).expect("file");
        let then = SystemTime::now() - age * LEFTOVER;
        file.set_modified(then).expect("time");
    }
    place.load(None, true, 0);
    let mut names: Vec<String> = place
        .kept()
        .iter()
        .map(|it| it.file_name().expect("name").to_string_lossy().into())
        .collect();
    names.retain(|name| name.len() < 20);
    names.sort();
    assert_eq!(names, [".y.tokens.2.tmp", "z.tokens"]);
}
