//! Real mail servers: Postfix and Exim, each in a folder of its own, as clients with weir as smarthost, or as servers that take what the
//! relay would take ([`server`](super::server) says how they are set then).
//!
//! They need root (Postfix starts its parts under other users) and their packages. Exim conflicts with Postfix as a
//! package, so it may lie unpacked in a folder: `$WEIR_TEST_EXIM` names the program, else `target/ci/exim` is looked at.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::relay::program;
use super::server::{self, Door};
use super::until;

pub struct Mta {
    kind: Kind,
    folder: TempDir,
    program: PathBuf,
    master: Option<Child>,
    /// Where it takes mail, if it does.
    door: Option<Door>,
    /// It asks this name server, at port 53, in the place of the host's.
    names: Option<IpAddr>,
}

/// Puts a file in the place of the host's resolv.conf for one program alone.
const WITH_NAMES: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// What a server is started for.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// Sends everything to this smarthost.
    Client(SocketAddr),
    /// The same inside TLS, with a name and a password.
    User(SocketAddr, &'static str, &'static str),
    Server,
    /// Set by these lines.
    Recipe(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postfix,
    Exim,
}

impl Mta {
    /// Starts a server that sends everything to `smarthost`; none, with the reason printed, where it cannot run. With
    /// `WEIR_TEST_MTAS=required` that is a failure, so that nobody believes what was never tried.
    pub fn start(kind: Kind, smarthost: SocketAddr) -> Option<Mta> {
        Mta::prepare(kind, Role::Client(smarthost))
    }

    /// Starts a server that sends everything to `smarthost` inside TLS and logs in there; none as with `start`.
    pub fn start_as_user(kind: Kind, smarthost: SocketAddr, user: &'static str, password: &'static str) -> Option<Mta> {
        Mta::prepare(kind, Role::User(smarthost, user, password))
    }

    /// Starts a server that takes mail from this host for everybody, and delivers none of it; none as with `start`.
    pub fn serve(kind: Kind) -> Option<Mta> {
        Mta::prepare(kind, Role::Server)
    }

    /// Starts a server set by `recipe`, lines as `weir doctor --mta` prints them: `# FILE` stands before those of each file; commands
    /// at the end are left out. None as with `start`.
    pub fn start_by(kind: Kind, recipe: &str) -> Option<Mta> {
        Mta::prepare(kind, Role::Recipe(recipe))
    }

    /// Where it takes mail.
    pub fn address(&self) -> SocketAddr {
        self.door.as_ref().expect("it was started as a server").address()
    }

