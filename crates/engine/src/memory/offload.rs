//! Tensors of so many columns that wait in the host's memory, last in, first out, while their device computes.
//!
//! One tensor on the device, the slot, is the door: what is pushed is written into it and copied to the host beside
//! the computation; what is popped is read from it, and the one before is fetched into it while the computation goes on.
//! On the CPU the copies are copies, and serve tests.

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Shape, Tensor, ViewMut};

/// See the module.
pub struct Offload {
    slot: Tensor,
    waiting: Vec<Tensor>,
}

impl Offload {
    /// For tensors of at most this shape: so many columns, and no more rows.
    pub fn new(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Offload> {
        let slot = device.scratch(shape, dtype, Category::Activations)?;
        Ok(Offload { slot, waiting: Vec::new() })
    }

    /// Where the next one, of `rows` rows, is to be written, to be pushed then.
    pub fn slot(&mut self, rows: usize) -> Result<ViewMut<'_>> {
        if self.slot.device().kind() == Kind::Cuda {
            self.slot.device().cuda().wait_for_copies()?;
        }
        Ok(self.slot.slice_mut(0..rows))
    }

    /// Sends `rows` rows of the slot to the host.
    pub fn push(&mut self, rows: usize) -> Result<()> {
        let (device, from) = (self.slot.device(), self.slot.slice(0..rows));
        let (shape, dtype) = (from.shape(), from.dtype());
        let mut there = device.host().scratch(shape, dtype, Category::Activations)?;
        let bytes = from.bytes();
        match device.kind() {
            Kind::Plan => device.book("to the host", 0.0, bytes as f64),
            Kind::Cpu => there.view_mut().copy_bytes(from),
            Kind::Cuda => device.cuda().copy_aside_down(
                there.view_mut().view().pointer(),
                from.address(),
                bytes,
            )?,
        }
        self.waiting.push(there);
        Ok(())
    }

    /// Writes the last one that was pushed into `to`, and begins to fetch the one before.
    pub fn pop(&mut self, mut to: ViewMut<'_>) -> Result<()> {
        let rows = to.rows();
        to.copy_from(self.slot(rows)?.view());
        self.waiting.pop();
        let Some(next) = self.waiting.last() else { return Ok(()) };
        let device = self.slot.device();
        let bytes = next.view().bytes();
        match device.kind() {
            Kind::Plan => device.book("from the host", 0.0, bytes as f64),
            Kind::Cpu => self.slot.slice_mut(0..next.rows()).copy_bytes(next.view()),
            Kind::Cuda => device.cuda().copy_aside_up(
                self.slot.view().address(),
                next.view().pointer(),
                bytes,
            )?,
        }
        Ok(())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        // What is still on its way would meet whoever has the slot's place next.
        if self.slot.device().kind() == Kind::Cuda {
            let cuda = self.slot.device().cuda();
            let _ = cuda.wait_for_copies();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(device: &Device) {
        let bytes = 3 * 256;
        let mut offload = Offload::new(device, (4, 8), DType::F32).unwrap();
        for rows in [4, 2, 3] {
            offload.slot(rows).unwrap().write(&vec![rows as f32; rows * 8]).unwrap();
            offload.push(rows).unwrap();
        }
        assert_eq!((offload.len(), device.host().used_bytes()), (3, bytes));
        let mut back = device.scratch((4, 8), DType::F32, Category::Workspace).unwrap();
        for rows in [3, 2, 4] {
            offload.pop(back.slice_mut(0..rows)).unwrap();
            assert_eq!(back.to_vec::<f32>().unwrap()[..rows * 8], vec![rows as f32; rows * 8]);
        }
        assert!(offload.is_empty());
        assert_eq!((device.host().used_bytes(), device.host().peak_bytes()), (0, bytes));
    }

    #[test]
    fn what_was_pushed_last_comes_back_first() {
        check(&Device::cpu(1 << 20).unwrap().with_host(3 * 256).unwrap());
    }

    #[test]
    fn what_was_pushed_last_comes_back_first_on_cuda() {
        let Some(device) = crate::testing::cuda() else { return };
        check(&device.with_host(3 * 256).unwrap());
    }

    #[test]
    fn the_plan_counts_what_waits_on_the_host() {
        let plan = Device::plan_for(Kind::Cpu);
        let mut offload = Offload::new(&plan, (4, 8), DType::F32).unwrap();
        offload.push(4).unwrap();
        offload.push(1).unwrap();
        assert_eq!((plan.peak_bytes(), plan.host().peak_bytes()), (256, 512));
    }
}
