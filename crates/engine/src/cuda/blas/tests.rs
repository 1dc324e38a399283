//! Proofs of what can be proved of the library's use without a GPU: buckets, and tables of choices.

use super::functions::Algorithm;
use super::key::{Key, bucket};
use super::table::{self, Choice, Found, Scope};
use crate::cuda::gemm::Layout;

#[test]
fn rows_are_rounded_up_to_few_buckets() {
    let buckets: Vec<usize> = [1, 3, 200, 256, 257, 512, 10_000].map(bucket).to_vec();
    assert_eq!(buckets, [1, 4, 256, 256, 512, 512, 10_240]);
}

fn scope() -> Scope {
    Scope {
        gpu: "NVIDIA H100 80GB HBM3".to_owned(),
        multiprocessors: 132,
        version: (13, 4, 1),
        workspace: 32 << 20,
    }
}

fn choices() -> Vec<Choice> {
    let choice = |layout, rows, flags: [bool; 3], candidate: usize| Choice {
        key: Key {
            layout,
            rows,
            m: 4096,
            k: 11_008,
            strides: [11_008, 11_008, 4096],
            wide: flags[0],
            add: flags[1],
            aligned: flags[2],
        },
        candidate,
        first: 812.25,
        chosen: 790.5,
        algorithm: Algorithm([u64::MAX, 0, 1, 1 << 63, 0x0123_4567_89ab_cdef, 5, 6, rows as u64]),
    };
    vec![
        choice(Layout::Forward, 256, [false, false, true], 0),
        choice(Layout::BackwardInput, 4096, [false, true, true], 15),
        choice(Layout::BackwardWeight, 4096, [true, true, false], 3),
        choice(Layout::BackwardWeight, 4096, [true, false, false], 3),
    ]
}

#[test]
fn a_table_reads_back_as_it_was_written() {
    for some in [&choices()[..], &[]] {
        let text = table::written(&scope(), some);
        let (read, hash) = table::parse(text.as_bytes(), &scope()).unwrap();
        assert_eq!(read, some);
        assert!(text.contains(&format!("\nsha256 {hash}")), "{hash}\n{text}");
    }
    assert_eq!(scope().file_name(), "NVIDIA-H100-80GB-HBM3_cublaslt-13.4.1.txt");
}

/// A table with something changed, its checksum that of the change.
fn sealed(change: impl Fn(&str) -> String) -> String {
    use sha2::{Digest, Sha256};
    let text = table::written(&scope(), &choices());
    let body = change(&text[..text.rfind("sha256").unwrap()]);
    let sum: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{body}sha256 {sum}\n")
}