    fn prepare(kind: Kind, role: Role<'_>) -> Option<Mta> {
        let is_required = std::env::var("WEIR_TEST_MTAS").is_ok_and(|v| v == "required");
        let skipped = |why: &str| {
            assert!(!is_required, "{kind:?} {why}");
            eprintln!("skipped: {kind:?} {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("needs root to start");
        }
        let found = match kind {
            Kind::Postfix => program("postqueue").and_then(|_| daemon_folder()).map(|f| f.join("master")),
            Kind::Exim => exim(),
        };
        let Some(program) = found.filter(|p| p.is_file()) else {
            return skipped("is not installed; .ci/run installs it");
        };
        let folder = tempfile::Builder::new().prefix("weir-mta-").tempdir().expect("a folder for a mail server");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
            .expect("open the folder to its users");
        let program = if kind == Kind::Exim { within_reach(program, folder.path()) } else { program };
        let mut mta = Mta { kind, folder, program, master: None, door: None, names: None };
        let ready = match kind {
            Kind::Postfix => mta.start_postfix(role),
            Kind::Exim => mta.configure_exim(role),
        };
        if let Err(why) = ready {
            return skipped(&why);
        }
        Some(mta)
    }

    /// Exim asks this name server from now on; whoever is handed mail there looks up what it needs while it takes it.
    pub fn asks(mut self, server: IpAddr) -> Mta {
        std::fs::write(self.path("resolv.conf"), format!("nameserver {server}\n")).expect("write resolv.conf");
        self.names = Some(server);
        self
    }

    /// Hands a message to the server as a local program does, by its `sendmail`.
    #[track_caller]
    pub fn send(&self, sender: &str, recipients: &[&str], content: &str) {
        let mut command = match self.kind {
            Kind::Postfix => {
                let mut command = Command::new(program("sendmail").expect("Postfix has a sendmail"));
                command.env("MAIL_CONFIG", self.path("etc"));
                command
            }
            Kind::Exim => {
                let mut command = match self.names {
                    None => Command::new(&self.program),
                    Some(_) => {
                        let mut command = Command::new("unshare");
                        command
                            .args(["--mount", "sh", "-c", WITH_NAMES])
                            .arg(self.path("resolv.conf"))
                            .arg(&self.program);
                        command
                    }
                };
                command.arg("-C").arg(self.path("conf")).arg("-odi");
                command
            }
        };
        let mut child = command
            .args(["-i", "-f", sender])
            .args(recipients)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sendmail");
        child.stdin.take().expect("a pipe to sendmail").write_all(content.as_bytes()).expect("hand over a message");
        let status = until("sendmail to take the message", || child.try_wait().expect("ask for the end of sendmail"));
        assert!(status.success(), "{:?} did not take the message: {status}\n{}", self.kind, self.log());
    }

    pub fn log(&self) -> String {
        let name = if self.kind == Kind::Postfix { "log" } else { "log/main" };
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, name: &str, owner: Option<(u32, u32)>, mode: u32) -> Result<(), String> {
        let path = self.path(name);
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .and_then(|()| owner.map_or(Ok(()), |(user, group)| chown(&path, Some(user), Some(group))));
        made.map_err(|e| format!("cannot make {}: {e}", path.display()))
    }

    /// The master alone, in the foreground: `postfix start` wants the layout of an installed instance.
    fn start_postfix(&mut self, role: Role<'_>) -> Result<(), String> {
        let user = entry("/etc/passwd", "postfix").ok_or("has no user `postfix`")?;
        let postdrop = entry("/etc/group", "postdrop").ok_or("has no group `postdrop`")?;
        self.make("etc", None, 0o755)?;
        self.make("data", Some((user, 0)), 0o700)?;
        self.make("queue", None, 0o755)?;
        for name in "active bounce corrupt defer deferred flush hold incoming private saved trace".split(' ') {
            self.make(&format!("queue/{name}"), Some((user, 0)), 0o700)?;
        }
        self.make("queue/maildrop", Some((user, postdrop)), 0o1730)?;
        self.make("queue/public", Some((user, postdrop)), 0o710)?;
        self.make("queue/pid", None, 0o755)?;

        let root = self.folder.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
             mail_owner = postfix\nmyhostname = client.sender.test\nmyorigin = sender.test\nmydestination =\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             maillog_file = {root}/log\nmaillog_file_prefixes = {root}\nalias_maps =\n{}",
            match role {
                Role::Client(smarthost) => format!("relayhost = [{}]:{}\n", smarthost.ip(), smarthost.port()),
                Role::User(smarthost, ..) => format!(
                    "relayhost = [{}]:{}\nsmtp_sasl_auth_enable = yes\n\
                     smtp_sasl_password_maps = texthash:{root}/etc/passwords\nsmtp_sasl_security_options = noanonymous\n\
                     smtp_sasl_mechanism_filter = plain\nsmtp_tls_security_level = encrypt\n",
                    smarthost.ip(),
                    smarthost.port()
                ),
                Role::Server => server::POSTFIX_MAIN.to_string(),
                Role::Recipe(recipe) => self.files_of(recipe).remove("main.cf").unwrap_or_default(),
            }
        );
        let mut master = String::new();
        if let Role::Server = role {
            let door = Door::known();
            master += &server::postfix_services(door.address());
            self.door = Some(door);
        }
        for (name, kind, wakeup, limit, command) in POSTFIX_PARTS {
            // What people's commands speak to is public, the rest private.
            let is_public = ["pickup", "cleanup", "qmgr", "showq", "postlog"].contains(name);
            let private = if is_public { "n" } else { "y" };
            master += &format!("{name} {kind} {private} - n {wakeup} {limit} {command}\n");
        }
        let write = |name: &str, text: &str| std::fs::write(self.path(name), text).map_err(|e| format!("{name}: {e}"));
        if let Role::User(smarthost, user, password) = role {
            write("etc/passwords", &format!("[{}]:{} {user}:{password}\n", smarthost.ip(), smarthost.port()))?;
        }
        if let Role::Recipe(recipe) = role {
            for (name, text) in self.files_of(recipe).iter().filter(|(name, _)| *name != "main.cf") {
                write(&format!("etc/{name}"), text)?;
            }
        }
        write("etc/main.cf", &main)?;
        write("etc/master.cf", &master)?;
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.path("etc"))
            .arg("-d")
            // At its end the master signals its whole process group.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("does not start: {e}"))?;
        self.master = Some(child);
        until("Postfix to start", || self.log().contains("daemon started").then_some(()));
        Ok(())
    }

    /// The lines for each file, by its last name; the folder is this server's own.
    fn files_of(&self, recipe: &str) -> BTreeMap<String, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        let mut name = String::new();
        for line in recipe.lines() {
            if let Some(heading) = line.strip_prefix("# ") {
                let path = heading.split([' ', ',']).next().unwrap_or_default();
                name = path.rsplit('/').next().unwrap_or_default().to_string();
            } else if name != "then" {
                let text = files.entry(name.clone()).or_default();
                *text += &line.replace("/etc/postfix", &self.path("etc").display().to_string());
                text.push('\n');
            }
        }
        files
    }

    /// Exim needs no daemon: each message is delivered by the process that takes it, and each connection is served by one.
    fn configure_exim(&mut self, role: Role<'_>) -> Result<(), String> {
        let user = entry("/etc/passwd", "Debian-exim").ok_or("has no user `Debian-exim`")?;
        self.make("spool", Some((user, user)), 0o750)?;
        self.make("log", Some((user, user)), 0o750)?;
        let root = self.folder.path().display();
        let conf = format!(
            "exim_path = {}\nprimary_hostname = client.sender.test\nqualify_domain = sender.test\n\
             spool_directory = {root}/spool\nlog_file_path = {root}/log/%s\n\
             exim_user = Debian-exim\nexim_group = Debian-exim\nkeep_environment = LD_LIBRARY_PATH\n\
             trusted_users = root\ntls_advertise_hosts =\nhost_lookup =\n{}",
            self.program.display(),
            match role {
                Role::Client(smarthost) => exim_smarthost(smarthost, ""),
                Role::User(smarthost, user, password) => {
                    let insists = "  hosts_require_tls = *\n  tls_try_verify_hosts = :\n  tls_verify_hosts = :\n  hosts_require_auth = *\n";
                    let plain = format!(
                        "begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  \
                         client_send = ^{user}^{password}\n"
                    );
                    exim_smarthost(smarthost, insists) + &plain
                }
                Role::Server => server::EXIM.to_string(),
                Role::Recipe(recipe) => format!(
                    "domainlist local_domains =\nbegin routers\n{}begin transports\nremote_smtp:\n  driver = smtp\n  \
                     hosts_try_fastopen =\nbegin retry\n* * F,1h,1s\n",
                    self.files_of(recipe).remove("exim4.conf").unwrap_or_default()
                ),
            }
        );
        std::fs::write(self.path("conf"), conf).map_err(|e| format!("conf: {e}"))?;
        if let Role::Server = role {
            self.door = Some(Door::of_exim(self.program.clone(), self.path("conf")));
        }
        Ok(())
    }
}

