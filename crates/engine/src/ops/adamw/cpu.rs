//! AdamW on the CPU.

use rayon::prelude::*;

use super::{BLOCK_SIZE, Factors, Hyper, Parameter, Rule, State};
use crate::ops::nf4::tables;

const CHUNK: usize = 16 * 1024;

impl Factors {
    /// One element: its moments are updated in place and the new parameter is returned.
    fn element(&self, p: f32, g: f32, m: &mut f32, v: &mut f32) -> f32 {
        *m = *m * self.beta1 + self.one_less_beta1 * g;
        *v = *v * self.beta2 + self.one_less_beta2 * g * g;
        let step = self.step_size * *m / (v.sqrt() * self.root + self.eps);
        if self.decay_first { p * self.decay - step } else { (p - step) * self.decay }
    }
}

pub(super) fn update(parameter: &mut Parameter<'_>, rule: Rule, hyper: Hyper) {
    let param = parameter.value.reborrow().into_mut_slice();
    let gradient = parameter.gradient.as_slice();
    match parameter.state {
        State::Full { m, v } => {
            full(param, gradient, m.as_mut_slice(), v.as_mut_slice(), rule, hyper);
        }
        State::Blockwise { m, v, m_absmax, v_absmax } => {
            let m = Codes { codes: m.as_mut_slice(), absmax: m_absmax.as_mut_slice() };
            let v = Codes { codes: v.as_mut_slice(), absmax: v_absmax.as_mut_slice() };
            blockwise(param, gradient, m, v, hyper);
        }
    }
}

fn full(
    param: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    rule: Rule,
    hyper: Hyper,
) {
    let factors = Factors::new(rule, hyper);
    let states = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    param.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(states).for_each(
        |((p, g), (m, v))| {
            for i in 0..p.len() {
                let g = g[i] * factors.scale;
                if rule == Rule::BitsAndBytes && !g.is_finite() {
                    (m[i], v[i]) = (0.0, 0.0);
                } else {
                    p[i] = factors.element(p[i], g, &mut m[i], &mut v[i]);
                }
            }
        },
    );
}

/// A moment in 8-bit codes.
struct Codes<'a> {
    codes: &'a mut [u8],
    absmax: &'a mut [f32],
}

fn blockwise(param: &mut [f32], gradient: &[f32], m: Codes<'_>, v: Codes<'_>, hyper: Hyper) {
    let factors = Factors::new(Rule::BitsAndBytes, hyper);
    let (signed, unsigned) = (tables::dynamic_signed(), tables::dynamic_unsigned());
    let (m_bounds, v_bounds): ([f32; 255], [f32; 255]) =
        (tables::thresholds(signed), tables::thresholds(unsigned));
    let m_blocks = m.codes.par_chunks_mut(BLOCK_SIZE).zip(m.absmax.par_iter_mut());
    let v_blocks = v.codes.par_chunks_mut(BLOCK_SIZE).zip(v.absmax.par_iter_mut());
    let blocks = param.par_chunks_mut(BLOCK_SIZE).zip(gradient.par_chunks(BLOCK_SIZE));
    blocks.zip(m_blocks.zip(v_blocks)).for_each(
        |((p, g), ((m_codes, m_absmax), (v_codes, v_absmax)))| {
            let (mut m, mut v) = ([0f32; BLOCK_SIZE], [0f32; BLOCK_SIZE]);
            for i in 0..p.len() {
                let g = g[i] * factors.scale;
                if g.is_finite() {
                    m[i] = signed[m_codes[i] as usize] * *m_absmax;
                    v[i] = unsigned[v_codes[i] as usize] * *v_absmax;
                    p[i] = factors.element(p[i], g, &mut m[i], &mut v[i]);
                }
            }
            *m_absmax = m.iter().fold(0.0, |max: f32, m| max.max(m.abs()));
            *v_absmax = v.iter().fold(0.0, |max: f32, v| max.max(*v));
            for i in 0..p.len() {
                m_codes[i] = nearest(&m_bounds, m[i], *m_absmax);
                // The code must have the moment's sign, or the parameter would move the wrong way.
                let value = signed[m_codes[i] as usize];
                if value.is_sign_negative() != m[i].is_sign_negative() {
                    m_codes[i] = if m[i] > 0.0 {
                        m_codes[i].saturating_add(1)
                    } else {
                        m_codes[i].saturating_sub(1)
                    };
                }
                v_codes[i] = nearest(&v_bounds, v[i], *v_absmax);
            }
        },
    );
}

fn nearest(bounds: &[f32; 255], value: f32, absmax: f32) -> u8 {
    let scaled = if absmax > 0.0 { value / absmax } else { 0.0 };
    bounds.partition_point(|bound| scaled >= *bound) as u8
}
