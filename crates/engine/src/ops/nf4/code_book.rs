//! The 4-bit code books of bitsandbytes: NF4, and FP4, a float of a sign, two bits of exponent and one of mantissa
//! (0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3 and 1, of either sign).

use super::tables;

/// What the 16 codes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeBook {
    /// NormalFloat: codes in the order of their values.
    Nf4,
    /// Codes in the order of their bit patterns; codes 0 and 8 are both zero.
    Fp4,
}

/// FP4 by code: as bitsandbytes 0.50.2 has them, twelfths, so that the largest is 1.
const FP4: [f32; 16] = {
    let twelfths = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let mut values = [0.0; 16];
    let mut code = 0;
    while code < 8 {
        values[code] = twelfths[code] / 12.0;
        // Code 8 is +0 as well.
        values[code + 8] = if code == 0 { 0.0 } else { -twelfths[code] / 12.0 };
        code += 1;
    }
    values
};

impl CodeBook {
    /// The values by code.
    pub fn values(self) -> &'static [f32; 16] {
        match self {
            CodeBook::Nf4 => &tables::NF4,
            CodeBook::Fp4 => &FP4,
        }
    }

    /// As bitsandbytes names it.
    pub fn name(self) -> &'static str {
        match self {
            CodeBook::Nf4 => "nf4",
            CodeBook::Fp4 => "fp4",
        }
    }

    /// The code book of a name.
    pub fn named(name: &str) -> Option<CodeBook> {
        [CodeBook::Nf4, CodeBook::Fp4].into_iter().find(|book| book.name() == name)
    }

    /// The codes in the order of their values.
    pub(super) fn order(self) -> [u8; 16] {
        match self {
            CodeBook::Nf4 => std::array::from_fn(|code| code as u8),
            CodeBook::Fp4 => [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3],
        }
    }

    /// The points between neighbours in that order: `x > bounds[i]` goes above `order[i]`.
    pub(super) fn bounds(self) -> [f32; 15] {
        let values = self.values();
        tables::thresholds(&self.order().map(|code| values[usize::from(code)]))
    }
}
