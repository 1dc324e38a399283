//! The page: what is fine in one line each, what is wrong with its evidence, its reason and one command.

use crate::diagnosis::Diagnosis;
use crate::finding::{Finding, Layer, Severity};
use crate::python::Manager;
use crate::rules::Group;
use crate::table::{Scope, Value, clip};
use std::fmt::Write;

/// How the page is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// With every package, every mend and every fact.
    pub verbose: bool,
}

pub(super) struct Page<'a> {
    pub(super) text: String,
    pub(super) style: Style,
    pub(super) diagnosis: &'a Diagnosis,
}

/// Writes the page.
pub fn page(diagnosis: &Diagnosis, style: Style) -> String {
    let mut page = Page { text: String::new(), style, diagnosis };
    page.machine();
    page.prospect();
    page.python();
    page.summary();
    page.text
}

#[derive(Clone, Copy)]
pub(super) enum Mark {
    Good,
    Note,
}

impl Page<'_> {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    pub(super) fn line(&mut self, mark: Mark, name: &str, text: &str) {
        let mark = match mark {
            Mark::Good => self.paint("32", "✓"),
            Mark::Note => self.paint("2", "·"),
        };
        let _ = writeln!(self.text, "  {mark} {name:<10} {}", clip(text, 400));
    }

    pub(super) fn head(&mut self, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let text = self.paint("1", &clip(text, 300));
        let _ = writeln!(self.text, "{gap}{text}");
    }

    pub(super) fn fact(&self, name: &str) -> Option<String> {
        self.diagnosis.table.all.get(name).map(|f| f.shown())
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        number(&self.diagnosis.table.all, name)
    }

    fn scopes(&self, kind: &str) -> Vec<Scope> {
        self.diagnosis.table.each.get(kind).cloned().unwrap_or_default()
    }

    fn machine(&mut self) {
        self.head("Machine");
        for gpu in self.scopes("gpu") {
            let shown = |name: &str| gpu.get(name).map_or("?".into(), |f| f.shown());
            let text = format!(
                "{}, compute capability {}, {} of {} GiB free",
                shown("gpu.name"),
                shown("gpu.compute"),
                shown("gpu.free_gib"),
                shown("gpu.memory_gib")
            );
            self.line(Mark::Good, &format!("GPU {}", shown("gpu.index")), &text);
            if self.style.verbose {
                for (name, fact) in gpu.iter() {
                    let _ = writeln!(self.text, "                 {name} = {}", fact.shown());
                }
            }
        }
        if self.scopes("gpu").is_empty() && self.fact("pci.nvidia").is_none() {
            self.line(Mark::Note, "GPU", "no NVIDIA card here; training runs on the CPU");
        }
        if let Some(driver) = self.fact("driver") {
            let newest = self
                .fact("driver.cuda")
                .map_or(String::new(), |c| format!(" (runs CUDA up to {c})"));
            self.line(Mark::Good, "driver", &format!("{driver}{newest}"));
        }
        if let Some(memory) = self.fact("host.memory_gib") {
            let free = self
                .fact("host.available_gib")
                .map_or(String::new(), |f| format!(", {f} available"));
            let limit = self
                .fact("cgroup.limit_gib")
                .map_or(String::new(), |l| format!(", limited to {l}"));
            let processors = self.fact("host.processors").unwrap_or("?".into());
            self.line(
                Mark::Good,
                "memory",
                &format!("{memory} GiB{free}{limit}; {processors} processors"),
            );
        }
        if let (Some(free), Some(home)) = (self.fact("hf.free_gib"), self.fact("hf.home")) {
            self.line(Mark::Good, "disk", &format!("{free} GiB free for models in {home}"));
        }
        if let Some(glibc) = self.fact("glibc") {
            self.line(Mark::Good, "glibc", &glibc);
        }
        self.findings(Group::Machine);
    }

    fn python(&mut self) {
        let Some(environment) = &self.diagnosis.environment else {
            self.head("Python stack");
            self.line(
                Mark::Note,
                "none",
                "no active environment; Prospect needs none (look at one with --python PATH)",
            );
            return;
        };
        let python = environment.python.as_ref().map_or("?".into(), |(v, _)| v.to_string());
        let head = format!(
            "Python stack  {} ({}, Python {python})",
            environment.prefix.display(),
            environment.manager.name()
        );
        self.head(&head);
        let stack: Vec<String> = crate::python::facts::STACK
            .iter()
            .filter_map(|name| Some(format!("{name} {}", self.fact(name)?)))
            .collect();
        let packages = self.fact("packages").unwrap_or_default();
        if stack.is_empty() {
            self.line(
                Mark::Note,
                "stack",
                &format!("none of the training packages among its {packages}"),
            );
        } else {
            self.line(Mark::Good, "stack", &format!("{} ({packages} packages)", stack.join(", ")));
        }
        if let Some(cuda) = self.fact("torch.cuda") {
            let architectures = self
                .fact("torch.architectures")
                .map_or(String::new(), |a| format!(", code for {a}"));
            self.line(Mark::Good, "torch", &format!("built for CUDA {cuda}{architectures}"));
        }
        if self.fact("torch").is_some() && self.fact("flash-attn").is_none() {
            self.line(Mark::Note, "attention", "flash-attn is not installed and not needed: torch's own attention (SDPA) has it since 2.2");
            self.flash_attn();
        }
        if self.style.verbose {
            let all: Vec<(String, String)> = self
                .diagnosis
                .found
                .dists
                .iter()
                .map(|d| (d.name.clone(), d.version.to_string()))
                .collect();
            for (name, version) in all {
                let _ = writeln!(self.text, "                 {name} {version}");
            }
            for scope in self.scopes("extension") {
                let told = scope
                    .iter()
                    .map(|(n, f)| format!("{} {}", n.replace("extension.", ""), f.shown()));
                let told: Vec<String> = told.collect();
                let _ = writeln!(self.text, "                 {}", clip(&told.join(", "), 300));
            }
        }
        self.findings(Group::Python);
    }

    /// The prebuilt wheel of flash-attn, or what a build would take.
    fn flash_attn(&mut self) {
        let fact = |name: &str| self.fact(name).unwrap_or("?".into());
        let (wheel, none) = (self.fact("flash-attn.wheel"), self.fact("flash-attn.no_wheel"));
        if let Some(wheel) = wheel {
            self.line(Mark::Note, "", &format!("the prebuilt wheel that fits: {wheel}"));
        } else if let Some(why) = none {
            let text = format!(
                "no prebuilt wheel fits: {why}; a build needs nvcc ({}), ninja ({}) and 9 GiB a job, here MAX_JOBS={}",
                fact("build.nvcc"),
                fact("build.ninja"),
                fact("build.jobs")
            );
            self.line(Mark::Note, "", &text);
        }
    }

    pub(super) fn findings(&mut self, group: Group) {
        let findings: Vec<Finding> =
            self.diagnosis.findings.iter().filter(|f| f.group == group).cloned().collect();
        // A broken environment can have hundreds of equal findings: a page shows the first of each kind.
        let most = if self.style.verbose { usize::MAX } else { 4 };
        let mut shown: Vec<(String, usize)> = Vec::new();
        for finding in &findings {
            let count = match shown.iter_mut().find(|(rule, _)| *rule == finding.rule) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    shown.push((finding.rule.clone(), 1));
                    1
                }
            };
            if count <= most {
                self.finding(finding);
            }
        }
        for (rule, count) in shown.into_iter().filter(|(_, count)| *count > most) {
            self.line(
                Mark::Note,
                "",
                &format!("and {} more of {rule} (--verbose shows them)", count - most),
            );
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let (mark, code) = match finding.severity {
            Severity::Error => ("✗", "31"),
            Severity::Warning => ("!", "33"),
        };
        let layer = match finding.layer {
            Layer::Machine => "machine",
            Layer::Bytes => "bytes",
            Layer::Metadata => "metadata",
            Layer::Rules => "rules",
        };
        let mark = self.paint(code, mark);
        let title = self.paint("1", &clip(&finding.title, 400));
        let id = self.paint("2", &format!("[{layer}: {}]", finding.rule));
        let _ = writeln!(self.text, "  {mark} {title} {id}");
        for evidence in &finding.evidence {
            let _ = writeln!(
                self.text,
                "      {}: {}",
                clip(&evidence.path, 200),
                clip(&evidence.value, 200)
            );
        }
        let _ = writeln!(self.text, "      {}", clip(&finding.why, 600));
        let manager = self.diagnosis.environment.as_ref().map(|e| e.manager);
        let mend = &finding.mend;
        let chosen = match manager {
            Some(Manager::Uv) => &mend.uv,
            Some(Manager::Conda) => &mend.conda,
            _ => &mend.pip,
        };
        if self.style.verbose && mend.pip != mend.uv {
            let _ = writeln!(self.text, "      pip:   {}", mend.pip);
            let _ = writeln!(self.text, "      uv:    {}", mend.uv);
            let _ = writeln!(self.text, "      conda: {}", mend.conda);
        } else {
            let command = self.paint("36", chosen);
            let _ = writeln!(self.text, "      mend: {command}");
        }
    }

    fn summary(&mut self) {
        let (errors, warnings) = self.diagnosis.counts();
        let plural = |n: usize, word: &str| {
            if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
        };
        let text = match (errors, warnings) {
            (0, 0) => self.paint("32", "No problems found."),
            _ => format!(
                "{}, {}. `prospect doctor --explain RULE` tells more.",
                plural(errors, "error"),
                plural(warnings, "warning")
            ),
        };
        let _ = writeln!(self.text, "\n{text}");
        let python: Vec<&Finding> = self
            .diagnosis
            .findings
            .iter()
            .filter(|f| matches!(f.layer, Layer::Metadata | Layer::Rules))
            .collect();
        if let (Some(environment), true) = (&self.diagnosis.environment, python.len() > 1) {
            let _ = writeln!(
                self.text,
                "The packages together: prospect stack mend --python {}",
                clip(&environment.prefix.display().to_string(), 300)
            );
        }
    }
}

fn number(scope: &Scope, name: &str) -> Option<f64> {
    match scope.get(name).map(|f| &f.value) {
        Some(Value::Number(n)) => Some(*n),
        _ => None,
    }
}
