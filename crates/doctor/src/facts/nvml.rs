//! NVML, the management library of the NVIDIA driver, through `nvml-wrapper`, which loads it at run time.

use super::{Gpu, Nvidia, Process};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    ComputeMode, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

/// Everything the doctor wants of every card. What a card does not tell stays absent.
pub(super) fn nvidia() -> Nvidia {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(error) => return Nvidia { error: Some(error.to_string()), ..Nvidia::default() },
    };
    let cuda = nvml.sys_cuda_driver_version().ok();
    let mut found = Nvidia {
        driver: nvml.sys_driver_version().ok(),
        cuda: cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)),
        ..Nvidia::default()
    };
    let devices: Vec<Device<'_>> = (0..nvml.device_count().unwrap_or(0))
        .filter_map(|i| nvml.device_by_index(i).ok())
        .collect();
    for (index, device) in devices.iter().enumerate() {
        let mut gpu = card(device);
        gpu.peers = peers(&devices, index);
        found.gpus.push(gpu);
    }
    found
}

fn card(device: &Device<'_>) -> Gpu {
    let memory = device.memory_info().ok();
    let capability = device.cuda_compute_capability().ok();
    let mode = match device.compute_mode() {
        Ok(ComputeMode::Prohibited) => "prohibited",
        Ok(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread) => "exclusive",
        _ => "default",
    };
    let uncorrected = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok();
    Gpu {
        name: device.name().unwrap_or_default(),
        compute: capability.map(|c| format!("{}.{}", c.major, c.minor)).unwrap_or_default(),
        memory_total_mib: memory.as_ref().map_or(0, |m| m.total >> 20),
        memory_used_mib: memory.as_ref().map_or(0, |m| m.used >> 20),
        processes: processes(device),
        power_limit_w: device.enforced_power_limit().ok().map(|mw| f64::from(mw) / 1000.0),
        power_default_w: device
            .power_management_limit_default()
            .ok()
            .map(|mw| f64::from(mw) / 1000.0),
        throttle: throttle(device),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        memory_temperature: memory_temperature(device),
        memory_temperature_limit: device
            .temperature_threshold(TemperatureThreshold::MemoryMax)
            .ok()
            .filter(|limit| *limit > 0),
        persistence: device.is_in_persistent_mode().ok(),
        pcie_width: device.current_pcie_link_width().ok(),
        pcie_max_width: device.max_pcie_link_width().ok(),
        pcie_generation: device.current_pcie_link_gen().ok(),
        pcie_max_generation: device.max_pcie_link_gen().ok(),
        ecc_uncorrected: uncorrected,
        compute_mode: mode.into(),
        display: device.is_display_active().unwrap_or(false),
        peers: Vec::new(),
    }
}

/// `NVML_FI_DEV_MEMORY_TEMP`. Cards with GDDR6X answer that they do not know, or 0.
fn memory_temperature(device: &Device<'_>) -> Option<u32> {
    const MEMORY_TEMPERATURE: FieldId = FieldId(82);
    let sample = device.field_values_for(&[MEMORY_TEMPERATURE]).ok()?.into_iter().next()?.ok()?;
    match sample.value.ok()? {
        SampleValue::U32(degrees) if degrees > 0 => Some(degrees),
        SampleValue::U64(degrees) => u32::try_from(degrees).ok().filter(|d| *d > 0),
        _ => None,
    }
}

fn processes(device: &Device<'_>) -> Vec<Process> {
    let compute = device.running_compute_processes().unwrap_or_default();
    let graphics = device.running_graphics_processes().unwrap_or_default();
    let mut all: Vec<Process> = Vec::new();
    for process in compute.into_iter().chain(graphics) {
        let memory_mib = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => bytes >> 20,
            UsedGpuMemory::Unavailable => 0,
        };
        if all.iter().all(|p| p.pid != process.pid) {
            all.push(Process { pid: process.pid, name: String::new(), memory_mib });
        }
    }
    all
}

fn throttle(device: &Device<'_>) -> Vec<String> {
    let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::empty());
    let thermal = ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    let mut found = Vec::new();
    if reasons.intersects(thermal) {
        found.push("thermal".into());
    }
    if reasons.contains(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN) {
        found.push("power-brake".into());
    }
    if reasons.contains(ThrottleReasons::HW_SLOWDOWN) {
        found.push("hardware".into());
    }
    found
}

/// Whether each other card's memory can be read directly, in order; empty where the driver does not say.
fn peers(devices: &[Device<'_>], index: usize) -> Vec<bool> {
    use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus};
    let mut all = Vec::new();
    for (other, device) in devices.iter().enumerate() {
        if other == index {
            continue;
        }
        match devices[index].p2p_status(device, P2pCapabilitiesIndex::Read) {
            Ok(status) => all.push(matches!(status, P2pStatus::Ok)),
            Err(_) => return Vec::new(),
        }
    }
    all
}
