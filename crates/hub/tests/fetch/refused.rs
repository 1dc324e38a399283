//! What a server refuses, where it redirects to, and lists that lie.

use std::fs;
use std::sync::Arc;

use expect_test::{Expect, expect};
use hub::Settings;
use hub::error::Fault;

use crate::server::{Blob, Reply, Server, listing, well};
use crate::{World, model};

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
