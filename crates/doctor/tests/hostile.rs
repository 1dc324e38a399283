//! Environments that somebody made to hurt: never a panic, never a hang, never a command from a file.

use doctor::diagnosis::{Diagnosis, diagnose};
use doctor::elf::Elf;
use doctor::facts::described::{Described, Description, card};
use doctor::facts::{Machine, Nvidia};
use doctor::prospect::Engine;
use doctor::python::locate;
use doctor::report::page::{Style, page};
use doctor::rules;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SITE: &str = "env/lib/python3.12/site-packages";

fn environment() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join(SITE);
    fs::create_dir_all(&site).expect("made");
    fs::create_dir_all(folder.path().join("env/bin")).expect("made");
    fs::write(folder.path().join("env/bin/python"), "").expect("written");
    fs::write(folder.path().join("env/pyvenv.cfg"), "version = 3.12.4\n").expect("written");
    (folder, site)
}

fn look(root: &Path) -> Diagnosis {
    let gpus = vec![card("RTX 3090").expect("known")];
    let nvidia = Nvidia { driver: Some("535.183.01".into()), gpus, ..Nvidia::default() };
    let machine = Described::new(root.into(), Description { nvidia, ..Description::default() });
    let started = Instant::now();
    let environment = locate::given(&machine, Path::new("/env")).expect("an environment");
    let diagnosis = diagnose(&machine, Some(environment), Engine::default(), &rules::shipped());
    let text = page(&diagnosis, Style { color: false, verbose: true });
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a file steers the terminal");
    assert!(started.elapsed() < Duration::from_secs(10), "too slow: {:?}", started.elapsed());
    diagnosis
}

fn dist(site: &Path, folder: &str, metadata: &[u8]) {
    fs::create_dir_all(site.join(folder)).expect("made");
    fs::write(site.join(folder).join("METADATA"), metadata).expect("written");
}

#[test]
fn endless_and_malformed_metadata_is_reported() {
    let (root, site) = environment();
    let mut endless = b"Name: big\nVersion: 1.0\nRequires-Dist: ".to_vec();
    endless.resize(3 << 20, b'a');
    dist(&site, "big-1.0.dist-info", &endless);
    // 100 MB without a single line end, as a sparse file
    fs::create_dir_all(site.join("huge-1.0.dist-info")).expect("made");
    let huge = fs::File::create(site.join("huge-1.0.dist-info/METADATA")).expect("made");
    huge.set_len(100 << 20).expect("sized");
    dist(
        &site,
        "long-1.0.dist-info",
        format!("Name: {}\nVersion: 1.0\n", "n".repeat(4000)).as_bytes(),
    );
    dist(
        &site,
        "nested-1.0.dist-info",
        format!("Name: nested\nVersion: 1\nRequires-Dist: x ; {}\n", "(".repeat(3900)).as_bytes(),
    );
    dist(&site, "version-1.0.dist-info", b"Name: v\nVersion: 99999999999999999999999999.1\n");
    dist(&site, "shell-1.0.dist-info", b"Name: $(touch /tmp/x)\nVersion: 1\n");
    dist(&site, "escape-1.0.dist-info", b"Name: e\nVersion: 1.0\x1b[31m\n");
    let found = look(root.path());
    let unreadable = found.findings.iter().filter(|f| f.rule == "metadata-unreadable").count();
    assert_eq!(unreadable, 5, "{:#?}", found.findings);
}

#[test]
fn a_command_never_carries_what_a_file_says_beyond_plain_names() {
    let (root, site) = environment();
    fs::create_dir_all(site.join("~x; rm -rf $HOME")).expect("made");
    fs::create_dir_all(site.join("a$(reboot)-1.0.dist-info")).expect("made");
    dist(&site, "unsloth-1.dist-info", b"Name: unsloth\nVersion: 1\nRequires-Dist: torch\n");
    fs::write(
        site.join("unsloth-1.dist-info/direct_url.json"),
        r#"{"url": "https://x/'; reboot; '", "vcs_info": {"vcs": "git", "commit_id": "`reboot`"}}"#,
    )
    .expect("written");
    for finding in look(root.path()).findings {
        for command in [&finding.mend.pip, &finding.mend.uv, &finding.mend.conda] {
            assert!(!command.contains("reboot") && !command.contains("rm -rf $HOME"), "{command}");
        }
    }
}

#[test]
fn links_pipes_and_closed_folders_do_not_stop_it() {
    let (root, site) = environment();
    symlink("loop-1.0.dist-info", site.join("loop-1.0.dist-info")).expect("linked");
    symlink("..", site.join("bitsandbytes")).expect("linked");
    symlink("/etc", site.join("torch")).expect("linked");
    dist(&site, "bitsandbytes-0.49.0.dist-info", b"Name: bitsandbytes\nVersion: 0.49.0\n");
    fs::create_dir_all(site.join("closed-1.0.dist-info")).expect("made");
    fs::set_permissions(site.join("closed-1.0.dist-info"), fs::Permissions::from_mode(0o000))
        .expect("closed");
    fs::create_dir_all(site.join("pipe-1.0.dist-info")).expect("made");
    let pipe = site.join("pipe-1.0.dist-info/METADATA");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let found = look(root.path());
    assert!(
        found.findings.iter().any(|f| f.rule == "metadata-unreadable"),
        "{:#?}",
        found.findings
    );
    fs::set_permissions(site.join("closed-1.0.dist-info"), fs::Permissions::from_mode(0o755))
        .expect("opened");
}

#[test]
fn a_tree_of_links_stays_inside_its_root() {
    let (root, site) = environment();
    symlink("/../../../../etc", site.join("out")).expect("linked");
    let machine = Described::new(root.path().into(), Description::default());
    assert!(
        machine.list(&Path::new("/").join(SITE).join("out")).is_err(),
        "/etc of this machine is not in the tree"
    );
    assert!(machine.open(Path::new("/../../../../etc/passwd")).is_err());
}

/// A small real library's bytes, then every single byte of its tables turned, and every truncation.
#[test]
fn malformed_libraries_never_panic() {
    let name = "extension-abi/root/env/lib/python3.12/site-packages/flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so";
    let whole =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/doctor").join(name))
            .expect("the fixture");
    let read = |bytes: &[u8]| {
        struct Bytes<'a>(&'a [u8]);
        impl doctor::facts::ReadAt for Bytes<'_> {
            fn size(&self) -> u64 {
                self.0.len() as u64
            }
            fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
                let rest =
                    usize::try_from(offset).ok().and_then(|o| self.0.get(o..)).unwrap_or_default();
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
        let file = Bytes(bytes);
        let Ok(elf) = Elf::open(&file) else { return };
        let _ =
            (elf.needed(), elf.version_needs(), elf.undefined(), elf.defines("x"), elf.soname());
        if let Ok(Some(section)) = elf.section(".nv_fatbin") {
            let _ = doctor::elf::gpu_code(&file, section);
        }
    };
    read(&whole);
    for length in 0..whole.len() {
        read(&whole[..length]);
    }
    for at in 0..whole.len() {
        for value in [0, 0x7f, 0xff] {
            let mut turned = whole.clone();
            turned[at] = value;
            read(&turned);
        }
    }
}
