//! Proofs of NF4 and FP4. The numbers of bitsandbytes are made by fixtures/engine/make_engine.py and
//! make_quantization.py.

use sha2::{Digest, Sha256};

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Error;
use crate::memory::arena::Category;
use crate::ops::nf4::{self, CodeBook, Quantized, Scales, tables};
use crate::testing::{
    assert_close, cpu, cuda, filled, filled_activations, normal, normal_activations,
    plan_takes_what_cpu_takes, rounded, tensor, values,
};

fn fixture(name: &str) -> serde_json::Value {
    let path = format!("{}/../../fixtures/engine/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32))
        .collect()
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    value.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect()
}

/// Cases of bitsandbytes: both code books.
fn cases() -> Vec<(CodeBook, serde_json::Value)> {
    let of = |file: &str, code_book: CodeBook| {
        let cases = fixture(file)[code_book.name()].as_array().unwrap().clone();
        cases.into_iter().map(move |case| (code_book, case))
    };
    of("engine.json", CodeBook::Nf4).chain(of("quantization.json", CodeBook::Fp4)).collect()
}

fn hex_of(values: &[f32]) -> String {
    values.iter().flat_map(|v| v.to_le_bytes()).map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_code_books_are_bitsandbytes_to_the_byte() {
    let golden = fixture("bnb_golden.json");
    assert_eq!(hex_of(&tables::NF4), golden["nf4_hex"].as_str().unwrap());
    for (name, map) in [
        ("dynamic_signed", tables::dynamic_signed()),
        ("dynamic_unsigned", tables::dynamic_unsigned()),
    ] {
        assert_eq!(hex_of(map), golden[name]["hex"].as_str().unwrap(), "{name}");
        let le: Vec<u8> = map.iter().flat_map(|v| v.to_le_bytes()).collect();
        let sha: String = Sha256::digest(&le).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(sha, golden[name]["sha256_f32le"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn the_dynamic_maps_are_what_their_construction_says() {
    for (map, signed) in [(tables::dynamic_signed(), true), (tables::dynamic_unsigned(), false)] {
        let mut values = vec![0.0, 1.0];
        for decade in 0..7 {
            let parts = 1 << (decade + usize::from(!signed));
            let edge = |i: usize| 0.1 + 0.9 * i as f64 / parts as f64;
            for i in 0..parts {
                let value = (edge(i) + edge(i + 1)) / 2.0 * 10f64.powi(decade as i32 - 6);
                values.extend([value, -value].into_iter().take(1 + usize::from(signed)));
            }
        }
        values.sort_by(f64::total_cmp);
        assert!(
            map.iter().zip(&values).all(|(a, b)| (f64::from(*a) - b).abs() <= b.abs() * 3e-7),
            "signed {signed}"
        );
    }
}

#[test]
fn codes_scales_and_values_are_bitsandbytes_to_the_byte() {
    for (book, case) in cases() {
        let device = cpu();
        let side = |i: usize| case["shape"][i].as_u64().unwrap() as usize;
        let (shape, double) = ((side(0), side(1)), case["double"].as_bool().unwrap());
        let block_size = case["block_size"].as_u64().unwrap() as usize;
        let x = tensor(&device, shape, &floats(&case["x"]));
        let mut quantized =
            Quantized::new(&device, shape.into(), book, block_size, double).unwrap();
        nf4::quantize(x.view(), &mut quantized).unwrap();
        assert_eq!(quantized.codes.as_slice::<u8>(), bytes(&case["codes"]), "{book:?}, {shape:?}");
        let mut tolerance = 0.0;
        match &quantized.scales {
            Scales::Plain { absmax } => {
                assert_eq!(absmax.as_slice::<f32>(), floats(&case["absmax"]))
            }
            Scales::Double { codes, nested_absmax, offset } => {
                // torch adds in another order, so the mean may differ in its last bit, and with it all that follows.
                let theirs = f32::from_bits(case["offset"].as_u64().unwrap() as u32);
                assert_close("offset", offset.as_slice(), &[theirs], theirs * 2e-7);
                assert_close(
                    "nested absmax",
                    nested_absmax.as_slice(),
                    &floats(&case["nested_absmax"]),
                    theirs * 2e-7,
                );
                for (ours, theirs) in
                    codes.as_slice::<u8>().iter().zip(bytes(&case["absmax_codes"]))
                {
                    assert!(
                        ours.abs_diff(theirs) <= 1,
                        "nested code {ours}, bitsandbytes has {theirs}"
                    );
                }
                tolerance = 0.02 * theirs;
            }
        }
        let mut y = filled(&device, shape, 9.0);
        nf4::dequantize(&quantized, y.view_mut()).unwrap();
        assert_close("dequantized", y.as_slice(), &floats(&case["dequantized"]), tolerance);
    }
}

#[test]
fn a_double_quantized_checkpoint_dequantizes_to_bitsandbytes_values() {
    for (book, case) in cases().into_iter().filter(|(_, case)| case["double"] == true) {
        let device = cpu();
        let side = |i: usize| case["shape"][i].as_u64().unwrap() as usize;
        let shape = (side(0), side(1)).into();
        let mut stored = Quantized::new(&device, shape, book, 64, true).unwrap();
        stored.codes.as_mut_slice::<u8>().copy_from_slice(&bytes(&case["codes"]));
        let Scales::Double { codes, nested_absmax, offset } = &mut stored.scales else {
            unreachable!()
        };
        codes.as_mut_slice::<u8>().copy_from_slice(&bytes(&case["absmax_codes"]));
        nested_absmax.as_mut_slice::<f32>().copy_from_slice(&floats(&case["nested_absmax"]));
        offset.as_mut_slice::<f32>()[0] = f32::from_bits(case["offset"].as_u64().unwrap() as u32);
        let mut y = filled(&device, (side(0), side(1)), 9.0);
        nf4::dequantize(&stored, y.view_mut()).unwrap();
        assert_close("dequantized", y.as_slice(), &floats(&case["dequantized"]), 0.0);
    }
}

#[test]
fn a_value_is_off_by_at_most_half_the_widest_step() {
    for (book, half_a_step) in [(CodeBook::Nf4, 0.153), (CodeBook::Fp4, 0.1667)] {
        let device = cpu();
        let x = normal(&device, (33, 47), 7);
        let mut quantized =
            Quantized::new(&device, (33, 47).into(), book, nf4::BLOCK_SIZE, false).unwrap();
        nf4::quantize(x.view(), &mut quantized).unwrap();
        let mut y = filled(&device, (33, 47), 0.0);
        nf4::dequantize(&quantized, y.view_mut()).unwrap();
        let Scales::Plain { absmax } = &quantized.scales else { unreachable!() };
        let (x, y, absmax) = (x.as_slice::<f32>(), y.as_slice::<f32>(), absmax.as_slice::<f32>());
        for i in 0..x.len() {
            assert!(
                (x[i] - y[i]).abs() <= half_a_step * absmax[i / nf4::BLOCK_SIZE],
                "{book:?}, element {i}: {} became {}",
                x[i],
                y[i]
            );
        }
    }
}

/// The numbers between the braces behind `name` in nf4.cu.
fn kernel_table(name: &str) -> Vec<u32> {
    let source = include_str!("nf4.cu");
    let text = &source[source.find(&format!("{name}[2][16] = {{")).unwrap() + name.len() + 8..];
    let words = text[..text.find("};").unwrap()].split(|c: char| !c.is_ascii_alphanumeric());
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    words.filter(|word| !word.is_empty()).map(number).collect()
}

#[test]
fn the_kernels_code_books_are_those_of_the_cpu() {
    let (values, codes) = (kernel_table("VALUES"), kernel_table("CODES"));
    for (i, book) in [CodeBook::Nf4, CodeBook::Fp4].into_iter().enumerate() {
        let order = book.order();
        assert_eq!(codes[16 * i..][..16], order.map(u32::from));
        let sorted = order.map(|code| book.values()[usize::from(code)].to_bits());
        assert_eq!(values[16 * i..][..16], sorted);
        assert!(sorted.is_sorted_by_key(|bits| (f64::from(f32::from_bits(*bits)) * 1e9) as i64));
    }
}

#[test]
fn a_shape_that_does_not_fit_is_refused() {
    let device = cpu();
    let mut quantized = Quantized::new(&device, (4, 16).into(), CodeBook::Fp4, 64, false).unwrap();
    let got = nf4::quantize(normal(&device, (4, 15), 0).view(), &mut quantized);
    assert!(matches!(got, Err(Error::Shape { name: "x", .. })));
    let mut y = device.scratch((4, 16), DType::BF16, Category::Workspace).unwrap();
    assert!(matches!(
        nf4::dequantize(&quantized, y.view_mut()),
        Err(Error::DType { name: "y", .. })
    ));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let mut quantized =
            Quantized::new(device, (33, 64).into(), CodeBook::Fp4, 64, true).unwrap();
        let mut x = normal(device, (33, 64), 0);
        nf4::quantize(x.view(), &mut quantized).unwrap();
        nf4::dequantize(&quantized, x.view_mut()).unwrap();
    });
    // 0.5 bytes of codes, 1/64 of absmax codes and 4/(64 * 256) of nested absmax a parameter, besides alignment.
    let plan = crate::device::Device::plan_for(crate::device::Kind::Cpu);
    let _weight = Quantized::new(&plan, (4096, 4096).into(), CodeBook::Nf4, 64, true).unwrap();
    let expected = 4096.0 * 4096.0 * (0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0));
    assert_eq!(plan.used_bytes(), expected as usize + 256);
}

#[test]
fn on_cuda_codes_scales_and_values_are_those_of_the_cpu() {
    let Some(gpu) = cuda() else { return };
    for (rows, cols) in [(1, 1), (7, 33), (48, 64), (64, 1024)] {
        for (book, double_quant) in [
            (CodeBook::Nf4, false),
            (CodeBook::Nf4, true),
            (CodeBook::Fp4, false),
            (CodeBook::Fp4, true),
        ] {
            let run = |device: &Device| {
                let x = normal_activations(device, (rows, cols), 1);
                let shape = crate::tensor::Shape { rows, cols };
                let mut quantized =
                    Quantized::new(device, shape, book, nf4::BLOCK_SIZE, double_quant).unwrap();
                nf4::quantize(x.view(), &mut quantized).unwrap();
                let mut y = filled_activations(device, (rows, cols), 7.0);
                nf4::dequantize(&quantized, y.view_mut()).unwrap();
                let codes: Vec<u8> = quantized.codes.to_vec().unwrap();
                let scales = match &quantized.scales {
                    Scales::Plain { absmax } => (values(absmax), Vec::new(), 0.0),
                    Scales::Double { codes, nested_absmax, offset } => {
                        (values(nested_absmax), codes.to_vec::<u8>().unwrap(), values(offset)[0])
                    }
                };
                (codes, scales, values(&y))
            };
            let (exact, ours) = (run(&cpu()), run(&gpu));
            assert_eq!(exact.0, ours.0, "{book:?}: codes of ({rows}, {cols})");
            assert_eq!(exact.1, ours.1, "{book:?}: scales of ({rows}, {cols})");
            assert_eq!(rounded(&exact.2), ours.2, "{book:?}: values of ({rows}, {cols})");
        }
    }
}
