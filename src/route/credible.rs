//! Which answers of name servers count.
//!
//! hickory compares the question over UDP and takes over TCP whatever bears the right number, and it reads an empty
//! answer as "there is no such record" whoever gave it. Mail is returned on the word of the DNS, so here stands what is no
//! word of it:
//! - an answer that does not repeat the question (RFC 5452 section 9.1), by whatever transport it came;
//! - a "no" of a server that neither has the zone (AA) nor asks others (RA) and shows no SOA: a lame referral (RFC 2308
//!   section 2.2);
//! - a code that nobody has defined.
//!
//! Such an answer counts as none: the next name server is asked, and where there is no other the look-up has failed for the
//! time being.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, DnsResponseStream, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{ConnectionProvider, PoolContext};

/// Makes hickory's connections, and puts the test of answers on each.
#[derive(Clone, Default)]
pub(super) struct Credible(TokioRuntimeProvider);

/// One connection to a name server.
#[derive(Clone)]
pub(super) struct Exchange(DnsExchange<TokioRuntimeProvider>);

type Connecting = Pin<Box<dyn Future<Output = Result<Exchange, NetError>> + Send>>;

impl ConnectionProvider for Credible {
    type Conn = Exchange;
    type FutureConn = Connecting;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.0.new_connection(ip, config, cx)?;
        Ok(Box::pin(async move { connecting.await.map(Exchange) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

impl DnsHandle for Exchange {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        let (exchange, asked) = (self.0.clone(), request.queries.clone());
        DnsResponseStream::from(Box::pin(async move {
            let response: DnsResponse = exchange.send(request).first_answer().await?;
            // The kind of error for which hickory asks the next name server.
            fault(&asked, &response).map_or(Ok(response), |text| Err(NetError::from(io::Error::other(text))))
        }))
    }
}

/// Why the answer does not count.
fn fault(asked: &[Query], answer: &Message) -> Option<&'static str> {
    let code = answer.metadata.response_code;
    if answer.queries != asked {
        return Some("its answer does not repeat the question");
    }
    if matches!(code, ResponseCode::Unknown(_)) {
        return Some("its answer has a code without a meaning");
    }
    let is_no = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
        && answer.answers.is_empty()
        && !answer.metadata.truncation;
    let may_say_no = answer.metadata.authoritative
        || answer.metadata.recursion_available
        || answer.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
    (is_no && !may_say_no).then_some("it neither has the zone nor asks those who have it (a lame referral)")
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::rdata::{A, NS, SOA};
    use hickory_resolver::proto::rr::{Name, RData, Record};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn query(text: &str) -> Query {
        Query::query(name(text), RecordType::A)
    }

    fn answer(set: impl FnOnce(&mut Message)) -> Message {
        let mut answer = Message::response(1, OpCode::Query);
        answer.add_query(query("a.test."));
        set(&mut answer);
        answer
    }

    fn counts(set: impl FnOnce(&mut Message)) -> bool {
        fault(&[query("a.test.")], &answer(set)).is_none()
    }

    #[test]
    fn only_an_answer_that_repeats_the_question_counts() {
        let record = || Record::from_rdata(name("a.test."), 60, RData::A(A([52, 0, 0, 1].into())));
        assert!(counts(|answer| answer.answers.push(record())));
        assert!(!counts(|answer| {
            answer.queries.clear();
            answer.answers.push(record());
        }));
        for other in [query("b.test."), Query::query(name("a.test."), RecordType::MX)] {
            assert!(!counts(|answer| {
                answer.queries = vec![other];
                answer.answers.push(record());
            }));
        }
        assert!(!counts(|answer| answer.queries.push(query("a.test."))));
    }

    #[test]
    fn a_no_counts_only_from_those_who_may_say_it() {
        let ns = || Record::from_rdata(name("test."), 60, RData::NS(NS(name("ns.test."))));
        let soa = SOA::new(name("ns.test."), name("root.test."), 1, 2, 3, 4, 5);
        let soa = || Record::from_rdata(name("test."), 60, RData::SOA(soa.clone()));
        for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
            let no = |set: &dyn Fn(&mut Message)| {
                counts(|answer| {
                    answer.metadata.response_code = code;
                    set(answer);
                })
            };
            assert!(!no(&|_| ()) && !no(&|answer| answer.authorities.push(ns())), "{code}");
            assert!(no(&|answer| answer.metadata.authoritative = true), "{code}");
            assert!(no(&|answer| answer.metadata.recursion_available = true), "{code}");
            assert!(no(&|answer| answer.authorities.push(soa())), "{code}");
        }
        assert!(!counts(|answer| {
            answer.metadata.recursion_available = true;
            answer.metadata.response_code = ResponseCode::Unknown(12);
        }));
        // What else went wrong is told as what it is.
        assert!(counts(|answer| answer.metadata.response_code = ResponseCode::ServFail));
        assert!(counts(|answer| answer.metadata.truncation = true));
    }
}
