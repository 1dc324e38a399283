//! What a person may ask of this room before anything is trained: which of NVIDIA's libraries are taken, from where
//! and why no other, and whether the driver compiles the kernels. `prospect doctor` asks it.

use std::path::PathBuf;
use std::time::Instant;

use super::context::Cuda;
use super::libraries::{self, CUBLASLT, Place, Surroundings, Wanted};
use crate::error::Result;
use crate::ops;

/// NVIDIA's collectives, for training on several GPUs.
const NCCL: Wanted = Wanted {
    name: "NCCL",
    file: "libnccl.so",
    majors: &[2],
    variable: "PROSPECT_NCCL",
    wheels: &["nccl"],
    hint: "install the wheel nvidia-nccl-cu13 (nvidia-nccl-cu12 under a driver for CUDA 12)",
};

/// A library of NVIDIA's that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its version, as in 13.4.1.
    pub version: String,
    /// The file.
    pub path: PathBuf,
}

/// Kernels that the driver compiled for this GPU.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// Files of kernels.
    pub modules: usize,
    /// Kernels in them.
    pub kernels: usize,
    /// How long it took; the driver keeps what it compiled, so a second time is short.
    pub seconds: f64,
}

impl Cuda {
    /// Lets the driver compile one small file of kernels, which shows that it can, or all there are.
    pub fn compile(&self, all: bool) -> Result<Compiled> {
        let modules = ops::modules();
        let some = if all { &modules[..] } else { &modules[..1] };
        let start = Instant::now();
        let mut kernels = 0;
        for module in some {
            for (kernel, _, _) in module.kernels {
                self.load(module, kernel)?;
                kernels += 1;
            }
        }
        Ok(Compiled { modules: some.len(), kernels, seconds: start.elapsed().as_secs_f64() })
    }
}

/// Prospect's own folder of libraries, in which cuBLASLt is looked for; none where there is no home.
pub fn library_folder() -> Option<PathBuf> {
    libraries::cache(&Surroundings::here()).map(|cache| cache.join("lib"))
}

/// Loads NCCL as training on several GPUs would under a driver for CUDA `driver`, or says where it was looked for.
pub fn nccl(driver: u32) -> std::result::Result<Library, String> {
    let found = libraries::load(&NCCL, driver, &Surroundings::here(), nccl_version);
    match found {
        Ok((version, path)) => Ok(Library { version, path }),
        Err(missing) => Err(missing.to_string()),
    }
}

/// `ncclGetVersion`: 10000 for a major version, 100 for a minor one.
fn nccl_version(library: libloading::Library) -> std::result::Result<String, String> {
    type Version = unsafe extern "C" fn(*mut i32) -> i32;
    let mut number = 0;
    // SAFETY: the function is declared so in nccl.h of every release of NCCL 2, and writes one int.
    #[allow(unsafe_code)]
    let status = unsafe {
        let function =
            library.get::<Version>(b"ncclGetVersion\0").map_err(|error| error.to_string())?;
        function(&mut number)
    };
    // NCCL may keep threads once loaded: its code stays where it is.
    std::mem::forget(library);
    match status {
        0 => Ok(format!("{}.{}.{}", number / 10000, number / 100 % 100, number % 100)),
        other => Err(format!("ncclGetVersion answered {other}")),
    }
}

/// Every place cuBLASLt is looked for under a driver for CUDA `driver`, in order, with what is there.
pub fn cublaslt_places(driver: u32) -> Vec<(String, String)> {
    survey(&CUBLASLT, driver, &Surroundings::here())
}

fn survey(wanted: &Wanted, driver: u32, around: &Surroundings) -> Vec<(String, String)> {
    let files = |place: &Place| -> Vec<String> {
        let Place::Folder(folder) = place else { return Vec::new() };
        let all = wanted.majors.iter().map(|major| (major, format!("{}.{major}", wanted.file)));
        let there = all.filter(|(_, name)| folder.join(name).is_file());
        let told = there.map(|(major, name)| match *major >= 13 && driver < *major {
            true => format!("{name}, which needs a driver for CUDA {major}"),
            false => name,
        });
        told.collect()
    };
    let told = libraries::places(wanted, around).into_iter().map(|place| {
        let there = files(&place);
        match &place {
            Place::File(path) => {
                let says = if path.is_file() { "named by the variable" } else { "no such file" };
                (path.display().to_string(), says.to_owned())
            }
            Place::LoaderPath => {
                ("the loader path".to_owned(), "asked of the system's loader".to_owned())
            }
            Place::Folder(path) if there.is_empty() => {
                (path.display().to_string(), "not there".to_owned())
            }
            Place::Folder(path) => (path.display().to_string(), there.join(", ")),
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_says_why_a_library_of_cuda_13_is_passed_over() {
        let folder = std::env::temp_dir().join(format!("prospect-survey-{}", std::process::id()));
        let lib = folder.join("cache/prospect/lib");
        std::fs::create_dir_all(&lib).unwrap();
        for major in [12, 13] {
            std::fs::write(lib.join(format!("libcublasLt.so.{major}")), "").unwrap();
        }
        let cache = folder.join("cache");
        let around = Surroundings {
            variable: Box::new(move |name| {
                (name == "XDG_CACHE_HOME").then(|| cache.clone().into_os_string())
            }),
            program: None,
            root: folder.clone(),
        };
        let said = |driver| survey(&CUBLASLT, driver, &around)[0].1.clone();
        assert_eq!(said(13), "libcublasLt.so.13, libcublasLt.so.12");
        assert_eq!(
            said(12),
            "libcublasLt.so.13, which needs a driver for CUDA 13, libcublasLt.so.12"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_file_of_kernels_compiles_on_cuda() {
        let Some(device) = crate::testing::cuda() else { return };
        let compiled = device.cuda().compile(true).expect("the driver compiles all kernels");
        assert_eq!(compiled.modules, ops::modules().len());
    }
}
