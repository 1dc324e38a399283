//! The downloader against servers that misbehave.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use hub::error::{Error, Fault};
use hub::{Event, Hub, Patience, Repository, Settings, Token};
use server::{Blob, COMMIT, Reply, Request, Server, listing, well};

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
fn a_cut_connection_is_gone_on_with() {
    let mut world = World::new(|request| {
        let reply = well(request, &model());
        let weights = request.path.ends_with("/model.safetensors");
        let sent = if weights { reply.sent.min(70_000) } else { reply.sent };
        Reply { sent, ..reply }
    });
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
    let weights: Vec<Option<usize>> = world
        .server
        .asked()
        .into_iter()
        .filter(|asked| asked.path.ends_with("/model.safetensors"))
        .map(|asked| asked.from)
        .collect();
    assert_eq!(weights, [None, Some(70_000), Some(140_000), Some(210_000), Some(280_000)]);
}

#[test]
fn a_download_that_was_given_up_is_gone_on_with_the_next_time() {
    let mut world = World::new(|request| {
        let reply = well(request, &model());
        let weights = request.path.ends_with("/model.safetensors");
        // Nothing but the first part until the third try of another day.
        let sent = if weights && request.before < 4 {
            if request.from.is_some() { 0 } else { 100_000 }
        } else {
            reply.sent
        };
        Reply { sent, ..reply }
    });
    world.refused(
        Fault::Machine,
        expect![[r#"
        model.safetensors broke off: the connection ended
          hint: try again: what came so far is kept and gone on with"#]],
    );
    let incomplete = world.folder().join("blobs").join(format!("{}.incomplete", model()[5].hash()));
    assert_eq!(fs::metadata(&incomplete).unwrap().len(), 100_000);
    assert!(!world.folder().join("refs/main").exists(), "what is not whole has no name");
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
    assert!(!incomplete.exists());
    assert!(world.server.asked().iter().filter(|asked| asked.from == Some(100_000)).count() >= 2);
}

#[test]
fn a_server_that_knows_no_parts_sends_all_of_it_again() {
    let mut world = World::new(|request| {
        let whole = Request { from: None, ..request.clone() };
        let reply = well(&whole, &model());
        let first = request.path.ends_with("/model.safetensors") && request.before == 0;
        let sent = if first { 50_000 } else { reply.sent };
        Reply { sent, ..reply }
    });
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
}

#[test]
fn another_content_than_listed_never_gets_a_name() {
    let mut world = World::new(|request| {
        let mut reply = well(request, &model());
        if request.path.ends_with("/model.safetensors") {
            reply.body[1000] ^= 1;
        }
        reply
    });
    world.refused(Fault::Machine, expect![[r#"
        model.safetensors of 'a/b' came with another hash than the hub lists
          hint: something between here and the hub changes what passes (a proxy, a mirror); try another network"#]]);
    assert!(!world.folder().join("blobs").join(model()[5].hash()).exists());
    assert!(!world.folder().join("snapshots").exists());

    // A small file is held against git's hash.
    let mut world = World::new(|request| match request.path.ends_with("/config.json") {
        true => Reply::new(200, "[]"),
        false => well(request, &model()),
    });
    world.refused(Fault::Machine, expect![[r#"
        config.json of 'a/b' came with another hash than the hub lists
          hint: something between here and the hub changes what passes (a proxy, a mirror); try another network"#]]);

    // A part of another file, left by whoever, costs one more download.
    let mut world = World::new(|request| well(request, &model()));
    let blobs = world.folder().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", model()[5].hash())), [9; 1234]).unwrap();
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
}

#[test]
fn another_length_than_listed_is_refused() {
    let mut world = World::new(|request| {
        let mut reply = well(request, &model());
        if request.path.ends_with("/config.json") {
            reply = Reply::new(200, vec![b' '; 1 << 20]);
        }
        reply
    });
    world.refused(Fault::Machine, expect![[r#"
        config.json is longer than the 2 bytes that the hub lists
          hint: something between here and the hub changes what passes (a proxy, a mirror); try another network"#]]);
    let mut world = World::new(|request| match request.path.ends_with("/config.json") {
        true => Reply::new(200, "{"),
        false => well(request, &model()),
    });
    world.refused(
        Fault::Machine,
        expect![[r#"
        config.json broke off: the connection ended
          hint: try again: what came so far is kept and gone on with"#]],
    );
}

#[test]
fn what_the_hub_refuses_is_said_in_its_terms() {
    let says = |reply: fn() -> Reply, fault: Fault, expected: Expect| {
        World::new(move |_| reply()).refused(fault, expected);
    };
    says(
        || Reply::new(401, "no"),
        Fault::Input,
        expect![[r#"
        'a/b' does not exist, or the token is not one that may read it
          hint: check the name, and the token on https://huggingface.co/settings/tokens"#]],
    );
    says(
        || Reply::new(403, "no").with("x-error-code", "GatedRepo"),
        Fault::Input,
        expect![[r#"
        'a/b' is gated: its owner asks for conditions to be accepted
          hint: accept them on https://huggingface.co/a/b, then set HF_TOKEN to a token of that account"#]],
    );
    says(
        || Reply::new(403, "no"),
        Fault::Input,
        expect![[r#"
        the hub refuses 'a/b' to this token
          hint: give the token the right to read it, or accept the conditions on https://huggingface.co/a/b"#]],
    );
    says(
        || Reply::new(404, "no").with("x-error-code", "RepoNotFound"),
        Fault::Input,
        expect![[r#"
        the hub has no 'a/b'
          hint: check the name; it has the form owner/name or owner/name@revision"#]],
    );
    says(
        || Reply::new(404, "no").with("x-error-code", "RevisionNotFound"),
        Fault::Input,
        expect![[r#"
        'a/b' has no revision 'main'
          hint: a revision is a branch, a tag or a commit of 40 digits"#]],
    );
    says(
        || Reply::new(500, "no"),
        Fault::Machine,
        expect![[r#"
        HUB/api/models/a/b/revision/main answers 500: it is out of order
          hint: try again later; what came so far is kept and gone on with"#]],
    );
    says(
        || Reply::new(200, "<html>"),
        Fault::Machine,
        expect![[r#"
        the hub's list of 'a/b' is not one: expected value at line 1 column 1
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        || Reply::new(302, "").with("location", "gopher://x/"),
        Fault::Machine,
        expect![[r#"
        HUB/api/models/a/b/revision/main redirects to no address that can be followed
          hint: if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        || Reply::new(302, "").with("location", "/again"),
        Fault::Machine,
        expect![[r#"
        'a/b' is redirected more than 6 times
          hint: if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    // Without a token the hint is another one.
    let mut world = World::new(|_| Reply::new(401, "no"));
    let settings = Settings { token: None, ..world.settings() };
    let error = world.fetch_by(settings, "a/b").unwrap_err();
    expect![[r#"
        'a/b' does not exist, or is private
          hint: check the name; for a private or gated one set HF_TOKEN, or log in with `hf auth login`"#]].assert_eq(&error.to_string());
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let mut world = World::new(|request| match request.before {
        0 => Reply::new(429, "").with("retry-after", "1"),
        1 => Reply::new(503, ""),
        _ => well(request, &model()),
    });
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
    // Two pauses for the list and two for each of four files; a second is cut to the longest pause.
    let pauses: Vec<&String> =
        world.events.iter().filter(|event| event.starts_with("Pause")).collect();
    assert_eq!(pauses.len(), 10);
    expect![[r#"
        Pause { why: "HUB/api/models/a/b/revision/main answers 429: it is asked too often", pause: 50ms }
        Pause { why: "HUB/api/models/a/b/revision/main answers 503: it is out of order", pause: 2ms }"#]].assert_eq(&format!("{}\n{}", pauses[0], pauses[1]));
}

#[test]
fn a_redirect_to_another_host_does_not_carry_the_token() {
    let other = Arc::new(Server::start(|request| Reply::part(request, &model()[5].body)));
    let to = other.address.clone();
    let mut world = World::new(move |request| {
        if request.path.ends_with("/model.safetensors") {
            let address = format!("{to}/weights?signature=abc");
            return Reply::new(302, "").with("location", address);
        }
        if request.path.ends_with("/config.json") && !request.path.starts_with("/moved") {
            return Reply::new(307, "").with("location", format!("/moved{}", request.path));
        }
        well(request, &model())
    });
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
    assert_eq!(other.asked()[0].path, "/weights?signature=abc");
    assert!(other.asked().iter().all(|asked| asked.authorization.is_none()));
    let moved = world.server.asked().into_iter().find(|asked| asked.path.starts_with("/moved"));
    assert!(moved.unwrap().authorization.is_some(), "the same host still needs it");

    // What the other host says is told without the address's query.
    let broken = Server::start(|_| Reply::new(403, ""));
    let to = broken.address.clone();
    let mut world = World::new(move |request| match request.path.ends_with("/model.safetensors") {
        true => Reply::new(302, "").with("location", format!("{to}/weights?signature=abc")),
        false => well(request, &model()),
    });
    let error = world.fetch().unwrap_err().to_string();
    assert!(error.contains("/weights answers 403") && !error.contains("signature"), "{error}");
}

#[test]
fn slow_is_waited_for_and_silent_is_not() {
    let mut world = World::new(|request| {
        let reply = well(request, &model());
        let weights = request.path.ends_with("/model.safetensors");
        Reply { slow: if weights { Duration::from_millis(80) } else { Duration::ZERO }, ..reply }
    });
    let start = Instant::now();
    let folder = world.fetch().unwrap();
    world.holds(&folder, &model());
    assert!(start.elapsed() > Duration::from_millis(700), "longer in all than a silence may be");

    let mut world = World::new(|request| {
        let slow =
            Duration::from_millis(if request.path.ends_with("/config.json") { 3_000 } else { 0 });
        Reply { slow, ..well(request, &model()) }
    });
    let start = Instant::now();
    world.refused(
        Fault::Machine,
        expect![[r#"
        config.json broke off: the server is silent
          hint: try again: what came so far is kept and gone on with"#]],
    );
    assert!(start.elapsed() < Duration::from_secs(3));
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
fn a_list_that_lies_writes_nothing() {
    let says = |change: fn(&mut serde_json::Value), expected: Expect| {
        let mut world = World::new(move |_| {
            let mut list: serde_json::Value = serde_json::from_str(&listing(&model())).unwrap();
            change(&mut list);
            Reply::new(200, list.to_string())
        });
        world.refused(Fault::Machine, expected);
        assert!(fs::read_dir(world.cache.path()).unwrap().next().is_none());
    };
    says(
        |list| list["siblings"][2]["rfilename"] = "../../config.json".into(),
        expect![[r#"
        the hub's list of 'a/b' holds the path "../../config.json", which leaves its folder
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["siblings"][2]["rfilename"] = "/etc/config.json".into(),
        expect![[r#"
        the hub's list of 'a/b' holds the path "/etc/config.json", which leaves its folder
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["siblings"][2]["rfilename"] = "a\\..\\config.json".into(),
        expect![[r#"
        the hub's list of 'a/b' holds the path "a\\..\\config.json", which leaves its folder
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["siblings"][2]["blobId"] = "../../../x".into(),
        expect![[r#"
        the hub's list of 'a/b' gives no size and hash of config.json
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["siblings"][5]["lfs"]["sha256"] = "ABC".into(),
        expect![[r#"
        the hub's list of 'a/b' gives no size and hash of model.safetensors
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["siblings"][2]["size"] = serde_json::Value::Null,
        expect![[r#"
        the hub's list of 'a/b' gives no size and hash of config.json
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
    says(
        |list| list["sha"] = "../main".into(),
        expect![[r#"
        the hub's list of 'a/b' names a commit that is none
          hint: nothing was written for it; if HF_ENDPOINT is set, check that it is a hub"#]],
    );
}

#[test]
fn weights_that_are_a_pickle_are_not_fetched() {
    let mut world = World::new(|request| {
        let blobs = [Blob::small("config.json", "{}"), Blob::large("pytorch_model.bin", 10)];
        well(request, &blobs)
    });
    world.refused(Fault::Input, expect![[r#"
        'a/b' has its weights as a pickle alone (pytorch_model.bin)
          hint: a pickle is a program and never fetched; look for a revision with safetensors (owner/name@refs/pr/1), or convert it with `save_pretrained` and give the folder"#]]);
    let mut world = World::new(|request| well(request, &[Blob::large("model.gguf", 10)]));
    world.refused(
        Fault::Input,
        expect![[r#"
        'a/b' has no safetensors
          hint: take the repository of the model itself; GGUF and ONNX files cannot be trained"#]],
    );
    assert_eq!(world.server.asked().len(), 1);
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
