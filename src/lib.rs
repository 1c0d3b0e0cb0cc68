//! weir: an outbound SMTP relay that delivers to Outlook.com as fast as it lets you, and never faster.
//!
//! The queue knows what, the throttle knows how much and when, outbound knows how, the verdict knows what the answer
//! meant, and one loop decides (`dispatch`). See ARCHITECTURE.md for the rooms and the way of a message.

#![forbid(unsafe_code)]

pub mod admin;
pub mod alert;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dispatch;
pub mod dkim;
pub mod doctor;
pub mod event;
pub mod feedback;
pub mod http;
pub mod inbound;
pub mod limits;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod outbound;
pub mod post;
pub mod preflight;
pub mod queue;
pub mod rehearse;
pub mod report;
pub mod route;
pub mod sandbox;
pub mod server;
pub mod simulate;
pub mod smtp;
pub mod spool;
pub mod sqlite;
pub mod state;
pub mod submit;
pub mod suppress;
pub mod throttle;
pub mod types;
pub mod verdict;
pub mod webhook;
