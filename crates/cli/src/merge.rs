//! `prospect merge`: a model with an adapter merged into its weights.

use ::train::error::{Error, Result};

use crate::args;
use crate::ending::Done;
use crate::generate::source::Source;
use crate::hub;
use crate::terminal::print;

/// Merges.
pub(crate) fn run(arguments: &args::Merge) -> Result<Done> {
    let out = &arguments.out;
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::input(
            format!("--out '{}' is a folder with files in it", out.display()),
            "choose a folder that is empty or does not exist",
        ));
    }
    let source = Source::find(&hub::folder(&arguments.model)?, Some(&arguments.adapter))?;
    models::merge::merge(&source.model, &arguments.adapter, out)?;
    print(&format!("wrote the merged model into '{}'", out.display()));
    print(&format!("try next: prospect generate {}", out.display()));
    Ok(Done::Well)
}
