//! `prospect export`: a model or an adapter in the form that another program loads.

use std::path::{Path, PathBuf};

use ::train::error::{Error, Result};
use ::train::fit::bytes;
use models::gguf::{self, Exported, TensorType};
use models::ollama;

use crate::args::{self, ExportTo};
use crate::ending::Done;
use crate::generate::source::Source;
use crate::hub;
use crate::terminal::{print, say};
use crate::words::plain;

/// The model's file in a folder for Ollama.
const MODEL: &str = "model.gguf";

/// Exports.
pub(crate) fn run(arguments: &args::Export) -> Result<Done> {
    let out = &arguments.out;
    if std::fs::symlink_metadata(out).is_ok() && !is_empty_folder(out) {
        return Err(Error::input(
            format!("'{}' exists already", out.display()),
            "choose another name, or remove it first",
        ));
    }
    match arguments.to {
        ExportTo::Gguf => {
            let source = source(arguments)?;
            let exported = export(arguments, &source, out)?;
            tell(out, &exported);
            print(&format!("try next: llama-cli -m {}", out.display()));
        }
        ExportTo::GgufLora => {
            let Some(adapter) = &arguments.adapter else {
                return Err(Error::input(
                    "--to gguf-lora writes an adapter, and none is given",
                    "name its folder by --adapter, such as runs/quickstart/adapter",
                ));
            };
            if arguments.kind.is_some() {
                return Err(Error::input(
                    "--type has no place with --to gguf-lora",
                    "leave it out: an adapter is small and stays f32",
                ));
            }
            let exported = gguf::export_adapter(&base(arguments)?, adapter, out)?;
            tell(out, &exported);
            print(&format!("try next: llama-cli -m MODEL.gguf --lora {}", out.display()));
        }
        ExportTo::Ollama => {
            let source = source(arguments)?;
            let (text, notes) = ollama::modelfile(&source.model, MODEL)?;
            std::fs::create_dir_all(out).map_err(|error| data::files::cannot_write(out, &error))?;
            let file = out.join(MODEL);
            let exported = export(arguments, &source, &file)?;
            let modelfile = out.join("Modelfile");
            data::files::write_atomically(&modelfile, |writer| writer.write_all(text.as_bytes()))?;
            tell(&file, &exported);
            notes.iter().for_each(|note| say(&format!("note: {}", plain(note))));
            print(&format!("try next: ollama create NAME -f {}", modelfile.display()));
        }
    }
    Ok(Done::Well)
}

fn is_empty_folder(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The model that is meant, and the adapter that goes into it.
fn source(arguments: &args::Export) -> Result<Source> {
    Source::find(&base(arguments)?, arguments.adapter.as_deref())
}

/// `--model`, or what the adapter says it was trained on.
fn base(arguments: &args::Export) -> Result<PathBuf> {
    match (&arguments.model, &arguments.adapter) {
        (Some(model), _) => hub::folder(model),
        (None, Some(adapter)) => {
            let base = gguf::base_of(adapter)?;
            let folder = hub::folder(Path::new(&base))?;
            if folder.is_dir() {
                return Ok(folder);
            }
            Err(Error::input(
                format!("'{}' was trained on '{base}', which is not there", adapter.display()),
                "give the model folder by --model",
            ))
        }
        (None, None) => Err(Error::input(
            "neither --model nor --adapter is given",
            "name the model folder, or a run folder, by --model",
        )),
    }
}

fn export(arguments: &args::Export, source: &Source, out: &Path) -> Result<Exported> {
    let kind = arguments.kind.map_or(TensorType::F16, args::ExportType::tensor_type);
    Ok(gguf::export(&source.model, source.adapter.as_deref(), out, kind)?)
}

fn tell(out: &Path, exported: &Exported) {
    exported.notes.iter().for_each(|note| say(&format!("note: {}", plain(note))));
    let (tensors, size) = (exported.tensors, bytes(exported.bytes));
    print(&format!("wrote {tensors} tensors, {size}, into '{}'", out.display()));
}
