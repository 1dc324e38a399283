//! The rotary embedding's frequencies and tables.

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::tensor::Tensor;

use crate::error::Result;

/// Frequencies of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
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
}

impl Rope {
    /// The `head_dim / 2` angular frequencies, in f32 as transformers computes them.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head_dim as f32;
                let plain = 1.0 / (self.theta.powf(f64::from(exponent)) as f32);
                self.scaled(plain)
            })
            .collect()
    }

    fn scaled(&self, frequency: f32) -> f32 {
        match self.scaling {
            RopeScaling::Default => frequency,
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
        }
    }
}

/// cos and sin by position, each (positions, head_dim / 2) f32.
pub struct RopeTables {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl RopeTables {
    /// The tables of `positions` positions.
    pub fn new(
        device: &Device,
        rope: &Rope,
        head_dim: usize,
        positions: usize,
    ) -> Result<RopeTables> {
        let take = || device.persistent((positions, head_dim / 2), DType::F32, Category::Weights);
        let mut tables = RopeTables { cos: take()?, sin: take()? };
        let frequencies = rope.inverse_frequencies(head_dim);
        let fill = |table: &mut Tensor, f: fn(f32) -> f32| -> Result<()> {
            table.fill(|values: &mut [f32]| {
                for (position, row) in values.chunks_mut(frequencies.len()).enumerate() {
                    for (value, frequency) in row.iter_mut().zip(&frequencies) {
                        *value = f(position as f32 * frequency);
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
