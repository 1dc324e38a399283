//! GPUs and drivers: NVML, libcuda, /proc/driver/nvidia, /sys/bus/pci, the kernel's log, WSL's library folder.

use crate::facts::{Gpu, Machine, Nvidia, exists, names, read_text};
use crate::table::{Scope, Table};
use std::path::Path;

const NVML: &str = "NVML";
const LIBCUDA: &str = "libcuda.so.1";

/// Adds the facts of driver and cards.
pub(super) fn gather(machine: &dyn Machine, table: &mut Table) -> Vec<Gpu> {
    let nvidia = machine.nvidia();
    driver(machine, &nvidia, &mut table.all);
    wsl(machine, &mut table.all);
    visible(machine, &nvidia, &mut table.all);
    kernel_log(machine, &mut table.all);
    let all = &mut table.all;
    all.number("gpus", nvidia.gpus.len() as f64, NVML);
    let no_peer = nvidia.gpus.iter().any(|g| g.peers.iter().any(|ok| !ok));
    all.flag("p2p.missing", no_peer, "NVML P2P status");
    let forties = nvidia.gpus.iter().filter(|g| g.name.contains("RTX 40")).count();
    all.number("gpus.rtx40", forties as f64, NVML);
    for (index, gpu) in nvidia.gpus.iter().enumerate() {
        let scope = card(index, gpu);
        table.add("gpu", scope);
    }
    nvidia.gpus
}

fn driver(machine: &dyn Machine, nvidia: &Nvidia, all: &mut Scope) {
    if let Some(version) = &nvidia.driver {
        all.version("driver", version, NVML);
        all.version("driver.library", version, NVML);
    }
    if let Some(version) = &nvidia.cuda {
        all.version("driver.cuda", version, NVML);
    }
    if let Some(error) = &nvidia.error {
        all.text("nvml.error", error, NVML);
    }
    for path in ["/proc/driver/nvidia/version", "/sys/module/nvidia/version"] {
        let Ok(text) = read_text(machine, Path::new(path), 4096) else { continue };
        // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May ..." or the bare number.
        let number = text
            .split_whitespace()
            .find(|w| w.contains('.') && w.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(number) = number {
            all.version("driver.kernel", number, path);
            if nvidia.driver.is_none() {
                all.version("driver", number, path);
            }
            break;
        }
    }
    let cuda = machine.cuda();
    if let Some(version) = &cuda.version {
        all.version("cuda.version", version, LIBCUDA);
    }
    if let Some(devices) = cuda.devices {
        all.number("cuda.devices", f64::from(devices), LIBCUDA);
    }
    if let Some(error) = &cuda.error {
        all.text("cuda.error", error, LIBCUDA);
    }
    let pci = Path::new("/sys/bus/pci/devices");
    let mut cards = 0;
    let mut shown = String::new();
    let mut errors = [0u64; 2];
    for name in names(machine, pci).into_iter().take(1024) {
        let read =
            |file: &str| read_text(machine, &pci.join(&name).join(file), 64).unwrap_or_default();
        // 0x10de is NVIDIA; class 0x03 is a display controller (0x0300 VGA, 0x0302 3D).
        if read("vendor").trim() == "0x10de" && read("class").trim().starts_with("0x03") {
            cards += 1;
            shown = pci.join(&name).display().to_string();
            bus_errors(machine, &pci.join(&name), &mut errors);
        }
    }
    if cards > 0 {
        all.number("pci.nvidia", f64::from(cards), &shown);
        let [corrected, uncorrected] = errors;
        all.number("aer.corrected", corrected as f64, format!("{shown}/aer_dev_correctable"));
        all.number("aer.uncorrected", uncorrected as f64, format!("{shown}/aer_dev_nonfatal"));
    }
    all.flag("nouveau", exists(machine, Path::new("/sys/module/nouveau")), "/sys/module/nouveau");
    if exists(machine, Path::new("/proc/driver/nvidia")) {
        all.flag("device.node", exists(machine, Path::new("/dev/nvidiactl")), "/dev/nvidiactl");
    }
}

/// PCIe's own error counters of a card, corrected and not, since the machine started (Linux, sysfs-bus-pci-devices-aer):
/// `TOTAL_ERR_COR 12` at the end of a list. The kernel's log has the same errors, of every device in the machine.
fn bus_errors(machine: &dyn Machine, device: &Path, errors: &mut [u64; 2]) {
    let kinds = [("aer_dev_correctable", 0), ("aer_dev_nonfatal", 1), ("aer_dev_fatal", 1)];
    for (file, kind) in kinds {
        let text = read_text(machine, &device.join(file), 4096).unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("TOTAL_ERR_"));
        let count = total.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok());
        errors[kind] = errors[kind].saturating_add(count.unwrap_or(0));
    }
}

