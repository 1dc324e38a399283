//! The room `objectives`.
