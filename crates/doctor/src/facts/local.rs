//! The machine at hand.

use super::files::{Files, nearest};
use super::{Cuda, Entry, Machine, Nvidia, Ran, ReadAt, Stat};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The machine this program runs on.
#[derive(Clone, Debug)]
pub struct Local {
    files: Files,
}

impl Local {
    /// This machine.
    pub fn new() -> Local {
        Local { files: Files::local() }
    }
}

impl Default for Local {
    fn default() -> Local {
        Local::new()
    }
}

impl Machine for Local {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        self.files.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.files.list(folder)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.files.stat(path)
    }

    fn link(&self, path: &Path) -> io::Result<PathBuf> {
        self.files.link(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
    }

    fn working_folder(&self) -> Option<PathBuf> {
        std::env::current_dir().ok()
    }

    fn space(&self, path: &Path) -> Option<u64> {
        let about = rustix::fs::statvfs(nearest(path)?).ok()?;
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn writable(&self, path: &Path) -> Option<bool> {
        Some(rustix::fs::access(nearest(path)?, rustix::fs::Access::WRITE_OK).is_ok())
    }

    fn nvidia(&self) -> Nvidia {
        let mut found = super::nvml::nvidia();
        for process in found.gpus.iter_mut().flat_map(|g| g.processes.iter_mut()) {
            let name = PathBuf::from(format!("/proc/{}/comm", process.pid));
            process.name =
                super::read_text(self, &name, 256).unwrap_or_default().trim().to_string();
        }
        found
    }

    fn cuda(&self) -> Cuda {
        super::native::cuda()
    }

    fn kernel_log(&self) -> Option<String> {
        kernel_messages().or_else(|| {
            ["/var/log/kern.log", "/var/log/syslog", "/var/log/messages"]
                .iter()
                .find_map(|path| last_part(self, Path::new(path)).ok())
        })
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<Ran> {
        let mut command = Command::new(program);
        let command = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that ends before it has read everything says why by itself.
            let _ = pipe.write_all(input.as_bytes());
        }
        let done = child.wait_with_output()?;
        Ok(Ran {
            success: done.status.success(),
            output: String::from_utf8_lossy(&done.stdout).into_owned(),
            error: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    fn save(&self, path: &Path, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
    }
}

/// /dev/kmsg gives one message per read, from the oldest on, and `WouldBlock` at the end.
fn kernel_messages() -> Option<String> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").ok()?;
    let (mut text, mut message) = (String::new(), [0u8; 8 << 10]);
    for _ in 0..100_000 {
        match log.read(&mut message) {
            Ok(0) => break,
            // Only what the doctor looks for is kept: a busy kernel's log has megabytes.
            Ok(n) => {
                let line = String::from_utf8_lossy(&message[..n]);
                if line.contains("NVRM") {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
            // The ring moved on under us: the next read continues.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => continue,
            Err(_) => break,
        }
    }
    Some(text)
}

/// The last megabyte of a log file.
fn last_part(machine: &Local, path: &Path) -> io::Result<String> {
    let file = machine.open(path)?;
    let from = file.size().saturating_sub(1 << 20);
    let mut bytes = vec![0u8; 1 << 20];
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(from + have as u64, &mut bytes[have..])? {
            0 => break,
            n => have += n,
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..have]).into_owned())
}