/// Under WSL the Windows driver's libcuda lies in /usr/lib/wsl/lib; a Linux driver or toolkit stub must not hide it.
fn wsl(machine: &dyn Machine, all: &mut Scope) {
    if exists(machine, Path::new("/dev/dxg")) {
        all.flag("wsl", true, "/dev/dxg");
        let theirs = Path::new("/usr/lib/wsl/lib/libcuda.so.1");
        all.flag("wsl.libcuda", exists(machine, theirs), theirs.display().to_string());
        for folder in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"] {
            let other = Path::new(folder).join("libcuda.so.1");
            let ours = machine.link(&other).is_ok_and(|to| to.starts_with("/usr/lib/wsl"));
            if exists(machine, &other) && !ours {
                all.text("wsl.shadow", "a Linux driver's library", other.display().to_string());
            }
        }
    }
    let paths = machine.variable("LD_LIBRARY_PATH").unwrap_or_default();
    for folder in paths.split(':').filter(|p| p.starts_with('/')) {
        let folder = Path::new(folder);
        let stub = folder.ends_with("stubs")
            && names(machine, folder).iter().any(|n| n.starts_with("libcuda.so"));
        if stub {
            all.text("stub", folder.display().to_string(), "LD_LIBRARY_PATH");
        }
        let mine =
            ["libnvJitLink.so", "libcublas.so", "libcublasLt.so", "libcudnn.so", "libnccl.so"];
        if let Some(name) =
            names(machine, folder).into_iter().find(|n| mine.iter().any(|m| n.starts_with(m)))
        {
            all.text("toolkit.shadow", folder.join(name).display().to_string(), "LD_LIBRARY_PATH");
        }
    }
}

fn visible(machine: &dyn Machine, nvidia: &Nvidia, all: &mut Scope) {
    let Some(visible) = machine.variable("CUDA_VISIBLE_DEVICES") else { return };
    const PATH: &str = "CUDA_VISIBLE_DEVICES";
    all.text("visible", format!("\"{visible}\""), PATH);
    let first = visible.split(',').next().unwrap_or("").trim();
    let count = nvidia.gpus.len() as i64;
    // The runtime stops at the first index that does not exist; names (GPU-..., MIG-...) are left to it.
    let none = match first.parse::<i64>() {
        Ok(index) => index < 0 || index >= count,
        Err(_) => first.is_empty(),
    };
    all.flag("visible.none", none && count > 0, PATH);
    let missing =
        visible.split(',').filter_map(|i| i.trim().parse::<i64>().ok()).any(|i| i >= count);
    all.flag("visible.wrong", missing && !none && count > 0, PATH);
}

