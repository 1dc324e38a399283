//! The install script of a profile, in the right order: driver, interpreter, one locked set, the flash-attn wheel
//! that fits, the doctor, one small step.

use super::builds;
use super::profiles::Profile;
use std::fmt::Write;

/// What the script is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// pip and venv.
    Pip,
    /// uv.
    #[default]
    Uv,
    /// conda for the interpreter, pip for the lock: conda-forge does not have these very versions.
    Conda,
    /// A Dockerfile.
    Dockerfile,
    /// The lock alone.
    Lock,
}

/// Writes the script.
pub fn show(profile: &Profile, format: Format, flash: bool) -> String {
    if format == Format::Lock {
        return profile.lock().to_string();
    }
    let python = &profile.python;
    let flash = profile.flash_attn.as_deref().filter(|_| flash);
    let lock = profile.lock().trim_end();
    let mut text = String::new();
    if format == Format::Dockerfile {
        let _ = write!(
            text,
            "# syntax=docker/dockerfile:1\n# {}: {}\n# The host needs NVIDIA driver {} or newer.\nFROM python:{python}-slim\n\
             RUN pip install --no-cache-dir uv\nCOPY <<'LOCK' /lock.txt\n{lock}\nLOCK\n\
             RUN uv pip install --system --no-cache -r /lock.txt\n",
            profile.name, profile.title, profile.driver
        );
        if let Some(wheel) = flash {
            let _ = writeln!(text, "RUN uv pip install --system --no-cache --no-deps '{wheel}'");
        }
        let _ = writeln!(text, "RUN {}", smoke("python"));
        let _ = write!(
            text,
            "# On the host, before it runs: the driver, and the image's bytes against driver and card.\n\
             #   nvidia-smi --query-gpu=driver_version --format=csv,noheader\n\
             #   prospect doctor --root UNPACKED_IMAGE --python /usr/local --gpu 'RTX 3090' --driver {}\n",
            profile.driver
        );
        return text;
    }
    let _ = write!(
        text,
        "#!/usr/bin/env bash\n# {}: {}\n# Resolved for {} on Python {python}, linux x86_64. {}\nset -euo pipefail\n\n\
         # 1. The driver: {} or newer, for CUDA {}.\n{}\n",
        profile.name,
        profile.title,
        profile.date,
        profile.corrects,
        profile.driver,
        profile.cuda,
        driver_check(&profile.driver)
    );
    let _ = write!(text, "\n# 2. An interpreter for which every package has a wheel.\n");
    let (install, interpreter) = match format {
        Format::Uv => {
            let _ = writeln!(text, "uv venv --python {python} .venv");
            ("uv pip install --python .venv", ".venv/bin/python")
        }
        Format::Conda => {
            let _ = writeln!(text, "conda create -y -p ./env -c conda-forge python={python}");
            ("./env/bin/python -m pip install", "./env/bin/python")
        }
        _ => {
            let _ = writeln!(text, "python{python} -m venv .venv");
            (".venv/bin/python -m pip install", ".venv/bin/python")
        }
    };
    let _ = write!(
        text,
        "\n# 3. The whole set at once. Piece by piece, each install replaces pins of the one before.\n\
         cat > prospect-lock.txt <<'LOCK'\n{lock}\nLOCK\n{install} --no-deps -r prospect-lock.txt\n"
    );
    match flash {
        Some(wheel) => {
            let _ = write!(
                text,
                "\n# 4. flash-attn, the one wheel built for this torch; torch's own attention has it too.\n{install} --no-deps '{wheel}'\n"
            );
        }
        None => {
            let _ = write!(
                text,
                "\n# 4. flash-attn is left out: torch's own attention has it since 2.2.\n#    {}\n",
                with_it(profile, install)
            );
        }
    }
    let folder = if format == Format::Conda { "./env" } else { ".venv" };
    let _ = write!(
        text,
        "\n# 5. The bytes: architectures, symbols, CUDA libraries.\nprospect doctor --python {folder}\n\n\
         # 6. One step on the card.\n{}\n",
        smoke(interpreter)
    );
    text
}

/// How flash-attn would be added: the command with the one wheel that fits, or why there is none.
fn with_it(profile: &Profile, install: &str) -> String {
    match &profile.flash_attn {
        Some(wheel) => format!("With it: {install} --no-deps '{wheel}'"),
        None => {
            let version = |text: &str| text.parse::<pep440_rs::Version>().ok();
            let torch = profile.version("torch").and_then(|v| version(&v.to_string()));
            let why = match (torch, version(&profile.python)) {
                (Some(torch), Some(python)) => {
                    let cuda = builds::torch_cuda(&torch).unwrap_or_default();
                    let cxx11 = builds::torch_is_cxx11(&torch);
                    builds::flash_attn_wheel(&torch, cuda, cxx11, &python, None).err()
                }
                _ => None,
            };
            let why = why.unwrap_or_else(|| "none was chosen".into());
            format!(
                "No prebuilt wheel fits: {why}; a build needs nvcc, ninja and 9 GB of memory a job."
            )
        }
    }
}

fn driver_check(least: &str) -> String {
    format!(
        "have=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)\n\
         [ \"$(printf '%s\\n' {least} \"$have\" | sort -V | head -1)\" = {least} ] || {{ echo \"driver $have is older than {least}\" >&2; exit 1; }}"
    )
}

/// Imports what the set is for, and multiplies once where there is a card.
fn smoke(python: &str) -> String {
    format!(
        "{python} -c \"import torch, transformers, trl, peft, bitsandbytes, datasets; \
         d = 'cuda' if torch.cuda.is_available() else 'cpu'; \
         x = torch.ones(64, 64, device=d, requires_grad=True); (x @ x).sum().backward(); print(torch.__version__, d, 'ok')\""
    )
}
