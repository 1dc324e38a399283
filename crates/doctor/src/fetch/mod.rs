//! `prospect doctor --fetch cublas`: NVIDIA's cuBLASLt out of its wheel on PyPI, into the folder Prospect's loader
//! looks in. Nothing else is installed, no Python is needed.
//!
//! Which wheel follows from the driver: a library of CUDA 13 needs a driver of CUDA 13, one of CUDA 12 runs on every
//! driver from 525 on (NVIDIA, CUDA minor version compatibility); the releases are those that torch 2.6, 2.10 and 2.11
//! were built with. Their SHA-256 are those of PyPI's own pages, so a mirror needs no trust. A download is resumed
//! where it stopped; the library appears under its name only whole.

mod download;
mod index;
mod wheel;

pub use index::Source;

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A wheel, known in advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// The project on PyPI.
    pub project: String,
    /// Its release.
    pub version: String,
    /// The file.
    pub file: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The library taken out of it.
    pub library: String,
    /// The library's length in bytes, about.
    pub unpacked: u64,
}

/// Which wheel a driver for CUDA `driver` can use on this processor.
pub fn cublas(driver: (u32, u32), architecture: &str) -> Result<Wheel> {
    const X86: &str = "x86_64";
    const ARM: &str = "aarch64";
    type Row = ((u32, u32), &'static str, &'static str, &'static str, &'static str, u64, u64);
    // least CUDA of the driver, release, processor, tag, SHA-256, bytes, bytes of the library
    #[rustfmt::skip]
    const WHEELS: [Row; 6] = [
        ((13, 0), "13.1.0.3", X86, "manylinux_2_27_x86_64", "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171", 423_133_236, 545_000_000),
        ((13, 0), "13.1.0.3", ARM, "manylinux_2_27_aarch64", "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2", 542_851_226, 700_000_000),
        ((12, 8), "12.8.4.1", X86, "manylinux_2_27_x86_64", "8ac4e771d5a348c551b2a426eda6193c19aa630236b418086020df5ba9667142", 594_346_921, 760_000_000),
        ((12, 8), "12.8.4.1", ARM, "manylinux_2_27_aarch64", "b86f6dd8935884615a0683b663891d43781b819ac4f2ba2b0c9604676af346d0", 590_537_124, 760_000_000),
        ((12, 2), "12.6.4.1", X86, "manylinux2014_x86_64.manylinux_2_17_x86_64", "08ed2686e9875d01b58e3cb379c6896df8e76c75e0d4a7f7dace3d7b6d9ef8eb", 393_138_322, 520_000_000),
        ((12, 2), "12.6.4.1", ARM, "manylinux_2_27_aarch64", "235f728d6e2a409eddf1df58d5b0921cf80cfa9e72b9f2775ccb7b4a87984668", 390_794_615, 520_000_000),
    ];
    let known = WHEELS.iter().find(|row| driver >= row.0 && row.2 == architecture);
    let Some((_, version, _, tag, sha256, bytes, unpacked)) = known else {
        return Err(Error::input(
            format!(
                "no cuBLASLt is known for a driver for CUDA {}.{} on {architecture}",
                driver.0, driver.1
            ),
            "Prospect's kernels need driver 535.54.03 (CUDA 12.2) or newer, on x86_64 or aarch64",
        ));
    };
    let major = version.split('.').next().unwrap_or_default();
    let project = if major == "12" { "nvidia-cublas-cu12" } else { "nvidia-cublas" };
    Ok(Wheel {
        project: project.into(),
        version: (*version).into(),
        file: format!("{}-{version}-py3-none-{tag}.whl", project.replace('-', "_")),
        sha256: (*sha256).into(),
        bytes: *bytes,
        library: format!("libcublasLt.so.{major}"),
        unpacked: *unpacked,
    })
}

/// What was put where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The library.
    pub library: PathBuf,
    /// Its license, as the wheel brings it.
    pub license: Option<PathBuf>,
    /// False where it was there already.
    pub fresh: bool,
}

/// Puts the library of a wheel into a folder. `progress` is told how many bytes of how many are there, and returns false to
/// stop; what was loaded by then is kept for the next time.
pub fn fetch(
    wheel: &Wheel,
    into: &Path,
    source: &Source,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Fetched> {
    let library = into.join(&wheel.library);
    let license = into.join(format!("LICENSE-{}.txt", wheel.project));
    if library.is_file() {
        let license = license.is_file().then_some(license);
        return Ok(Fetched { library, license, fresh: false });
    }
    let unwritable = |path: &Path, error: std::io::Error| {
        Error::machine(
            format!("cannot write '{}': {error}", path.display()),
            "make room or the folder writable, or set XDG_CACHE_HOME to another one",
        )
    };
    fs::create_dir_all(into).map_err(|error| unwritable(into, error))?;
    let part = into.join(format!(".{}.part", wheel.file));
    let held = fs::metadata(&part).map_or(0, |about| about.len());
    let needed = wheel.bytes.saturating_sub(held) + wheel.unpacked;
    let free = rustix::fs::statvfs(into).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    if let Some(free) = free.filter(|free| *free < needed) {
        return Err(Error::machine(
            format!(
                "'{}' has {} MB free, the wheel and its library need {} MB",
                into.display(),
                free / 1_000_000,
                needed / 1_000_000
            ),
            "make room, or set XDG_CACHE_HOME to a larger disk",
        ));
    }
    let file = download::download(wheel, &part, source, progress)?;
    let unpacking = into.join(format!(".{}.part", wheel.library));
    let unpacked = wheel::unpack(&file, &wheel.library, &unpacking);
    if let Err(why) = unpacked {
        let _ = fs::remove_file(&unpacking); // half a library is of no use
        return Err(Error::machine(
            format!("{} cannot be unpacked: {why}", part.display()),
            "make room; run the same command again",
        ));
    }
    // A wheel without a license text is still NVIDIA's wheel: its hash says so.
    let licensed = wheel::unpack(&file, "License.txt", &license).is_ok();
    fs::rename(&unpacking, &library).map_err(|error| unwritable(&library, error))?;
    drop(file);
    let _ = fs::remove_file(&part); // it is only in the way of nothing but space
    Ok(Fetched { library, license: licensed.then_some(license), fresh: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_gets_the_newest_library_it_runs() {
        for (driver, file) in [
            ((13, 2), "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl"),
            ((13, 0), "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl"),
            ((12, 9), "nvidia_cublas_cu12-12.8.4.1-py3-none-manylinux_2_27_x86_64.whl"),
            (
                (12, 2),
                "nvidia_cublas_cu12-12.6.4.1-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            ),
        ] {
            assert_eq!(cublas(driver, "x86_64").expect("there is one").file, file);
        }
        for (driver, architecture) in [((12, 0), "x86_64"), ((13, 0), "riscv64")] {
            let error = cublas(driver, architecture).expect_err("there is none");
            assert!(error.to_string().contains("hint:"), "{error}");
        }
    }
}