#[test]
fn a_table_that_is_foreign_or_says_what_it_cannot_is_passed_over_with_words() {
    let elsewhere = |change: fn(&mut Scope)| {
        let mut scope = scope();
        change(&mut scope);
        table::written(&scope, &choices())
    };
    let replaced = |from: &'static str, to: &'static str| {
        sealed(|body| {
            assert!(body.contains(from));
            body.replacen(from, to, 1)
        })
    };
    let twice = sealed(|body| format!("{body}{}\n", body.lines().last().unwrap()));
    for (text, words) in [
        (String::new(), "its first line is not 'prospect tuned products 1'"),
        ("prospect tuned products 2\n".to_owned(), "its first line is not"),
        ("prospect tuned products 1\n".to_owned(), "it is cut off"),
        (
            elsewhere(|scope| scope.gpu = "NVIDIA A100".to_owned()),
            "it is for 'gpu NVIDIA A100', this is 'gpu NVIDIA H100 80GB HBM3'",
        ),
        (
            elsewhere(|scope| scope.multiprocessors = 16),
            "it is for 'multiprocessors 16', this is 'multiprocessors 132'",
        ),
        (elsewhere(|scope| scope.version.2 = 2), "it is for 'cublaslt 13.4.2', this is"),
        (elsewhere(|scope| scope.workspace = 0), "it is for 'workspace 0', this is"),
        (sealed(|_| "prospect tuned products 1\n".to_owned()), "it is for '', this is 'gpu"),
        (replaced("\nforward ", "\nsideways "), "line 7 is no choice: 'sideways 256 4096"),
        (replaced("forward 256", "forward -256"), "line 7 is no choice"),
        (replaced("forward 256", "forward 99999999999999999999"), "line 7 is no choice"),
        (replaced("forward 256 ", "forward "), "line 7 is no choice"),
        (replaced("forward 256 ", "forward 256  "), "line 7 is no choice"),
        (replaced(" bf16 ", " f16 "), "line 7 is no choice"),
        (replaced(" set 16 ", " set 8 "), "line 7 is no choice"),
        (replaced(" 812.25 ", " NaN "), "line 7 is no choice"),
        (replaced(" 812.25 ", " -1 "), "line 7 is no choice"),
        (replaced(" ffffffffffffffff", " fffffffffffffff"), "line 7 is no choice"),
        (replaced(" ffffffffffffffff", " +fffffffffffffff"), "line 7 is no choice"),
        (twice, "line 11 chooses a second time"),
    ] {
        match table::parse(text.as_bytes(), &scope()) {
            Ok(_) => panic!("taken: {text}"),
            Err(reason) => assert!(reason.contains(words), "{words}: {reason}"),
        }
    }
    assert_eq!(table::parse(&[0xff, 0xfe], &scope()), Err("it is not text".to_owned()));
}

#[test]
fn a_table_that_is_cut_or_has_a_flipped_bit_anywhere_is_passed_over() {
    let whole = table::written(&scope(), &choices()).into_bytes();
    for length in 0..whole.len() {
        assert!(table::parse(&whole[..length], &scope()).is_err(), "cut at {length}");
    }
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(table::parse(&bytes, &scope()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_table_is_found_where_it_was_written_and_the_one_before_is_kept_under_its_hash() {
    let folder = std::env::temp_dir().join(format!("prospect-tuned-{}", std::process::id()));
    let path = folder.join("tuned").join(scope().file_name());
    assert_eq!(table::find(&path, &scope()), Found::Nothing);
    let all = choices();
    assert_eq!(table::write(&path, &scope(), &all[..2]).unwrap(), None);
    let first = std::fs::read(&path).unwrap();
    let Found::Table { choices, hash } = table::find(&path, &scope()) else { panic!("not found") };
    assert_eq!(choices.len(), 2);
    assert_eq!(choices[&all[1].key], all[1].algorithm);

    // The same again is no other table.
    assert_eq!(table::write(&path, &scope(), &all[..2]).unwrap(), None);
    let kept = table::write(&path, &scope(), &all).unwrap().unwrap();
    assert!(kept.display().to_string().ends_with(&format!("13.4.1.{hash}.txt")), "{kept:?}");
    assert_eq!(std::fs::read(&kept).unwrap(), first);
    let Found::Table { choices, .. } = table::find(&path, &scope()) else { panic!("not found") };
    assert_eq!(choices.len(), 4);

    // What is no table is written over, and nothing is left half-written.
    std::fs::write(&path, "no table").unwrap();
    assert!(
        matches!(table::find(&path, &scope()), Found::PassedOver(why) if why.contains("first line"))
    );
    assert_eq!(table::write(&path, &scope(), &all).unwrap(), None);
    assert_eq!(std::fs::read_dir(folder.join("tuned")).unwrap().count(), 2);

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(
        table::find(&path, &scope()),
        Found::PassedOver("it cannot be read: it is no file".to_owned())
    );
    assert!(table::write(&path, &scope(), &all).is_err());
    assert_eq!(std::fs::read_dir(folder.join("tuned")).unwrap().count(), 2, "a part is left");
    std::fs::remove_dir_all(&folder).unwrap();
}
