//! The DNS for somebody who waits in front of a terminal: each question ends soon, and all of them when time is up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::route::Dns;
use crate::route::dns::{Answer, Mx, NoAnswer, Records};

/// Longer than a resolver needs that works, with one packet lost.
const QUESTION: Duration = Duration::from_secs(6);

/// What nobody answers in time counts as unanswered, as everywhere.
pub(super) struct Hurried {
    dns: Arc<dyn Dns>,
    /// From then on nothing is asked any more.
    over: CancellationToken,
}

impl Hurried {
    pub(super) fn new(dns: Arc<dyn Dns>, over: CancellationToken) -> Hurried {
        Hurried { dns, over }
    }

    fn bound<'a, T: 'a>(&'a self, answer: Answer<'a, T>) -> Answer<'a, T>
    where
        Result<Records<T>, NoAnswer>: Send,
    {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.over.cancelled() => Err(NoAnswer::TimedOut),
                found = timeout(QUESTION, answer) => found.unwrap_or(Err(NoAnswer::TimedOut)),
            }
        })
    }
}

impl Dns for Hurried {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx> {
        self.bound(self.dns.mx(name))
    }

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr> {
        self.bound(self.dns.v4(name))
    }

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr> {
        self.bound(self.dns.v6(name))
    }

    fn ptr(&self, address: IpAddr) -> Answer<'_, String> {
        self.bound(self.dns.ptr(address))
    }

    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        self.bound(self.dns.txt(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_soon_and_all_of_them_when_time_is_up() {
        let over = CancellationToken::new();
        let dns = Hurried::new(Arc::new(TableDns::default().gated()), over.clone());
        assert_eq!(dns.txt("weir.dev.").await.unwrap_err(), NoAnswer::TimedOut);
        over.cancel();
        let start = tokio::time::sleep(Duration::from_millis(1));
        tokio::select! {
            biased;
            found = dns.mx("weir.dev.") => assert_eq!(found.unwrap_err(), NoAnswer::TimedOut),
            () = start => panic!("it still waits"),
        }
    }
}
