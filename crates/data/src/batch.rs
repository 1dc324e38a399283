//! What one optimizer step computes: micro-batches of packed token trees.
//!
//! A micro-batch is a flat row of tokens and a table of segments. A token attends causally
//! inside its own segment and to all of its parent segment; depth is two. A prompt is a segment
//! and its completions are its children, so a prompt is computed once per micro-batch however
//! many completions hang on it (prefix sharing: arXiv 2410.20305, 2602.24082).

/// Rows `start..start + len` of a micro-batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first row.
    pub start: usize,
    /// How many rows; never zero.
    pub len: usize,
    /// The segment all of whose rows this one also sees; it comes earlier in the table.
    pub parent: Option<usize>,
    /// The position of the first row: the parent's length, or zero.
    pub position0: usize,
}

/// What a completion is scored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The completion the user rated.
    Rated,
    /// Another example's completion after this example's prompt, for the KL term.
    Mismatched,
    /// No completion: the tokens of a chosen completion's own prompt, from the second on, for an objective
    /// that scores the whole text. It has no segment.
    Prompt,
}

/// One completion of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Index into [`PackedStep::groups`].
    pub group: usize,
    /// Index into that group's examples.
    pub example: usize,
    /// What it is scored for.
    pub role: Role,
}

/// A row whose logits score a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scored {
    /// The row; the last row of a prompt occurs once for each of its completions.
    pub row: usize,
    /// The token that follows the row.
    pub target: u32,
    /// Index into [`MicroBatch::completions`].
    pub completion: usize,
}

/// What runs through the model at once.
///
/// Rows come family by family: the shared prompt, then its rated completions; after all
/// families the mismatched completions. Parents precede children. A completion without a shared
/// prompt (an empty one) is a segment of its own without parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// The segments, in the order of their rows; they cover every row once.
    pub segments: Vec<Segment>,
    /// The completions, in the order of their segments; behind them the prompts that are scored.
    pub completions: Vec<Completion>,
    /// What is scored, ordered by completion, then by position.
    pub scored: Vec<Scored>,
    /// Gradient flows through rows `0..rated_rows`: prompts and rated completions. The rows
    /// after it are mismatched completions. Zero in a micro-batch of the first phase, which has
    /// no rated completion and in which not even the prompts get a gradient.
    pub rated_rows: usize,
}

impl MicroBatch {
    /// How many tokens there are.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The position of each row: `position0` plus its offset in the segment.
    pub fn positions(&self) -> Vec<u32> {
        let mut positions = Vec::with_capacity(self.tokens.len());
        for segment in &self.segments {
            positions.extend((0..segment.len).map(|offset| (segment.position0 + offset) as u32));
        }
        positions
    }

    /// The segment of each completion that is no prompt: those segments that are nobody's parent, in order.
    pub fn completion_segments(&self) -> Vec<usize> {
        let mut is_parent = vec![false; self.segments.len()];
        for segment in &self.segments {
            if let Some(parent) = segment.parent {
                is_parent[parent] = true;
            }
        }
        (0..self.segments.len()).filter(|&index| !is_parent[index]).collect()
    }
}

/// One rated example of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExample {
    /// Index into the dataset's examples.
    pub index: usize,
    /// Whether the completion is desirable.
    pub label: bool,
    /// Length of the prompt and the completion after cutting.
    pub tokens: usize,
    /// Index in this group of the other half of the pair, for paired objectives.
    pub pair: Option<usize>,
}

/// A KL group: the examples over which the KL term is a mean, `batch_size` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its examples, in the order of the sampler.
    pub examples: Vec<GroupExample>,
}

/// One optimizer step.
///
/// Every rated completion of every group is in exactly one of `micro_batches`. With a KL term
/// every mismatched completion is in exactly one micro-batch of either list: a group that fits
/// the token budget keeps all it has in one micro-batch, one that does not has its mismatched
/// completions in `kl_micro_batches`, which run first and without gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedStep {
    /// The KL groups of the step.
    pub groups: Vec<Group>,
    /// Phase 1: mismatched completions of the groups that were split. No gradient.
    pub kl_micro_batches: Vec<MicroBatch>,
    /// Phase 2: forward and backward.
    pub micro_batches: Vec<MicroBatch>,
}
