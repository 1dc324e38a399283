//! What differs from layer to layer: which ones turn queries and keys, and which see a window alone.

use serde_json::Value;

use super::families::{Family, Window};
use super::source::Source;
use crate::error::Result;

/// What a layer sees.
pub(super) struct LayerWindow {
    /// `layer_types` calls it a sliding one; it has the rotary embedding of those.
    pub(super) sliding: bool,
    /// The window, where there is one.
    pub(super) size: Option<usize>,
}

/// Which layers turn.
pub(super) fn turns(source: &Source, family: &Family, layers: usize) -> Result<Vec<bool>> {
    if !family.rotary.no_rope_layers {
        return Ok(vec![true; layers]);
    }
    let interval = source.size("no_rope_layer_interval", 4)?;
    match source.get("no_rope_layers") {
        // The name notwithstanding, 1 stands for a layer that turns.
        Some(Value::Array(values)) => {
            let turns: Option<Vec<bool>> =
                values.iter().map(|value| value.as_i64().map(|value| value != 0)).collect();
            turns
                .filter(|turns| turns.len() >= layers)
                .map(|turns| turns[..layers].to_vec())
                .ok_or_else(|| {
                    source.wrong(
                        format!("no_rope_layers is not a list of {layers} numbers 0 or 1"),
                        "download config.json again",
                    )
                })
        }
        Some(other) => Err(source.wrong(
            format!("no_rope_layers = {other} is not a list"),
            "download config.json again",
        )),
        None => Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect()),
    }
}

/// The window of every layer.
pub(super) fn windows(
    source: &Source,
    family: &Family,
    turns: &[bool],
) -> Result<Vec<LayerWindow>> {
    let layers = turns.len();
    let size = match source.optional_size("sliding_window")? {
        None if source.lacks("sliding_window") => family.defaults.sliding_window,
        size => size,
    };
    let used = source.flag("use_sliding_window", false)?;
    let first = match source.get("max_window_layers").map(Value::as_u64) {
        None => 28,
        Some(Some(first)) => usize::try_from(first).unwrap_or(usize::MAX),
        Some(None) => {
            let text = format!("max_window_layers = {}", source.fields["max_window_layers"]);
            return Err(source
                .wrong(format!("{text} is no number of layers"), "download config.json again"));
        }
    };
    let named = layer_types(source, layers)?;
    let read_named = |otherwise: Vec<bool>| named.clone().unwrap_or(otherwise);
    let sliding: Vec<bool> = match family.window {
        Window::Never => vec![false; layers],
        Window::Always => vec![size.is_some(); layers],
        Window::UpperLayers if !used => vec![false; layers],
        Window::UpperLayers => read_named((0..layers).map(|layer| layer >= first).collect()),
        Window::WithoutRope => {
            read_named(turns.iter().map(|turns| used && size.is_some() && !turns).collect())
        }
        Window::AllButEvery(key, period) => {
            let period = match key {
                None => period,
                Some(key) => source.size(key, period)?,
            };
            read_named((1..=layers).map(|layer| !layer.is_multiple_of(period)).collect())
        }
    };
    // A family whose code does not read the key computes as if it were not there: then it may only say the same.
    if let (Window::Never | Window::Always, Some(named)) = (&family.window, &named)
        && *named != sliding
    {
        return Err(source.wrong(
            format!("layer_types says other windows than a {} model has", family.model_type),
            "config.json was made for another model type",
        ));
    }
    Ok(sliding
        .into_iter()
        .map(|sliding| LayerWindow { sliding, size: size.filter(|_| sliding) })
        .collect())
}

/// `layer_types`: which layers have a window.
fn layer_types(source: &Source, layers: usize) -> Result<Option<Vec<bool>>> {
    let types = match source.get("layer_types") {
        None => return Ok(None),
        Some(Value::Array(types)) => types,
        Some(other) => {
            return Err(source.wrong(
                format!("layer_types = {other} is not a list"),
                "download config.json again",
            ));
        }
    };
    if types.len() != layers {
        let text =
            format!("layer_types names {} layers, num_hidden_layers is {layers}", types.len());
        return Err(source.wrong(text, "download config.json again"));
    }
    let sliding = types.iter().map(|kind| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(source.wrong(
            format!("layer_types names {kind}, which is not known"),
            "Prospect knows full_attention and sliding_attention",
        )),
    });
    sliding.collect::<Result<_>>().map(Some)
}
