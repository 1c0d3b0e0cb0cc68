//! The simulator over real sockets of loopback, in real time but without waiting for it to pass.

use super::*;
use tokio::io::{AsyncBufReadExt, BufReader};

fn hosts(count: u8) -> Vec<MxHost> {
    let host = |n: u8| MxHost { name: format!("mx{n}.test"), address: SocketAddr::from(([127, 0, 0, n], 0)) };
    (1..=count).map(host).collect()
}

fn start(profile: &str, count: u8) -> Simulator {
    Simulator::start(Profile::parse(profile).unwrap(), 1, &hosts(count), Clock::system()).unwrap()
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> Client {
        Client(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    /// The last line of the next reply; empty at the end.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await.unwrap().unwrap();
            if line.get(3..4) != Some("-") {
                return line.trim_end().to_string();
            }
        }
    }

    async fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }
}

#[tokio::test]
async fn a_message_goes_through_and_is_counted() {
    let simulator = start("", 1);
    let mut client = Client::connect(simulator.hosts()[0].address).await;
    assert!(client.reply().await.starts_with("220 mx1.test "));
    assert!(client.say("EHLO a.test").await.starts_with("250 SMTPUTF8"));
    assert!(client.say("MAIL FROM:<a@a.test>").await.starts_with("250"));
    assert!(client.say("RCPT TO:<b@b.test>").await.starts_with("250"));
    assert!(client.say("DATA").await.starts_with("354"));
    assert!(client.say("x\r\n.").await.starts_with("250 2.6.0"));
    assert!(client.say("QUIT").await.starts_with("221"));
    assert_eq!(client.reply().await, "");
    let judgement = simulator.stop().await;
    assert_eq!((judgement.messages_accepted, judgement.connections_open, judgement.connections_peak), (1, 0, 1));
    assert!(judgement.faults().is_empty());
}

#[tokio::test]
async fn who_opens_the_next_connection_after_the_last_has_ended_is_never_one_too_many() {
    let simulator = start("limits = { connections = 1 }", 2);
    for round in 0..60 {
        let mut client = Client::connect(simulator.hosts()[round % 2].address).await;
        assert!(client.reply().await.starts_with("220"), "round {round}");
        if round % 3 == 0 {
            assert!(client.say("QUIT").await.starts_with("221"));
        }
    }
    assert_eq!(simulator.stop().await.ceiling_passed, 0);
}

#[tokio::test]
async fn one_too_many_is_told_so_and_counted() {
    let simulator = start("limits = { connections = 2 }", 2);
    let mut first = Client::connect(simulator.hosts()[0].address).await;
    let mut second = Client::connect(simulator.hosts()[1].address).await;
    first.reply().await;
    second.reply().await;
    let mut third = Client::connect(simulator.hosts()[0].address).await;
    // Also to one who speaks before it is greeted.
    assert!(third.say("EHLO a.test").await.starts_with("421 RP-003"));
    assert_eq!(third.reply().await, "");
    let judgement = simulator.judgement();
    assert_eq!((judgement.connections_peak, judgement.ceiling_passed), (3, 1));
    assert_eq!(judgement.faults(), ["1 connection begun over the ceiling"]);
}

#[tokio::test]
async fn dead_hosts_refuse_or_are_silent() {
    let simulator = start("host = [{ name = 'mx1', state = 'refusing' }, { name = 'mx2.test', state = 'silent' }]", 3);
    let address = |n: usize| simulator.hosts()[n].address;
    assert_eq!(TcpStream::connect(address(0)).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let mut silent = Client::connect(address(1)).await;
    let mut lively = Client::connect(address(2)).await;
    assert!(lively.reply().await.starts_with("220"));
    let mut octet = [0];
    let nothing = timeout(Duration::from_millis(20), silent.0.read(&mut octet)).await;
    assert!(nothing.is_err(), "the host said something: {nothing:?}");
}

#[tokio::test]
async fn five_hundred_connections_stand_at_once() {
    let simulator = start("limits = { connections = 500 }", 4);
    let mut clients = Vec::new();
    for n in 0..500 {
        clients.push(Client::connect(simulator.hosts()[n % 4].address).await);
    }
    for client in &mut clients {
        assert!(client.reply().await.starts_with("220"));
    }
    assert_eq!(simulator.judgement().connections_open, 500);
    drop(clients);
    let judgement = simulator.stop().await;
    assert_eq!((judgement.connections_peak, judgement.connections_open, judgement.ceiling_passed), (500, 0, 0));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let simulator = start("", 1);
    let taken = [MxHost { name: "other.test".into(), address: simulator.hosts()[0].address }];
    let error = Simulator::start(Profile::default(), 1, &taken, Clock::system()).unwrap_err();
    assert!(error.to_string().contains("other.test"), "{error}");
}

#[test]
fn replies_of_several_lines_are_marked_as_such() {
    assert_eq!(lines(&Reply::new(250, "a\nb")), b"250-a\r\n250 b\r\n");
    assert_eq!(lines(&Reply::new(421, "")), b"421 \r\n");
}
