//! Proofs of LLM.int8(). The numbers of bitsandbytes are made by fixtures/engine/make_quantization.py.

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Error;
use crate::memory::arena::Category;
use crate::ops::int8::{self, Quantized};
use crate::testing::{
    activations, assert_close, cpu, cuda, filled, filled_activations, normal, normal_activations,
    plan_takes_what_cpu_takes, rounded, tensor, values,
};

/// Quantizes and dequantizes onto a buffer of dirt.
fn there_and_back(device: &Device, shape: (usize, usize), x: &[f32]) -> (Quantized, Vec<f32>) {
    let x = activations(device, shape, x);
    let mut quantized = Quantized::new(device, shape.into()).unwrap();
    int8::quantize(x.view(), &mut quantized).unwrap();
    let mut y = filled_activations(device, shape, 9.0);
    int8::dequantize(&quantized, y.view_mut()).unwrap();
    (quantized, values(&y))
}

#[test]
fn codes_scales_and_values_are_bitsandbytes_to_the_byte() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/engine/quantization.json");
    let fixture: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in fixture["int8"].as_array().unwrap() {
        let numbers = |key: &str| case[key].as_array().unwrap().iter().map(|n| n.as_i64().unwrap());
        let floats = |key: &str| numbers(key).map(|bits| f32::from_bits(bits as u32)).collect();
        let (x, scb, theirs): (Vec<f32>, Vec<f32>, Vec<f32>) =
            (floats("x"), floats("scb"), floats("dequantized"));
        let side = |i: usize| case["shape"][i].as_u64().unwrap() as usize;
        let (quantized, y) = there_and_back(&cpu(), (side(0), side(1)), &x);
        let codes: Vec<i8> = numbers("codes").map(|code| code as i8).collect();
        assert_eq!(quantized.codes.as_slice::<i8>(), codes);
        assert_eq!(quantized.scb.as_slice::<f32>(), scb);
        assert_eq!(
            y.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            theirs.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_value_is_off_by_at_most_half_a_step_of_its_row() {
    let x = normal(&cpu(), (33, 47), 7).to_vec::<f32>().unwrap();
    let (quantized, y) = there_and_back(&cpu(), (33, 47), &x);
    let scb: &[f32] = quantized.scb.as_slice();
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        // Half a step, and the rounding to f16 before.
        let allowed = scb[i / 47] * (0.5 / 127.0) * 1.001 + x.abs() / 2048.0;
        assert!((x - y).abs() <= allowed, "element {i}: {x} became {y}");
    }
}

#[test]
fn a_row_of_zeros_stays_zero_and_one_beyond_f16_has_an_infinite_scale() {
    let x = [0.0, 0.0, 1.0, -70_000.0];
    let (quantized, y) = there_and_back(&cpu(), (2, 2), &x);
    assert_eq!(quantized.scb.as_slice::<f32>(), [0.0, f32::INFINITY]);
    assert_eq!(y[..2], [0.0, 0.0]);
}

#[test]
fn a_shape_that_does_not_fit_is_refused() {
    let device = cpu();
    let mut quantized = Quantized::new(&device, (4, 16).into()).unwrap();
    let got = int8::quantize(normal(&device, (4, 15), 0).view(), &mut quantized);
    assert!(matches!(got, Err(Error::Shape { name: "x", .. })));
    let mut y = device.scratch((4, 16), DType::BF16, Category::Workspace).unwrap();
    let got = int8::dequantize(&quantized, y.view_mut());
    assert!(matches!(got, Err(Error::DType { name: "y", .. })));
    let got = int8::dequantize(&quantized, filled(&device, (16, 4), 0.0).view_mut());
    assert!(matches!(got, Err(Error::Shape { name: "y", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let mut quantized = Quantized::new(device, (33, 64).into()).unwrap();
        let mut x = normal(device, (33, 64), 0);
        int8::quantize(x.view(), &mut quantized).unwrap();
        int8::dequantize(&quantized, x.view_mut()).unwrap();
    });
    // A byte a parameter and four a row.
    let plan = Device::plan_for(Kind::Cpu);
    let _weight = Quantized::new(&plan, (4096, 4096).into()).unwrap();
    assert_eq!(plan.used_bytes(), 4096 * 4096 + 4 * 4096);
}

#[test]
fn dequantizing_overwrites_what_is_there_the_same_way_twice() {
    let device = cpu();
    let x = tensor(&device, (7, 33), &normal(&device, (7, 33), 3).to_vec::<f32>().unwrap());
    let mut quantized = Quantized::new(&device, (7, 33).into()).unwrap();
    int8::quantize(x.view(), &mut quantized).unwrap();
    let (mut once, mut again) = (filled(&device, (7, 33), f32::NAN), filled(&device, (7, 33), 5.0));
    int8::dequantize(&quantized, once.view_mut()).unwrap();
    int8::dequantize(&quantized, again.view_mut()).unwrap();
    assert_close("dequantized", once.as_slice(), again.as_slice(), 0.0);
}

#[test]
fn on_cuda_codes_scales_and_values_are_those_of_the_cpu() {
    let Some(gpu) = cuda() else { return };
    for shape in [(1, 1), (7, 33), (48, 64), (3, 2056), (64, 4096)] {
        let mut x = normal_activations(&cpu(), shape, 1).to_vec::<f32>().unwrap();
        x[..shape.1].fill(0.0);
        let run = |device: &Device| {
            let (quantized, y) = there_and_back(device, shape, &x);
            (quantized.codes.to_vec::<i8>().unwrap(), values(&quantized.scb), y)
        };
        let (exact, ours) = (run(&cpu()), run(&gpu));
        assert_eq!(exact.0, ours.0, "codes of {shape:?}");
        assert_eq!(exact.1, ours.1, "scales of {shape:?}");
        assert_eq!(rounded(&exact.2), ours.2, "values of {shape:?}");
    }
}
