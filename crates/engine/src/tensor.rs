//! Tensors: matrices in a device's arena, and borrowed views of their rows.
//!
//! A [`Tensor`] owns its bytes and gives them back when dropped. Ops take a [`View`] of what they read and a
//! [`ViewMut`] of what they write, so the borrow checker keeps an op from writing what it reads. Everything is
//! a row-major matrix `(rows, cols)`; a vector of `n` is `(n, 1)`.

use std::marker::PhantomData;
use std::ops::Range;

use crate::device::{Device, Kind};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::arena::Span;

/// Rows and columns of a row-major matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

impl Shape {
    /// Number of elements.
    pub fn len(self) -> usize {
        self.rows * self.cols
    }

    /// True where there is no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl From<(usize, usize)> for Shape {
    fn from((rows, cols): (usize, usize)) -> Shape {
        Shape { rows, cols }
    }
}

/// A matrix that owns its place in the arena.
pub struct Tensor {
    device: Device,
    span: Span,
    address: *mut u8,
    shape: Shape,
    dtype: DType,
}

// SAFETY: a tensor is the only owner of its span, so moving it to another thread moves the right to it.
#[allow(unsafe_code)]
unsafe impl Send for Tensor {}
// SAFETY: through a shared tensor its bytes can only be read.
#[allow(unsafe_code)]
unsafe impl Sync for Tensor {}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.device.give(self.span);
    }
}

impl Tensor {
    pub(crate) fn new(
        device: Device,
        span: Span,
        address: *mut u8,
        shape: Shape,
        dtype: DType,
    ) -> Tensor {
        Tensor { device, span, address, shape, dtype }
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rows and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_> {
        View {
            device: &self.device,
            address: self.address,
            shape: self.shape,
            dtype: self.dtype,
            life: PhantomData,
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut {
            device: &self.device,
            address: self.address,
            shape: self.shape,
            dtype: self.dtype,
            life: PhantomData,
        }
    }

    /// Some of its rows, to read.
    pub fn slice(&self, rows: Range<usize>) -> View<'_> {
        self.view().slice(rows)
    }

    /// Some of its rows, to write.
    pub fn slice_mut(&mut self, rows: Range<usize>) -> ViewMut<'_> {
        self.view_mut().into_slice(rows)
    }

    /// Its elements in host memory. Panics on another element type and on devices other than the CPU.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        self.view().as_slice()
    }

    /// Its elements in host memory, to write. Panics on another element type and on devices other than the CPU.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        self.view_mut().into_mut_slice()
    }

    /// Sets every byte to zero.
    pub fn zero(&mut self) {
        self.view_mut().zero();
    }

    /// Copies the first of `from`'s rows, as many as there are here.
    pub fn copy_prefix(&mut self, from: View<'_>) {
        let rows = self.rows();
        self.view_mut().copy_from(from.slice(0..rows));
    }

    /// A copy of its elements on the host; zeros on `plan`. On a GPU this waits for what was asked before.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.view().to_vec()
    }

    /// Takes its elements from the host. Nothing happens on `plan`.
    pub fn write<T: Element>(&mut self, values: &[T]) -> Result<()> {
        self.view_mut().write(values)
    }

    /// Has its elements written by `fill`: in their place on the CPU, into a copy that goes up on a GPU. Nothing happens
    /// on `plan`.
    pub fn fill<T: Element, E: From<Error>>(
        &mut self,
        fill: impl FnOnce(&mut [T]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.view_mut().fill(fill)
    }

    /// The same bytes under another shape of no more elements. For buffers that serve several uses.
    pub fn reshaped(&mut self, shape: impl Into<Shape>) -> ViewMut<'_> {
        let shape = shape.into();
        assert!(
            shape.len() <= self.shape.len(),
            "a tensor of {:?} cannot hold {shape:?}",
            self.shape
        );
        ViewMut {
            device: &self.device,
            address: self.address,
            shape,
            dtype: self.dtype,
            life: PhantomData,
        }
    }
}

/// A matrix borrowed to be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    device: &'a Device,
    address: *mut u8,
    shape: Shape,
    dtype: DType,
    life: PhantomData<&'a [u8]>,
}

// SAFETY: a view only reads, and its lifetime keeps writers out.
#[allow(unsafe_code)]
unsafe impl Send for View<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for View<'_> {}

/// A matrix borrowed to be written.
pub struct ViewMut<'a> {
    device: &'a Device,
    address: *mut u8,
    shape: Shape,
    dtype: DType,
    life: PhantomData<&'a mut [u8]>,
}

// SAFETY: a mutable view is the only one of its bytes, as a mutable slice is.
#[allow(unsafe_code)]
unsafe impl Send for ViewMut<'_> {}
// SAFETY: through a shared reference it only reads.
#[allow(unsafe_code)]
unsafe impl Sync for ViewMut<'_> {}

