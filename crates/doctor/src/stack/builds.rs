//! What wheels are built for, which their metadata does not say: torch's CUDA on PyPI, bitsandbytes' libraries,
//! the torch of xformers, flash-attn's prebuilt wheels.
//!
//! Read from the wheels themselves, PyTorch's release matrix and flash-attention's `publish.yml` at each tag,
//! November 2026.

use pep440_rs::Version;

type Cuda = (u32, u32);
type Short = (u64, u64);

/// The CUDA version of torch's wheel on PyPI.
pub fn torch_cuda(torch: &Version) -> Option<Cuda> {
    const BUILDS: &[(Short, Cuda)] = &[
        ((2, 15), (13, 2)),
        ((2, 11), (13, 0)),
        ((2, 8), (12, 8)),
        ((2, 7), (12, 6)),
        ((2, 5), (12, 4)),
        ((2, 1), (12, 1)),
        ((2, 0), (11, 7)),
    ];
    let short = short(torch)?;
    BUILDS.iter().find(|(from, _)| short >= *from).map(|(_, cuda)| *cuda)
}

/// Whether a release of bitsandbytes brings a library for a CUDA version.
pub fn bitsandbytes_has(bitsandbytes: &Version, cuda: Cuda) -> bool {
    type Libraries = ((u64, u64, u64), &'static [Cuda]);
    const LIBRARIES: &[Libraries] = &[
        ((0, 50, 0), &[(11, 8), (12, 1), (12, 4), (12, 6), (12, 8), (13, 0), (13, 2)]),
        (
            (0, 48, 0),
            &[
                (11, 8),
                (12, 0),
                (12, 1),
                (12, 2),
                (12, 3),
                (12, 4),
                (12, 5),
                (12, 6),
                (12, 8),
                (12, 9),
                (13, 0),
            ],
        ),
        (
            (0, 47, 0),
            &[
                (11, 8),
                (12, 0),
                (12, 1),
                (12, 2),
                (12, 3),
                (12, 4),
                (12, 5),
                (12, 6),
                (12, 8),
                (12, 9),
            ],
        ),
        (
            (0, 46, 0),
            &[(11, 8), (12, 0), (12, 1), (12, 2), (12, 3), (12, 4), (12, 5), (12, 6), (12, 8)],
        ),
        (
            (0, 45, 3),
            &[
                (11, 7),
                (11, 8),
                (12, 0),
                (12, 1),
                (12, 2),
                (12, 3),
                (12, 4),
                (12, 5),
                (12, 6),
                (12, 8),
            ],
        ),
        ((0, 43, 3), &[(11, 7), (11, 8), (12, 0), (12, 1), (12, 2), (12, 3), (12, 4), (12, 5)]),
        ((0, 0, 0), &[(11, 7), (11, 8), (12, 0), (12, 1), (12, 2), (12, 3)]),
    ];
    let number = |i: usize| bitsandbytes.release().get(i).copied().unwrap_or(0);
    let version = (number(0), number(1), number(2));
    let libraries =
        LIBRARIES.iter().find(|(from, _)| version >= *from).map(|(_, l)| *l).unwrap_or_default();
    // From 0.50 on the nearest library of the same major does.
    libraries.contains(&cuda) || (version >= (0, 50, 0) && libraries.iter().any(|l| l.0 == cuda.0))
}

/// The torch that a release of xformers is built for, where its metadata says less.
pub fn xformers_torch(xformers: &Version) -> Option<&'static str> {
    (xformers.to_string() == "0.0.35").then_some("==2.10.*")
}

/// The torch releases that a release of flash-attn has prebuilt wheels for.
pub fn flash_attn_torch(flash_attn: &Version) -> &'static str {
    let number = |i: usize| flash_attn.release().get(i).copied().unwrap_or(0);
    match (number(0), number(1), number(2)) {
        (2, 8, 3) if flash_attn.post().is_some() => ">=2.6,<2.11",
        (2, 8, _) => ">=2.4,<2.9",
        (2, 7, 4) => ">=2.2,<2.7",
        (2, 7, _) => ">=2.1,<2.6",
        (2, 6, _) => ">=2.0,<2.5",
        (2, 5, _) => "<2.4",
        _ => "",
    }
}

/// A release of flash-attn with prebuilt wheels: version, CUDA tag, torch minors it is taken for here (each torch has the
/// newest release that was built for it and runs on the oldest systems), Python minors, glibc its runner had.
pub struct FlashWheels {
    /// The release.
    pub version: &'static str,
    /// The CUDA tag in its wheels' names.
    pub cuda: &'static str,
    /// Minors of torch 2.
    pub torch: &'static [u64],
    /// Minors of Python 3.
    pub python: std::ops::RangeInclusive<u64>,
    /// glibc its extension asks for.
    pub glibc: &'static str,
}

