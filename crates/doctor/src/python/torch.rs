//! What PyTorch says of itself in `torch/version.py`: three or four assignments of literals, read as text.

/// The contents of `torch/version.py`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TorchVersion {
    /// `__version__`, such as `2.4.1+cu121`.
    pub version: Option<String>,
    /// The CUDA version it was built for; none for CPU and ROCm builds.
    pub cuda: Option<String>,
    /// The ROCm version it was built for.
    pub hip: Option<String>,
}

/// Reads `version.py`. Annotations (`cuda: Optional[str] = '12.1'`) and either kind of quote are understood.
pub fn parse(text: &str) -> TorchVersion {
    let mut found = TorchVersion::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.split(':').next().unwrap_or(name).trim();
        let value = value.trim();
        let literal = value
            .strip_prefix(['\'', '"'])
            .and_then(|v| v.split(['\'', '"']).next())
            .map(String::from);
        match name {
            "__version__" if found.version.is_none() => found.version = literal,
            "cuda" => found.cuda = literal,
            "hip" => found.hip = literal,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_of_2024_reads() {
        let text = "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n\
                    __version__ = '2.4.1+cu121'\ndebug = False\ncuda: Optional[str] = '12.1'\ngit_version = 'ee1b'\n\
                    hip: Optional[str] = None\n";
        let expected = TorchVersion {
            version: Some("2.4.1+cu121".into()),
            cuda: Some("12.1".into()),
            hip: None,
        };
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn a_cpu_build_has_no_cuda() {
        assert_eq!(parse("__version__ = \"2.5.1+cpu\"\ncuda = None\n").cuda, None);
        assert_eq!(parse("\u{fffd}\u{0}= ="), TorchVersion::default());
    }
}
