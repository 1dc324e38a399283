//! doctor: what the program adds to it, with the planner and the network.

use std::process::Command;

use crate::place::Place;

#[test]
fn a_machine_without_a_gpu_learns_what_trains_on_its_cpu_and_what_a_gpu_would() {
    let place = Place::new();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/doctor");
    let came = place.well(&format!("doctor --root {fixtures}/machine-laptop-without-gpu/root"));
    for says in [
        "training works here, for models up to the size of Llama 3.1 70B: it takes",
        "it would train up to: 8 GB Llama 3.1 8B",
        "4-bit weights, LoRA r = 16",
    ] {
        assert!(came.stdout.contains(says), "no '{says}' in {}", came.stdout);
    }
    assert!(came.stdout.lines().count() <= 24, "more than a screen: {}", came.stdout);
}

#[test]
fn a_library_that_cannot_be_fetched_says_what_to_do() {
    let place = Place::new();
    place.write("file", "in the way of a folder");
    let fetch = |driver: &str, cache: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_prospect"))
            .args(["doctor", "--fetch", "cublas", "--driver", driver])
            .env("UV_INDEX_URL", "http://anna:secret@127.0.0.1:9/simple")
            .env_remove("UV_DEFAULT_INDEX")
            .env("XDG_CACHE_HOME", place.path(cache))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (driver, cache, code, says) in [
        ("580", "cache", 1, "http://127.0.0.1:9/simple/nvidia-cublas/"),
        ("535.183", "cache", 1, "/nvidia-cublas-cu12/"),
        ("580", "file", 1, "cannot write"),
        ("470", "cache", 2, "no cuBLASLt is known for a driver for CUDA 11.4"),
        ("new", "cache", 2, "'new' in --driver"),
    ] {
        let (came, stderr) = fetch(driver, cache);
        assert_eq!(came, Some(code), "{stderr}");
        assert!(stderr.contains(says) && stderr.contains("hint:"), "no '{says}' in {stderr}");
        assert!(!stderr.contains("secret"), "a password is shown: {stderr}");
    }
}
