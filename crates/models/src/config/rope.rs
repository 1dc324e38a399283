//! The rotary embedding's frequencies and tables.

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::tensor::Tensor;

use crate::error::Result;

/// Frequencies of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Elements of a head that turn, its first.
    pub dim: usize,
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
    /// Factor of cos and sin.
    pub attention_factor: f64,
}

/// Changes of the frequencies, by `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by a factor (Chen et al., arXiv 2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above the original length over this are divided.
        low_freq_factor: f64,
        /// Wavelengths below the original length over this are kept.
        high_freq_factor: f64,
        /// The context length before the change.
        original_max_position_embeddings: f64,
    },
    /// YaRN (Peng et al., arXiv 2309.00071, section 3.2): pairs that turn often in the original context are kept, pairs
    /// that turn seldom divided, and between them a ramp over the pairs' numbers.
    Yarn {
        /// The divisor of pairs that turn seldom.
        factor: f64,
        /// Pairs that turn more often than this are kept.
        beta_fast: f64,
        /// Pairs that turn less often than this are divided.
        beta_slow: f64,
        /// The ramp's ends are rounded to whole pairs.
        truncate: bool,
        /// The context length before the change.
        original_max_position_embeddings: f64,
    },
    /// LongRoPE (Ding et al., arXiv 2402.13753): each frequency has a divisor for sequences within the original context,
    /// and another for longer ones.
    LongRope {
        /// The divisors of sequences up to `original` tokens.
        short: Vec<f64>,
        /// The divisors of longer ones.
        long: Vec<f64>,
        /// The context length before the change.
        original: usize,
    },
}

impl Rope {
    /// The angular frequencies of the pairs that turn, in f32 as transformers computes them. `long` asks for those of
    /// long sequences, where they differ.
    pub fn inverse_frequencies(&self, long: bool) -> Vec<f32> {
        let wavelength = |i: usize| {
            let exponent = (2 * i) as f32 / self.dim as f32;
            self.theta.powf(f64::from(exponent)) as f32
        };
        let ramp = self.ramp();
        (0..self.dim.div_ceil(2))
            .map(|i| match &self.scaling {
                RopeScaling::LongRope { short, long: longer, .. } => {
                    let divisor = if long { longer[i] } else { short[i] };
                    1.0 / (divisor as f32 * wavelength(i))
                }
                RopeScaling::Yarn { factor, .. } => {
                    let kept = 1.0 - ((i as f32 - ramp.0) / (ramp.1 - ramp.0)).clamp(0.0, 1.0);
                    let divided = 1.0 / (*factor as f32 * wavelength(i));
                    divided * (1.0 - kept) + 1.0 / wavelength(i) * kept
                }
                _ => self.scaled(1.0 / wavelength(i)),
            })
            .collect()
    }

    fn scaled(&self, frequency: f32) -> f32 {
        match self.scaling {
            RopeScaling::Linear { factor } => frequency / factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            } => {
                let wavelength = std::f64::consts::TAU / f64::from(frequency);
                let divided = frequency / factor as f32;
                if wavelength > original / low_freq_factor {
                    return divided;
                }
                if wavelength < original / high_freq_factor {
                    return frequency;
                }
                let smooth = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                ((1.0 - smooth) * f64::from(divided) + smooth * f64::from(frequency)) as f32
            }
            _ => frequency,
        }
    }

    /// Where YaRN's ramp begins and ends, in numbers of pairs.
    fn ramp(&self) -> (f32, f32) {
        let RopeScaling::Yarn {
            beta_fast,
            beta_slow,
            truncate,
            original_max_position_embeddings: original,
            ..
        } = self.scaling
        else {
            return (0.0, 1.0);
        };
        // The pair that turns so often in the original context.
        let pair = |turns: f64| {
            let dim = self.dim as f64;
            dim * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(self.dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        (low as f32, high as f32)
    }

    /// The length from which on sequences have frequencies of their own, exclusive.
    pub fn switch(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::LongRope { original, .. } => Some(original),
            _ => None,
        }
    }

    /// Everything that something is divided by.
    pub(super) fn factors(&self) -> Vec<f64> {
        match &self.scaling {
            RopeScaling::Default => Vec::new(),
            RopeScaling::Linear { factor } => vec![*factor],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
                vec![*factor, *low_freq_factor, *high_freq_factor]
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, .. } => {
                vec![*factor, *beta_fast, *beta_slow]
            }
            RopeScaling::LongRope { short, long, .. } => [&short[..], long].concat(),
        }
    }
}

/// cos and sin by position, each (rows, pairs) f32: a row for each position, and where long sequences have frequencies
/// of their own, as many rows more for those.
pub struct RopeTables {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
    /// The longest sequence of the first rows, and the row where those of longer ones begin.
    pub switch: Option<(usize, usize)>,
}

impl RopeTables {
    /// The tables of `positions` positions.
    pub fn new(device: &Device, rope: &Rope, positions: usize) -> Result<RopeTables> {
        let switch = rope.switch().filter(|original| positions > *original);
        let rows = if switch.is_some() { 2 * positions } else { positions };
        let take =
            || device.persistent((rows, rope.dim.div_ceil(2)), DType::F32, Category::Weights);
        let (cos, sin) = (take()?, take()?);
        let switch = switch.map(|original| (original, positions));
        let mut tables = RopeTables { cos, sin, switch };
        let kinds = [rope.inverse_frequencies(false), rope.inverse_frequencies(true)];
        let factor = rope.attention_factor as f32;
        let fill = |table: &mut Tensor, f: fn(f32) -> f32| -> Result<()> {
            table.fill(|values: &mut [f32]| {
                let width = kinds[0].len();
                for (values, frequencies) in values.chunks_mut(positions * width).zip(&kinds) {
                    for (position, row) in values.chunks_mut(width).enumerate() {
                        for (value, frequency) in row.iter_mut().zip(frequencies) {
                            *value = f(position as f32 * frequency) * factor;
                        }
                    }
                }
                Ok(())
            })
        };
        fill(&mut tables.cos, f32::cos)?;
        fill(&mut tables.sin, f32::sin)?;
        Ok(tables)
    }
}
