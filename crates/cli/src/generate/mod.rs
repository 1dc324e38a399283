//! `prospect generate`: one answer, or a conversation.
//!
//! ```text
//! source   which model and adapter are meant      stream   tokens to text, whole characters only
//! chat     what is typed, and what of it the model reads
//! ```

mod chat;
pub(crate) mod source;
mod stream;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use ::train::error::{Error, Result};
use ::train::fit::bytes;
use ::train::machine::Machine;
use data::Tokenizer;
use engine::device::Device;
use models::adapter;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::decoder::Model;
use models::generate::{self, Request, Sampling};
use models::lora::Adapter;
use models::weights;

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::terminal::{on_stderr, print, say};
use chat::Chat;
use source::Source;
use stream::Stream;

/// The longest conversation, in tokens, where the model could take a longer one.
const CONTEXT: usize = 4096;

/// Answers one prompt, or what is typed.
pub(crate) fn run(arguments: &args::Generate) -> Result<Done> {
    let source = Source::find(&hub::folder(&arguments.model)?, arguments.adapter.as_deref())?;
    let files = Files::open(&source)?;
    let mut chat = Chat::new(&files.tokenizer, arguments)?;
    match &arguments.prompt {
        Some(prompt) => {
            let ids = chat.ask(prompt)?;
            let speaker = Speaker::load(&files, arguments, ids.len())?;
            speaker.answer(&ids, 0)?;
        }
        None => converse(&files, arguments, &mut chat)?,
    }
    Ok(Done::Well)
}

/// Line by line until there is no more.
fn converse(files: &Files, arguments: &args::Generate, chat: &mut Chat<'_>) -> Result<()> {
    let context =
        files.config.max_position_embeddings.min(CONTEXT.max(2 * arguments.max_new_tokens));
    let Some(room) = context.checked_sub(arguments.max_new_tokens).filter(|room| *room > 0) else {
        return Err(too_many_new_tokens(arguments.max_new_tokens, context));
    };
    let speaker = Speaker::load(files, arguments, room)?;
    let typed = io::stdin().is_terminal();
    if typed {
        say(&format!(
            "{} /reset forgets the conversation, /quit or Ctrl-D ends it",
            chat.greeting()
        ));
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if typed {
            let _ = write!(io::stderr(), "{} ", on_stderr().bold().apply_to(">"));
        }
        let line = match lines.next() {
            None => return Ok(()),
            Some(Ok(line)) => line,
            Some(Err(error)) => {
                return Err(Error::input(
                    format!("cannot read what was typed: {error}"),
                    "type text in UTF-8",
                ));
            }
        };
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" => return Ok(()),
            "/reset" => {
                chat.reset();
                say("forgotten");
                continue;
            }
            _ => {}
        }
        let mut ids = chat.ask(&line)?;
        while ids.len() > room && chat.forget_oldest() {
            ids = chat.ids()?;
            say("the conversation no longer fits: its oldest question and answer are forgotten");
        }
        if ids.len() > room {
            say(&format!("that is {} tokens, {room} fit: ask something shorter", ids.len()));
            chat.reset();
            continue;
        }
        let answer = speaker.answer(&ids, chat.turns())?;
        chat.answered(answer);
    }
}

fn too_many_new_tokens(max_new_tokens: usize, context: usize) -> Error {
    Error::input(
        format!(
            "--max-new-tokens {max_new_tokens} leaves no room for a prompt in {context} positions"
        ),
        "ask for fewer new tokens",
    )
}

/// What is read of a model before it has a place in memory.
struct Files {
    folder: PathBuf,
    adapter: Option<PathBuf>,
    quantization: weights::Quantization,
    storage: weights::Storage,
    config: ModelConfig,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
}

impl Files {
    fn open(source: &Source) -> Result<Files> {
        let folder = source.model.clone();
        let checkpoint = Checkpoint::open(&folder)?;
        Ok(Files {
            config: ModelConfig::load(&folder)?,
            tokenizer: Tokenizer::load(&folder)?,
            adapter: source.adapter.clone(),
            quantization: source.quantization,
            storage: source.storage.unwrap_or_else(|| source::storage(&checkpoint)),
            checkpoint,
            folder,
        })
    }
}

