//! The launch tables against the PTX, without a GPU.

use super::launch::{MAX_SHARED_BYTES, TABLE_WORDS};
use crate::ops::{self, nf4::tables};

/// Bytes of static shared memory that PTX declares in the body of a kernel.
fn static_shared_bytes(body: &str) -> usize {
    let declared = body.lines().filter(|line| line.trim_start().starts_with(".shared"));
    let bytes = declared.map(|line| {
        // .shared .align 4 .b8 name[32];
        let count = line.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']'));
        count.map_or(16, |(count, _)| count.parse().expect("a number of bytes"))
    });
    bytes.sum()
}

/// The text of a kernel, from its entry to the next.
fn body<'a>(ptx: &'a str, kernel: &str) -> &'a str {
    let entry = format!(".entry {kernel}(");
    let Some(start) = ptx.find(&entry) else { panic!("{kernel} is not in the PTX") };
    let rest = &ptx[start..];
    &rest[..rest[1..].find(".entry ").map_or(rest.len(), |end| end + 1)]
}

#[test]
fn every_kernel_is_in_its_ptx_and_fits_the_shared_memory_of_an_rtx_3090() {
    let modules = ops::modules();
    assert!(!modules.is_empty());
    for module in modules {
        assert!(module.ptx.contains(".target sm_80"), "{} is not for compute_80", module.name);
        let entries = module.ptx.matches(".entry ").count();
        assert_eq!(entries, module.kernels.len(), "{}: kernels in PTX and table", module.name);
        for (kernel, threads, dynamic) in module.kernels {
            let shared = static_shared_bytes(body(module.ptx, kernel)) + *dynamic as usize;
            assert!(shared <= MAX_SHARED_BYTES, "{kernel} takes {shared} bytes of shared memory");
            assert!((32..=1024).contains(threads) && threads % 32 == 0, "{kernel}: {threads}");
        }
    }
}

#[test]
fn the_kernels_dynamic_maps_are_those_of_the_cpu() {
    let source = include_str!("dynamic_maps.cuh");
    let words = |name: &str| -> Vec<u32> {
        let start = source.find(&format!("{name}[256]")).expect("the map is there");
        let text = &source[start..];
        let text = &text[text.find('{').expect("values")..text.find("};").expect("values end")];
        let numbers = text.split(|c: char| !c.is_ascii_alphanumeric());
        let hex = numbers.filter_map(|word| word.strip_prefix("0x"));
        hex.map(|hex| u32::from_str_radix(hex, 16).expect("hexadecimal")).collect()
    };
    let bits = |map: &[f32; 256]| map.map(f32::to_bits).to_vec();
    assert_eq!(words("DYNAMIC_SIGNED"), bits(tables::dynamic_signed()));
    assert_eq!(words("DYNAMIC_UNSIGNED"), bits(tables::dynamic_unsigned()));
}

#[test]
fn the_table_of_tensors_is_as_long_in_the_kernels() {
    assert!(include_str!("common.cuh").contains(&format!("u64 words[{TABLE_WORDS}];")));
}

#[test]
fn the_ptx_was_made_of_the_sources_beside_it() {
    use sha2::{Digest, Sha256};
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let listing = |folder: &std::path::Path, extension: &str| {
        let entries = std::fs::read_dir(folder).expect("the sources are there");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut all: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
        all.sort();
        all
    };
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("text");
    let mut seen = 0;
    for room in std::fs::read_dir(source.join("ops")).expect("the rooms") {
        let room = room.expect("a room").path();
        if !room.is_dir() {
            continue;
        }
        for file in listing(&room, "cu") {
            let mut digest = Sha256::new();
            digest.update(read(&file));
            for folder in [source.join("cuda"), room.clone()] {
                listing(&folder, "cuh").iter().for_each(|header| digest.update(read(header)));
            }
            let hash: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
            let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = read(&file);
            let variants = text.lines().next().and_then(|line| line.strip_prefix("// variants: "));
            let names = match variants.and_then(|line| line.split_once('=')) {
                None => vec![stem],
                Some((_, values)) => {
                    values.split(',').map(|value| format!("{stem}_{}", value.trim())).collect()
                }
            };
            for name in names {
                let ptx = room.join(format!("{name}.ptx"));
                let first = format!("// sources {hash}\n");
                assert!(
                    read(&ptx).starts_with(&first),
                    "{} is not made of {}; run `cargo xtask kernels`",
                    ptx.display(),
                    file.display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 11);
}
