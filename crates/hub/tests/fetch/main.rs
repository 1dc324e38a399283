//! The downloader against servers that misbehave.

mod broken;
mod refused;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use expect_test::{Expect, expect};
use hub::error::{Error, Fault};
use hub::{Event, Hub, Patience, Repository, Settings, Token};
use server::{Blob, COMMIT, Reply, Request, Server, well};

const SECRET: &str = "hf_verysecret";

fn model() -> Vec<Blob> {
    vec![
        Blob::small(".gitattributes", "x"),
        Blob::small("README.md", "hello"),
        Blob::small("config.json", "{}"),
        Blob::small("tokenizer.json", "{\"version\": 1}"),
        Blob::small("additional_chat_templates/tool_use.jinja", "{{ x }}"),
        Blob::large("model.safetensors", 300_000),
        Blob::large("pytorch_model.bin", 10),
        Blob::large("original/model.safetensors", 10),
    ]
}

/// A cache of its own, and what is asked of which server.
struct World {
    cache: tempfile::TempDir,
    server: Server,
    events: Vec<String>,
}

impl World {
    fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> World {
        let (cache, server) = (tempfile::tempdir().unwrap(), Server::start(answer));
        World { cache, server, events: Vec::new() }
    }

    fn settings(&self) -> Settings {
        Settings {
            cache: self.cache.path().to_path_buf(),
            endpoint: self.server.address.clone(),
            token: Token::new(SECRET, "test").unwrap(),
            offline: false,
            patience: Patience {
                silence: Duration::from_millis(400),
                attempts: 3,
                pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(50),
            },
        }
    }

    fn fetch_by(&mut self, settings: Settings, name: &str) -> Result<PathBuf, Error> {
        let repository = Repository::model(name).unwrap();
        let address = self.server.address.clone();
        let events = &mut self.events;
        Hub::new(settings).model(&repository, &mut |event| {
            if !matches!(event, Event::Progress { .. }) {
                events.push(format!("{event:?}").replace(&address, "HUB"));
            }
        })
    }

    fn fetch(&mut self) -> Result<PathBuf, Error> {
        self.fetch_by(self.settings(), "a/b")
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--a--b")
    }

    /// The error of a fetch, which never shows the token.
    fn refused(&mut self, fault: Fault, expected: Expect) {
        let error = self.fetch().unwrap_err();
        assert_eq!(error.fault, fault);
        let text = error.to_string().replace(&self.server.address, "HUB");
        let text = text.replace(&self.cache.path().display().to_string(), "CACHE");
        let all = format!("{text}{error:?}{:?}", self.events);
        assert!(!all.contains(SECRET) && !all.contains("signature"), "{all}");
        expected.assert_eq(&text);
    }

    /// Whether a file is there as it should be, by its link.
    fn holds(&self, folder: &Path, blobs: &[Blob]) {
        for path in ["config.json", "model.safetensors", "additional_chat_templates/tool_use.jinja"]
        {
            let blob = blobs.iter().find(|blob| blob.path == path).unwrap();
            assert_eq!(fs::read(folder.join(path)).unwrap(), blob.body, "{path}");
            let link = fs::read_link(folder.join(path)).unwrap();
            let up = if path.contains('/') { "../../../" } else { "../../" };
            assert_eq!(link, Path::new(&format!("{up}blobs/{}", blob.hash())));
        }
    }
}

#[test]
fn a_model_comes_into_the_layout_that_python_shares() {
    let mut world = World::new(|request| well(request, &model()));
    let folder = world.fetch().unwrap();
    assert_eq!(folder, world.folder().join("snapshots").join(COMMIT));
    world.holds(&folder, &model());
    assert_eq!(fs::read_to_string(world.folder().join("refs/main")).unwrap(), COMMIT);
    // Neither a pickle, nor a second copy of the weights, nor what nobody reads.
    for path in ["pytorch_model.bin", "original", "README.md", ".gitattributes"] {
        assert!(!folder.join(path).exists(), "{path}");
    }
    assert!(
        world
            .server
            .asked()
            .iter()
            .all(|asked| asked.authorization.as_deref() == Some("Bearer hf_verysecret"))
    );
    assert_eq!(world.events.len(), 5, "{:?}", world.events);

    // The second time the list alone is asked for, and of a commit nothing.
    let before = world.server.asked().len();
    assert_eq!(world.fetch().unwrap(), folder);
    assert_eq!(world.server.asked().len(), before + 1);
    let settings = world.settings();
    assert_eq!(world.fetch_by(settings, &format!("a/b@{COMMIT}")).unwrap(), folder);
    assert_eq!(world.server.asked().len(), before + 1);
    // Offline, the cache serves; what it lacks is an error that says so.
    let offline = Settings { offline: true, ..world.settings() };
    assert_eq!(world.fetch_by(offline.clone(), "a/b").unwrap(), folder);
    let error = world.fetch_by(offline, "a/other").unwrap_err();
    assert_eq!(error.fault, Fault::Input);
    let text = error.to_string().replace(&world.cache.path().display().to_string(), "CACHE");
    expect![[r#"
        'a/other' is not in the cache 'CACHE', and HF_HUB_OFFLINE says to ask nobody
          hint: unset HF_HUB_OFFLINE, or fetch it where there is a network and copy the cache"#]]
    .assert_eq(&text);
    assert_eq!(world.server.asked().len(), before + 1);
}

#[test]
fn a_configuration_comes_without_the_weights_and_is_no_model_yet() {
    let sharded = || {
        let mut blobs = model();
        blobs.push(Blob::small("model.safetensors.index.json", "{}"));
        blobs
    };
    let mut world = World::new(move |request| well(request, &sharded()));
    let repository = Repository::model("a/b").unwrap();
    let folder = Hub::new(world.settings()).configuration(&repository, &mut |_| {}).unwrap();
    for (name, is) in [
        ("config.json", true),
        ("tokenizer.json", true),
        ("additional_chat_templates/tool_use.jinja", true),
        ("model.safetensors", false),
        ("model.safetensors.index.json", false),
    ] {
        assert_eq!(folder.join(name).exists(), is, "{name}");
    }
    let asked = world.server.asked();
    assert!(!asked.iter().any(|asked| asked.path.contains("safetensors")));
    // It serves offline, as a configuration alone.
    let offline = || Settings { offline: true, ..world.settings() };
    let again = Hub::new(offline()).configuration(&repository, &mut |_| {}).unwrap();
    assert_eq!(again, folder);
    assert!(Hub::new(offline()).model(&repository, &mut |_| {}).is_err());
    // A model is fetched into the same folder, and of what is there nothing a second time.
    assert_eq!(world.fetch().unwrap(), folder);
    world.holds(&folder, &model());
    let asked = world.server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.path.ends_with("/config.json")).count(), 1);
}

