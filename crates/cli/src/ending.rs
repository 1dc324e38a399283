//! How the program ends: 0 for success, 2 for the user's mistakes, 1 for failures of the machine, 128 and the
//! signal's number after a signal.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use ::train::error::{Fault, Result};

use crate::terminal;
use crate::words::plain;

/// A command that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// All of it was done.
    Well,
    /// A signal stopped it, its work is saved.
    Stopped {
        /// The signal's number.
        signal: u8,
    },
    /// It answered, and its answer is an exit code.
    Answered(u8),
}

/// Runs a command to its end and says what went wrong, if something did.
pub(crate) fn run(command: impl FnOnce() -> Result<Done>) -> ExitCode {
    // A library may panic on a broken file and be caught right there, and a panic of another thread reaches this
    // one: so the hook only notes what was said, and a panic is a failure where it arrives here.
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |place| format!(" ({place})"));
        let said = info.payload_as_str().unwrap_or("no message");
        *last_panic() = format!("{said}{place}");
    }));
    match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(Done::Well)) => ExitCode::SUCCESS,
        Ok(Ok(Done::Stopped { signal })) => ExitCode::from(128 + signal),
        Ok(Ok(Done::Answered(code))) => ExitCode::from(code),
        Ok(Err(error)) => {
            tell(&plain(&error.to_string()));
            ExitCode::from(match error.fault {
                Fault::Input => 2,
                Fault::Machine => 1,
            })
        }
        Err(_) => {
            let arguments: Vec<String> = std::env::args().skip(1).collect();
            tell(&format!(
                "Prospect failed where it should not: {}\n  hint: sorry, this is a mistake in Prospect, not yours; \
                 please report the line above, 'prospect {}' and version {}",
                *last_panic(),
                arguments.join(" "),
                env!("CARGO_PKG_VERSION")
            ));
            ExitCode::FAILURE
        }
    }
}

fn last_panic() -> std::sync::MutexGuard<'static, String> {
    static LAST: Mutex<String> = Mutex::new(String::new());
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(error: &str) {
    terminal::say(&format!("{} {error}", terminal::on_stderr().red().bold().apply_to("error:")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::train::error::Error;

    #[test]
    fn every_end_has_its_code_and_a_panic_is_one_of_them() {
        let code = |command: fn() -> Result<Done>| format!("{:?}", run(command));
        let number = |number: u8| format!("{:?}", ExitCode::from(number));
        assert_eq!(code(|| Ok(Done::Well)), number(0));
        assert_eq!(code(|| Ok(Done::Stopped { signal: 2 })), number(130));
        assert_eq!(code(|| Err(Error::input("x", "y"))), number(2));
        assert_eq!(code(|| Err(Error::machine("x", "y"))), number(1));
        assert_eq!(code(|| panic!("lost {}", "it")), number(1));
        assert!(last_panic().starts_with("lost it (crates/cli/src/ending.rs:"), "{}", last_panic());
        let _ = panic::take_hook(); // other tests say where they fail
    }
}
