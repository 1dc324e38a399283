//! What GPUs can do, and how long the work of a plan takes there.
//!
//! Dense bf16 products with f32 accumulation and memory bandwidth, from NVIDIA's data sheets (A and L series, A100, H100,
//! H200) and from the architecture white papers (GA102, AD102, GB202): on GeForce cards a multiprocessor does 512
//! floating-point operations of that kind a clock at the boost clock the paper names.
//!
//! An op takes the longer of its arithmetic and its traffic, each at a share of the peak, and a moment to start. The shares are
//! fitted to 21 runs on an H200 (LOG.md: KTO, 1B to 32B, all kept and tight). Twelve runs on
//! another one came out 9 % faster to 2 % slower than that said. It is a prediction, and where it is shown, it says so.

use engine::memory::ledger::Ledger;

/// A GPU as its maker describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// As NVIDIA names it, without the maker.
    pub name: &'static str,
    /// GiB of memory.
    pub memory_gib: f64,
    /// Dense bf16 products with f32 accumulation, TFLOP/s.
    pub tflops: f64,
    /// Memory bandwidth, GB/s.
    pub bandwidth: f64,
    /// Compute capability.
    pub capability: (u32, u32),
}

const fn gpu(
    name: &'static str,
    memory_gib: f64,
    tflops: f64,
    bandwidth: f64,
    capability: (u32, u32),
) -> Gpu {
    Gpu { name, memory_gib, tflops, bandwidth, capability }
}

/// The GPUs that are known, by generation.
pub const GPUS: [Gpu; 40] = [
    gpu("T4", 16.0, 65.0, 320.0, (7, 5)),
    gpu("RTX 3060", 12.0, 25.5, 360.0, (8, 6)),
    gpu("RTX 3060 Ti", 8.0, 32.4, 448.0, (8, 6)),
    gpu("RTX 3070", 8.0, 40.6, 448.0, (8, 6)),
    gpu("RTX 3070 Ti", 8.0, 43.5, 608.0, (8, 6)),
    gpu("RTX 3080", 10.0, 59.5, 760.0, (8, 6)),
    gpu("RTX 3080 12GB", 12.0, 61.3, 912.0, (8, 6)),
    gpu("RTX 3080 Ti", 12.0, 68.2, 912.0, (8, 6)),
    gpu("RTX 3090", 24.0, 71.2, 936.0, (8, 6)),
    gpu("RTX 3090 Ti", 24.0, 80.0, 1008.0, (8, 6)),
    gpu("RTX A4000", 16.0, 76.7, 448.0, (8, 6)),
    gpu("RTX A5000", 24.0, 111.1, 768.0, (8, 6)),
    gpu("RTX A6000", 48.0, 154.8, 768.0, (8, 6)),
    gpu("A10", 24.0, 125.0, 600.0, (8, 6)),
    gpu("A30", 24.0, 165.0, 933.0, (8, 0)),
    gpu("A40", 48.0, 149.7, 696.0, (8, 6)),
    gpu("A100 40GB", 40.0, 312.0, 1555.0, (8, 0)),
    gpu("A100 80GB", 80.0, 312.0, 1935.0, (8, 0)),
    gpu("RTX 4060", 8.0, 30.2, 272.0, (8, 9)),
    gpu("RTX 4060 Ti", 8.0, 44.1, 288.0, (8, 9)),
    gpu("RTX 4060 Ti 16GB", 16.0, 44.1, 288.0, (8, 9)),
    gpu("RTX 4070", 12.0, 58.3, 504.0, (8, 9)),
    gpu("RTX 4070 SUPER", 12.0, 71.0, 504.0, (8, 9)),
    gpu("RTX 4070 Ti", 12.0, 80.2, 504.0, (8, 9)),
    gpu("RTX 4070 Ti SUPER", 16.0, 88.2, 672.0, (8, 9)),
    gpu("RTX 4080", 16.0, 97.5, 717.0, (8, 9)),
    gpu("RTX 4080 SUPER", 16.0, 104.4, 736.0, (8, 9)),
    gpu("RTX 4090", 24.0, 165.2, 1008.0, (8, 9)),
    gpu("RTX 6000 Ada", 48.0, 364.0, 960.0, (8, 9)),
    gpu("L4", 24.0, 121.0, 300.0, (8, 9)),
    gpu("L40S", 48.0, 362.0, 864.0, (8, 9)),
    gpu("H100 PCIe", 80.0, 756.0, 2000.0, (9, 0)),
    gpu("H100 80GB", 80.0, 989.0, 3350.0, (9, 0)),
    gpu("H200", 141.0, 989.0, 4800.0, (9, 0)),
    gpu("RTX 5060 Ti", 8.0, 47.4, 448.0, (12, 0)),
    gpu("RTX 5060 Ti 16GB", 16.0, 47.4, 448.0, (12, 0)),
    gpu("RTX 5070", 12.0, 61.7, 672.0, (12, 0)),
    gpu("RTX 5070 Ti", 16.0, 87.9, 896.0, (12, 0)),
    gpu("RTX 5080", 16.0, 112.6, 960.0, (12, 0)),
    gpu("RTX 5090", 32.0, 209.5, 1792.0, (12, 0)),
];

