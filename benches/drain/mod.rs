//! What the drain bench is made of.

pub mod arrival;
pub mod ideal;
pub mod naive;
pub mod random;
pub mod real;
pub mod run;
pub mod scenario;
pub mod score;
pub mod trace;
#[allow(dead_code, reason = "the property tests use more of it")]
pub mod world;
