//! `[data]`: the feedback, and how it is cut and ordered.

use data::places::Purpose;
use data::{Cache, Origin};
use engine::mapped::Mapped;

use super::setting::choice;
use super::sources::{CacheFolder, Columns, FormName, Formats, Source, default_cache, origins};
use super::table::{Limit, table};
use crate::error::{Error, Result};

/// A prompt and a completion have a token each; no model reads more than some millions.
const LENGTH: Limit = Limit { words: "from 2 to 10000000", holds: |x| (2.0..=1e7).contains(&x) };

/// Data of fewer bytes is tokenized anew by every run, where the recipe names no cache: it takes some seconds at most.
const SMALL: u64 = 16 << 20;

table! {
    /// `[data]`: the feedback to learn from.
    pub struct Data["data"] {
        /// The feedback: files, folders, patterns (`"feedback/*.jsonl"`, `"**"` for any folders), or tables
        /// (`[[data.train]]`, below) where sources differ in form or have weights. Files are JSONL, JSON (one
        /// list), CSV or TSV (the first row names the columns), Parquet, Arrow IPC (`.arrow` files of `datasets`
        /// too), also compressed by gzip or zstd; the first bytes say which. Of a folder all such files are read in
        /// the order of their paths, those of the train split where names say a split. `datasets/owner/name` is a data set of
        /// the hub. What was read, and as
        /// what, `prospect data` shows.
        pub train: Vec<Source>;
        /// Held-out data, written in the same ways, measured during training and never learnt from. Of a folder
        /// with splits the validation or test split is read.
        pub eval: Vec<Source> = Vec::new();
        /// The form of the rows, of all sources that do not say their own. `"auto"`, which is also meant where
        /// nothing is written, finds it out by the columns of the first row; where they fit two forms, nothing is
        /// guessed: the run stops and shows both. TRL's forms are `"unpaired"` (prompt, completion, label),
        /// `"paired"` (chosen, rejected, with or without prompt), `"prompt_completion"`, `"messages"` (with a label
        /// the last answer is rated) and `"text"`; text or messages, `tools` and `chat_template_kwargs` as in TRL.
        /// `"sharegpt"` has conversations of from and value, `"alpaca"` has instruction, input, output; both become
        /// messages, written by the model's own chat template, and both take LLaMA-Factory's `kto_tag` as label, or
        /// chosen and rejected. `"chatml.*"` and `"llama3.*"` are Axolotl's: the prompt is written in those marks
        /// whatever the model's template is, which is right for a model that was trained with them and wrong for
        /// any other.
        pub form: Option<FormName>;
        /// Which columns are meant, where they are called otherwise than in the form:
        /// `{ prompt = "question", completion = "answer" }`. The form's name stands first.
        pub columns: Option<Columns>;
        /// How a text is put together from columns: `{ prompt = "{system}\nQ: {prompt}\nA:" }`. The texts are prompt,
        /// completion, chosen and rejected; a name in braces is a name of the forms, or of `columns`. A row without
        /// system or input has nothing there. With `form = "user_defined"` this is Axolotl's type of that name, whose
        /// `field_*` are `columns` here and whose `*_format` are these.
        pub formats: Option<Formats>;
        /// The most tokens of prompt and completion together. A longer completion is cut at the end; a
        /// row whose prompt alone reaches it is dropped; both are counted and reported. Activation memory
        /// and time grow with it.
        pub max_length: usize = 1024, LENGTH;
        /// `"shuffled"` draws a new order for every epoch and spreads the classes over the batches.
        /// `"sequential"` keeps the order of the file, pairs for the KL estimate as trl 1.16 does and
        /// averages as it does, to compare runs; a file sorted by class then trains on one class for
        /// hundreds of steps.
        pub order: Order = Order::Shuffled;
        /// The folder in which tokens are kept, so that data is tokenized once and need not fit into memory;
        /// `false` keeps them in memory. Unless written, it is `prospect/tokens` in `XDG_CACHE_HOME` or `~/.cache`,
        /// and data of less than 16 MiB stays in memory. A file there is used again while the data, the tokenizer and the
        /// chat template are the same, by any run, whatever `max_length` is; it has 4 bytes a token and may be
        /// deleted at any time. Where the folder cannot be written, a word says so and tokens stay in memory.
        pub cache: Option<CacheFolder>;
    }
}

impl Data {
    /// The sources to learn from, their files looked up.
    pub fn origins(&self) -> Result<Vec<Origin>> {
        self.read_as(&self.train, Purpose::Training)
    }

    /// The sources to measure with, their files looked up.
    pub fn held_out(&self) -> Result<Vec<Origin>> {
        self.read_as(&self.eval, Purpose::Measuring)
    }

    fn read_as(&self, sources: &[Source], purpose: Purpose) -> Result<Vec<Origin>> {
        let Data { form, columns, formats, .. } = self;
        origins(sources, *form, columns.as_ref(), formats.as_ref(), purpose)
    }

    /// Makes what is learnt from what is measured.
    pub fn measure_train(&mut self) {
        self.eval = self.train.clone();
        self.eval.iter_mut().for_each(|source| source.weight = None);
    }

    /// Where tokens are kept.
    pub fn tokens(&self) -> Option<Cache> {
        let (folder, least) = match &self.cache {
            Some(CacheFolder::Off) => return None,
            Some(CacheFolder::At(folder)) => (folder.clone(), 0),
            None => (default_cache()?, SMALL),
        };
        Some(Cache { folder, least, map: |path| Ok(std::sync::Arc::new(Mapped::open(path)?)) })
    }

    /// An error if weights are written where they mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let weighted = self.train.iter().filter(|source| source.weight.is_some()).count();
        let name = |source: &Source| {
            let first = source.files.first().map(|path| path.0.display().to_string());
            first.unwrap_or_default()
        };
        if weighted > 0
            && let Some(other) = self.train.iter().find(|source| source.weight.is_none())
        {
            return Err(Error::input(
                format!(
                    "[data] train: the source of '{}' has no weight, but others have",
                    name(other)
                ),
                "give every source of train a weight, or none",
            ));
        }
        if weighted > 0 && self.order == Order::Sequential {
            return Err(Error::input(
                "[data] order = \"sequential\" keeps the order of the files, but the sources of train have weights",
                "remove the weights, or write order = \"shuffled\"",
            ));
        }
        if let Some(source) = self.eval.iter().find(|source| source.weight.is_some()) {
            return Err(Error::input(
                format!("[data] eval: the source of '{}' has a weight", name(source)),
                "remove it: all held-out data is measured, each example once",
            ));
        }
        Ok(())
    }
}

choice! {
    /// In what order examples are learnt from.
    pub enum Order {
        /// A new order for every epoch, from the seed, classes spread over the batches.
        Shuffled = "shuffled",
        /// The order of the file, in every epoch, as trl 1.16.
        Sequential = "sequential",
    }
}