fn row_range(shape: Shape, dtype: DType, rows: &Range<usize>) -> (usize, Shape) {
    assert!(
        rows.start <= rows.end && rows.end <= shape.rows,
        "rows {rows:?} of a tensor with {} rows",
        shape.rows
    );
    (rows.start * shape.cols * dtype.bytes(), Shape { rows: rows.len(), cols: shape.cols })
}

impl<'a> View<'a> {
    /// Where it lives.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Rows and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype.bytes()
    }

    /// Some of its rows.
    pub fn slice(self, rows: Range<usize>) -> View<'a> {
        let (offset, shape) = row_range(self.shape, self.dtype, &rows);
        View { address: self.address.wrapping_add(offset), shape, ..self }
    }

    /// The address on a GPU.
    pub(crate) fn address(self) -> u64 {
        self.address.addr() as u64
    }

    /// The address in host memory.
    pub(crate) fn pointer(self) -> *mut u8 {
        self.address
    }

    /// A copy of its elements on the host; zeros on `plan`. On a GPU this waits for what was asked before.
    pub fn to_vec<T: Element>(self) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.shape.len()];
        match self.device.kind() {
            Kind::Plan => {}
            Kind::Cpu => values.copy_from_slice(self.as_slice()),
            Kind::Cuda => {
                assert_eq!(self.dtype, T::DTYPE, "a view of {} read as {}", self.dtype, T::DTYPE);
                self.device.cuda().copy_down(bytes_of_mut(&mut values), self.address())?;
            }
        }
        Ok(values)
    }

    /// Its elements in host memory. Panics on another element type and on devices other than the CPU.
    pub fn as_slice<T: Element>(self) -> &'a [T] {
        assert_eq!(self.dtype, T::DTYPE, "a view of {} read as {}", self.dtype, T::DTYPE);
        assert_eq!(self.device.kind(), Kind::Cpu, "the elements are not in host memory");
        // SAFETY: the address is aligned to a multiple of the element size from a span at least this long, any
        // bit pattern is a value of T, and the lifetime keeps writers out.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.address.cast::<T>(), self.shape.len())
        }
    }
}

