//! Training: from a recipe to a finished adapter.

pub mod error;

pub mod recipe;
