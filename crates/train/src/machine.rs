//! What a run computes on, and how much memory it may take there.

use std::sync::Arc;

use engine::cuda::{Cuda, Properties};
use engine::device::{Device, Kind};

use crate::error::{Error, Result};
use crate::fit::bytes;
use crate::gpus::{self, Gpu};
use crate::recipe::Recipe;
use crate::recipe::training::{Attention, Device as DeviceChoice};

/// Of a GPU's free memory this much is left for the kernels that the driver compiles as they are needed.
const MARGIN: u64 = 192 << 20;

/// The most that CUDA's context and cuBLASLt are taken to hold outside the arena, where it cannot be measured: on a
/// GPU that other programs use, or that is not here.
const LARGEST_CONTEXT: u64 = 3 << 29;

/// See the module.
#[derive(Clone)]
pub struct Machine {
    /// The most bytes the arena may take; none where the host does not say.
    pub limit: Option<u64>,
    /// The most bytes of the host's memory that may be pinned beside a GPU; none where the host does not say.
    pub host_limit: Option<u64>,
    /// What was taken and why, in a sentence.
    pub description: String,
    /// What of the GPU's memory other programs hold, where they do.
    pub others_hold: Option<String>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Cpu,
    Gpu(Arc<Cuda>),
    /// A GPU that a plan is made for; it need not be here. With its figures, where it is known.
    PlannedGpu(Option<Gpu>),
}

impl Machine {
    /// What the recipe asks for.
    pub fn choose(recipe: &Recipe) -> Result<Machine> {
        let machine =
            Machine::find(recipe.train.device, recipe.train.memory_limit.map(|limit| limit.0))?;
        if machine.arithmetic() == Kind::Cpu && recipe.train.attention == Attention::Standard {
            return Err(Error::input(
                "train.attention = \"standard\" has no kernel on the CPU",
                "write \"flash\" or leave it out: it computes the same in less memory",
            ));
        }
        Ok(machine)
    }

    /// What is asked for, or with `"auto"` a GPU if one can be used.
    pub fn find(device: DeviceChoice, memory_limit: Option<u64>) -> Result<Machine> {
        match device {
            DeviceChoice::Cpu => Ok(Machine::cpu(memory_limit, "device = \"cpu\"")),
            DeviceChoice::Cuda => Machine::open(memory_limit, Cuda::open(0)?),
            DeviceChoice::Auto => match Cuda::open(0) {
                Ok(cuda) => Machine::open(memory_limit, cuda),
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
            host_limit: None,
            description: format!("device: CPU, because {why}"),
            others_hold: None,
            place: Place::Cpu,
        }
    }

    /// A GPU with `total` bytes of memory that nobody else uses, to plan for.
    pub fn planned_gpu(memory_limit: Option<u64>, gpu: Option<Gpu>, total: u64) -> Machine {
        let memory = memory_limit.map_or(total, |limit| limit.min(total));
        let name = gpu.map_or("a GPU", |gpu| gpu.name);
        Machine {
            limit: Some(memory.saturating_sub(LARGEST_CONTEXT)),
            host_limit: None,
            description: format!(
                "{name}: {} less the {} that CUDA may hold outside the arena",
                bytes(memory),
                bytes(LARGEST_CONTEXT)
            ),
            others_hold: None,
            place: Place::PlannedGpu(gpu),
        }
    }

    fn open(memory_limit: Option<u64>, cuda: Cuda) -> Result<Machine> {
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
        let taken = total - free;
        let others_hold = (taken > LARGEST_CONTEXT)
            .then(|| format!("{} of the GPU's {} are taken", bytes(taken), bytes(total)));
        let place = Place::Gpu(Arc::new(cuda));
        let host_limit = host_limit();
        Ok(Machine { limit: Some(limit), host_limit, description, others_hold, place })
    }

    /// A device with an arena of `bytes` bytes, and so many of the host's memory beside it.
    pub fn device(&self, bytes: usize, host_bytes: usize) -> Result<Device> {
        let device = match &self.place {
            Place::Cpu => Device::cpu(bytes)?,
            Place::Gpu(cuda) => Device::on_gpu(cuda.clone(), bytes)?,
            Place::PlannedGpu(_) => unreachable!("nothing is run where a plan was asked for"),
        };
        Ok(if host_bytes == 0 { device } else { device.with_host(host_bytes)? })
    }

    /// What it can do, or something like it: enough to compare two ways of doing the same.
    pub fn figures(&self) -> Gpu {
        match &self.place {
            Place::Cpu => gpus::CPU,
            _ => self.gpu().unwrap_or(gpus::USUAL),
        }
    }

    /// What the GPU can do, where it is known; none on the CPU.
    pub fn gpu(&self) -> Option<Gpu> {
        match &self.place {
            Place::Cpu => None,
            Place::Gpu(cuda) => gpus::find(&cuda.properties().name),
            Place::PlannedGpu(gpu) => *gpu,
        }
    }

    /// The GPU, where that computes.
    pub fn cuda(&self) -> Option<&Cuda> {
        match &self.place {
            Place::Gpu(cuda) => Some(cuda),
            Place::Cpu | Place::PlannedGpu(_) => None,
        }
    }

    /// The same machine with another limit.
    pub fn with_limit(&self, limit: u64) -> Machine {
        Machine { limit: Some(limit), ..self.clone() }
    }

    /// What decides the bytes of a result: the CPU, or the GPU with its driver and what computes its products.
    pub fn name(&self) -> String {
        let Place::Gpu(cuda) = &self.place else { return "the CPU".to_owned() };
        let Properties { name, driver, .. } = cuda.properties();
        let products = cuda.gemm().describe();
        format!("{name} (driver for CUDA {}.{}, products: {products})", driver.0, driver.1)
    }

    /// Whose arithmetic it is: [`Kind::Cpu`] or [`Kind::Cuda`].
    pub fn arithmetic(&self) -> Kind {
        match self.place {
            Place::Cpu => Kind::Cpu,
            Place::Gpu(_) | Place::PlannedGpu(_) => Kind::Cuda,
        }
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
