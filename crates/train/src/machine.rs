//! What a run computes on, and how much memory it may take there.

use std::sync::Arc;

use engine::cuda::{Cuda, Properties};
use engine::device::{Device, Kind};

use crate::error::{Error, Result};
use crate::fit::bytes;
use crate::recipe::Recipe;
use crate::recipe::training::{Attention, Device as DeviceChoice};

/// Of a GPU's free memory this much is left for the kernels that the driver compiles as they are needed.
const MARGIN: u64 = 192 << 20;

/// The most that CUDA's context and cuBLASLt are taken to hold outside the arena, where other programs on the GPU
/// keep it from being measured.
const LARGEST_CONTEXT: u64 = 3 << 29;

/// See the module.
#[derive(Clone)]
pub struct Machine {
    /// The most bytes the arena may take; none where the host does not say.
    pub limit: Option<u64>,
    /// What was taken and why, in a sentence.
    pub description: String,
    gpu: Option<Arc<Cuda>>,
}

impl Machine {
    /// What the recipe asks for, or with `device = "auto"` a GPU if one can be used.
    pub fn choose(recipe: &Recipe) -> Result<Machine> {
        let limit = recipe.train.memory_limit.map(|limit| limit.0);
        let machine = Machine::open(recipe.train.device, limit)?;
        if machine.arithmetic() == Kind::Cpu && recipe.train.attention == Attention::Standard {
            return Err(Error::input(
                "train.attention = \"standard\" has no kernel on the CPU",
                "write \"flash\" or leave it out: it computes the same in less memory",
            ));
        }
        Ok(machine)
    }

    /// The device of a choice, with at most `memory_limit` bytes where that is said.
    pub fn open(choice: DeviceChoice, memory_limit: Option<u64>) -> Result<Machine> {
        match choice {
            DeviceChoice::Cpu => Ok(Machine::cpu(memory_limit, "device = \"cpu\"")),
            DeviceChoice::Cuda => Machine::gpu(memory_limit, Cuda::open(0)?),
            DeviceChoice::Auto => match Cuda::open(0) {
                Ok(cuda) => Machine::gpu(memory_limit, cuda),
                Err(engine::error::Error::NoGpu { reason, .. }) => {
                    Ok(Machine::cpu(memory_limit, &reason))
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    fn cpu(memory_limit: Option<u64>, why: &str) -> Machine {
        Machine {
            limit: memory_limit.or_else(host_limit),
            description: format!("device: CPU, because {why}"),
            gpu: None,
        }
    }

    fn gpu(memory_limit: Option<u64>, cuda: Cuda) -> Result<Machine> {
        let (free, total) = cuda.memory()?;
        let context = (total - free).min(LARGEST_CONTEXT);
        let mut limit = free.saturating_sub(MARGIN);
        if let Some(written) = memory_limit {
            limit = limit.min(written.saturating_sub(context + MARGIN));
        }
        let properties = cuda.properties();
        let description = format!(
            "device: {} (compute capability {}.{}, driver for CUDA {}.{}, {} free of {}); products: {}",
            properties.name,
            properties.capability.0,
            properties.capability.1,
            properties.driver.0,
            properties.driver.1,
            bytes(free),
            bytes(total),
            cuda.gemm().describe()
        );
        let gpu = Some(Arc::new(cuda));
        Ok(Machine { limit: Some(limit), description, gpu })
    }

    /// A device with an arena of `bytes` bytes.
    pub fn device(&self, bytes: usize) -> Result<Device> {
        match &self.gpu {
            Some(cuda) => Ok(Device::on_gpu(cuda.clone(), bytes)?),
            None => Ok(Device::cpu(bytes)?),
        }
    }

    /// The same machine with another limit.
    pub fn with_limit(&self, limit: u64) -> Machine {
        Machine { limit: Some(limit), ..self.clone() }
    }

    /// What decides the bytes of a result: the CPU, or the GPU with its driver and what computes its products.
    pub fn name(&self) -> String {
        let Some(cuda) = &self.gpu else { return "the CPU".to_owned() };
        let Properties { name, driver, .. } = cuda.properties();
        let products = cuda.gemm().describe();
        format!("{name} (driver for CUDA {}.{}, products: {products})", driver.0, driver.1)
    }

    /// Whose arithmetic it is: [`Kind::Cpu`] or [`Kind::Cuda`].
    pub fn arithmetic(&self) -> Kind {
        if self.gpu.is_some() { Kind::Cuda } else { Kind::Cpu }
    }

    /// A device that plans for this machine.
    pub fn plan(&self) -> Device {
        Device::plan_for(self.arithmetic())
    }
}

/// Nine tenths of what the host has available; none where it does not say.
pub(crate) fn host_limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024 / 10 * 9)
}
