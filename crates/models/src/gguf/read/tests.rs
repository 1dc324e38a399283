//! Files that lie about lengths.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::super::write::{Entry, write_to};
use super::*;

/// A small file with a key of every kind.
fn small() -> Vec<u8> {
    let keys = [
        ("general.architecture".to_owned(), Value::String("llama".to_owned())),
        ("a".to_owned(), Value::Array(vec![Value::I32(1), Value::I32(2)])),
        ("b".to_owned(), Value::strings(vec!["x".to_owned(), "yz".to_owned()])),
        ("c".to_owned(), Value::F64(0.5)),
        ("d".to_owned(), Value::Bool(true)),
        ("e".to_owned(), Value::U64(7)),
    ];
    let entry = |name: &str, shape: Vec<usize>, kind: TensorType| {
        let count = kind.bytes(shape.iter().product());
        let bytes = move |writer: &mut dyn std::io::Write| writer.write_all(&vec![3; count]);
        Entry { name: name.to_owned(), shape, kind, bytes: Box::new(bytes) }
    };
    let entries = [entry("t", vec![3, 32], TensorType::Q4_0), entry("v", vec![5], TensorType::F32)];
    let mut bytes = Vec::new();
    write_to(&mut bytes, &keys, &entries).unwrap();
    bytes
}

fn opened(bytes: &[u8]) -> Parsed<File> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    File::open(&path).map_err(|error| error.message.replace(&path.display().to_string(), "FILE"))
}

#[test]
fn lengths_that_lie_are_refused_before_they_are_believed() {
    let sound = small();
    assert_eq!(sound.len() as u64 % ALIGNMENT, 0);
    let file = opened(&sound).unwrap();
    assert_eq!(file.keys().len(), 6);
    assert_eq!(file.tensor("t").unwrap().shape, [3, 32]);
    let lied = |at: usize, value: u64, expected: Expect| {
        let mut bytes = sound.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        expected.assert_eq(&opened(&bytes).err().unwrap());
    };
    lied(8, u64::MAX, expect!["'FILE' is not a whole GGUF file:  has 0 dimensions"]);
    lied(
        16,
        u64::MAX,
        expect![
            "'FILE' is not a whole GGUF file: 844424930131968 bytes at 225 reach beyond its end"
        ],
    );
    lied(
        24,
        u64::MAX,
        expect![
            "'FILE' is not a whole GGUF file: 18446744073709551615 bytes at 32 reach beyond its end"
        ],
    );
    // The array's count, behind "general.architecture" = "llama" and "a": array of i32.
    let array = 24 + 8 + 20 + 4 + 8 + 5 + 8 + 1 + 4 + 4;
    lied(
        array,
        1 << 60,
        expect!["'FILE' is not a whole GGUF file: 4 bytes at 382 reach beyond its end"],
    );
    lied(0, 0, expect!["'FILE' is not a whole GGUF file: it does not begin with GGUF"]);
    expect!["'FILE' is not a whole GGUF file: t of shape [3, 32] at 0 is not whole within it"]
        .assert_eq(&opened(&sound[..sound.len() - 64]).err().unwrap());
    assert!(opened(&[]).is_err());
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(at in 0usize..400, byte: u8, cut in 0usize..500) {
        let mut bytes = small();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(file) = opened(&bytes) {
            file.tensors().for_each(|tensor| { let _ = tensor.to_f32(); });
        }
    }
}
