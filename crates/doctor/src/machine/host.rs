//! The host: memory and its limits, disks, the Hugging Face cache, glibc.

use crate::facts::{Machine, is_folder, names, read_text};
use crate::table::{Scope, Table};
use std::path::{Path, PathBuf};

const GIB: f64 = (1u64 << 30) as f64;

/// Adds the facts of the host.
pub(super) fn gather(machine: &dyn Machine, table: &mut Table) {
    let all = &mut table.all;
    memory(machine, all);
    all.number("host.processors", machine.processors() as f64, "the operating system");
    let model = read_text(machine, Path::new("/proc/cpuinfo"), 8 << 10).unwrap_or_default();
    if let Some(line) = model.lines().find(|l| l.starts_with("model name")) {
        all.text("host.processor", line.split(':').nth(1).unwrap_or("").trim(), "/proc/cpuinfo");
    }
    disks(machine, all);
    if let Some((version, path)) = glibc(machine) {
        all.version("glibc", &version, path);
    }
}

fn memory(machine: &dyn Machine, all: &mut Scope) {
    let path = "/proc/meminfo";
    let text = read_text(machine, Path::new(path), 64 << 10).unwrap_or_default();
    let kib = |key: &str| -> Option<f64> {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    for (fact, key) in [
        ("host.memory_gib", "MemTotal"),
        ("host.available_gib", "MemAvailable"),
        ("host.swap_gib", "SwapTotal"),
    ] {
        if let Some(kib) = kib(key) {
            all.number(fact, kib / (1 << 20) as f64, path);
        }
    }
    // cgroup v2, then v1. "max" and v1's huge number mean no limit.
    for path in ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"] {
        let limit =
            read_text(machine, Path::new(path), 64).ok().and_then(|t| t.trim().parse::<f64>().ok());
        if let Some(bytes) = limit.filter(|b| *b < 1e15) {
            all.number("cgroup.limit_gib", bytes / GIB, path);
            break;
        }
    }
}

fn disks(machine: &dyn Machine, all: &mut Scope) {
    let home = machine.variable("HOME").map(PathBuf::from);
    let cache = machine.variable("HF_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| {
        machine.variable("XDG_CACHE_HOME").map(|c| PathBuf::from(c).join("huggingface"))
    });
    let cache = cache.or_else(|| home.map(|h| h.join(".cache/huggingface")));
    if let Some(cache) = cache {
        let path = cache.display().to_string();
        all.text("hf.home", &path, "HF_HOME");
        if let Some(free) = machine.space(&cache) {
            all.number("hf.free_gib", free as f64 / GIB, &path);
        }
        if let Some(writable) = machine.writable(&cache) {
            all.flag("hf.writable", writable, &path);
        }
    }
    let temporary = machine.variable("TMPDIR").unwrap_or("/tmp".into());
    if let Some(free) = machine.space(Path::new(&temporary)) {
        all.number("tmp.free_gib", free as f64 / GIB, temporary);
    }
}

/// glibc's version: the name of its dynamic file where it has one (`libc-2.31.so`), else the banner inside it
/// ("GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36").
fn glibc(machine: &dyn Machine) -> Option<(String, String)> {
    for folder in [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib/aarch64-linux-gnu",
        "/usr/lib",
    ] {
        let folder = Path::new(folder);
        if !is_folder(machine, folder) {
            continue;
        }
        for name in names(machine, folder) {
            if let Some(version) = name.strip_prefix("libc-").and_then(|n| n.strip_suffix(".so")) {
                return Some((version.into(), folder.join(&name).display().to_string()));
            }
        }
        let path = folder.join("libc.so.6");
        let Ok(file) = machine.open(&path) else { continue };
        if let Some(version) = banner(file.as_ref()) {
            return Some((version, path.display().to_string()));
        }
    }
    None
}

fn banner(file: &dyn crate::facts::ReadAt) -> Option<String> {
    const MARK: &[u8] = b"stable release version ";
    let mut piece = vec![0u8; 64 << 10];
    let mut at = 0;
    while at < file.size().min(8 << 20) {
        let got = file.read_at(at, &mut piece).ok().filter(|n| *n > 0)?;
        if let Some(found) = piece[..got].windows(MARK.len()).position(|w| w == MARK) {
            let text: String = piece[found + MARK.len()..got]
                .iter()
                .take(12)
                .map(|b| *b as char)
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            return Some(text.trim_end_matches('.').to_string());
        }
        // Pieces overlap, so that a mark across their border is seen.
        at += (got as u64).saturating_sub(64).max(1);
    }
    None
}
