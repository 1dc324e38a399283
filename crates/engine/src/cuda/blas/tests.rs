//! Proofs of what can be proved of the library's use without a GPU.

use super::key::bucket;

#[test]
fn rows_are_rounded_up_to_few_buckets() {
    let buckets: Vec<usize> = [1, 3, 200, 256, 257, 512, 10_000].map(bucket).to_vec();
    assert_eq!(buckets, [1, 4, 256, 256, 512, 512, 10_240]);
}
