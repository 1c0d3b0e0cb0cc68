//! The Debian package in a bare Debian of its own: installed, its unit's command run as its user, updated, removed, purged.
//!
//! `WEIR_TEST=long` only; it takes the static program of `docker/build-here.sh` and the root that `.ci/run` makes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::kit::image::{built, run, static_program};
use crate::kit::{At, PATIENCE, Relay, World, mail, say};

/// A root into which the package is installed.
struct Debian(TempDir);

impl Debian {
    fn unpacked() -> Debian {
        let root = tempfile::Builder::new().prefix("weir-debian-").tempdir().expect("a folder for a root");
        run(Command::new("tar").arg("-C").arg(root.path()).arg("-xf").arg(built("ci/debian.tar")));
        Debian(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// Runs a command in it, as root.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        run(Command::new("chroot")
            .arg(self.0.path())
            .args(["env", "-i", path, "DEBIAN_FRONTEND=noninteractive"])
            .args(words))
    }

    #[track_caller]
    fn install(&self, package: &Path) -> String {
        fs::copy(package, self.at("tmp/weir.deb")).expect("copy the package");
        self.run(&["dpkg", "--force-confold", "--install", "/tmp/weir.deb"])
    }

    /// Owner, group and mode.
    fn rights(&self, path: &str) -> (String, String, u32) {
        let data = fs::metadata(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let name = |file: &str, id: u32| {
            let text = fs::read_to_string(self.at(file)).expect("read the users");
            let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
            line.and_then(|line| line.split(':').next()).unwrap_or("nobody we know").to_string()
        };
        (name("etc/passwd", data.uid()), name("etc/group", data.gid()), data.mode() & 0o777)
    }

    /// A script that runs what the unit runs, as the unit's user, and other commands as root.
    fn program(&self) -> PathBuf {
        let unit = fs::read_to_string(self.at("usr/lib/systemd/system/weir.service")).expect("read the unit");
        let of =
            |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the unit").to_string();
        let script = self.at("start");
        let text = format!(
            "#!/bin/bash\nargs=()\nwhile (($#)); do if [ \"$1\" = --config ]; then shift; else args+=(\"$1\"); fi; shift; done\n\
             if [ \"${{args[0]}}\" = run ]; then exec chroot --userspec={user}:{group} {root} {command}; fi\n\
             exec chroot {root} /usr/bin/weir \"${{args[@]}}\"\n",
            user = of("User="),
            group = of("Group="),
            command = of("ExecStart="),
            root = self.0.path().display(),
        );
        fs::write(&script, text).expect("write a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("make a script run");
        script
    }
}

/// Makes the package with this version.
fn package(program: &Path, version: &str, folder: &Path) -> PathBuf {
    let file = folder.join(format!("weir_{version}.deb"));
    let path = std::env::var("PATH").unwrap_or_default();
    run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb.sh"))
        .args(["--fast", "--deb-version", version, "--output"])
        .arg(&file)
        .env("WEIR_PROGRAM", program)
        .env("PATH", format!("{}:{path}", built("ci/cargo-deb/bin").display())));
    file
}

#[test]
fn the_package_is_installed_run_updated_removed_and_purged() {
    let needs = ["chroot", "dpkg-deb", "systemd-analyze", "tar"];
    let Some(program) = static_program(&needs, &["ci/debian.tar", "ci/cargo-deb/bin/cargo-deb"]) else { return };
    let folder = tempfile::tempdir().expect("a folder for packages");
    let (first, second) = (package(&program, "0.1.0-1", folder.path()), package(&program, "0.1.0-2", folder.path()));

    // Installed, and nothing is started or asked to start.
    let debian = Debian::unpacked();
    let said = debian.install(&first);
    assert!(said.contains("does not run yet"), "{said}");
    assert!(!debian.exists("etc/systemd/system/multi-user.target.wants/weir.service"));
    assert_eq!(debian.rights("etc/weir/weir.toml"), ("root".into(), "weir".into(), 0o640));
    assert_eq!(debian.rights("var/lib/weir"), ("weir".into(), "weir".into(), 0o700));
    assert!(debian.exists("usr/share/man/man1/weir-queue-list.1.gz"));
    assert!(debian.exists("usr/share/bash-completion/completions/weir"));
    assert!(debian.run(&["weir", "check"]).contains("/etc/weir/weir.toml: no fault"));
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
        .arg(debian.0.path())
        .arg("weir.service")
        .output()
        .expect("start systemd-analyze");
    let verified = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(!verified.contains("weir"), "{verified}");

    // What the unit runs, as its user, tells systemd that it is ready, and takes mail.
    let (world, mx) = World::with_domain("receiver.test");
    mx.always(At::Mail, say("451 4.3.0 later"));
    let config = world.config().listen_on_a_known_port();
    fs::write(debian.at("etc/weir/weir.toml"), config.to_toml(Path::new("/var/lib/weir"))).expect("set it up");
    let mut relay = Relay::elsewhere(debian.program(), debian.at("var/lib/weir"));
    let notified = UnixDatagram::bind(debian.at("run/notify")).expect("a socket in the place of systemd's");
    fs::set_permissions(debian.at("run/notify"), fs::Permissions::from_mode(0o777)).expect("open the socket");
    notified.set_read_timeout(Some(PATIENCE)).expect("a limit to waiting");
    relay.environment("NOTIFY_SOCKET", Path::new("/run/notify"));
    relay.run();
    let mut message = [0; 256];
    let length = notified.recv(&mut message).expect("what systemd is told");
    assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));
    let status = fs::read_to_string(format!("/proc/{}/status", relay.pid())).expect("the relay's status");
    let user = fs::metadata(debian.at("var/lib/weir")).expect("the data folder").uid().to_string();
    assert!(
        status
            .lines()
            .any(|line| line.starts_with("Uid:") && line.split_whitespace().all(|id| id == "Uid:" || id == user)),
        "{status}"
    );
    let id = relay.submit("app@sender.test", &["bob@receiver.test"], &mail("package", "x"));
    relay.wait_event("deferred", "bob@receiver.test");
    assert!(relay.stop().success());

    // An update keeps the configuration somebody wrote and the mail that waits.
    let written = fs::read_to_string(debian.at("etc/weir/weir.toml")).expect("the configuration");
    debian.install(&second);
    assert!(debian.run(&["dpkg-query", "--show", "weir"]).contains("0.1.0-2"));
    assert_eq!(fs::read_to_string(debian.at("etc/weir/weir.toml")).expect("the configuration"), written);
    assert_eq!(debian.rights("etc/weir/weir.toml"), ("root".into(), "weir".into(), 0o640));
    mx.always(At::Mail, say("250 2.1.0 ok"));
    relay.run();
    mx.wait_accepted(1);
    assert!(relay.wait_event("delivered", "bob@receiver.test")["id"] == id.as_str());
    assert!(relay.stop().success());

    // Removed, the queue and the configuration stay; purged, nothing does.
    debian.run(&["dpkg", "--remove", "weir"]);
    assert!(
        !debian.exists("usr/bin/weir")
            && debian.exists("var/lib/weir/spool.sqlite")
            && debian.exists("etc/weir/weir.toml")
    );
    debian.run(&["dpkg", "--purge", "weir"]);
    assert!(!debian.exists("var/lib/weir") && !debian.exists("etc/weir"));
    let users = fs::read_to_string(debian.at("etc/passwd")).expect("the users");
    assert!(!users.contains("weir"), "{users}");
}
