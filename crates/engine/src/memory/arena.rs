//! The two-ended arena: pure bookkeeping of offsets, the same for every device.
//!
//! What lives through the run (weights, adapter, optimizer states) is taken from the bottom, what a step
//! needs (activations, workspace) from the top. Each end is a stack. A block may be given back out of order;
//! its bytes are free again once everything above it on its stack is given back too, so a region is never
//! handed out twice and nothing can fragment. The same requests give the same offsets and the same peak on
//! every device, which is why a peak found on `plan` is the peak of the run, to the byte.

/// Blocks start at multiples of this many bytes: two cache lines on a CPU, a full transaction on a GPU.
pub const ALIGNMENT: usize = 256;

/// Which end of the arena a block is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Lives through the run.
    Bottom,
    /// Lives within a step.
    Top,
}

/// What a block is for; the planner reports the peak by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Weights of the base model.
    Weights,
    /// Trained parameters and their gradients.
    Adapter,
    /// Optimizer states.
    Optimizer,
    /// What a step keeps between forward and backward.
    Activations,
    /// Buffers that live within an op or a layer.
    Workspace,
}

impl Category {
    /// All categories in the order of [`Bytes`].
    pub const ALL: [Category; 5] = [
        Category::Weights,
        Category::Adapter,
        Category::Optimizer,
        Category::Activations,
        Category::Workspace,
    ];

    /// The word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Category::Weights => "weights",
            Category::Adapter => "adapter",
            Category::Optimizer => "optimizer",
            Category::Activations => "activations",
            Category::Workspace => "workspace",
        }
    }
}

/// Bytes by category, in the order of [`Category::ALL`].
pub type Bytes = [usize; Category::ALL.len()];

/// A block of the arena. `offset` counts from the bottom for [`End::Bottom`]; for [`End::Top`] it is the
/// distance of the block's first byte from the arena's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The end it was taken from.
    pub end: End,
    /// See the type.
    pub offset: usize,
    /// Its size, a multiple of [`ALIGNMENT`].
    pub bytes: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    span: Span,
    category: Category,
    live: bool,
}

/// The bookkeeping of one arena.
pub struct Arena {
    capacity: usize,
    stacks: [Vec<Entry>; 2],
    held: Bytes,
    peak: usize,
    at_peak: Bytes,
}

/// `bytes` rounded up to [`ALIGNMENT`].
pub const fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}

impl Arena {
    /// An empty arena of `capacity` bytes (`usize::MAX` for one that only counts).
    pub fn new(capacity: usize) -> Arena {
        Arena { capacity, stacks: [Vec::new(), Vec::new()], held: [0; 5], peak: 0, at_peak: [0; 5] }
    }

    /// Bytes of the whole arena.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes a block, or answers how many bytes are free.
    pub fn take(&mut self, end: End, bytes: usize, category: Category) -> Result<Span, usize> {
        let used = self.height(End::Bottom) + self.height(End::Top);
        let bytes = aligned(bytes.max(1));
        if bytes > self.capacity - used {
            return Err(self.capacity - used);
        }
        let height = self.height(end);
        let offset = match end {
            End::Bottom => height,
            End::Top => height + bytes,
        };
        let span = Span { end, offset, bytes };
        self.stacks[end as usize].push(Entry { span, category, live: true });
        self.held[category as usize] += bytes;
        if used + bytes > self.peak {
            self.peak = used + bytes;
            self.at_peak = self.held;
        }
        Ok(span)
    }

    /// Gives a block back.
    pub fn give(&mut self, span: Span) {
        let stack = &mut self.stacks[span.end as usize];
        // The block is nearly always the last one, so the search from the top ends at once.
        if let Some(entry) = stack.iter_mut().rev().find(|entry| entry.live && entry.span == span) {
            entry.live = false;
        }
        while let Some(last) = stack.last().filter(|entry| !entry.live) {
            self.held[last.category as usize] -= last.span.bytes;
            stack.pop();
        }
    }

    /// The most bytes that were in use at one time.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// What the bytes of the peak were for. A block given back out of order counts until its bytes are free.
    pub fn at_peak(&self) -> Bytes {
        self.at_peak
    }

    /// Bytes in use now.
    pub fn used(&self) -> usize {
        self.height(End::Bottom) + self.height(End::Top)
    }

    fn height(&self, end: End) -> usize {
        self.stacks[end as usize].last().map_or(0, |entry| match end {
            End::Bottom => entry.span.offset + entry.span.bytes,
            End::Top => entry.span.offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_grow_towards_each_other_and_the_peak_is_their_sum() {
        let mut arena = Arena::new(4096);
        let weights = arena.take(End::Bottom, 1000, Category::Weights).unwrap();
        assert_eq!((weights.offset, weights.bytes), (0, 1024));
        let first = arena.take(End::Top, 256, Category::Activations).unwrap();
        let second = arena.take(End::Top, 512, Category::Workspace).unwrap();
        assert_eq!((first.offset, second.offset), (256, 768));
        arena.give(second);
        let third = arena.take(End::Top, 100, Category::Workspace).unwrap();
        assert_eq!(third.offset, 512, "the bytes of the second block are used again");
        assert_eq!(arena.peak(), 1024 + 768);
        assert_eq!(arena.at_peak(), [1024, 0, 0, 256, 512]);
        assert_eq!(arena.take(End::Top, 4096, Category::Workspace), Err(4096 - 1024 - 512));
    }

    #[test]
    fn a_block_given_back_out_of_order_is_not_handed_out_while_one_above_it_lives() {
        let mut arena = Arena::new(usize::MAX);
        let below = arena.take(End::Top, 256, Category::Workspace).unwrap();
        let above = arena.take(End::Top, 256, Category::Workspace).unwrap();
        arena.give(below);
        assert_eq!(arena.used(), 512);
        assert_eq!(arena.take(End::Top, 256, Category::Workspace).unwrap().offset, 768);
        arena.give(above);
        assert_eq!(arena.used(), 768, "the third block still stands on both");
    }
}
