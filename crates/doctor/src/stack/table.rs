//! The summary's speed and memory tables beside what can be computed. No number stands without its assumption.

use std::fmt::Write;

/// Parameters in linear layers and head (billions), layers, attention width, and the summary's row for that size.
struct Model {
    name: &'static str,
    billions: f64,
    layers: f64,
    width: f64,
    summary: &'static str,
    /// Rated tokens a second that Prospect was measured at, where it was.
    measured: &'static str,
}

/// How the speeds were measured, as LOG.md has it.
const SPEED: &str = "measured      Prospect on one H200 (not an RTX 3090), driver 580.159.04, cuBLASLt 13.1, 23 November 2026 (LOG.md): random\n\
    \x20             models of these shapes, NF4 with quantized scales, LoRA r = 16 on all seven projections, 8-bit AdamW, KTO,\n\
    \x20             8 examples of natural lengths a step, everything backward reads kept (11.5, 19.6 and 31.3 GiB). Rated tokens\n\
    \x20             (prompt and completion) a second. Nobody has measured an RTX 3090 yet.\n";

/// How the memory was measured.
const MEMORY: &str = "measured      Prospect on one H200 (not an RTX 3090), 23 November 2026 (LOG.md): the arena of KTO on examples of 2,048\n\
    \x20             tokens, one in a pass, groups of two, in about as little as it can be; CUDA's own context, some 0.5 GB, comes on top.\n";

const MODELS: &[Model] = &[
    Model {
        name: "Llama-3.2-3B",
        billions: 3.21,
        layers: 28.0,
        width: 3072.0,
        summary: "30-40",
        measured: "18,301",
    },
    Model {
        name: "Qwen2.5-3B",
        billions: 3.09,
        layers: 36.0,
        width: 2048.0,
        summary: "30-40",
        measured: "-",
    },
    Model {
        name: "Llama-2-7B",
        billions: 6.61,
        layers: 32.0,
        width: 4096.0,
        summary: "20-30",
        measured: "9,995",
    },
    Model {
        name: "Llama-3.1-8B",
        billions: 7.50,
        layers: 32.0,
        width: 4096.0,
        summary: "",
        measured: "-",
    },
    Model {
        name: "Llama-2-13B",
        billions: 12.85,
        layers: 40.0,
        width: 5120.0,
        summary: "15-25",
        measured: "5,400",
    },
    Model {
        name: "Qwen2.5-14B",
        billions: 13.99,
        layers: 48.0,
        width: 5120.0,
        summary: "",
        measured: "-",
    },
    Model {
        name: "InternLM2-20B",
        billions: 19.3,
        layers: 48.0,
        width: 6144.0,
        summary: "",
        measured: "-",
    },
];

/// bf16 with f32 accumulation, dense, on an RTX 3090 (GA102 whitepaper).
const PEAK: f64 = 71e12;
const LENGTH: f64 = 2048.0;

/// Tokens a second at full use: `passes` times the parameters, and causal attention (forward, recompute, 2.5 forward
/// in backward).
fn roof(model: &Model, passes: f64, attention: f64) -> f64 {
    let forward = 2.0 * LENGTH * model.width * model.layers;
    PEAK / (passes * model.billions * 1e9 + attention * forward)
}

