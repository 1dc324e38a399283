//! The page's part about Prospect itself: what the engine uses of a GPU, or what the CPU trains and a GPU would bring.

use super::page::{Mark, Page};
use crate::finding::{Layer, Severity};
use crate::rules::Group;
use crate::table::{Value, clip};
use std::fmt::Write;

impl Page<'_> {
    /// Prospect's part.
    pub(super) fn prospect(&mut self) {
        self.head("Prospect");
        let broken = self.diagnosis.findings.iter().any(|f| {
            f.severity == Severity::Error
                && matches!(f.layer, Layer::Machine)
                && matches!(f.group, Group::Machine | Group::Prospect)
                && !f.rule.starts_with("hf-") // the cache is no part of the GPU
        });
        let gpus = self.number("gpus").unwrap_or(0.0);
        if gpus > 0.0 && !broken {
            self.cuda(gpus);
        }
        if gpus == 0.0 || broken {
            self.cpu(gpus);
        }
        self.self_tests();
        self.findings(Group::Prospect);
    }

    /// What the engine uses of a GPU.
    fn cuda(&mut self, gpus: f64) {
        let text = match (self.number("engine.open_ms"), self.number("engine.compile_ms")) {
            (Some(open), Some(compile)) => {
                let kernels = self.fact("engine.kernels").unwrap_or_default();
                format!(
                    "usable: opened in {open:.0} ms, the driver compiled {kernels} kernels in {compile:.0} ms"
                )
            }
            _ => "usable; Prospect brings its own kernels and needs the driver alone".into(),
        };
        self.line(Mark::Good, "CUDA", &text);
        let version = |name: &str, page: &Page| {
            page.fact(&format!("{name}.version")).map_or(String::new(), |v| format!("{v} from "))
        };
        match self.fact("cublaslt") {
            Some(path) => {
                let text = version("cublaslt", self) + &path;
                self.line(Mark::Good, "cuBLASLt", &text);
            }
            None => {
                let text = "not taken; Prospect multiplies with its own kernels, which are slower on Hopper and newer: `prospect doctor --fetch cublas` gets it";
                self.line(Mark::Note, "cuBLASLt", text);
            }
        }
        let places = match self.diagnosis.table.all.get("cublaslt.places").map(|f| &f.value) {
            Some(Value::List(places)) if self.style.verbose => places.clone(),
            _ => Vec::new(),
        };
        for place in places {
            let _ = writeln!(self.text, "                 {}", clip(&place, 300));
        }
        if let (Some(why), true) = (self.fact("cublaslt.missing"), self.style.verbose) {
            let _ = writeln!(self.text, "                 {}", clip(&why, 600));
        }
        if gpus > 1.0 {
            match self.fact("nccl") {
                Some(path) => {
                    let text = version("nccl", self) + &path;
                    self.line(Mark::Good, "NCCL", &text);
                }
                None => self.line(
                    Mark::Note,
                    "NCCL",
                    "not found; it is needed for training on several cards at once",
                ),
            }
        }
    }

    /// What trains without a GPU, and what a GPU would bring. Nothing here is a fault.
    fn cpu(&mut self, gpus: f64) {
        let assumption = self.fact("sizes.assumption");
        match (self.fact("cpu.largest"), self.number("cpu.largest_gib")) {
            (Some(name), Some(takes)) => {
                let free = self.fact("host.available_gib").unwrap_or_default();
                let text = format!(
                    "training works here, for models up to the size of {name}: it takes {takes:.1} of {free} GiB"
                );
                self.line(Mark::Good, "CPU", &text);
            }
            _ if assumption.is_some() => {
                let free = self.fact("host.available_gib").unwrap_or("?".into());
                let text =
                    format!("training works here, but {free} GiB hold only the smallest models");
                self.line(Mark::Note, "CPU", &text);
            }
            _ => self.line(Mark::Good, "CPU", "training works here, for small models"),
        }
        if let (Some(Value::List(speeds)), Some(gflops)) = (
            self.diagnosis.table.all.get("cpu.tokens_per_second").map(|f| f.value.clone()),
            self.number("cpu.gflops"),
        ) && !speeds.is_empty()
        {
            let last = speeds.len() - 1;
            let mut some: Vec<&str> = Vec::new();
            for i in [0, last / 2, last] {
                if !some.contains(&speeds[i].as_str()) {
                    some.push(&speeds[i]);
                }
            }
            let text = format!(
                "rated tokens a second, about: {} (from {gflops:.0} GFLOP/s, measured now)",
                some.join(", ")
            );
            self.line(Mark::Note, "speed", &text);
        }
        if gpus == 0.0 {
            let text =
                "a GPU would need compute capability 8.0 (RTX 30 series on) and driver 535.54.03";
            self.line(Mark::Note, "GPU", text);
            if let Some(Value::List(cards)) =
                self.diagnosis.table.all.get("gpu.trains").map(|f| f.value.clone())
            {
                self.line(Mark::Note, "", &format!("it would train up to: {}", cards.join(", ")));
            }
        }
        if let Some(assumption) = assumption {
            self.line(Mark::Note, "planned", &assumption);
        }
    }

    fn self_tests(&mut self) {
        for test in self.diagnosis.engine.self_tests.iter().filter(|t| t.passed) {
            let share = test
                .share_of_peak
                .map_or(String::new(), |s| format!(", {:.0} % of the card's figure", s * 100.0));
            let speed = test.speed.as_ref().map_or(String::new(), |s| format!("; {s}"));
            let name = format!("{:<15}", test.component);
            self.line(Mark::Good, &name, &format!("{}{speed}{share}", test.error));
        }
    }
}
