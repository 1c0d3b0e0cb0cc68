//! Privileges: what the relay may do, who it runs as, who may read what it writes, and that its secrets stay where they are.

use std::fs::Permissions;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use rustix::process::Signal;

use super::kit::relay::WEIR;
use super::kit::{At, Relay, World, contains, mail, say, until};

const RELOADED: &str = "configuration reloaded";
const STANDS: &str = "sandbox (Landlock";

/// Does this kernel shut processes in? Where not, there is nothing to be seen.
fn is_shut_in(relay: &Relay) -> bool {
    let log = relay.log();
    assert!(log.contains(STANDS) || log.contains("no sandbox: this kernel"), "{log}");
    log.contains(STANDS)
}

/// Sends SIGHUP and waits for one more line that says `what`.
#[track_caller]
fn reload_says(relay: &Relay, what: &str) {
    let before = relay.log().matches(what).count();
    relay.signal(Signal::HUP);
    until(what, || (relay.log().matches(what).count() > before).then_some(()));
}

/// The settings lead to a file elsewhere that everybody may read: the kernel alone can say no, to root as well.
#[test]
fn in_the_sandbox_nothing_elsewhere_can_be_read_and_the_old_settings_stay() {
    for (mode, refused) in [("auto", true), ("off", false)] {
        let (world, mx) = World::with_domain("receiver.test");
        let config = world.config().set("", "sandbox", &format!("\"{mode}\""));
        let relay = Relay::start(config.clone());
        if refused && !is_shut_in(&relay) {
            return;
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().join("weir.toml");
        std::fs::copy(relay.config_file(), &file).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        std::fs::remove_file(relay.config_file()).unwrap();
        symlink(&file, relay.config_file()).unwrap();
        if refused {
            reload_says(&relay, "for other places restart weir");
            assert!(relay.log().contains("Permission denied"), "{}", relay.log());
        } else {
            reload_says(&relay, RELOADED);
        }
        relay.submit("app@sender.test", &["bob@receiver.test"], &mail("still", "works"));
        mx.wait_accepted(1);
        relay.wait_queue_empty();
    }
}

/// As Kubernetes changes a mounted folder: a link to a new folder takes the place of the old one.
#[test]
fn in_the_sandbox_files_that_take_the_place_of_others_are_read() {
    let (world, mx) = World::with_domain("receiver.test");
    let config = world.config().set("", "sandbox", "\"auto\"");
    let mut relay = Relay::prepare(PathBuf::from(WEIR), config);
    let root = relay.config_file().parent().unwrap().to_path_buf();
    std::fs::create_dir(root.join("..1")).unwrap();
    std::fs::rename(relay.config_file(), root.join("..1/weir.toml")).unwrap();
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/weir.toml", relay.config_file()).unwrap();
    relay.run();
    std::fs::create_dir(root.join("..2")).unwrap();
    std::fs::copy(root.join("..1/weir.toml"), root.join("..2/weir.toml")).unwrap();
    symlink("..2", root.join("..new")).unwrap();
    std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    std::fs::remove_dir_all(root.join("..1")).unwrap();
    reload_says(&relay, RELOADED);

    // And whatever else needs files: databases, contents of their own files, the control socket, the list.
    let large = mail("large", &"0123456789abcdef\n".repeat(40_000));
    relay.submit("app@sender.test", &["bob@receiver.test"], &large);
    mx.wait_accepted(1);
    relay.wait_queue_empty();
    let imported = relay.command_with_input(&["suppress", "import"], b"gone@receiver.test,asked for it\n");
    assert!(imported.status.success(), "{imported:?}");
    assert!(relay.ok(&["suppress", "list"]).contains("gone@receiver.test"));
    assert!(relay.stop().success());
    relay.run();
}

#[test]
fn what_lies_beyond_the_walls_takes_a_restart_and_says_so() {
    let (world, _mx) = World::with_domain("receiver.test");
    let relay = Relay::start(world.config().set("", "sandbox", "\"auto\""));
    if !is_shut_in(&relay) {
        return;
    }
    let changed = world.config().set("alerts", "command", "\"/bin/true\"");
    std::fs::write(relay.config_file(), changed.to_toml(&relay.data_dir())).unwrap();
    reload_says(&relay, "alerts.command: no program can be started in the sandbox as it was built: restart weir");
}

#[test]
fn files_and_the_socket_are_their_owners_alone() {
    let (world, mx) = World::with_domain("receiver.test");
    let relay = Relay::start(world.config());
    mx.always(At::Mail, say("451 4.3.0 later"));
    relay.submit("app@sender.test", &["bob@receiver.test"], &mail("large", &"0123456789abcdef\n".repeat(40_000)));
    relay.wait_events(1, "deferred", |_| true);
    let mut folders = vec![relay.data_dir()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                seen += 1;
                assert_eq!(mode(&entry.path()) & 0o177, 0, "{}", entry.path().display());
            }
        }
    }
    assert!(seen >= 6, "databases, events, lock, socket and a content of its own file: {seen}");
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// In a namespace of its own, whose every file system but the one of the data is read-only, as user `nobody`.
#[test]
fn an_ordinary_user_on_a_read_only_system_relays() {
    let (world, mx) = World::with_domain("receiver.test");
    let config = world.config().set("", "sandbox", "\"auto\"");
    let mut relay = Relay::prepare(PathBuf::from(WEIR), config);
    let Some(program) = as_nobody(&relay) else { return };
    relay.use_program(program);
    relay.run();
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
    assert!(
        status.lines().any(|line| line.split_whitespace().eq(["Uid:", "65534", "65534", "65534", "65534"])),
        "{status}"
    );
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", relay.pid())).unwrap();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{root}");
    assert!(!relay.log().contains("runs as root"), "{}", relay.log());
    relay.submit("app@sender.test", &["bob@receiver.test"], &mail("ordinary", "x"));
    mx.wait_accepted(1);
    assert!(relay.stop().success());
}

