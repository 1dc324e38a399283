//! Proofs of the embedding.

use half::bf16;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Error;
use crate::memory::arena::Category;
use crate::ops::{cast, embedding};
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, cuda, dot, filled, filled_activations, gradient_matches, normal,
    normal_activations, plan_takes_what_cpu_takes, rounded, same_on_cuda, tensor, values,
};

#[test]
fn rows_are_looked_up_and_gradients_of_a_repeated_id_are_summed_onto_what_is_there() {
    let device = cpu();
    let table = tensor(&device, (3, 2), &[1., 2., 3., 4., 5., 6.]);
    let ids = device.upload(&[2u32, 0, 2]).unwrap();
    let mut y = filled(&device, (3, 2), 9.0);
    embedding::forward(ids.view(), table.view(), y.view_mut()).unwrap();
    assert_eq!(y.as_slice::<f32>(), [5., 6., 1., 2., 5., 6.]);

    let dy = tensor(&device, (3, 2), &[1., 1., 10., 10., 100., 100.]);
    let mut dtable = filled(&device, (3, 2), 0.5);
    embedding::backward(ids.view(), dy.view(), dtable.view_mut()).unwrap();
    assert_eq!(dtable.as_slice::<f32>(), [10.5, 10.5, 0.5, 0.5, 101.5, 101.5]);
}

#[test]
fn backward_matches_finite_differences() {
    let device = cpu();
    let (rows, c, n) = (7, 33, 47);
    let ids: Vec<u32> = (0..n).map(|i| (i * i % rows) as u32).collect();
    let ids = device.upload(&ids).unwrap();
    let table = normal(&device, (rows, c), 0);
    let dy = normal(&device, (n, c), 1);
    let mut dtable = filled(&device, (rows, c), 0.0);
    embedding::backward(ids.view(), dy.view(), dtable.view_mut()).unwrap();
    gradient_matches("dtable", table.as_slice(), dtable.as_slice(), |values| {
        let mut y = filled(&device, (n, c), 0.0);
        embedding::forward(ids.view(), tensor(&device, (rows, c), values).view(), y.view_mut())
            .unwrap();
        dot(y.as_slice(), dy.as_slice())
    });
}

#[test]
fn a_bf16_table_gives_the_rounded_rows() {
    let device = cpu();
    let table = normal(&device, (7, 33), 3);
    let mut narrow = device.scratch((7, 33), DType::BF16, Category::Workspace).unwrap();
    cast::forward(table.view(), narrow.view_mut()).unwrap();
    let ids = device.upload(&[6u32, 1]).unwrap();
    let mut y = filled(&device, (2, 33), 0.0);
    embedding::forward(ids.view(), narrow.view(), y.view_mut()).unwrap();
    let want: Vec<f32> =
        [6, 1].iter().flat_map(|r| table.slice(*r..*r + 1).as_slice::<f32>()).copied().collect();
    assert_close("rounded rows", y.as_slice(), &want, 0.02);
    assert!(y.as_slice::<f32>().iter().all(|v| half::bf16::from_f32(*v).to_f32() == *v));
}

#[test]
fn a_table_in_the_hosts_memory_gives_the_same_rows() {
    let check = |device: &Device, dtype: DType| {
        let given: Vec<f32> = (0..12).map(|i| i as f32 / 3.0).collect();
        let mut table = device.host().scratch((3, 4), dtype, Category::Weights).unwrap();
        match dtype {
            DType::BF16 => {
                let narrow: Vec<bf16> = given.iter().map(|v| bf16::from_f32(*v)).collect();
                table.write(&narrow).unwrap();
            }
            _ => table.write(&given).unwrap(),
        }
        let mut y = device.scratch((4, 4), device.activations(), Category::Activations).unwrap();
        let gather = |ids: &[u32], y: &mut Tensor| {
            let there = device.upload(ids).unwrap();
            embedding::forward_from_host(there.view(), ids, table.view(), y.view_mut())
        };
        let ids = [2, 0, 2, 1];
        gather(&ids, &mut y).unwrap();
        let rounds = dtype == DType::BF16 || device.activations() == DType::BF16;
        let expected = if rounds { rounded(&given) } else { given };
        let rows = ids.iter().flat_map(|id| expected[*id as usize * 4..][..4].to_vec());
        assert_eq!(values(&y), rows.collect::<Vec<f32>>());
        let past = gather(&[3, 0, 0, 0], &mut y);
        assert!(past.unwrap_err().to_string().contains("id 3 is past the table's last row 2"));
    };
    for dtype in [DType::F32, DType::BF16] {
        check(&cpu(), dtype);
        if let Some(device) = cuda() {
            check(&device.with_host(1 << 12).unwrap(), dtype);
        }
    }
}

#[test]
fn an_id_past_the_table_is_refused() {
    let device = cpu();
    let ids = device.upload(&[3u32]).unwrap();
    let mut y = filled(&device, (1, 2), 0.0);
    let error = embedding::forward(ids.view(), filled(&device, (3, 2), 0.0).view(), y.view_mut())
        .unwrap_err();
    assert!(
        error.to_string().starts_with("embedding: id 3 is past the table's last row 2\n  hint:"),
        "{error}"
    );
    let wrong = embedding::forward(ids.view(), filled(&device, (3, 5), 0.0).view(), y.view_mut());
    assert!(matches!(wrong, Err(Error::Shape { name: "y", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let ids = device.upload(&[0u32; 47]).unwrap();
        let mut table = normal(device, (7, 33), 0);
        let mut y = normal(device, (47, 33), 1);
        embedding::forward(ids.view(), table.view(), y.view_mut()).unwrap();
        embedding::backward(ids.view(), y.view(), table.view_mut()).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, v, c) in [(1, 1, 1), (47, 5, 33), (600, 7, 64), (1000, 300, 40)] {
        same_on_cuda(|device| {
            let ids: Vec<u32> = (0..n).map(|i| (i * i % v) as u32).collect();
            let ids = device.upload(&ids).unwrap();
            let table = normal_activations(device, (v, c), 1);
            let wide = tensor(device, (v, c), &rounded(&Stream::new(3, 1).normals(v * c)));
            let mut y = filled_activations(device, (n, c), 7.0);
            let mut from_wide = filled_activations(device, (n, c), 7.0);
            embedding::forward(ids.view(), table.view(), y.view_mut()).unwrap();
            embedding::forward(ids.view(), wide.view(), from_wide.view_mut()).unwrap();
            let dy = normal_activations(device, (n, c), 2);
            let mut dtable = normal(device, (v, c), 3);
            embedding::backward(ids.view(), dy.view(), dtable.view_mut()).unwrap();
            let first = device.upload(&(0..v as u32).collect::<Vec<u32>>()).unwrap();
            let mut stream = normal_activations(device, (v, c), 4);
            embedding::backward(first.view(), table.view(), stream.view_mut()).unwrap();
            vec![("y", y), ("y of f32", from_wide), ("dtable", dtable), ("stream", stream)]
        });
    }
}

#[test]
fn on_cuda_an_id_past_the_table_gives_nan() {
    let Some(device) = cuda() else { return };
    let ids = device.upload(&[2u32, 3]).unwrap();
    let table = normal_activations(&device, (3, 16), 1);
    let mut y = filled_activations(&device, (2, 16), 7.0);
    embedding::forward(ids.view(), table.view(), y.view_mut()).unwrap();
    let y = values(&y);
    assert!(y[..16].iter().all(|v| v.is_finite()) && y[16..].iter().all(|v| v.is_nan()));
}