/// A model in memory that writes.
struct Speaker<'a> {
    files: &'a Files,
    arguments: &'a args::Generate,
    model: Model,
    adapter: Option<Adapter>,
    stop: Vec<u32>,
}

impl<'a> Speaker<'a> {
    /// Loads the model into as much memory as a prompt of `prompt` tokens and its answer take.
    fn load(files: &'a Files, arguments: &'a args::Generate, prompt: usize) -> Result<Speaker<'a>> {
        let positions = prompt.saturating_add(arguments.max_new_tokens);
        if positions > files.config.max_position_embeddings {
            return Err(Error::input(
                format!(
                    "a prompt of {prompt} tokens and {} new ones exceed the {} positions of '{}'",
                    arguments.max_new_tokens,
                    files.config.max_position_embeddings,
                    files.folder.display()
                ),
                "shorten the prompt, or ask for fewer tokens by --max-new-tokens",
            ));
        }
        let machine = Machine::find(arguments.device.device(), None)?;
        let plan = machine.plan();
        let planned = Speaker::on(&plan, files, arguments, positions)?;
        generate::generate(
            &planned.model,
            planned.adapter.as_ref(),
            &[vec![0; prompt]],
            &planned.request(0),
            |_, _| {},
        )?;
        let peak = plan.peak_bytes();
        if let Some(limit) = machine.limit.filter(|limit| peak as u64 > *limit) {
            return Err(Error::machine(
                format!(
                    "'{}' needs {} to answer, {} are free",
                    files.folder.display(),
                    bytes(peak as u64),
                    bytes(limit)
                ),
                "close other programs, lower --max-new-tokens, or take a smaller or quantized model",
            ));
        }
        Speaker::on(&machine.device(peak, 0)?, files, arguments, positions)
    }

    fn on(
        device: &Device,
        files: &'a Files,
        arguments: &'a args::Generate,
        positions: usize,
    ) -> Result<Speaker<'a>> {
        let weights = weights::load(
            device,
            &files.config,
            Some(&files.checkpoint),
            files.quantization,
            files.storage,
        )?;
        let model = Model::new(device, files.config.clone(), weights, positions)?;
        let adapter = match &files.adapter {
            None => None,
            Some(folder) => Some(adapter::load(&model, folder)?),
        };
        let stop = generate::stop_tokens(&files.config, &files.tokenizer);
        Ok(Speaker { files, arguments, model, adapter, stop })
    }

    fn request(&self, turn: u64) -> Request<'_> {
        let arguments = self.arguments;
        Request {
            sampling: Sampling {
                temperature: arguments.temperature,
                top_p: arguments.top_p,
                top_k: arguments.top_k,
                seed: arguments.seed.wrapping_add(turn),
            },
            max_new_tokens: arguments.max_new_tokens,
            stop: &self.stop,
        }
    }

    /// Writes an answer as it comes, and returns it.
    fn answer(&self, ids: &[u32], turn: u64) -> Result<String> {
        let mut stream = Stream::new(&self.files.tokenizer, !self.arguments.raw);
        let start = Instant::now();
        let mut broken = None;
        generate::generate(
            &self.model,
            self.adapter.as_ref(),
            &[ids.to_vec()],
            &self.request(turn),
            |_, token| match stream.push(token) {
                Ok(text) => show(&text),
                Err(error) => broken = Some(error),
            },
        )?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        show(&stream.rest());
        print("");
        if io::stderr().is_terminal() {
            let rate = stream.tokens() as f64 / start.elapsed().as_secs_f64().max(1e-9);
            let line = format!("{} tokens, {rate:.0} a second", stream.tokens());
            say(&on_stderr().dim().apply_to(line).to_string());
        }
        Ok(stream.text().to_owned())
    }
}

/// A piece of an answer, at once.
fn show(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