/// Secrets with an unmistakable word in them stand wherever one can stand, and everything happens that is logged: nothing shows
/// the word but the files it was put into.
#[test]
fn secrets_of_the_environment_are_taken_out_of_it_and_hold_over_a_reload() {
    let (world, _mx) = World::with_domain("receiver.test");
    let config = world.config();
    let mut relay = Relay::prepare(PathBuf::from(WEIR), config.clone());
    relay.environment("WEIR_USERS", Path::new("app:Xyzzy7Plugh"));
    relay.environment("WEIR_QUEUE__EXPIRE", Path::new("2d"));
    relay.run();
    let logs_in = |relay: &Relay| {
        let mut client = relay.client();
        let credentials = base64::engine::general_purpose::STANDARD.encode("\0app\0Xyzzy7Plugh");
        client.ask(&format!("AUTH PLAIN {credentials}"), "235");
    };
    logs_in(&relay);
    let environment = std::fs::read(format!("/proc/{}/environ", relay.pid())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("WEIR_QUEUE__EXPIRE=2d"), "{environment}");
    assert!(!environment.contains("Xyzzy7Plugh") && !environment.contains("WEIR_USERS="), "{environment}");
    relay.reload(&config);
    logs_in(&relay);
    assert!(!relay.log().contains("names no key"), "{}", relay.log());
    assert!(relay.stop().success());
}

