//! Connections that break, and content that is not what was listed.

use std::fs;
use std::time::{Duration, Instant};

use expect_test::expect;
use hub::error::Fault;

use crate::server::{Reply, Request, well};
use crate::{World, model};

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
