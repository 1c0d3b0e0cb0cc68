//! How Postfix and Exim are set where they serve as a measure for the relay's front door: they take mail of this host for everybody, keep
//! it, offer what weir offers, and have its limits. Everything else is as their makers have set it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Limits that all three servers have in these tests.
pub const MESSAGE_SIZE: usize = 65_536;
pub const RECIPIENTS: usize = 5;

/// No delays and no limits of errors: a dialogue is to come to its end. Bare newlines as Postfix 3.9 has them of itself.
pub const POSTFIX_MAIN: &str = "mynetworks = 127.0.0.0/8\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
    smtpd_recipient_restrictions = permit_mynetworks, reject\nlocal_recipient_maps =\nsmtpd_helo_required = yes\n\
    default_transport = discard\nsmtpd_error_sleep_time = 0\nsmtpd_soft_error_limit = 1000\n\
    smtpd_hard_error_limit = 1000\nsmtpd_junk_command_limit = 1000\nsmtpd_client_connection_count_limit = 0\n\
    message_size_limit = 65536\nsmtpd_recipient_limit = 5\nsmtpd_recipient_overshoot_limit = 1000\n\
    smtpd_discard_ehlo_keywords = chunking, vrfy, etrn\ndisable_vrfy_command = no\n\
    smtpd_forbid_bare_newline = normalize\nsmtpd_forbid_bare_newline_exclusions =\n\
    smtpd_forbid_unauth_pipelining = yes\nsmtpd_peername_lookup = no\n";

pub const EXIM: &str = "queue_only = true\nacl_smtp_rcpt = check\nmessage_size_limit = 65536\n\
    recipients_max = 5\nsmtp_accept_max_nonmail = 1000\nsmtp_max_synprot_errors = 1000\n\
    smtp_max_unknown_commands = 1000\nchunking_advertise_hosts =\nsmtputf8_advertise_hosts = *\n\
    dsn_advertise_hosts = *\nrfc1413_query_timeout = 0s\nsmtp_receive_timeout = 20s\n\
    begin acl\ncheck:\n  accept\n";

pub fn postfix_services(address: SocketAddr) -> String {
    let port = address.port();
    let services = "discard unix - - n - - discard\nproxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n";
    format!("{}:{port} inet n - n - - smtpd\n{services}", address.ip())
}

/// Where a server takes mail.
pub struct Door {
    address: SocketAddr,
    /// Hands connections over; none where the server does so itself.
    porter: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
}

impl Door {
    /// A port that is free, on an address where nobody else looks for one.
    pub fn known() -> Door {
        let free = TcpListener::bind((Ipv4Addr::new(127, 0, 3, 2), 0)).and_then(|l| l.local_addr());
        Door { address: free.expect("a free port"), porter: None }
    }

    /// One Exim for each connection, which it holds as its standard input and output: as inetd does it.
    pub fn of_exim(program: PathBuf, configuration: PathBuf) -> Door {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("the address of a bound socket");
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let porter = std::thread::spawn(move || {
            let mut children: Vec<Child> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                children.push(start_exim(&program, &configuration, stream));
                children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            }
            for child in &mut children {
                let _ = child.wait();
            }
        });
        Door { address, porter: Some((porter, is_over)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn start_exim(program: &PathBuf, configuration: &PathBuf, stream: TcpStream) -> Child {
    let output = stream.try_clone().expect("a second handle of the connection");
    let mut command = Command::new(program);
    command.arg("-C").arg(configuration).arg("-bs").stdin(OwnedFd::from(stream)).stdout(OwnedFd::from(output));
    command.stderr(Stdio::null()).spawn().expect("start Exim")
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some((porter, is_over)) = self.porter.take() {
            is_over.store(true, Ordering::SeqCst);
            // One more connection, so that the porter looks up.
            drop(TcpStream::connect(self.address));
            let _ = porter.join();
        }
    }
}
