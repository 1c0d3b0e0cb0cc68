//! The image as people run it: by Podman, as nobody, on a read-only root, without capabilities, its data in a volume.
//!
//! `WEIR_TEST=long` only; it takes the image of `docker/build-here.sh`. Each container shares the host's network, so that it reaches the
//! world of the test on loopback, and is removed at the end, whatever the end is.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::kit::image::{built, run, static_program};
use crate::kit::relay::STRANGER;
use crate::kit::{At, Client, World, mail, say, until};

const IMAGE: &str = "localhost/weir";
const SIZE_MAX: u64 = 20 << 20;
/// The user of the image.
const NOBODY: &str = "10001";

const NEEDS: [&str; 5] = ["podman", "conmon", "runc", "python3", "chroot"];

fn podman(words: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command.args(["--storage-driver", "vfs", "--root"]).arg(built("image/storage"));
    command.arg("--runroot").arg(built("image/run")).args(["--runtime", "runc"]).args(words);
    command
}

/// A name that no other test has.
fn name(what: &str) -> String {
    format!("weir-test-{what}-{}-{}", std::process::id(), fastrand::u32(..))
}

struct Volume(String);

impl Volume {
    fn new() -> Volume {
        let name = name("queue");
        run(&mut podman(&["volume", "create", &name]));
        Volume(name)
    }

    fn at_the_data(&self) -> String {
        format!("{}:/var/lib/weir", self.0)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = podman(&["volume", "rm", "--force", &self.0]).output();
    }
}

struct Container {
    name: String,
    address: SocketAddr,
}

impl Container {
    /// Starts the image with these variables and mounts, and waits until it takes mail.
    #[track_caller]
    fn start(environment: &[(&str, &str)], mounts: &[&str]) -> Container {
        // Free, on an address where nobody else looks for a port.
        let free = TcpListener::bind((STRANGER, 0)).and_then(|listener| listener.local_addr()).expect("a free port");
        let container = Container { name: name("relay"), address: free };
        let mut command = podman(&["run", "--detach", "--name", &container.name, "--network", "host", "--read-only"]);
        command.args(["--cap-drop", "all", "--security-opt", "no-new-privileges"]);
        command.args(["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1000:1000"]);
        for (variable, text) in environment {
            command.arg("--env").arg(format!("{variable}={text}"));
        }
        command.arg("--env").arg(format!("WEIR_LISTENER__0__ADDRESS={free}"));
        for mount in mounts {
            command.args(["--volume", mount]);
        }
        run(command.arg(IMAGE));
        until("the container to take mail", || {
            assert!(container.is_running(), "it ended:\n{}", container.log());
            TcpStream::connect(free).ok()
        });
        container
    }

    fn inspect(&self, what: &str) -> String {
        run(&mut podman(&["inspect", "--format", what, &self.name])).trim().to_string()
    }

    fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    fn log(&self) -> String {
        run(&mut podman(&["logs", &self.name]))
    }

    /// `podman exec … /weir WORDS`.
    fn weir(&self, words: &[&str]) -> Output {
        podman(&["exec", &self.name, "/weir"]).args(words).output().expect("start podman")
    }

    #[track_caller]
    fn wait_log(&self, words: &str) {
        until(words, || self.log().contains(words).then_some(()));
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.hello();
        client
    }

    #[track_caller]
    fn kill(&self) {
        run(&mut podman(&["kill", &self.name]));
        run(&mut podman(&["wait", &self.name]));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = podman(&["logs", &self.name]).output();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            eprintln!("---- log\n{}", log.map(|log| text(&log.stdout) + &text(&log.stderr)).unwrap_or_default());
        }
        let _ = podman(&["rm", "--force", "--volumes", &self.name]).output();
    }
}

fn ends_well(output: &Output) -> bool {
    output.status.success()
}

/// What a relay in this world needs to know beside its listener.
fn settings(world: &World) -> Vec<(&'static str, String)> {
    vec![
        ("WEIR_DNS__SERVERS", world.dns.address().to_string()),
        ("WEIR_DELIVERY__PORT", world.port().to_string()),
        ("WEIR_DELIVERY__NETWORKS", "127.0.0.0/8".to_string()),
        ("WEIR_RELAY__TRUSTED_NETWORKS", "127.0.0.0/8".to_string()),
        ("WEIR_QUEUE__RETRY", "200ms".to_string()),
        ("WEIR_LIMITS__MIN_FREE_DISK", "1 MiB".to_string()),
    ]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, text)| (*name, text.as_str())).chain(more.iter().copied()).collect()
}