/// `NVRM: Xid (PCI:0000:01:00): 79, pid=...`: the codes, each once.
fn kernel_log(machine: &dyn Machine, all: &mut Scope) {
    let Some(log) = machine.kernel_log() else { return };
    let mut codes: Vec<String> = Vec::new();
    for line in log.lines().filter(|l| l.contains("NVRM: Xid")) {
        let code =
            line.split("): ").nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap_or("");
        if !code.is_empty()
            && code.len() < 5
            && code.bytes().all(|b| b.is_ascii_digit())
            && !codes.iter().any(|c| c == code)
        {
            codes.push(code.into());
        }
    }
    // 79 fell off the bus, 48 double-bit ECC, 62/64/74/95 hardware; the others are mostly programs' faults
    // (NVIDIA, "XID Errors").
    let fatal = codes.iter().any(|c| ["48", "62", "64", "74", "79", "95"].contains(&c.as_str()));
    if !codes.is_empty() {
        all.list("xid", codes, "kernel log");
        all.flag("xid.fatal", fatal, "kernel log");
    }
}

fn card(index: usize, gpu: &Gpu) -> Scope {
    let mut scope = Scope::default();
    let gib = |mib: u64| mib as f64 / 1024.0;
    scope.text("gpu.name", &gpu.name, NVML);
    scope.number("gpu.index", index as f64, NVML);
    scope.version("gpu.compute", &gpu.compute, NVML);
    scope.number("gpu.memory_gib", gib(gpu.memory_total_mib), NVML);
    scope.number(
        "gpu.free_gib",
        gib(gpu.memory_total_mib.saturating_sub(gpu.memory_used_mib)),
        NVML,
    );
    scope.number("gpu.taken_gib", gib(gpu.memory_used_mib), NVML);
    if gpu.memory_total_mib > 0 {
        scope.number(
            "gpu.taken_percent",
            gpu.memory_used_mib as f64 * 100.0 / gpu.memory_total_mib as f64,
            NVML,
        );
    }
    let holders = gpu
        .processes
        .iter()
        .map(|p| format!("{} (pid {}, {:.1} GiB)", p.name, p.pid, gib(p.memory_mib)));
    let holders: Vec<String> = holders.collect();
    let told = if holders.is_empty() {
        "processes that cannot be seen from here".into()
    } else {
        holders.join(", ")
    };
    scope.text("gpu.holders", told, NVML);
    if let (Some(limit), Some(default)) = (gpu.power_limit_w, gpu.power_default_w) {
        scope.number("gpu.power_limit_w", limit, NVML);
        scope.number("gpu.power_default_w", default, NVML);
        scope.number("gpu.power_percent", limit * 100.0 / default.max(1.0), NVML);
    }
    scope.list("gpu.throttle", gpu.throttle.clone(), NVML);
    let numbers = [
        ("gpu.temperature", gpu.temperature),
        ("gpu.memory_temperature", gpu.memory_temperature),
        ("gpu.pcie_width", gpu.pcie_width),
        ("gpu.pcie_max_width", gpu.pcie_max_width),
        ("gpu.pcie_generation", gpu.pcie_generation),
        ("gpu.pcie_max_generation", gpu.pcie_max_generation),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            scope.number(name, f64::from(value), NVML);
        }
    }
    if let (Some(now), Some(limit)) = (gpu.memory_temperature, gpu.memory_temperature_limit) {
        scope.number("gpu.memory_limit", f64::from(limit), NVML);
        scope.number("gpu.memory_headroom", f64::from(limit) - f64::from(now), NVML);
    }
    if let Some(on) = gpu.persistence {
        // A display or a process keeps the driver loaded as well.
        let held = gpu.display || !gpu.processes.is_empty();
        scope.flag("gpu.persistence", on, NVML);
        scope.flag("gpu.unloads", !on && !held, NVML);
    }
    if let Some(errors) = gpu.ecc_uncorrected {
        scope.number("gpu.ecc_uncorrected", errors as f64, NVML);
    }
    if !gpu.compute_mode.is_empty() {
        scope.text("gpu.compute_mode", &gpu.compute_mode, NVML);
    }
    scope.flag("gpu.display", gpu.display, NVML);
    scope
}
