//! The program `prospect`.

fn main() {}