/// The releases whose wheels are named here, the newest first.
pub const FLASH_WHEELS: &[FlashWheels] = &[
    FlashWheels { version: "2.8.3", cuda: "12", torch: &[8, 7], python: 9..=13, glibc: "2.32" },
    FlashWheels {
        version: "2.7.4.post1",
        cuda: "12",
        torch: &[6, 5, 3, 2],
        python: 9..=13,
        glibc: "2.28",
    },
    FlashWheels { version: "2.6.3", cuda: "123", torch: &[4, 1, 0], python: 8..=12, glibc: "2.28" },
];

/// The prebuilt flash-attn wheel for a torch, its CUDA, its C++ ABI, a Python and, where known, a glibc; or why there is
/// none.
pub fn flash_attn_wheel(
    torch: &Version,
    cuda: Cuda,
    cxx11: bool,
    python: &Version,
    glibc: Option<&Version>,
) -> Result<String, String> {
    let (major, minor) = short(torch).ok_or("torch has no version")?;
    let python_minor = short(python).map_or(0, |p| p.1);
    if major != 2 {
        return Err(format!("none is built for torch {torch}"));
    }
    if cuda.0 != 12 {
        return Err(format!(
            "those known are for CUDA 12, torch {torch} is for CUDA {}.{}",
            cuda.0, cuda.1
        ));
    }
    let Some(wheels) = FLASH_WHEELS.iter().find(|w| w.torch.contains(&minor)) else {
        return Err(format!("none is known for torch 2.{minor}"));
    };
    let FlashWheels { version, cuda: tag, python: pythons, .. } = wheels;
    if !pythons.contains(&python_minor) {
        return Err(format!(
            "flash-attn {version} has wheels for Python 3.{} to 3.{}",
            pythons.start(),
            pythons.end()
        ));
    }
    let least = wheels.glibc.parse::<Version>().ok();
    if let (Some(have), Some(least)) = (glibc, least)
        && *have < least
    {
        return Err(format!("those of {version} ask for glibc {least}, this system has {have}"));
    }
    let abi = if cxx11 { "TRUE" } else { "FALSE" };
    let file = format!(
        "flash_attn-{version}+cu{tag}torch2.{minor}cxx11abi{abi}-cp3{python_minor}-cp3{python_minor}-linux_x86_64.whl"
    );
    Ok(format!("https://github.com/Dao-AILab/flash-attention/releases/download/v{version}/{file}"))
}

/// The C++ ABI of torch's wheels on PyPI: the new one from 2.7 on.
pub fn torch_is_cxx11(torch: &Version) -> bool {
    short(torch).is_some_and(|short| short >= (2, 7))
}

fn short(version: &Version) -> Option<Short> {
    Some((*version.release().first()?, version.release().get(1).copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn v(text: &str) -> Version {
        Version::from_str(text).expect("a version")
    }

    #[test]
    fn the_cuda_of_torch_on_pypi_is_known() {
        for (torch, cuda) in [
            ("2.4.1", (12, 1)),
            ("2.5.1", (12, 4)),
            ("2.10.0", (12, 8)),
            ("2.11.0", (13, 0)),
            ("2.15.0", (13, 2)),
        ] {
            assert_eq!(torch_cuda(&v(torch)), Some(cuda), "{torch}");
        }
    }

    #[test]
    fn bitsandbytes_0_43_0_knows_12_1_and_not_12_4() {
        assert!(bitsandbytes_has(&v("0.43.0"), (12, 1)));
        assert!(!bitsandbytes_has(&v("0.43.0"), (12, 4)));
        assert!(bitsandbytes_has(&v("0.43.3"), (12, 4)));
        assert!(!bitsandbytes_has(&v("0.47.0"), (13, 0)));
        assert!(bitsandbytes_has(&v("0.50.2"), (12, 9)), "from 0.50 on the same major does");
    }

    #[test]
    fn flash_attn_names_its_wheel_or_says_why_not() {
        let wheel =
            flash_attn_wheel(&v("2.4.1"), (12, 1), false, &v("3.10"), None).expect("there is one");
        assert!(
            wheel.ends_with(
                "flash_attn-2.6.3+cu123torch2.4cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
            )
        );
        let wheel =
            flash_attn_wheel(&v("2.5.1"), (12, 4), false, &v("3.11"), None).expect("there is one");
        assert!(wheel.contains("2.7.4.post1+cu12torch2.5cxx11abiFALSE-cp311"));
        let old = flash_attn_wheel(&v("2.8.0"), (12, 8), true, &v("3.12"), Some(&v("2.31")));
        assert!(old.expect_err("an old glibc").contains("glibc 2.32"));
        for (torch, cuda, python) in
            [("2.10.0", (12, 8), "3.12"), ("2.14.1", (13, 0), "3.12"), ("2.4.1", (12, 1), "3.13")]
        {
            assert!(flash_attn_wheel(&v(torch), cuda, true, &v(python), None).is_err(), "{torch}");
        }
    }
}
