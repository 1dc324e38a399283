//! Kernels: PTX that the driver compiles when it is first needed, and launches of it.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::PoisonError;

use cudarc::driver::sys;

use super::context::{Cuda, check};
use crate::error::Result;
use crate::tensor::{View, ViewMut};

/// The most shared memory a block may use: an RTX 3090's limit, which larger GPUs hide.
#[cfg(test)]
pub(crate) const MAX_SHARED_BYTES: usize = 101_376;

/// A file of kernels and its launch table.
pub(crate) struct Module {
    /// Its file's name.
    pub(crate) name: &'static str,
    /// What `cargo xtask kernels` made of the `.cu` beside it.
    pub(crate) ptx: &'static str,
    /// Kernel, threads of a block, bytes of dynamic shared memory.
    pub(crate) kernels: &'static [(&'static str, u32, u32)],
}

/// A module on a GPU.
pub(super) struct Loaded {
    functions: HashMap<&'static str, Function>,
}

/// A kernel as it is launched.
#[derive(Clone, Copy)]
pub(super) struct Function {
    handle: sys::CUfunction,
    threads: u32,
    shared: u32,
}

/// Words of a [`Table`]: with a few arguments behind it, it fills the 4,096 bytes that arguments may take.
pub(super) const TABLE_WORDS: usize = 496;

/// What one launch over many tensors is told of them: common.cuh's `Table`.
type Table = [u64; TABLE_WORDS];

/// A kernel's argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// A device address, or any other 64-bit number.
    U64(u64),
    /// A 32-bit number.
    U32(u32),
}

impl From<View<'_>> for Arg {
    fn from(view: View<'_>) -> Arg {
        Arg::U64(view.address())
    }
}
impl From<&ViewMut<'_>> for Arg {
    fn from(view: &ViewMut<'_>) -> Arg {
        Arg::U64(view.view().address())
    }
}
impl From<Option<View<'_>>> for Arg {
    fn from(view: Option<View<'_>>) -> Arg {
        Arg::U64(view.map_or(0, View::address))
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg::U64(value)
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg::U32(value)
    }
}
impl From<i32> for Arg {
    fn from(value: i32) -> Arg {
        Arg::U32(value as u32)
    }
}
impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg::U32(value.to_bits())
    }
}

impl Cuda {
    /// Queues a kernel on the compute stream. A grid without blocks is no work.
    pub(crate) fn launch(
        &self,
        module: &Module,
        kernel: &'static str,
        grid: [u32; 3],
        args: &[Arg],
    ) -> Result<()> {
        self.launch_told(module, kernel, grid, None, args)
    }

    /// Queues as few launches as tell a kernel of all tensors: what it needs of each is N words of its first
    /// argument, a [`Table`], in which y is the tensor's place. x counts the blocks of a tensor.
    pub(crate) fn launch_over<const N: usize>(
        &self,
        module: &Module,
        kernel: &'static str,
        blocks: u32,
        tensors: &[[u64; N]],
        args: &[Arg],
    ) -> Result<()> {
        for part in tensors.chunks(TABLE_WORDS / N) {
            let mut table = [0; TABLE_WORDS];
            table[..part.len() * N].copy_from_slice(part.as_flattened());
            let grid = [blocks, part.len() as u32, 1];
            self.launch_told(module, kernel, grid, Some(&table), args)?;
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn launch_told(
        &self,
        module: &Module,
        kernel: &'static str,
        grid: [u32; 3],
        table: Option<&Table>,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let function = self.load(module, kernel)?;
        let mut pointers = [std::ptr::null_mut::<c_void>(); 32];
        let told = usize::from(table.is_some());
        assert!(args.len() + told <= pointers.len(), "{kernel} takes {} arguments", args.len());
        if let Some(table) = table {
            pointers[0] = table.as_ptr().cast_mut().cast();
        }
        for (pointer, arg) in pointers[told..].iter_mut().zip(args) {
            *pointer = match arg {
                Arg::U64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            };
        }
        let Function { handle, threads, shared } = function;
        let [x, y, z] = grid;
        // SAFETY: the arguments are those of the kernel's signature, checked by the room that launches it; views
        // borrow what the kernel reads and writes until it is queued, and the stream orders it before later uses.
        let result = unsafe {
            let (stream, pointers) = (self.stream(), pointers.as_mut_ptr());
            let extra = std::ptr::null_mut();
            sys::cuLaunchKernel(handle, x, y, z, threads, 1, 1, shared, stream, pointers, extra)
        };
        check("cuLaunchKernel", result)
    }

    /// A kernel, its file compiled by the driver when it is first needed.
    pub(super) fn load(&self, module: &Module, kernel: &'static str) -> Result<Function> {
        self.make_current()?;
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.get(module.name) {
            Some(loaded) => loaded,
            None => {
                let loaded = compile(module)?;
                modules.entry(module.name).or_insert(loaded)
            }
        };
        let Some(function) = loaded.functions.get(kernel) else {
            unreachable!("{kernel} is not in the launch table of {}", module.name)
        };
        Ok(*function)
    }
}

#[allow(unsafe_code)]
fn compile(module: &Module) -> Result<Loaded> {
    use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC;
    let Ok(ptx) = CString::new(module.ptx) else { unreachable!("PTX is text") };
    let mut handle = std::ptr::null_mut();
    let mut functions = HashMap::new();
    // SAFETY: the PTX ends with a zero; names are those of the launch table, and a test holds it against the PTX.
    unsafe {
        check("cuModuleLoadData", sys::cuModuleLoadData(&mut handle, ptx.as_ptr().cast()))?;
        for (name, threads, shared) in module.kernels {
            let Ok(text) = CString::new(*name) else { unreachable!("a kernel's name is text") };
            let mut function = std::ptr::null_mut();
            let found = sys::cuModuleGetFunction(&mut function, handle, text.as_ptr());
            check("cuModuleGetFunction", found)?;
            if *shared > 48 * 1024 {
                let set = sys::cuFuncSetAttribute(function, DYNAMIC, *shared as i32);
                check("cuFuncSetAttribute", set)?;
            }
            functions
                .insert(*name, Function { handle: function, threads: *threads, shared: *shared });
        }
    }
    Ok(Loaded { functions })
}
