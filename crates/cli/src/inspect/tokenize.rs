//! `prospect inspect tokenize`: a text as the model's tokenizer cuts it.

use ::train::error::Result;
use data::Tokenizer;

use crate::args;
use crate::ending::Done;
use crate::generate::source::Source;
use crate::terminal::print;

/// Prints a JSON list, of ids or of tokens.
pub(crate) fn run(arguments: &args::Tokenize) -> Result<Done> {
    let source = Source::find(&arguments.model, None)?;
    let tokenizer = Tokenizer::load(&source.model)?;
    let ids = tokenizer.encode(&arguments.text, !arguments.no_special_tokens)?;
    let list = if arguments.tokens {
        serde_json::json!(ids.iter().map(|id| tokenizer.token(*id)).collect::<Vec<_>>())
    } else {
        serde_json::json!(ids)
    };
    print(&list.to_string());
    Ok(Done::Well)
}
