//! The honest clients: a steady flow of small messages, some on connections that stay and some on new ones, and how long each
//! took from its first octet (a new connection: from connecting) to its 250.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kit::{Client, mail, now, stays};

const CLIENTS: usize = 4;
/// Between two messages of a client.
const PACE: Duration = Duration::from_millis(25);

pub struct Flow {
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    samples: Arc<Mutex<Vec<(Instant, Duration)>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Flow {
    /// Mail to `recipient`, until `end`.
    pub fn to(relay: SocketAddr, recipient: &'static str) -> Flow {
        let (over, accepted, samples) = (Arc::default(), Arc::default(), Arc::default());
        let mut flow = Flow { over, accepted, samples, clients: Vec::new() };
        for n in 0..CLIENTS {
            let (over, accepted, samples) = (flow.over.clone(), flow.accepted.clone(), flow.samples.clone());
            flow.clients.push(std::thread::spawn(move || {
                let mut held = Client::connect(relay);
                held.hello();
                for m in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let (begun, content) = (now(), mail(&format!("honest-{n}-{m}"), "x"));
                    if m % 2 == 0 {
                        held.submit("app@sender.test", &[recipient], &content);
                    } else {
                        let mut fresh = Client::connect(relay);
                        fresh.hello();
                        fresh.submit("app@sender.test", &[recipient], &content);
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                    samples.lock().unwrap_or_else(PoisonError::into_inner).push((begun, begun.elapsed()));
                    pace();
                }
            }));
        }
        flow
    }

    /// The 99th percentile of messages begun in the next `span`.
    #[track_caller]
    pub fn watch(&self, span: Duration) -> Duration {
        let from = now();
        stays(span, "the honest clients are served", || !self.clients.iter().any(JoinHandle::is_finished));
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<Duration> = samples.iter().filter(|(begun, _)| *begun >= from).map(|(_, t)| *t).collect();
        took.sort_unstable();
        assert!(took.len() >= 10, "{} messages in {span:?}", took.len());
        took[(took.len() * 99).div_ceil(100) - 1]
    }

    /// Ends the flow; how many messages were answered with 250.
    #[track_caller]
    pub fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("an honest client was not served");
        }
        self.accepted.load(Ordering::Relaxed)
    }
}

#[expect(clippy::disallowed_methods, reason = "the pace of the flow is real time: nothing is waited for")]
fn pace() {
    std::thread::sleep(PACE);
}