/// `transport`: what is set there besides.
fn exim_smarthost(smarthost: SocketAddr, transport: &str) -> String {
    format!(
        "begin routers\n\
         smarthost:\n  driver = manualroute\n  route_list = * {}::{}\n  self = send\n  transport = smtp\n\
         begin transports\nsmtp:\n  driver = smtp\n  hosts_try_fastopen =\n{transport}\
         begin retry\n* * F,1h,1s\n",
        smarthost.ip(),
        smarthost.port()
    )
}

impl Drop for Mta {
    fn drop(&mut self) {
        if let Some(mut master) = self.master.take() {
            if let Some(pid) = i32::try_from(master.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = master.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- log of {:?}\n{}", self.kind, self.log());
        }
    }
}

/// Name, kind, wake-up, process limit, program.
const POSTFIX_PARTS: &[(&str, &str, &str, &str, &str)] = &[
    ("pickup", "unix", "1", "1", "pickup"),
    ("cleanup", "unix", "-", "0", "cleanup"),
    ("qmgr", "unix", "300", "1", "qmgr"),
    ("rewrite", "unix", "-", "-", "trivial-rewrite"),
    ("bounce", "unix", "-", "0", "bounce"),
    ("defer", "unix", "-", "0", "bounce"),
    ("trace", "unix", "-", "0", "bounce"),
    ("showq", "unix", "-", "-", "showq"),
    ("smtp", "unix", "-", "-", "smtp"),
    ("relay", "unix", "-", "-", "smtp"),
    ("error", "unix", "-", "-", "error"),
    ("retry", "unix", "-", "-", "error"),
    ("scache", "unix", "-", "1", "scache"),
    ("tlsmgr", "unix", "1000?", "1", "tlsmgr"),
    ("postlog", "unix-dgram", "-", "1", "postlogd"),
];

fn daemon_folder() -> Option<PathBuf> {
    ["/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix"]
        .map(PathBuf::from)
        .into_iter()
        .find(|f| f.join("master").is_file())
}

fn exim() -> Option<PathBuf> {
    let named = std::env::var_os("WEIR_TEST_EXIM").map(PathBuf::from);
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci/exim/usr/sbin/exim4");
    named.or_else(|| Some(unpacked).filter(|p| p.is_file())).or_else(|| program("exim4"))
}

/// Exim starts itself again as a user who may not enter every folder (a home of mode 0700, say): it gets a name in this one. A link and
/// no copy, for what was written just now cannot always be started.
fn within_reach(program: PathBuf, folder: &Path) -> PathBuf {
    let link = folder.join("exim4");
    if std::fs::hard_link(&program, &link).is_ok() { link } else { program }
}

/// The number of a user or group in `/etc/passwd` or `/etc/group`.
fn entry(file: &str, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}