#[test]
fn the_image_relays_as_nobody_on_a_read_only_root_and_survives_a_kill() {
    let Some(program) = static_program(&NEEDS, &["image/storage"]) else { return };
    let size: u64 =
        run(&mut podman(&["image", "inspect", "--format", "{{.Size}}", IMAGE])).trim().parse().expect("a size");
    let of_program = fs::metadata(program).expect("the static program").len();
    assert!(size < SIZE_MAX && of_program < SIZE_MAX, "the image has {size} octets, its program {of_program}");

    let (world, mx) = World::with_domain("receiver.test");
    mx.always(At::Mail, say("451 4.3.0 later"));
    let settings = settings(&world);
    let settings = borrowed(&settings, &[("WEIR_HOSTNAME", "relay.test")]);
    let volume = Volume::new();
    let first = Container::start(&settings, &[&volume.at_the_data()]);

    let process = format!("/proc/{}", first.inspect("{{.State.Pid}}"));
    let status = fs::read_to_string(format!("{process}/status")).expect("the relay's status");
    let has = |line: &str| status.lines().any(|own| own.split_whitespace().eq(line.split(' ')));
    assert!(has(&format!("Uid: {NOBODY} {NOBODY} {NOBODY} {NOBODY}")) && has("CapEff: 0000000000000000"), "{status}");
    let mounts = fs::read_to_string(format!("{process}/mountinfo")).expect("the relay's mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "ro")), "{root}");
    assert!(!first.log().contains("WILL BE LOST"), "{}", first.log());

    for words in [&["health"][..], &["health", "--ready"], &["status"], &["queue", "list"], &["check"]] {
        let output = first.weir(words);
        assert!(ends_well(&output), "weir {}: {output:?}", words.join(" "));
    }
    run(&mut podman(&["healthcheck", "run", &first.name]));

    first.client().submit("app@sender.test", &["bob@receiver.test"], &mail("container", "x"));
    first.wait_log("\"event\":\"deferred\"");
    first.kill();
    drop(first);

    mx.always(At::Mail, say("250 2.1.0 ok"));
    let second = Container::start(&settings, &[&volume.at_the_data()]);
    assert_eq!(mx.wait_accepted(1)[0].to(), ["bob@receiver.test"]);
    second.wait_log("\"event\":\"delivered\"");
    run(&mut podman(&["stop", "--time", "30", &second.name]));
    assert_eq!(second.inspect("{{.State.ExitCode}}"), "0", "{}", second.log());
}

#[test]
fn what_is_wrong_in_a_container_is_said_aloud_and_keeps_no_application_from_starting() {
    if static_program(&NEEDS, &["image/storage"]).is_none() {
        return;
    }
    let world = World::new();
    let settings = settings(&world);
    // No volume, and no name that a receiver could believe.
    let relay =
        Container::start(&borrowed(&settings, &[("DKIM_SELECTOR", "mail"), ("POSTFIX_smtp_helo_name", "x")]), &[]);
    let log = relay.log();
    for words in [
        "THE QUEUE WILL BE LOST WITH THIS CONTAINER: /var/lib/weir is a volume without a name",
        "DKIM_SELECTOR: changes nothing: there is no domain with a key",
        "POSTFIX_smtp_helo_name: changes nothing: there is no Postfix here",
    ] {
        assert!(log.contains(words), "{words} is missing in\n{log}");
    }
    assert!(ends_well(&relay.weir(&["health"])));
    let ready = relay.weir(&["health", "--ready"]);
    assert!(!ends_well(&ready) && String::from_utf8_lossy(&ready.stdout).contains("not ready"), "{ready:?}");
    run(&mut podman(&["healthcheck", "run", &relay.name]));
}

/// The variables are those of another image, and the application is the one of `docker/compose.yaml`.
#[test]
fn a_container_of_another_relay_image_is_replaced_by_its_name() {
    if static_program(&NEEDS, &["image/storage"]).is_none() {
        return;
    }
    let (_world, mx) = World::with_domain("receiver.test");
    let folder = tempfile::tempdir().expect("a folder for secrets");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open the folder");
    let (users, password) = (folder.path().join("users"), folder.path().join("password"));
    fs::write(&users, "app:s3cret,other:x1\n").and_then(|()| fs::write(&password, "s3cret\n")).expect("write secrets");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o444)).expect("let nobody read it");
    let next_hop = format!("[{}]:{}", mx.address().ip(), mx.address().port());
    let volume = Volume::new();
    let relay = Container::start(
        &[
            ("ALLOWED_SENDER_DOMAINS", "sender.test example.org"),
            ("POSTFIX_myhostname", "relay.test"),
            ("POSTFIX_mynetworks", "127.0.0.0/8"),
            ("POSTFIX_message_size_limit", "1000000"),
            ("RELAYHOST", &next_hop),
            ("RELAYHOST_USERNAME", ""),
            ("SMTPD_SASL_USERS_FILE", "/run/secrets/users"),
            ("LOG_FORMAT", "json"),
            ("TZ", "Europe/Berlin"),
        ],
        &[&volume.at_the_data(), &format!("{}:/run/secrets/users:ro", users.display())],
    );
    let log = relay.log();
    assert!(log.contains("TZ: changes nothing") && log.lines().any(|line| line.starts_with('{')), "{log}");
    assert!(!log.contains("s3cret"), "{log}");

    let mut client = relay.client();
    client.send("MAIL FROM:<app@elsewhere.test>");
    assert!(client.reply().starts_with("550"));

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = |password: &Path| {
        Command::new("python3")
            .arg(root.join("docker/example-app.py"))
            .env("SMTP_HOST", relay.address.ip().to_string())
            .env("SMTP_PORT", relay.address.port().to_string())
            .env("SMTP_USER", "app")
            .env("SMTP_PASSWORD_FILE", password)
            .env("MAIL_FROM", "app@sender.test")
            .env("MAIL_TO", "bob@receiver.test")
            .output()
            .expect("start python3")
    };
    let sent = app(&password);
    assert!(ends_well(&sent), "{sent:?}");
    assert!(mx.wait_accepted(1)[0].text().contains("It came through weir."));
    assert!(!ends_well(&app(&users)), "with a wrong password");
}

#[test]
fn the_files_for_compose_and_kubernetes_follow_their_schemas() {
    if static_program(&NEEDS, &["ci/python"]).is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = run(Command::new("python3")
        .arg(root.join("tests/suite/container/schemas.py"))
        .args([root.join("docker/compose.yaml"), root.join("docker/kubernetes.yaml")])
        .env("PYTHONPATH", built("ci/python")));
    assert!(said.contains("compose.yaml: well") && said.contains("kubernetes.yaml: 2 objects well"), "{said}");
}
