//! The relay's core against random receivers, faults and clocks, in virtual time: what must always hold.
//!
//! The receivers are the simulator's, the world around the core is the drain bench's. The world itself checks at every
//! step that permits in use equal live connections, that nobody is offered a message after its last word, and that the core
//! sleeps when there is nothing to do. A failure names its seed; `WEIR_TEST=long` takes many more of them.

#[allow(dead_code, reason = "the drain bench uses more of it")]
#[path = "../../benches/drain/mod.rs"]
mod drain;

mod ideal;
mod parts;
mod random;
mod real;
mod rehearse;
mod storm;

use drain::world;