/// What a GPU that is not known is taken to be like: the ratio of arithmetic to traffic is what matters.
pub(crate) const USUAL: Gpu = gpu("a GPU", 24.0, 71.2, 936.0, (8, 6));

/// A CPU of some cores, for the same use.
pub(crate) const CPU: Gpu = gpu("a CPU", 16.0, 0.3, 30.0, (0, 0));

/// The GPU that a person or NVIDIA's driver means by a name: the most specific one whose words and numbers it has all,
/// or else the first one that has all of its own.
pub fn find(name: &str) -> Option<Gpu> {
    let asked = words(name);
    let within = GPUS.iter().filter(|gpu| words(gpu.name).iter().all(|word| asked.contains(word)));
    let around = |gpu: &&Gpu| {
        let own = words(gpu.name);
        !asked.is_empty() && asked.iter().all(|word| own.contains(word))
    };
    within.max_by_key(|gpu| words(gpu.name).len()).or_else(|| GPUS.iter().find(around)).copied()
}

/// Runs of letters and of digits, in lower case: "RTX 3090" and "rtx3090" have the same.
fn words(name: &str) -> Vec<String> {
    let kind = |c: char| (c.is_ascii_digit(), c.is_ascii_alphabetic());
    let lower: Vec<char> = name.to_lowercase().chars().collect();
    let runs = lower.chunk_by(|a, b| kind(*a) == kind(*b));
    runs.filter(|run| run[0].is_ascii_alphanumeric()).map(|run| run.iter().collect()).collect()
}

/// Floating-point operations of standard attention for each byte a second of bandwidth: 28 TFLOP/s at 3,350 GB/s.
const STANDARD_ATTENTION: f64 = 8.0;

/// Seconds from the end of one op to where the next is at work.
const START: f64 = 4e-6;

/// Shares of the peaks that Prospect's kernels reach.
struct Shares {
    products: f64,
    attention: f64,
    attention_backward: f64,
    bandwidth: f64,
}

impl Gpu {
    fn shares(&self) -> Shares {
        // On Hopper `mma.sync` reaches no more of the peak; elsewhere it is all there is.
        let hopper = self.capability.0 == 9;
        Shares {
            products: 0.74,
            attention: if hopper { 0.36 } else { 0.6 },
            attention_backward: if hopper { 0.23 } else { 0.45 },
            bandwidth: 0.55,
        }
    }

    /// Seconds that the work takes, op by op, one after the other.
    pub fn seconds(&self, ledger: &Ledger) -> f64 {
        let shares = self.shares();
        let seconds = |(op, work): (&&str, &engine::memory::ledger::Work)| {
            if op.ends_with("the host") {
                return 0.0; // beside the computation
            }
            let rate = match *op {
                "attention" => shares.attention * self.tflops * 1e12,
                "attention backward" => shares.attention_backward * self.tflops * 1e12,
                // Every score passes through memory several times, so the bandwidth decides.
                "standard attention" | "standard attention backward" => {
                    STANDARD_ATTENTION * self.bandwidth * 1e9
                }
                _ => shares.products * self.tflops * 1e12,
            };
            // The norms and the like have so little arithmetic that their traffic counts.
            let arithmetic = work.flops / rate;
            let traffic = work.traffic / (shares.bandwidth * self.bandwidth * 1e9);
            arithmetic.max(traffic) + START * work.calls as f64
        };
        ledger.ops().iter().map(seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_by_the_names_of_people_and_of_the_driver() {
        for (asked, found) in [
            ("RTX 3090", "RTX 3090"),
            ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
            ("3090", "RTX 3090"),
            ("rtx3060", "RTX 3060"),
            ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
            ("NVIDIA H100 80GB HBM3", "H100 80GB"),
            ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
            ("A100", "A100 40GB"),
            ("H200", "H200"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA L4", "L4"),
            ("GTX 1080", ""),
        ] {
            assert_eq!(find(asked).map_or("", |gpu| gpu.name), found, "{asked}");
        }
    }
}
