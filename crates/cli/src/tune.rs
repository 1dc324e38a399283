//! `prospect tune`: which algorithm of cuBLASLt computes each product of a recipe fastest on this GPU.

use ::train::error::Result;
use ::train::event::Event;
use ::train::fit::bytes;
use ::train::tune::{self, Tuned};
use clap::Args;
use engine::cuda::gemm::Measured;

use crate::args::{RecipeArguments, at_least_1};
use crate::ending::Done;
use crate::hub;
use crate::terminal::{print, say};
use crate::threads;
use crate::words::{count, plain, things};

#[derive(Args)]
pub(crate) struct Tune {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,

    /// Steps to do: a product is measured when its shape is first met, and steps differ in their rows
    #[arg(long, default_value_t = 4, value_parser = at_least_1)]
    pub(crate) steps: usize,
}

/// Tunes.
pub(crate) fn run(arguments: &Tune) -> Result<Done> {
    let recipe = hub::recipe(&arguments.recipe)?;
    threads::start(&recipe.train)?;
    let tuned = tune::tune(recipe, arguments.steps, &mut |event| match event {
        Event::Note(text) => say(&plain(&text)),
        Event::Planned(fit) => {
            let peak = bytes(fit.simulation.peak_bytes as u64);
            say(&format!("memory: {peak} at its peak, {}", fit.reason));
        }
        _ => {}
    })?;
    table(&tuned).iter().for_each(|line| print(line));
    let written = tuned.written;
    print(&format!(
        "\nruns on this GPU take these choices from now on: {}",
        written.path.display()
    ));
    if let Some(kept) = &written.kept {
        print(&format!(
            "the choices before are kept in {}: a run that began with them is gone on with once they are moved back",
            kept.display()
        ));
    }
    print("a run that began without is gone on with while the table is moved away");
    Ok(Done::Well)
}

/// A line for each product, and their sum.
fn table(tuned: &Tuned) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<27}  {:>7}  {:>15}  {:>10}  {:>10}  {:>7}  {:>7}  a step",
        "product", "rows", "m x k", "us before", "after", "change", "answer"
    )];
    lines.extend(tuned.products.iter().map(|product| line(product, tuned.steps)));
    let (before, after) = tuned.of_a_step();
    lines.push(format!(
        "\nproducts of a step: {:.3} ms before, {:.3} ms after ({})",
        before / 1000.0,
        after / 1000.0,
        change(before, after)
    ));
    lines.push(format!(
        "measured over {}, {} of {} with another answer than the heuristic's first",
        things(tuned.steps, "step"),
        tuned.products.iter().filter(|product| product.candidate > 0).count(),
        things(tuned.products.len(), "product")
    ));
    lines
}

fn line(product: &Measured, steps: usize) -> String {
    let Measured { layout, rows, m, k, wide, add, candidates, candidate, first, chosen, met } =
        product;
    let marks = match (add, wide) {
        (true, true) => ", adds, f32",
        (true, false) => ", adds",
        (false, true) => ", f32",
        (false, false) => "",
    };
    let name = format!("{}{marks}", layout.name());
    let shape = format!("{m} x {k}");
    let often = *met as f64 / steps as f64;
    let rows = count(*rows);
    if *candidates == 0 {
        let own = "Prospect's own kernel";
        return format!("{name:<27}  {rows:>7}  {shape:>15}  {own:<40}  {often:.1}");
    }
    let answer = candidate + 1;
    format!(
        "{name:<27}  {rows:>7}  {shape:>15}  {first:>10.1}  {chosen:>10.1}  {:>7}  {answer:>7}  {often:.1}",
        change(*first, *chosen)
    )
}

/// How much longer or shorter it takes.
fn change(before: f64, after: f64) -> String {
    if before == 0.0 || before == after {
        return "same".to_owned();
    }
    format!("{:+.1} %", 100.0 * (after / before - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::cuda::gemm::{Layout, Written};
    use expect_test::expect;

    #[test]
    fn every_product_has_a_line_and_the_sum_is_that_of_a_step() {
        let product = |layout, add, [candidates, candidate, met]: [usize; 3], chosen| Measured {
            layout,
            rows: 10_240,
            m: 4096,
            k: 11_008,
            wide: add,
            add,
            candidates,
            candidate,
            first: 812.25 * (candidates.min(1) as f64),
            chosen,
            met,
        };
        let written = Written { path: "table.txt".into(), kept: None };
        let products = vec![
            product(Layout::Forward, false, [16, 0, 112], 812.25),
            product(Layout::BackwardInput, false, [14, 3, 112], 790.5),
            product(Layout::BackwardWeight, true, [0, 0, 2], 0.0),
        ];
        let shown = table(&Tuned { steps: 4, products, written }).join("\n");
        expect![[r#"
            product                         rows            m x k   us before       after   change   answer  a step
            forward                       10,240     4096 x 11008       812.2       812.2     same        1  28.0
            backward_input                10,240     4096 x 11008       812.2       790.5   -2.7 %        4  28.0
            backward_weight, adds, f32    10,240     4096 x 11008  Prospect's own kernel                     0.5

            products of a step: 45.486 ms before, 44.877 ms after (-1.3 %)
            measured over 4 steps, 1 of 3 products with another answer than the heuristic's first"#]].assert_eq(&shown);
    }
}
