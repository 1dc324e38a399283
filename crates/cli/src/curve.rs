//! A metric over a run of any length in bounded memory: neighbouring steps are merged as there come to be too many.

/// The most points that are held: more than any picture shows.
const MOST: usize = 4096;

/// Points (step, value), each the mean of so many neighbouring steps.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    points: Vec<(f64, f64)>,
    /// Steps in a point; the last may have fewer.
    width: usize,
    /// Steps in the last point, and those of them whose value is finite.
    last: (usize, usize),
}

impl Curve {
    /// No point yet.
    pub(crate) fn new() -> Curve {
        Curve { points: Vec::new(), width: 1, last: (1, 0) }
    }

    /// A value that is not finite leaves the mean of its neighbours; where there is none, the point is NaN.
    pub(crate) fn push(&mut self, step: f64, value: f64) {
        if self.last.0 == self.width {
            if self.points.len() == MOST {
                self.merge();
            }
            self.points.push((step, if value.is_finite() { value } else { f64::NAN }));
            self.last = (1, usize::from(value.is_finite()));
            return;
        }
        let Some(point) = self.points.last_mut() else { return };
        self.last.0 += 1;
        point.0 += (step - point.0) / self.last.0 as f64;
        if value.is_finite() {
            self.last.1 += 1;
            let mean = if point.1.is_finite() { point.1 } else { 0.0 };
            point.1 = mean + (value - mean) / self.last.1 as f64;
        }
    }

    /// All points, in order.
    pub(crate) fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// Halves the points: all of them are full.
    fn merge(&mut self) {
        let merged = self.points.chunks(2).map(|pair| {
            let finite: Vec<f64> =
                pair.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
            let step = pair.iter().map(|point| point.0).sum::<f64>() / pair.len() as f64;
            (step, finite.iter().sum::<f64>() / finite.len() as f64)
        });
        self.points = merged.collect();
        self.width *= 2;
        self.last = (self.width, self.width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_shape_in_bounded_memory() {
        let mut curve = Curve::new();
        for step in 0..1_000_000 {
            curve.push(f64::from(step), if step % 1000 == 0 { f64::NAN } else { f64::from(step) });
        }
        let points = curve.points();
        assert!(points.len() <= MOST && points.len() >= MOST / 2 - 1, "{}", points.len());
        for (step, value) in points {
            assert!((step - value).abs() <= 1.0, "{step}: {value}");
        }
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(curve.points.capacity() <= 2 * MOST);
    }

    #[test]
    fn a_short_curve_is_itself_with_its_gaps() {
        let mut curve = Curve::new();
        for (step, value) in [(1.0, 2.0), (2.0, f64::NAN), (3.0, f64::INFINITY), (4.0, 1.0)] {
            curve.push(step, value);
        }
        assert_eq!(curve.points()[0], (1.0, 2.0));
        assert!(curve.points()[1].1.is_nan() && curve.points()[2].1.is_nan());
        assert_eq!(curve.points()[3], (4.0, 1.0));
    }
}
