//! `stack mend --apply` on an environment whose pip is a script: what it is asked for, what is said where it fails
//! half-way, and that the way back leads back. With the real pip and uv: fixtures/doctor-mend.py.

use clap::Parser;
use doctor::cli::{StackArgs, run_stack};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[derive(Parser)]
struct Stack {
    #[command(flatten)]
    args: StackArgs,
}

/// Takes `-m pip install [--no-deps] NAME==VERSION... | -r FILE` and `uninstall -y NAME...`; fails behind so many installs
/// as the file `fails` beside it says.
const PIP: &str = r#"#!/bin/sh
bin=$(dirname "$0")
site=$bin/../lib/python3.10/site-packages
echo "$@" >> "$bin/log"
command=$3
shift 3
put() {
    [ -f "$bin/fails" ] && [ "$(cat "$bin/fails")" = "$count" ] && { echo "No space left on device" >&2; exit 1; }
    name=${1%%==*}; version=${1##*==}
    rm -rf "$site/$name"-*.dist-info
    mkdir "$site/$name-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$name" "$version" > "$site/$name-$version.dist-info/METADATA"
    count=$((count + 1))
}
count=0
while [ $# -gt 0 ]; do
    case "$1" in
        -r) for line in $(grep -v '^[#-]' "$2"); do put "$line"; done; shift ;;
        -*) ;;
        *) if [ "$command" = install ]; then put "$1"; else rm -rf "$site/$1"-*.dist-info; fi ;;
    esac
    shift
done
"#;

/// An environment with a space in its name, a broken pair of packages, and pip.
fn environment(folder: &Path) -> std::path::PathBuf {
    let prefix = folder.join("my env");
    let site = prefix.join("lib/python3.10/site-packages");
    fs::create_dir_all(&site).expect("a folder");
    fs::create_dir_all(prefix.join("bin")).expect("a folder");
    fs::write(prefix.join("pyvenv.cfg"), "home = /usr/bin\nversion = 3.10.4\n").expect("written");
    let python = prefix.join("bin/python");
    fs::write(&python, PIP).expect("written");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("a program");
    for (name, version) in [
        ("pip", "25.0"),
        ("trl", "0.11.4"),
        ("transformers", "4.49.0"),
        ("datasets", "2.14.0"),
        ("pyarrow", "25.0.1"),
        ("mine", "1.0"),
    ] {
        let info = site.join(format!("{name}-{version}.dist-info"));
        fs::create_dir(&info).expect("a folder");
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        fs::write(info.join("METADATA"), text).expect("written");
    }
    prefix
}

fn packages(prefix: &Path) -> Vec<String> {
    let site = prefix.join("lib/python3.10/site-packages");
    let names = fs::read_dir(site).expect("a folder").flatten();
    let mut names: Vec<String> =
        names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn mend(prefix: &Path) -> (u8, String) {
    let arguments = ["stack", "mend", "--apply", "--python"];
    let prefix = prefix.display().to_string();
    let args = Stack::try_parse_from(arguments.into_iter().chain([prefix.as_str()]));
    let mut out = Vec::new();
    let code = run_stack(&args.expect("parses").args, &mut out);
    (code, String::from_utf8(out).expect("UTF-8"))
}

/// Runs the command behind `mark`, as a person would who pastes it.
fn paste(text: &str, mark: &str) {
    let start = text.find(mark).unwrap_or_else(|| panic!("no '{mark}' in {text}")) + mark.len();
    let command = text[start..].lines().next().unwrap_or_default();
    let done = Command::new("sh").args(["-c", command]).status().expect("a shell");
    assert!(done.success(), "{command}");
}

#[test]
fn a_repair_is_carried_out_and_its_way_back_leads_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = environment(folder.path());
    let before = packages(&prefix);
    let (code, text) = mend(&prefix);
    assert_eq!(code, 0, "{text}");
    let mended = packages(&prefix);
    assert_ne!(mended, before);
    assert!(mended.iter().any(|name| name == "mine-1.0.dist-info"), "{mended:?}");
    let saved = fs::read_to_string(prefix.join("prospect-before-1.txt")).expect("the way back");
    assert!(saved.contains("trl==0.11.4") && saved.contains("mine==1.0"), "{saved}");
    paste(&text, "back: ");
    assert_eq!(packages(&prefix), before);
    // And a second repair keeps the first one's way back.
    let (code, text) = mend(&prefix);
    assert_eq!(code, 0, "{text}");
    assert!(prefix.join("prospect-before-2.txt").exists());
    let (code, text) = mend(&prefix);
    assert!(code == 0 && text.contains("Nothing to change"), "{text}");
}

#[test]
fn an_install_that_fails_half_way_says_what_is_changed_and_leads_back() {
    for (fails, says) in [("0", "no package was changed"), ("1", "1 of "), ("2", "2 of ")] {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = environment(folder.path());
        let before = packages(&prefix);
        fs::write(prefix.join("bin/fails"), fails).expect("written");
        let (code, text) = mend(&prefix);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(says) && text.contains("No space left on device"), "{text}");
        fs::remove_file(prefix.join("bin/fails")).expect("gone");
        paste(&text, "the way back: ");
        assert_eq!(packages(&prefix), before, "after a failure behind {fails} installs");
    }
}

#[test]
fn without_apply_nothing_is_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = environment(folder.path());
    let args = ["stack", "mend", "--python", &prefix.display().to_string()].map(String::from);
    let mut out = Vec::new();
    run_stack(&Stack::try_parse_from(args).expect("parses").args, &mut out);
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("Nothing was changed; --apply carries it out"), "{text}");
    assert!(!prefix.join("bin/log").exists());
}