#[test]
fn no_secret_shows_anywhere() {
    const WORD: &str = "Xyzzy7Plugh";
    let (world, mx) = World::with_domain("receiver.test");
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook_address = hook.local_addr().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let hash = hash_of(&format!("{WORD}users"));
    std::fs::write(secrets.path().join("users"), format!("carol:{hash}\n")).unwrap();
    std::fs::write(secrets.path().join("password"), format!("{WORD}file\n")).unwrap();
    let path = |name: &str| format!("\"{}\"", secrets.path().join(name).display());
    let config = world
        .config()
        .set("relay", "users_file", &path("users"))
        .table(&format!("[[relay.user]]\nname = \"alice\"\npassword = \"{WORD}password\""))
        .table(&format!("[[relay.user]]\nname = \"bob\"\npassword_file = {}", path("password")))
        .table(&format!(
            "[[webhook]]\nname = \"app\"\nurl = \"http://u:{WORD}@{hook_address}/{WORD}path?key={WORD}query\"\nsecret = \"{WORD}-{WORD}-{WORD}\""
        ))
        .set("log", "level", "\"trace\"")
        .set("alerts", "webhook", &format!("\"http://{hook_address}/{WORD}path?key={WORD}query\""))
        .set("alerts", "command", "\"/bin/sh -c 'exit 3'\"");
    let mut relay = Relay::start(config.clone());
    let mut said = String::new();

    // Log-ins, right and wrong, in one line and in two, and a password where no command is expected.
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut logged_in = 0;
    for user in ["alice", "bob", "carol", "nobody"] {
        let mut client = relay.client();
        for password in ["password", "file", "users", "wrong"] {
            client.try_send(format!("AUTH PLAIN {}\r\n", base64(&format!("\0{user}\0{WORD}{password}"))).as_bytes());
            match client.try_reply() {
                Some(reply) if reply.starts_with("235") => logged_in += 1,
                Some(_) => continue,
                None => {}
            }
            break;
        }
        let mut client = relay.client();
        client.try_send(format!("AUTH LOGIN {}\r\n{}\r\n", base64(user), base64(&format!("{WORD}x"))).as_bytes());
        let _ = client.try_reply();
    }
    assert_eq!(logged_in, 3, "all users but the one who is none");
    // Deliveries that succeed and fail, and an alert over every way there is.
    relay.submit("app@sender.test", &["bob@receiver.test"], &mail("good", "x"));
    mx.wait_accepted(1);
    mx.always(At::Mail, say("550 5.7.1 blocked: part of their network is on our block list (S3150)"));
    relay.submit("app@sender.test", &["bob@receiver.test"], &mail("bad", "x"));
    relay.wait_event("bounced", "bob@receiver.test");
    reload_says(&relay, RELOADED);
    // Reloads that fail: a slip in the secret itself, and one beside it.
    let user = |keys: &str| config.clone().table(&format!("[[relay.user]]\nname = \"dave\"\n{keys}"));
    for slip in [
        config.clone().set("alerts", "webhook", &format!("\"htps://{WORD}/x\"")),
        user(&format!("password_hash = {WORD}unquoted")),
        config.clone().table(&format!("[[webhook]]\nname = \"b\"\nurl = \"htps://{WORD}/x\"")),
        config.clone().table(&format!("[[webhook]]\nname = \"b\"\nurl = https://{WORD}/x")),
        config.clone().table(&format!("[[webhook]]\nname = \"b\"\nurl = \"https://h/\"\nsecret = \"whsec_{WORD}!\"")),
        user(&format!("password = [\"{WORD}\"]")),
        user(&format!("password_hash = \"$argon2id$v=19$m=1,t=1,p=1${WORD}\"\nclas = \"high\"")),
    ] {
        std::fs::write(relay.config_file(), slip.to_toml(&relay.data_dir())).unwrap();
        reload_says(&relay, "the old one stays");
        said.push_str(&all_of(&relay.command(&["check"])));
    }
    std::fs::write(relay.config_file(), config.to_toml(&relay.data_dir())).unwrap();
    for command in [
        vec!["check", "--print"],
        vec!["status"],
        vec!["status", "--json"],
        vec!["queue", "list", "--json"],
        vec!["suppress", "list", "--json"],
        vec!["health"],
    ] {
        said.push_str(&all_of(&relay.command(&command)));
    }
    assert!(relay.stop().success());

    let digest = hash.rsplit('$').next().unwrap().to_string();
    let forms = [WORD.to_string(), base64(WORD), WORD.to_lowercase(), digest];
    let shows = |text: &str| text.lines().find(|line| forms.iter().any(|form| line.contains(form))).map(str::to_string);
    assert_eq!(shows(&relay.log()), None, "the log at level trace");
    assert_eq!(shows(&said), None, "what the commands print");
    let mut folders = vec![relay.data_dir()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = std::fs::read(&path).unwrap_or_default();
                assert!(forms.iter().all(|form| !contains(&content, form.as_bytes())), "{}", path.display());
            }
        }
    }
    assert!(relay.log().contains("TRACE") && said.len() > 1000, "there was something to be seen");
}

/// As `weir password` makes it.
fn hash_of(password: &str) -> String {
    let mut child = Command::new(WEIR).arg("password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    said.split_whitespace().find(|word| word.starts_with("$argon2id$")).unwrap().to_string()
}

fn all_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A script that starts the program as `nobody`, or none where this user may not do that.
fn as_nobody(relay: &Relay) -> Option<PathBuf> {
    let root = relay.config_file().parent()?.to_path_buf();
    let can = Command::new("unshare").args(["-m", "setpriv", "--reuid", "65534", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: this takes root, unshare and setpriv");
        return None;
    }
    std::fs::create_dir(relay.data_dir()).ok()?;
    for path in [root.clone(), relay.data_dir()] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).ok()?;
    }
    // The program may lie where `nobody` cannot go.
    let copy = root.join("weir");
    std::fs::copy(WEIR, &copy).ok()?;
    let script = root.join("start");
    let text = format!(
        "#!/bin/sh\nset -e\nexec unshare -m /bin/sh -ec '\n\
         mount --bind {data} {data}\nmount -o remount,ro,bind /\n\
         for m in $(cut -d\" \" -f2 /proc/mounts); do [ $m = {data} ] || mount -o remount,ro,bind $m 2>/dev/null || true; done\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all {weir} \"$@\"' weir \"$@\"\n",
        data = relay.data_dir().display(),
        weir = copy.display(),
    );
    std::fs::write(&script, text).ok()?;
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).ok()?;
    Some(script)
}
