//! The relay as the world sees it: the real program, real sockets on loopback, a scripted name server and scripted
//! receivers. Nothing in here knows a line of the relay's code; the names come from its documents.
//!
//! One test program for all of it, so that it is linked once. `WEIR_TEST=long` adds what takes minutes.

mod kit;
mod kit_tests;

mod attacks;
mod bounces;
mod ceiling;
mod container;
mod crash;
mod dashboard;
mod differential;
mod dkim;
mod doctor;
mod door;
mod extensions;
mod failing_disk;
mod feedback;
mod fidelity;
mod full_disk;
mod hand;
mod history;
mod hops;
mod http;
mod injection;
mod jail;
mod lanes;
mod mtas;
mod operators;
mod outcomes;
mod package;
mod preflight;
mod process;
mod receivers;
mod recipes;
mod refusals;
mod requests;
mod routes;
mod security;
mod shortage;
mod start;
mod sts;
mod suppression;
mod tls;
mod trials;
mod webhooks;
