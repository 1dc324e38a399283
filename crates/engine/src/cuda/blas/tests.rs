//! Proofs of what can be proved of the library's use without a GPU.

use super::Key;
use super::functions::Algorithm;
use super::key::bucket;
use super::table::{Machine, Table};
use crate::cuda::Properties;
use crate::cuda::gemm::Layout;

fn machine(driver: (u32, u32)) -> Machine {
    let properties = Properties {
        name: "NVIDIA H200 / 2".to_owned(),
        capability: (9, 0),
        multiprocessors: 132,
        total_memory: 1 << 37,
        driver,
    };
    Machine::new(&properties, (13, 4, 1))
}

fn key(layout: Layout, rows: usize) -> Key {
    let strides = [4096, 4096, 11008];
    Key { layout, rows, m: 11008, k: 4096, strides, wide: false, add: true, aligned: true }
}

#[test]
fn rows_are_rounded_up_to_few_buckets() {
    let buckets: Vec<usize> = [1, 3, 200, 256, 257, 512, 10_000].map(bucket).to_vec();
    assert_eq!(buckets, [1, 4, 256, 256, 512, 512, 10_240]);
}

#[test]
fn a_tuning_table_comes_back_as_it_was_saved() {
    let folder = std::env::temp_dir().join(format!("prospect-table-{}", std::process::id()));
    let mut table = Table::new(&folder, machine((12, 8)));
    table.insert(key(Layout::Forward, 256), Algorithm([u64::MAX, 1, 2, 3, 4, 5, 6, 7]));
    table.insert(key(Layout::BackwardWeight, 4096), Algorithm([9; 8]));
    table.save().unwrap();
    let again = Table::find(&folder, &machine((12, 8))).unwrap();
    let other = Table::find(&folder, &machine((13, 0))).unwrap();
    std::fs::write(table.path(), "{\"gpu\": \"another\"}").unwrap();
    let broken = Table::find(&folder, &machine((12, 8)));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(again.as_ref(), Some(&table));
    assert_eq!(again.unwrap().algorithm(&key(Layout::Forward, 512)), None);
    assert_eq!(other, None, "a table of another driver was used");
    let text = broken.unwrap_err().to_string();
    assert!(text.contains("its gpu is \"another\"") && text.contains("prospect tune"), "{text}");
}
