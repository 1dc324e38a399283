//! The room `planner`.
