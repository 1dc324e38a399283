//! Curves as SVG.

use std::fmt::Write;

use super::escape;
use super::series::{smooth, thin};
use crate::words::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 236.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// Points of a curve; a screen has no more columns.
const POINTS: usize = 480;

/// A line of a chart.
pub(super) struct Line<'a> {
    /// In the legend.
    pub(super) name: &'a str,
    /// The class that gives it its colour.
    pub(super) class: &'a str,
    pub(super) points: &'a [(f64, f64)],
    pub(super) kind: Kind,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A running mean, the values themselves faint behind it.
    Noisy,
    /// As it is.
    Exact,
    /// Measured now and then: dots, joined.
    Sparse,
}

/// What the vertical axis must reach.
#[derive(Clone, Copy)]
pub(super) enum Range {
    /// Only the values.
    Free,
    /// Zero too.
    FromZero,
    /// Zero and one: a share.
    Share,
}

/// A figure with a title, a legend and a chart.
pub(super) fn figure(title: &str, what: &str, lines: &[Line<'_>], range: Range) -> String {
    let mut html = format!(
        "<figure class=\"card\"><figcaption><h3>{}</h3><p>{}</p></figcaption><div class=\"legend\">",
        escape(title),
        escape(what)
    );
    for line in lines {
        let last = line.points.iter().rev().map(|point| point.1).find(|value| value.is_finite());
        let _ = write!(
            html,
            "<span class=\"{}\"><i{}></i>{} <b>{}</b></span>",
            line.class,
            if line.kind == Kind::Sparse { " class=\"dot\"" } else { "" },
            escape(line.name),
            last.map_or_else(|| "not finite".to_owned(), number)
        );
    }
    html += "</div>";
    html += &chart(title, lines, range);
    html += "</figure>";
    html
}

fn chart(title: &str, lines: &[Line<'_>], range: Range) -> String {
    let curves: Vec<Vec<(f64, f64)>> = lines.iter().map(|line| thin(line.points, POINTS)).collect();
    let points = || curves.iter().flatten().filter(|point| point.1.is_finite());
    let steps = (
        points().map(|point| point.0).fold(f64::INFINITY, f64::min),
        points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max),
    );
    if steps.0 > steps.1 {
        return "<p class=\"empty\">no finite value</p>".to_owned();
    }
    let mut low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let mut high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    match range {
        Range::Free => {}
        Range::FromZero => (low, high) = (low.min(0.0), high.max(0.0)),
        Range::Share => (low, high) = (0.0, 1.0),
    }
    if high - low < 1e-12 * high.abs().max(1e-3) {
        let room = high.abs().max(1.0) * 0.5;
        (low, high) = (low - room, high + room);
    }
    let ticks = ticks(low, high, 4);
    if !matches!(range, Range::Share) {
        // The axis ends at ticks, so that a curve never touches the frame by chance.
        low = low.min(ticks[0]);
        high = high.max(ticks[ticks.len() - 1]);
    }
    let span = (steps.1 - steps.0).max(1.0);
    let x = |step: f64| LEFT + (step - steps.0) / span * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by step\">",
        escape(title)
    );
    for tick in &ticks {
        let (at, zero) = (y(*tick), if *tick == 0.0 { " zero" } else { "" });
        let _ = write!(
            svg,
            "<line class=\"grid{zero}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 3.5,
            label(*tick, &ticks)
        );
    }
    for tick in step_ticks(steps.0, steps.1) {
        let anchor = if x(tick) > WIDTH - RIGHT - 20.0 { " end" } else { "" };
        let _ = write!(
            svg,
            "<text class=\"x{anchor}\" x=\"{:.1}\" y=\"{}\">{}</text>",
            x(tick),
            HEIGHT - 8.0,
            crate::words::count(tick as usize)
        );
    }
    for (line, points) in lines.iter().zip(&curves) {
        let place = |(step, value): (f64, f64)| (x(step), y(value));
        if line.kind == Kind::Sparse {
            let _ = write!(
                svg,
                "<g class=\"{} sparse\"><path d=\"{}\"/>",
                line.class,
                path(points, place)
            );
            for point in points.iter().filter(|point| point.1.is_finite()) {
                let (px, py) = place(*point);
                let _ = write!(
                    svg,
                    "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.2\"><title>step {}: {}</title></circle>",
                    point.0,
                    number(point.1)
                );
            }
            svg += "</g>";
            continue;
        }
        let _ = write!(svg, "<g class=\"{}\">", line.class);
        let noisy = line.kind == Kind::Noisy && points.len() > 60;
        if noisy {
            let _ = write!(svg, "<path class=\"raw\" d=\"{}\"/>", path(points, place));
        }
        let _ = write!(
            svg,
            "<path d=\"{}\"/>",
            path(&if noisy { smooth(points) } else { points.clone() }, place)
        );
        if let [only] = points.as_slice() {
            let (px, py) = place(*only);
            let _ = write!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.2\"/>");
        }
        svg += "</g>";
    }
    svg += "</svg>";
    svg
}

/// A path through the finite points, broken where one is missing.
fn path(points: &[(f64, f64)], place: impl Fn((f64, f64)) -> (f64, f64)) -> String {
    let mut path = String::new();
    let mut down = false;
    for point in points {
        if !point.1.is_finite() {
            down = false;
            continue;
        }
        let (x, y) = place(*point);
        let _ = write!(path, "{}{x:.1} {y:.1}", if down { "L" } else { "M" });
        down = true;
    }
    path
}

/// Round numbers that span `low` to `high`, about `count` steps apart.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let step = round_step((high - low) / count as f64);
    let first = (low / step).floor() as i64;
    let last = (high / step - 1e-9).ceil() as i64;
    (first..=last.max(first + 1)).map(|i| i as f64 * step).collect()
}

/// Whole steps within `low` to `high`.
fn step_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = round_step((high - low) / 6.0).max(1.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-300).log10().floor());
    let factor =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A tick with as many digits as tell it from its neighbours.
fn label(tick: f64, ticks: &[f64]) -> String {
    let step = ticks.get(1).map_or(1.0, |second| second - ticks[0]);
    let largest = ticks.iter().fold(0f64, |most, tick| most.max(tick.abs()));
    if tick == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&largest) {
        let digits = (largest.log10().floor() - step.log10().floor()).clamp(0.0, 6.0) as usize;
        return format!("{tick:.digits$e}");
    }
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{tick:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_values() {
        let shown = |low, high| {
            let ticks = ticks(low, high, 4);
            ticks.iter().map(|tick| label(*tick, &ticks)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(0.13, 0.52), "0.1 0.2 0.3 0.4 0.5 0.6");
        assert_eq!(shown(-2.0, 7.3), "-5 0 5 10");
        assert_eq!(shown(0.0, 5e-5), "0 2e-5 4e-5 6e-5");
        assert_eq!(shown(-40.0, -20.0), "-40 -35 -30 -25 -20");
        assert_eq!(step_ticks(1.0, 4.0), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let points = [(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 3.0)];
        assert_eq!(path(&points, |point| point), "M1.0 1.0M3.0 2.0L4.0 3.0");
    }
}