/// The speed table.
pub fn speed() -> String {
    let mut text = String::from(
        "Training speed, tokens a second: an RTX 3090 as computed, an H200 as measured\n\n",
    );
    let row = |text: &mut String, cells: [&str; 7]| {
        let [a, b, c, d, e, f, g] = cells;
        let _ = writeln!(text, "{a:<15}{b:>9}{c:>8}{d:>10}{e:>14}{f:>13}{g:>16}");
    };
    row(
        &mut text,
        ["model", "summary", "roof", "at 50 %", "no recompute", "KTO at 50 %", "measured, H200"],
    );
    for model in MODELS {
        let number = |n: f64| format!("{n:.0}");
        let full = roof(model, 6.0, 4.5);
        let summary = if model.summary.is_empty() { "-" } else { model.summary };
        let cells = [
            summary.to_string(),
            number(full),
            number(full / 2.0),
            number(roof(model, 4.0, 3.5)),
            number(roof(model, 12.0, 7.5) / 2.0),
        ];
        let [a, b, c, d, e] = cells.each_ref().map(String::as_str);
        row(&mut text, [model.name, a, b, c, d, e, model.measured]);
    }
    text + "\n\
        summary       the research summary of November 2025, with FlashAttention: 20 to 60 times too low, likely\n\
        \x20             speeds of generating text, not of training\n\
        roof          71 TFLOP/s (bf16, f32 accumulation) over 6 FLOP per parameter of linear layers and head and\n\
        \x20             token: forward, recompute, gradient of the inputs of a frozen base; and attention over 2,048 tokens\n\
        at 50 %       what well-made training reaches (published: 47 to 51 % on an A100 with LoRA and QLoRA)\n\
        no recompute  4 FLOP per parameter and token, where the activations fit\n\
        KTO at 50 %   12 FLOP per parameter and token: policy, its KL pass, reference, its KL pass\n"
        + SPEED
        + "Nothing here was measured on your card; `prospect plan RECIPE` counts what a run of yours takes.\n"
}

/// The memory table.
pub fn vram() -> String {
    const ROWS: &[[&str; 8]] = &[
        ["3B (Llama-3.2)", "8-10", "2.24", "9.5", "4.4", "3.7", "3.5", "2.9"],
        ["7B (Llama-2)", "9-11", "3.87", "8.0", "6.8", "5.8", "5", "4.6"],
        ["8B (Llama-3.1)", "-", "5.70", "13.8", "8.7", "7.7", "6", "-"],
        ["13B (Llama-2)", "14-16", "7.20", "12.4", "11.1", "9.8", "-", "8.6"],
        ["14B (Qwen2.5)", "-", "9.93", "20.3", "14.2", "12.7", "8.5", "-"],
        ["20B (InternLM2)", "18-20", "11.93", "20.6", "16.9", "15.1", "-", "12.9"],
    ];
    let mut text = String::from("GPU memory for QLoRA, GB (decimal)\n\n");
    let head = [
        "model",
        "summary",
        "weights",
        "full logits",
        "tiled loss",
        "batch 1",
        "Unsloth says",
        "measured, H200",
    ];
    for row in std::iter::once(&head).chain(ROWS) {
        let [a, b, c, d, e, f, g, h] = row;
        let _ = writeln!(text, "{a:<17}{b:>9}{c:>9}{d:>13}{e:>12}{f:>9}{g:>14}{h:>16}");
    }
    text + "\n\
        summary       the research summary of November 2025: safe for its stack, but one number per size hides what\n\
        \x20             decides: vocabulary, batch and length (logits of 2 x 2,048 tokens over 128k words take 5.2 GB)\n\
        weights       NF4 at 0.516 bytes a parameter in linear layers, embeddings in bf16\n\
        full logits   computed: LoRA r = 16, batch 2 of 2,048 tokens, recompute, 0.55 GB for the CUDA context, f32 logits\n\
        tiled loss    the same with the loss computed in tiles; batch 1: one sequence of 2,048 tokens\n\
        Unsloth says  the minimum it publishes\n"
        + MEMORY
        + "Nothing here was measured on your card; `prospect plan RECIPE` counts what a run of yours takes.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roof_is_the_one_worked_out_by_hand() {
        // 71e12 / (6 * 3.21e9 + 4.5 * 2 * 2048 * 3072 * 28) = 3,407
        assert!((roof(&MODELS[0], 6.0, 4.5) - 3407.0).abs() < 2.0);
        assert!((roof(&MODELS[2], 6.0, 4.5) - 1688.0).abs() < 2.0);
    }
}
