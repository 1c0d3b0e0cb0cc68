//! What the front door does when too many come, on pipes in memory under a paused clock: who is served, who makes room, and how soon.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dialogues::{Caller, Shelf, door, front, limits};
use super::options::Limits;
use super::pressure::Level;
use super::{Door, Front};

/// Trusted, as all of loopback.
const FRIEND: [u8; 4] = [127, 0, 0, 1];
/// Longer than room is ever waited for where somebody can go.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A front door with sessions, as the listeners make them.
struct Besieged {
    door: Arc<Door>,
    front: Arc<Front<Shelf>>,
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Besieged {
    fn new(connections: usize, per_client: usize) -> Besieged {
        let limits = Limits { connections, connections_per_client: per_client, ..limits() };
        let front = Arc::new(front(Shelf::new(), &limits));
        Besieged { door: Arc::default(), front, sessions: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Connects by a pipe of `width` octets; resolves when the session has its place.
    async fn connect(&self, client: impl Into<IpAddr>, width: usize) -> DuplexStream {
        let (here, there) = duplex(width);
        let client = client.into();
        let place = self.front.enter(client).await.expect("a place");
        let (front, door, stop) = (self.front.clone(), self.door.clone(), self.stop.clone());
        self.sessions.spawn(async move { front.serve(&door, there, client, place, &stop).await });
        here
    }

    /// Strangers of different addresses, each greeted.
    async fn strangers(&self, count: u8) -> Vec<Caller> {
        let mut strangers = Vec::new();
        for n in 0..count {
            let mut stranger = Caller::new(self.connect([192, 0, 2, n], 4096).await);
            assert!(stranger.line().await.unwrap().starts_with("220 "));
            strangers.push(stranger);
        }
        strangers
    }

    /// A friend's new connection; what became of its message.
    async fn message(&self) -> String {
        let mut friend = Caller::new(self.connect(FRIEND, 65_536).await);
        friend.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@d.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n").await;
        let mut heard = Vec::new();
        while let Some(line) = friend.line().await {
            heard.push(line);
        }
        heard.get(5).cloned().unwrap_or_else(|| heard.join(" / "))
    }

    async fn is_served_at_once(&self) {
        let said = timeout(AT_ONCE, self.message()).await.expect("a friend waits");
        assert!(said.starts_with("250 2.0.0 queued as "), "{said}");
    }

    /// A friend in the middle of a message.
    async fn sender(&self) -> DuplexStream {
        let mut sender = self.connect(FRIEND, 4096).await;
        sender.write_all(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@d.example>\r\nDATA\r\n").await.unwrap();
        until(&mut sender, "354 ").await;
        sender
    }
}

/// Hears until `text` has come; gives all of it.
async fn until(stream: &mut DuplexStream, text: &str) -> String {
    until_one_of(stream, [text]).await
}

async fn until_one_of<const N: usize>(stream: &mut DuplexStream, texts: [&str; N]) -> String {
    let mut heard = String::new();
    let mut chunk = [0; 512];
    while !texts.iter().any(|text| heard.contains(text)) {
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "closed before {texts:?}: {heard}");
        heard.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn strangers_on_all_places_keep_no_friend_waiting() {
    let door = Besieged::new(20, 20);
    let mut strangers = door.strangers(20).await;
    // Commands that are never whole, transactions that lead to nothing, octets that belong to nobody.
    for (n, stranger) in strangers.iter_mut().enumerate() {
        let start: &[u8] = match n % 4 {
            0 => b"NOO",
            1 => b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
            2 => b"BDAT 19000\r\nx",
            _ => b"HELO x\r\nMAIL FROM:<>\r\n",
        };
        stranger.send(start).await;
    }
    for _ in 0..40 {
        door.is_served_at_once().await;
    }
    assert_eq!(door.front.gate().panics(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_herd_of_clients_we_know_is_served_to_the_last_one() {
    let door = Arc::new(Besieged::new(10, 10));
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let door = door.clone();
        herd.spawn(async move { door.message().await });
    }
    let said = herd.join_all().await;
    assert!(said.iter().all(|said| said.starts_with("250 2.0.0 queued as ")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn who_makes_room_right_after_its_message_still_hears_that_it_was_taken() {
    let door = Besieged::new(1, 1);
    let mut sender = door.sender().await;
    // One message after the other, until it had its turn: then it goes the moment one is taken.
    let sends = async {
        for ended in 1.. {
            tokio::time::sleep(Duration::from_secs(8)).await;
            sender.write_all(b"x\r\n.\r\n").await.unwrap();
            let heard = until(&mut sender, "queued as ").await;
            assert!(heard.starts_with("250 2.0.0 queued as "), "{heard}");
            let begins = b"MAIL FROM:<>\r\nRCPT TO:<b@d.example>\r\nDATA\r\n";
            let heard = match sender.write_all(begins).await {
                Ok(()) => until_one_of(&mut sender, ["354 ", "421 4.3.2 "]).await,
                Err(_) => String::new(),
            };
            if !heard.contains("354 ") {
                return ended;
            }
        }
        0
    };
    let (said, ended) = tokio::join!(door.message(), sends);
    assert!(said.starts_with("250 2.0.0 queued as "), "{said}");
    assert_eq!(ended, 8, "a minute of messages");
}

#[tokio::test(start_paused = true)]
async fn clients_that_never_read_are_gone_the_moment_their_place_is_needed() {
    let door = Besieged::new(10, 10);
    let mut deaf = Vec::new();
    for n in 0..10 {
        let mut stream = door.connect([192, 0, 2, n], 64).await;
        let commands = b"EHLO x\r\n".repeat(50);
        // As much as goes in without anybody reading the answers.
        let _stuck = timeout(AT_ONCE, stream.write_all(&commands)).await;
        deaf.push(stream);
    }
    for _ in 0..20 {
        door.is_served_at_once().await;
    }
    // No last word is put into the middle of a reply.
    let mut rest = String::new();
    deaf[0].read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("220 ") && !rest.contains("421 "), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_sent_away_gives_its_place_before_it_has_read_why() {
    let door = Besieged::new(1, 1);
    let mut stranger = door.connect([192, 0, 2, 1], 65_536).await;
    stranger.write_all(&b"WRONG\r\n".repeat(300)).await.unwrap();
    // It is being waited for to close.
    until(&mut stranger, "421 4.7.0").await;
    assert_eq!(door.front.gate().open(), 1);
    door.is_served_at_once().await;
}

#[tokio::test(start_paused = true)]
async fn handshakes_that_never_end_make_room_and_have_an_end_of_their_own() {
    let mut relay = Besieged::new(10, 10);
    relay.door = Arc::new(door("tls=implicit"));
    let mut silent = Vec::new();
    for n in 0..10 {
        silent.push(relay.connect([192, 0, 2, n], 4096).await);
    }
    let connecting = relay.connect(FRIEND, 4096);
    drop(timeout(AT_ONCE, connecting).await.expect("nobody we know waits for a stranger's handshake"));
    let connecting = relay.connect([198, 51, 100, 7], 4096);
    silent.push(timeout(Duration::from_secs(2), connecting).await.expect("nor does one of another network"));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(relay.front.gate().open(), 0, "ten seconds for a handshake while places are short");
    let _silent_friend = relay.connect(FRIEND, 4096).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(relay.front.gate().open(), 0, "a minute otherwise");
}

#[tokio::test(start_paused = true)]
async fn messages_that_trickle_on_all_places_end_within_half_a_minute_of_need() {
    let door = Besieged::new(20, 20);
    let mut senders = Vec::new();
    for _ in 0..20 {
        senders.push(door.sender().await);
    }
    let begun = door.front.clock.now();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            for sender in &mut senders {
                let _gone = sender.write_all(b"x\r\n").await;
            }
        }
    };
    tokio::select! {
        biased;
        () = trickle => {}
        said = door.message() => assert!(said.starts_with("250 2.0.0 queued"), "{said}"),
    }
    let waited = door.front.clock.now().since(begun);
    assert!(waited <= Duration::from_secs(32), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_went_silent_in_calm_hears_of_the_pressure() {
    let door = Besieged::new(20, 20);
    let mut silent = door.sender().await;
    let mut slow_to_ask = door.connect(FRIEND, 4096).await;
    slow_to_ask.write_all(b"HELO x\r\nMAIL FROM:<>\r\n").await.unwrap();
    until(&mut slow_to_ask, "250 2.1.0 ").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut senders = Vec::new();
    for _ in 0..17 {
        senders.push(door.sender().await);
    }
    let begun = door.front.clock.now();
    assert_eq!(door.front.gate().level(), Level::Full);
    until(&mut silent, "421 4.4.2").await;
    until(&mut slow_to_ask, "421 4.4.2").await;
    assert_eq!(door.front.clock.now().since(begun), Duration::ZERO, "both had their ten seconds long ago");
}

#[tokio::test(start_paused = true)]
async fn many_strangers_make_strangers_hurry_and_friends_not() {
    let door = Besieged::new(40, 40);
    let mut friend = Caller::new(door.connect(FRIEND, 4096).await);
    friend.line().await.unwrap();
    let mut strangers = door.strangers(39).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    strangers[0].send(b"NOOP\r\n").await;
    assert!(strangers[0].line().await.unwrap().starts_with("250 "));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let last_word = strangers[1].line().await.unwrap();
    assert!(last_word.starts_with("421 4.4.2 "), "{last_word}");
    // With them gone there is patience again, and the friend never noticed.
    assert_eq!(door.front.gate().level(), Level::Calm);
    tokio::time::sleep(Duration::from_secs(200)).await;
    friend.send(b"NOOP\r\n").await;
    assert!(friend.line().await.unwrap().starts_with("250 "));
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_stranger_may_err_a_few_times_only() {
    let door = Besieged::new(20, 20);
    let mut strangers = door.strangers(20).await;
    strangers[0].send(&b"WRONG\r\n".repeat(6)).await;
    for _ in 0..5 {
        assert!(strangers[0].line().await.unwrap().starts_with("500 "));
    }
    assert!(strangers[0].line().await.unwrap().starts_with("421 4.7.0 "));
}

#[tokio::test(start_paused = true)]
async fn one_address_with_many_connections_pushes_out_nobody_but_itself() {
    let door = Besieged::new(20, 5);
    let mut others = door.strangers(10).await;
    // Five are greeted, and five more wait for one of them to end; what comes then has to push somebody out.
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(door.connect([198, 51, 100, 1], 256).await);
        tokio::task::yield_now().await;
    }
    for other in &mut others {
        other.send(b"NOOP\r\n").await;
        assert!(other.line().await.unwrap().starts_with("250 "));
    }
    until(&mut flood[4], "220 ").await;
}

#[tokio::test(start_paused = true)]
async fn recipients_of_all_sessions_have_one_limit_and_modest_mail_still_passes() {
    let door = Besieged::new(10, 10);
    let mut others = door.front.recipients.hold();
    assert!(others.resize(32 << 20));
    let mut sender = Caller::new(door.connect(FRIEND, 1 << 20).await);
    sender.send(b"HELO x\r\nMAIL FROM:<>\r\n").await;
    sender.send(&b"RCPT TO:<somebody@customer.example>\r\n".repeat(100)).await;
    let mut heard = Vec::new();
    for _ in 0..103 {
        heard.push(sender.line().await.unwrap());
    }
    let taken = heard.iter().filter(|line| line.starts_with("250 2.1.5")).count();
    let put_off = heard.iter().filter(|line| line.starts_with("452 4.3.1 no room for more recipients")).count();
    assert!(taken > 10 && taken + put_off == 100, "{taken} taken, {put_off} put off");
    door.is_served_at_once().await;
    // What was taken is sent, and then there is room again.
    drop(others);
    sender.send(b"DATA\r\nx\r\n.\r\nMAIL FROM:<>\r\n").await;
    sender.send(&b"RCPT TO:<somebody@customer.example>\r\n".repeat(100)).await;
    for expected in ["354 ", "250 2.0.0 queued", "250 2.1.0"].into_iter().chain(["250 2.1.5"; 100]) {
        let line = sender.line().await.unwrap();
        assert!(line.starts_with(expected), "{expected}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_clients_that_never_read() {
    let door = Besieged::new(10, 10);
    let mut deaf = door.connect(FRIEND, 64).await;
    let _stuck = timeout(AT_ONCE, deaf.write_all(&b"EHLO x\r\n".repeat(50))).await;
    let begun = door.front.clock.now();
    door.stop.cancel();
    door.sessions.close();
    door.sessions.wait().await;
    assert!(door.front.clock.now().since(begun) <= Duration::from_secs(1));
}
