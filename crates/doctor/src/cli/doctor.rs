//! `prospect doctor`.

use super::fail;
use crate::diagnosis::diagnose;
use crate::error::{Error, Result};
use crate::facts::described::{Described, Description, card};
use crate::facts::local::Local;
use crate::facts::{Machine, Nvidia};
use crate::prospect::Engine;
use crate::python::{Environment, locate};
use crate::report::page::{Style, page};
use crate::report::{explain, json};
use crate::rules;
use clap::{Args, ValueEnum};
use pep440_rs::Version;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::str::FromStr;

/// Will it train on this machine, and if not, what exactly mends it
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// A Python environment: its folder, its interpreter, a project with .venv, a conda prefix [default: the active one]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Look at another machine's files, such as an unpacked image
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Suppose this GPU, such as "RTX 3090"; give it several times for several cards
    #[arg(long, value_name = "NAME")]
    pub gpu: Vec<String>,
    /// Suppose this driver, such as 535.183
    #[arg(long, value_name = "VERSION")]
    pub driver: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Explain a rule ("all" lists them)
    #[arg(long, value_name = "RULE")]
    pub explain: Option<String>,
    /// Print every package, library and mend
    #[arg(long)]
    pub verbose: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    pub(super) fn on(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
                !refused && !dumb && std::io::stdout().is_terminal()
            }
        }
    }
}

impl DoctorArgs {
    /// Whether this very machine is asked about, and not one told in words.
    pub fn is_here(&self) -> bool {
        self.root.is_none() && self.gpu.is_empty() && self.driver.is_none()
    }
}

/// Runs `doctor` and returns the exit code: 0 nothing wrong (warnings allowed), 1 an error was found, 2 bad arguments.
pub fn run_doctor(args: &DoctorArgs, out: &mut dyn Write) -> u8 {
    run_doctor_with(args, Engine::default(), out)
}

/// Runs `doctor` with what the engine says of itself.
pub fn run_doctor_with(args: &DoctorArgs, engine: Engine, out: &mut dyn Write) -> u8 {
    match doctor(args, engine) {
        Ok((text, code)) => {
            let _ = out.write_all(text.as_bytes()); // a closed pipe: nobody reads on
            code
        }
        Err(error) => fail(&error, out),
    }
}

fn doctor(args: &DoctorArgs, engine: Engine) -> Result<(String, u8)> {
    let rules = rules::shipped();
    if let Some(name) = &args.explain {
        return explained(name, &rules).map(|text| (text, 0));
    }
    let machine = machine(args)?;
    let environment = environment(args, machine.as_ref())?;
    let diagnosis = diagnose(machine.as_ref(), environment, engine, &rules);
    let text = match args.json {
        true => format!("{:#}\n", json::json(&diagnosis)),
        false => page(&diagnosis, Style { color: args.color.on(), verbose: args.verbose }),
    };
    Ok((text, u8::from(diagnosis.counts().0 > 0)))
}

fn explained(name: &str, rules: &[rules::Rule]) -> Result<String> {
    if name == "all" {
        return Ok(rules.iter().map(|r| format!("{:<28} {}\n", r.id, r.what)).collect());
    }
    rules.iter().find(|r| r.id == name).map(explain::explain).ok_or_else(|| {
        let near = rules
            .iter()
            .map(|r| r.id.as_str())
            .filter(|id| id.contains(name) || shares_a_word(id, name));
        let near: Vec<&str> = near.take(5).collect();
        let hint = match near.is_empty() {
            true => "`--explain all` lists the rules".to_string(),
            false => format!("did you mean {}?", near.join(", ")),
        };
        Error::input(format!("unknown rule '{name}' in --explain"), hint)
    })
}

fn shares_a_word(id: &str, name: &str) -> bool {
    name.split('-').any(|word| word.len() > 3 && id.split('-').any(|w| w == word))
}

/// The machine the arguments mean: this one, or one told by `--root`, `--gpu` and `--driver`.
pub(super) fn machine(args: &DoctorArgs) -> Result<Box<dyn Machine>> {
    if args.is_here() {
        return Ok(Box::new(Local::new()));
    }
    if let Some(driver) = &args.driver {
        Version::from_str(driver).map_err(|_| {
            Error::input(
                format!("'{driver}' in --driver is no driver version"),
                "write it as nvidia-smi does, such as 535.183",
            )
        })?;
    }
    let gpus = args.gpu.iter().map(|name| card(name)).collect::<Result<Vec<_>>>()?;
    // A card without a word about its driver is supposed to have one that runs everything.
    let driver = args.driver.clone().or_else(|| (!gpus.is_empty()).then(|| "610.0".to_string()));
    let mut about = Description {
        nvidia: Nvidia { driver, gpus, ..Nvidia::default() },
        ..Description::default()
    };
    match &args.root {
        Some(root) => {
            if !root.is_dir() {
                return Err(Error::input(
                    format!("--root '{}' is no folder", root.display()),
                    "give the folder of an unpacked image",
                ));
            }
            Ok(Box::new(Described::new(root.clone(), about)))
        }
        None => {
            let names =
                ["HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "HF_HOME", "LD_LIBRARY_PATH"];
            about.variables = names
                .iter()
                .filter_map(|n| Some((n.to_string(), std::env::var(n).ok()?)))
                .collect();
            about.working_folder = std::env::current_dir().ok();
            Ok(Box::new(Described::over_local(about)))
        }
    }
}

pub(super) fn environment(args: &DoctorArgs, machine: &dyn Machine) -> Result<Option<Environment>> {
    match (&args.python, &args.root) {
        (Some(path), _) => locate::given(machine, path).map(Some),
        (None, Some(_)) => Ok(locate::in_image(machine)),
        (None, None) => Ok(locate::active(machine)),
    }
}