#[test]
fn a_part_of_a_snapshot_is_not_taken_for_all_of_it() {
    let mut world = World::new(|request| well(request, &model()));
    let folder = world.fetch().unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let offline = Settings { offline: true, ..world.settings() };
    assert!(world.fetch_by(offline, "a/b").is_err());
    // A link to a blob that is gone is mended.
    let blob = world.folder().join("blobs").join(model()[3].hash());
    fs::remove_file(blob).unwrap();
    world.fetch().unwrap();
    world.holds(&folder, &model());
    assert!(folder.join("tokenizer.json").exists());
}

#[test]
fn a_hub_that_is_gone_leaves_what_is_in_the_cache() {
    let mut world = World::new(|request| match request.before {
        0 => well(request, &model()),
        _ => Reply::new(500, ""),
    });
    let folder = world.fetch().unwrap();
    world.events.clear();
    assert_eq!(world.fetch().unwrap(), folder);
    assert_eq!(world.events.len(), 1, "it is asked once: {:?}", world.events);
    assert!(world.events[0].starts_with("Older"), "{:?}", world.events);
    let gone = Settings { endpoint: "http://127.0.0.1:1".to_owned(), ..world.settings() };
    assert_eq!(world.fetch_by(gone.clone(), "a/b").unwrap(), folder);
    let error = world.fetch_by(gone, "a/other").unwrap_err();
    assert_eq!(error.fault, Fault::Machine);
    assert!(
        error.message.starts_with("cannot reach http://127.0.0.1:1/api/models/a/other"),
        "{error}"
    );
}

#[test]
fn two_at_a_time_fetch_a_file_once() {
    let world = World::new(|request| {
        let reply = well(request, &model());
        let weights = request.path.ends_with("/model.safetensors");
        Reply { slow: Duration::from_millis(if weights { 30 } else { 0 }), ..reply }
    });
    let settings = world.settings();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let settings = settings.clone();
            scope.spawn(move || {
                Hub::new(settings).model(&Repository::model("a/b").unwrap(), &mut |_| {}).unwrap();
            });
        }
    });
    let folder = world.folder().join("snapshots").join(COMMIT);
    world.holds(&folder, &model());
    let asked = world.server.asked();
    let weights = asked.iter().filter(|asked| asked.path.ends_with("/model.safetensors"));
    assert_eq!(weights.count(), 1);
}

#[test]
fn a_data_set_gives_the_files_of_its_split() {
    let blobs = || {
        vec![
            Blob::small("README.md", "x"),
            Blob::small("data/train-00000-of-00002.jsonl", "1"),
            Blob::small("data/train-00001-of-00002.jsonl", "2"),
            Blob::small("data/test.jsonl", "3"),
            Blob::small("extra/more.jsonl", "4"),
        ]
    };
    let world = World::new(move |request| well(request, &blobs()));
    let files = |text: &str, splits: &[&str], settings: Settings| {
        let (repository, within) = Repository::dataset(text).unwrap();
        let files = Hub::new(settings).dataset(&repository, within, splits, &mut |_| {})?;
        let read = files.iter().map(|path| fs::read_to_string(path).unwrap());
        Ok::<_, Error>(read.collect::<Vec<_>>().join(","))
    };
    assert_eq!(files("datasets/a/b", &["train"], world.settings()).unwrap(), "1,2");
    assert_eq!(files("datasets/a/b", &["test", "validation"], world.settings()).unwrap(), "3");
    assert_eq!(files("datasets/a/b/extra", &["train"], world.settings()).unwrap(), "4");
    let error = files("datasets/a/b/none", &["train"], world.settings()).unwrap_err();
    expect![[r#"
        'datasets/a/b' has no Parquet or JSONL file at 'none'
          hint: write the file's path behind the name; there are data/train-00000-of-00002.jsonl, data/train-00001-of-00002.jsonl, data/test.jsonl, extra/more.jsonl"#]].assert_eq(&error.to_string());
    let offline = || Settings { offline: true, ..world.settings() };
    assert_eq!(files("datasets/a/b", &["train"], offline()).unwrap(), "1,2");
    assert!(world.cache.path().join("datasets--a--b/refs/main").exists());
    // What huggingface_hub lists of a commit and did not fetch is missing, not absent.
    let trees = world.cache.path().join("datasets--a--b/trees");
    fs::create_dir_all(&trees).unwrap();
    let list = r#"{"format_version": 1, "files": {"data/train-00000-of-00002.jsonl": {}, "data/train-9.jsonl": {}}}"#;
    fs::write(trees.join(format!("{COMMIT}.json")), list).unwrap();
    assert!(files("datasets/a/b", &["train"], offline()).is_err());
}
