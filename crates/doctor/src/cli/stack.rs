//! `prospect stack`.

use super::doctor::{DoctorArgs, machine};
use super::fail;
use crate::error::{Error, Result};
use crate::facts::described::card;
use crate::finding::Severity;
use crate::rules;
use crate::stack::index::Index;
use crate::stack::{check, matrix, online, profiles, read, show, table};
use clap::{Args, Subcommand, ValueEnum};
use pep440_rs::Version;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

/// The Python training stack: sets that work, and the smallest repair of one that does not
#[derive(Args, Clone, Debug)]
pub struct StackArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// The profiles: dated sets that a resolver accepted
    List,
    /// The install script of a profile
    Show {
        /// The profile
        profile: String,
        /// What the script uses
        #[arg(long, value_name = "FORMAT", default_value = "uv")]
        format: show::Format,
        /// The card it is for, such as "RTX 3090"
        #[arg(long, value_name = "NAME")]
        gpu: Option<String>,
        /// The driver it is for, such as 535.183
        #[arg(long, value_name = "VERSION")]
        driver: Option<String>,
        /// With the prebuilt flash-attn wheel that fits
        #[arg(long)]
        flash_attn: bool,
    },
    /// Judge a set before it is installed: does it resolve, to what, and does that run
    Check {
        /// A profile, requirements.txt, pyproject.toml or uv.lock
        what: String,
        #[command(flatten)]
        target: Target,
    },
    /// Find the smallest change that makes a set, or an installed environment, work
    Mend {
        /// A profile, requirements.txt, pyproject.toml or uv.lock
        what: Option<String>,
        /// An installed environment instead [default: the active one]
        #[arg(long, value_name = "PATH", conflicts_with = "what")]
        python: Option<PathBuf>,
        /// Carry it out through uv or pip; the way back is written first
        #[arg(long)]
        apply: bool,
        /// Let uv resolve the result on PyPI
        #[arg(long)]
        prove: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Which versions of a package take which of the others
    Matrix {
        /// The package, such as trl; "imports" for what the wheels import of transformers and it lacks
        package: String,
        /// How the table is written
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: matrix::Format,
    },
    /// Speed and memory on an RTX 3090: what was claimed beside what can be computed
    Table {
        /// Which table
        which: Which,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Speed,
    Vram,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Target {
    /// The Python it is for [default: what the set or environment says, else 3.12]
    #[arg(long, value_name = "VERSION")]
    pub(super) for_python: Option<String>,
    /// The card it is for, such as "RTX 3090"
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// The driver it is for, such as 535.183
    #[arg(long, value_name = "VERSION")]
    pub(super) driver: Option<String>,
    /// Bring the index up to date from PyPI first
    #[arg(long)]
    online: bool,
}

/// Runs `stack` and returns the exit code: 0 fine, 1 something does not work, 2 bad arguments.
pub fn run_stack(args: &StackArgs, out: &mut dyn Write) -> u8 {
    match stack(&args.command) {
        Ok((text, code)) => {
            let _ = out.write_all(text.as_bytes()); // a closed pipe: nobody reads on
            code
        }
        Err(error) => fail(&error, out),
    }
}

fn stack(command: &Command) -> Result<(String, u8)> {
    match command {
        Command::List => Ok((list(), 0)),
        Command::Show { profile, format, gpu, driver, flash_attn } => {
            let profile = profiles::named(profile)?;
            suits(&profile, gpu.as_deref(), driver.as_deref())?;
            if *flash_attn && profile.flash_attn.is_none() {
                return Err(Error::input(
                    format!("no prebuilt flash-attn wheel fits the profile '{}'", profile.name),
                    "leave --flash-attn out: torch's own attention has FlashAttention-2 since 2.2",
                ));
            }
            Ok((show::show(&profile, *format, *flash_attn), 0))
        }
        Command::Check { what, target } => run_check(what, target),
        Command::Mend { what, python, apply, prove, target } => {
            super::mend::run(what.as_deref(), python.as_ref(), *apply, *prove, target)
        }
        Command::Matrix { package, format } => {
            Ok((matrix::matrix(Index::shipped(), package)?.write(*format), 0))
        }
        Command::Table { which: Which::Speed } => Ok((table::speed(), 0)),
        Command::Table { which: Which::Vram } => Ok((table::vram(), 0)),
    }
}

fn list() -> String {
    let mut text = String::new();
    for p in profiles::all() {
        let main = ["torch", "transformers", "trl", "unsloth", "peft", "bitsandbytes"];
        let main = main
            .iter()
            .filter_map(|n| Some(format!("{n} {}", p.version(n)?)))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = write!(
            text,
            "{}\n  {}\n  {main}\n  Python {}, driver {} or newer, CUDA {}; resolved by uv for {}\n  corrects  {}\n  security  {}\n\n",
            p.name, p.title, p.python, p.driver, p.cuda, p.date, p.corrects, p.security
        );
    }
    text
}

pub(super) fn version(text: &str, flag: &str) -> Result<Version> {
    Version::from_str(text).map_err(|_| {
        Error::input(
            format!("'{text}' in {flag} is no version"),
            "write it as nvidia-smi does, such as 535.183",
        )
    })
}

/// A profile must suit the card and the driver it is asked for.
fn suits(profile: &profiles::Profile, gpu: Option<&str>, driver: Option<&str>) -> Result<()> {
    if let Some(driver) = driver {
        let (have, least) = (version(driver, "--driver")?, version(&profile.driver, "--driver")?);
        if have < least {
            let fitting: Vec<String> = profiles::all()
                .into_iter()
                .filter(|p| Version::from_str(&p.driver).is_ok_and(|least| have >= least))
                .map(|p| p.name)
                .collect();
            let hint = if fitting.is_empty() {
                "every profile needs at least 525.60.13".into()
            } else {
                format!("these do: {}", fitting.join(", "))
            };
            return Err(Error::input(
                format!("profile '{}' needs driver {}, not {driver}", profile.name, profile.driver),
                hint,
            ));
        }
    }
    if let Some(gpu) = gpu.map(card).transpose()? {
        let (compute, old, new) =
            (version(&gpu.compute, "--gpu")?, Version::new([7, 5]), Version::new([10, 0]));
        // Wheels for CUDA 12.1 and 12.4 have code up to 9.0; 13.x has none below 7.5 (PyTorch's build scripts).
        let cuda = version(&profile.cuda, "cuda")?;
        if (compute >= new && cuda < Version::new([12, 8])) || compute < old {
            return Err(Error::input(
                format!(
                    "the torch of profile '{}' has no code for the {} ({})",
                    profile.name, gpu.name, gpu.compute
                ),
                "`prospect stack list` shows the others",
            ));
        }
    }
    Ok(())
}

pub(super) fn index(target: &Target) -> Result<(std::borrow::Cow<'static, Index>, String)> {
    let shipped = Index::shipped();
    if !target.online {
        return Ok((
            std::borrow::Cow::Borrowed(shipped),
            format!("index of {}, {} releases", shipped.date, shipped.count()),
        ));
    }
    let (newer, added) = online::refresh(shipped)?;
    let told = format!("index of {} and {added} newer releases from PyPI", shipped.date);
    Ok((std::borrow::Cow::Owned(newer), told))
}

fn run_check(what: &str, target: &Target) -> Result<(String, u8)> {
    let machine = machine(&DoctorArgs::default())?;
    let asked = read::read(machine.as_ref(), what)?;
    let python =
        read::python(target.for_python.as_deref().or(asked.python.as_deref()).unwrap_or("3.12"))?;
    let (index, told) = index(target)?;
    let gpus = target.gpu.as_deref().map(card).transpose()?.into_iter().collect::<Vec<_>>();
    if let Some(driver) = &target.driver {
        version(driver, "--driver")?;
    }
    let verdict = check::check(
        &index,
        &rules::shipped(),
        &python,
        target.driver.as_deref(),
        &gpus,
        &asked.wanted,
    );
    let mut text = format!("{what} for Python {python} ({told})\n");
    asked.remarks.iter().for_each(|r| _ = writeln!(text, "  ! {r}"));
    verdict.impossible.iter().for_each(|i| _ = writeln!(text, "  ✗ {i}"));
    if let Some(why) = &verdict.conflict {
        let _ = writeln!(text, "  ✗ nothing fits together:");
        why.lines().for_each(|line| _ = writeln!(text, "      {line}"));
    }
    if !verdict.set.is_empty() {
        let set: Vec<String> = verdict.set.iter().map(|(n, v)| format!("{n} {v}")).collect();
        let _ = writeln!(text, "  · a resolver chooses {}", set.join(", "));
    }
    for finding in &verdict.findings {
        let mark = if finding.severity == Severity::Error { "✗" } else { "!" };
        let _ =
            writeln!(text, "  {mark} {} [{}]\n      {}", finding.title, finding.rule, finding.why);
    }
    let unknown = asked.wanted.iter().filter(|w| !index.has(&w.name)).count();
    if unknown > 0 {
        let _ =
            writeln!(text, "  · {unknown} packages outside the index are taken to be available");
    }
    match verdict.fine() {
        true => text.push_str("It resolves, and no known break is in it.\n"),
        false => {
            _ = writeln!(
                text,
                "The smallest repair: prospect stack mend {what} --for-python {python}"
            )
        }
    }
    Ok((text, u8::from(!verdict.fine())))
}
