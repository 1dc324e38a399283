//! `prospect doctor --fetch cublas`.

use ::doctor::cli::DoctorArgs;
use ::doctor::facts::Machine;
use ::doctor::facts::described::newest_cuda;
use ::doctor::facts::local::Local;
use ::doctor::fetch::{self, Source};
use ::train::error::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::ending::Done;
use crate::terminal::{print, say};

/// Puts cuBLASLt where the engine looks for it.
pub(crate) fn cublas(arguments: &DoctorArgs) -> Result<Done> {
    let driver = driver(arguments)?;
    let into = engine::cuda::library_folder().ok_or_else(|| {
        Error::input("there is no folder to put libraries into", "set HOME or XDG_CACHE_HOME")
    })?;
    let told = |error: ::doctor::error::Error| match error.fault {
        ::doctor::error::Fault::Input => Error::input(error.message, error.hint),
        ::doctor::error::Fault::Machine => Error::machine(error.message, error.hint),
    };
    let wheel = fetch::cublas(driver, std::env::consts::ARCH).map_err(told)?;
    let source = Source::from_environment(&|name| std::env::var(name).ok());
    say(&format!(
        "{} {} for a driver of CUDA {}.{}: {} MB from {}, by NVIDIA, under the license that comes with it",
        wheel.project,
        wheel.version,
        driver.0,
        driver.1,
        wheel.bytes / 1_000_000,
        source.url()
    ));
    let bar = ProgressBar::new(wheel.bytes);
    let template = "{bar:32.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    let fetched = fetch::fetch(&wheel, &into, &source, &mut |have, _| {
        bar.set_position(have);
        true
    });
    bar.finish_and_clear();
    let fetched = fetched.map_err(told)?;
    let place = fetched.library.display();
    print(&match fetched.fresh {
        true => format!("{place}: checked and in place; Prospect uses it from now on"),
        false => format!("{place} is there already; delete it to get it again"),
    });
    if let Some(license) = &fetched.license {
        print(&format!("NVIDIA's license: {}", license.display()));
    }
    Ok(Done::Well)
}

/// The CUDA version of the driver that the library is for: the one named, or this machine's.
fn driver(arguments: &DoctorArgs) -> Result<(u32, u32)> {
    let known = match &arguments.driver {
        Some(named) => newest_cuda(named).map(str::to_owned),
        None => Local::new().cuda().version,
    };
    let numbers = known.as_deref().and_then(|version| {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    numbers.ok_or_else(|| match &arguments.driver {
        Some(named) => Error::input(
            format!("'{named}' in --driver is no driver that is known"),
            "write it as nvidia-smi does, such as 535.183",
        ),
        None => Error::input(
            "there is no NVIDIA driver here, so no library to fetch for it",
            "to fetch for another machine, name its driver: --driver 580",
        ),
    })
}
