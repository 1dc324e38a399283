//! What a finished run leaves: the adapter or the model, the answers, the summary.

use std::path::{Path, PathBuf};

use data::files;
use models::export::{self, Entry};
use models::{adapter, merge};
use serde_json::{Map, Value, json};

use super::Ending;
use super::training::{Measured, Run};
use crate::checksum;
use crate::error::Result;
use crate::event::{Event, Summary};
use crate::learner::Learner;
use crate::recipe::model::Dtype;
use crate::session::Session;

impl Run<'_> {
    /// Writes the result and the summary.
    pub(super) fn finish(
        self,
        session: &mut Session<'_>,
        before: Option<Vec<String>>,
        measured: &Measured,
    ) -> Result<Ending> {
        let Measured { seconds, tokens, ref last } = *measured;
        self.write_result(session)?;
        if self.inputs.prompts.is_some() {
            (self.tell)(Event::Note("answering the same prompts after training".to_owned()));
        }
        let judgement = match (&self.inputs.prompts, before, session.answers()?) {
            (Some(prompts), Some(before), Some(after)) => Some(prompts.judge(before, after)),
            _ => None,
        };
        let counted = judgement.as_ref().filter(|judgement| judgement.judged);
        let metrics: Map<String, Value> =
            last.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let summary = Summary {
            steps: self.progress.steps,
            seconds,
            rated_tokens: tokens,
            rated_tokens_per_second: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            planned_peak_bytes: self.fit.simulation.peak_bytes,
            peak_bytes: self.device.peak_bytes(),
            bad_batches: self.progress.bad_batches,
            metrics,
            prompts: counted.map(|judgement| judgement.answers.len()),
            desirable_before: counted.map(|judgement| judgement.desirable().0),
            desirable_after: counted.map(|judgement| judgement.desirable().1),
        };
        if let Some(judgement) = &judgement {
            files::write_json(&self.folder.path().join("answers.json"), judgement)?;
            (self.tell)(Event::Judged(judgement));
        }
        files::write_json(&self.folder.path().join("summary.json"), &summary)?;
        (self.tell)(Event::Finished(&summary));
        Ok(Ending::Finished(summary))
    }

    /// `adapter/` as PEFT reads it, or `model/` as transformers reads it.
    fn write_result(&self, session: &mut Session<'_>) -> Result<()> {
        let base = self.inputs.folder.display().to_string();
        let create = |name: &str| -> Result<PathBuf> {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(&path).map_err(|error| files::cannot_write(&path, &error))?;
            Ok(path)
        };
        if let Some(policy) = session.learner.policy() {
            let config = adapter::config_json(policy, &base);
            write_adapter(&mut session.learner, &config, &create("adapter")?)?;
            return Ok(());
        }
        let path = create("model")?;
        let narrow = self.inputs.recipe.model.dtype == Dtype::Bf16;
        let tensors = session.learner.model.weights.tensors_mut();
        let entries: Vec<Entry<'_>> = tensors
            .into_iter()
            .map(
                |(name, tensor)| {
                    if narrow { Entry::bf16(name, tensor) } else { Entry::f32(name, tensor) }
                },
            )
            .collect();
        let entries = match &self.inputs.checkpoint {
            Some(checkpoint) => checkpoint.whole(entries)?,
            None => entries,
        };
        checksum::write(&path.join("model.safetensors"), |writer| {
            export::write_to(writer, &entries)
        })?;
        merge::copy_companions(&self.inputs.folder, &path)?;
        Ok(())
    }
}

/// An adapter as PEFT reads it.
fn write_adapter(learner: &mut Learner, config: &Value, folder: &Path) -> Result<()> {
    let entries: Vec<Entry<'_>> = learner
        .parameters_to_save()
        .into_iter()
        .map(|parameter| adapter::entry(&parameter.name, parameter.value, parameter.start))
        .collect();
    checksum::write(&folder.join(adapter::WEIGHTS), |writer| export::write_to(writer, &entries))?;
    checksum::write(&folder.join(adapter::CONFIG), |writer| writeln!(writer, "{config:#}"))?;
    Ok(())
}