impl<'a> ViewMut<'a> {
    /// Where it lives.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Rows and columns.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same bytes, to read.
    pub fn view(&self) -> View<'_> {
        View {
            device: self.device,
            address: self.address,
            shape: self.shape,
            dtype: self.dtype,
            life: PhantomData,
        }
    }

    /// The same bytes for a shorter while, so that the view can be handed on and used again.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            device: self.device,
            address: self.address,
            shape: self.shape,
            dtype: self.dtype,
            life: PhantomData,
        }
    }

    /// Sets every byte to zero.
    pub fn zero(&mut self) {
        let view = self.view();
        match self.device.kind() {
            Kind::Plan => self.device.book("zero", 0.0, view.bytes() as f64),
            Kind::Cuda => self.device.cuda().zero(view.address(), view.bytes()),
            // SAFETY: the view is `bytes()` long and the only one of its bytes; zero is a value of every element type.
            #[allow(unsafe_code)]
            Kind::Cpu => unsafe {
                std::ptr::write_bytes(self.address, 0, view.bytes());
            },
        }
    }

    /// Copies `from`, which has the same shape and element type.
    pub fn copy_from(&mut self, from: View<'_>) {
        assert_eq!(
            (self.shape, self.dtype),
            (from.shape, from.dtype),
            "a copy between unlike tensors"
        );
        match self.device.kind() {
            Kind::Plan => self.device.book("copy", 0.0, 2.0 * from.bytes() as f64),
            Kind::Cuda => {
                self.device.cuda().copy_within(self.view().address(), from.address(), from.bytes());
            }
            // SAFETY: both views are `from.bytes()` long, and a mutable view shares no bytes with another view.
            #[allow(unsafe_code)]
            Kind::Cpu => unsafe {
                std::ptr::copy_nonoverlapping(from.address, self.address, from.bytes());
            },
        }
    }

    /// Takes its elements from the host. Nothing happens on `plan`.
    pub fn write<T: Element>(&mut self, values: &[T]) -> Result<()> {
        assert_eq!(
            (values.len(), T::DTYPE),
            (self.shape.len(), self.dtype),
            "values written to a view of another size or element type"
        );
        match self.device.kind() {
            Kind::Plan => Ok(()),
            Kind::Cpu => {
                self.reborrow().into_mut_slice().copy_from_slice(values);
                Ok(())
            }
            Kind::Cuda => self.device.cuda().copy_up(self.view().address(), bytes_of(values)),
        }
    }

    /// Has its elements written by `fill`: in their place on the CPU, into a copy that goes up on a GPU. Nothing happens
    /// on `plan`.
    pub fn fill<T: Element, E: From<Error>>(
        mut self,
        fill: impl FnOnce(&mut [T]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match self.device.kind() {
            Kind::Plan => Ok(()),
            Kind::Cpu => fill(self.into_mut_slice()),
            Kind::Cuda => {
                let mut values = vec![T::default(); self.shape.len()];
                fill(&mut values)?;
                Ok(self.write(&values)?)
            }
        }
    }

    /// Takes the bytes of a view of the same size in host memory, which may be another device's. For the CPU alone.
    pub(crate) fn copy_bytes(&mut self, from: View<'_>) {
        assert_eq!(from.bytes(), self.view().bytes(), "bytes copied to a view of another size");
        // SAFETY: both are host memory, of this size, and this view is the only one of its bytes.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(from.address, self.address, from.bytes());
        }
    }

    /// Takes its elements from little-endian bytes as files hold them. Nothing happens on `plan`.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        assert_eq!(bytes.len(), self.view().bytes(), "bytes written to a view of another size");
        match self.device.kind() {
            Kind::Plan => Ok(()),
            Kind::Cpu => {
                // SAFETY: the view is as long as the bytes and the only one of them.
                #[allow(unsafe_code)]
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address, bytes.len());
                }
                Ok(())
            }
            Kind::Cuda => self.device.cuda().copy_up(self.view().address(), bytes),
        }
    }

    /// Some of its rows.
    pub fn into_slice(self, rows: Range<usize>) -> ViewMut<'a> {
        let (offset, shape) = row_range(self.shape, self.dtype, &rows);
        ViewMut { address: self.address.wrapping_add(offset), shape, ..self }
    }

    /// Some of its rows, for a shorter while.
    pub fn slice_mut(&mut self, rows: Range<usize>) -> ViewMut<'_> {
        self.reborrow().into_slice(rows)
    }

    /// Its elements in host memory. Panics on another element type and on devices other than the CPU.
    pub fn into_mut_slice<T: Element>(self) -> &'a mut [T] {
        assert_eq!(self.dtype, T::DTYPE, "a view of {} written as {}", self.dtype, T::DTYPE);
        assert_eq!(self.device.kind(), Kind::Cpu, "the elements are not in host memory");
        // SAFETY: as for `View::as_slice`; this view is the only one of its bytes.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.address.cast::<T>(), self.shape.len())
        }
    }
}

/// The bytes of `values`.
fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: element types have no padding, and any byte may be read as u8.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values))
    }
}

/// The bytes of `values`, to write.
fn bytes_of_mut<T: Element>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bit pattern is a value of an element type.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values))
    }
}

#[cfg(test)]
mod tests {
    use crate::device::{Device, Kind};
    use crate::dtype::DType;
    use crate::memory::arena::Category;

    #[test]
    fn rows_written_through_a_view_are_seen_in_the_tensor() {
        let device = Device::cpu(1 << 16).unwrap();
        let mut tensor = device.scratch((3, 2), DType::F32, Category::Workspace).unwrap();
        tensor.zero();
        tensor.slice_mut(1..2).into_mut_slice::<f32>().copy_from_slice(&[5.0, 6.0]);
        assert_eq!(tensor.as_slice::<f32>(), [0.0, 0.0, 5.0, 6.0, 0.0, 0.0]);
        assert_eq!(tensor.slice(1..3).as_slice::<f32>(), [5.0, 6.0, 0.0, 0.0]);
    }

    #[test]
    fn plan_and_cpu_reach_the_same_peak_for_the_same_requests() {
        let peak = |device: Device| {
            let weights = device.persistent((7, 33), DType::BF16, Category::Weights).unwrap();
            {
                let _kept = device.scratch((47, 33), DType::F32, Category::Activations).unwrap();
                let _work = device.scratch((1, 1), DType::U8, Category::Workspace).unwrap();
            }
            let _later = device.scratch((5, 5), DType::F32, Category::Workspace).unwrap();
            drop(weights);
            (device.peak_bytes(), device.peak_by_category())
        };
        assert_eq!(peak(Device::plan_for(Kind::Cpu)), peak(Device::cpu(1 << 20).unwrap()));
    }

    #[test]
    fn an_arena_that_is_full_says_what_was_asked_and_what_is_free() {
        let device = Device::cpu(1024).unwrap();
        let Err(error) = device.scratch((1000, 1), DType::F32, Category::Activations) else {
            panic!("it fit")
        };
        let text = error.to_string();
        assert!(
            text.contains("4000 bytes for activations") && text.contains("1024 bytes are free"),
            "{text}"
        );
    }
}
