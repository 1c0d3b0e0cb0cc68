//! The process runs out of what the system gives it: descriptors, memory. It waits, spends no time on it, loses nothing, and
//! goes on when there is more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::kit::{At, Client, Disk, Relay, World, close, mail, now, skip, stays, try_until, until};

fn pid(relay: &Relay) -> Pid {
    Pid::from_raw(i32::try_from(relay.pid()).expect("a number of a process")).expect("the relay runs")
}

fn allow_descriptors(relay: &Relay, limit: u64) {
    // The relay has the hard limit that we have, and lowered it would stay low.
    let limit = Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(pid(relay)), Resource::Nofile, limit).expect("set the limit of the relay");
}

/// The lowest number that is no descriptor of the relay: with this as its limit it can open nothing.
fn lowest_free_descriptor(relay: &Relay) -> u64 {
    (0..).find(|number| !Path::new(&format!("/proc/{}/fd/{number}", relay.pid())).exists()).unwrap_or(0)
}

/// Processor time it has used, in hundredths of a second.
fn used_time(relay: &Relay) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", relay.pid())).expect("read its times");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name in brackets").1.split(' ').collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number of ticks")).sum()
}

#[test]
fn without_descriptors_clients_and_mail_wait_and_go_on_when_there_are_some() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    // The name is known, so that no look-up is needed; the connection is closed again.
    mx.once(At::End, close("250 2.6.0 taken"));
    relay.submit("app@sender.test", &["first@x.test"], &mail("first", "x"));
    mx.wait_accepted(1);
    let mut client = relay.client();
    relay.wait_queue_empty();
    until("the connection to the receiver is closed", || (mx.open() == 0).then_some(()));
    // What was open for a moment, the control connection, is closed.
    let (mut lowest, mut looks) = (0, 0);
    until("its descriptors rest", || {
        let now = lowest_free_descriptor(&relay);
        looks = if now == lowest { looks + 1 } else { 0 };
        lowest = now;
        (looks > 25).then_some(())
    });
    allow_descriptors(&relay, lowest);

    let mut waiting = Client::open([127, 0, 0, 1].into(), relay.address()).expect("the system takes the connection");
    client.submit("app@sender.test", &["during@x.test"], &mail("during", "x"));
    let before = used_time(&relay);
    let begun = now();
    stays(Duration::from_millis(1500), "mail waits", || mx.accepted_count() == 1);
    let (used, lasted) = (used_time(&relay) - before, begun.elapsed());
    assert!(used < 50, "{used} hundredths of a second of work in {lasted:?} of waiting");
    assert!(relay.events_of("deferred").is_empty(), "a shortage of ours was told as the receiver's");
    assert!(relay.log().matches("taking connections").count() <= 1);

    allow_descriptors(&relay, 4096);
    waiting.expect("220");
    waiting.hello();
    waiting.submit("app@sender.test", &["after@x.test"], &mail("after", &"line\r\n".repeat(40_000)));
    mx.wait_accepted(3);
    relay.assert_settled();
}

/// A control group of its own for the memory of some processes.
struct Group {
    folder: PathBuf,
    /// The file that says how much is in use.
    usage: &'static str,
}

impl Group {
    /// With this limit; none where no group can be made.
    fn new(limit_bytes: u64) -> Option<Group> {
        let name = format!("weir-test-{}", std::process::id());
        let (v2, v1) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/memory"));
        let controls = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
        let (top, limit, usage) = match controls.contains("memory") {
            true => (v2, "memory.max", "memory.current"),
            false => (v1, "memory.limit_in_bytes", "memory.usage_in_bytes"),
        };
        let group = Group { folder: top.join(name), usage };
        let made = fs::create_dir(&group.folder);
        match made.and_then(|()| fs::write(group.folder.join(limit), limit_bytes.to_string())) {
            Ok(()) => Some(group),
            Err(error) => {
                skip(&format!("no control group with a limit of memory can be made in {}: {error}", top.display()));
                None
            }
        }
    }

    fn take_in(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("move a process into the group");
    }

    fn used_mib(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.usage)).expect("read what the group uses");
        text.trim().parse::<u64>().expect("a number of bytes") >> 20
    }

    /// Has a process of the group write a file; on a disk in memory that is memory of the group.
    fn write(&self, file: &Path, mib: u64) {
        let script = format!("echo $$ > {}/cgroup.procs && exec head -c {mib}M /dev/zero", self.folder.display());
        let file = fs::File::create(file).expect("make a file");
        let status = Command::new("sh").args(["-c", &script]).stdout(file).status().expect("run a shell");
        assert!(status.success(), "the group is full already");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may be on its way out.
        let _ = try_until(Duration::from_secs(5), || fs::remove_dir(&self.folder).ok());
    }
}

#[test]
fn near_the_limit_of_its_control_group_mail_is_refused_at_mail_until_there_is_memory_again() {
    const LIMIT_MIB: u64 = 160;
    let Some(disk) = Disk::mount(LIMIT_MIB, 10_000) else { return };
    let Some(group) = Group::new(LIMIT_MIB << 20) else { return };
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    group.take_in(relay.pid());
    let mut client = relay.client();
    client.submit("app@sender.test", &["before@x.test"], &mail("before", "x"));
    mx.wait_accepted(1);

    // The last part step by step, and each step is seen within a second: the limit itself must not be met.
    let fill = |name: usize, mib| group.write(&disk.path().join(format!("fill-{name}")), mib);
    fill(0, LIMIT_MIB * 4 / 5 - group.used_mib());
    let (mut files, mut refusal) = (1, None);
    while refusal.is_none() {
        assert!(group.used_mib() < LIMIT_MIB * 19 / 20, "the group is nearly full, and mail is still taken");
        fill(files, 5);
        files += 1;
        refusal = try_until(Duration::from_millis(1300), || {
            Some(relay.reply_to_mail("")).filter(|reply| reply.starts_with("452"))
        });
    }
    let refusal = refusal.unwrap_or_default();
    assert!(refusal.contains("memory is short") && refusal.contains(&format!("{LIMIT_MIB} MiB")), "{refusal}");
    assert!(relay.ok(&["status"]).contains("memory is short"));
    assert!(relay.has_ended().is_none());

    for n in 0..files {
        fs::remove_file(disk.path().join(format!("fill-{n}"))).expect("remove what filled it");
    }
    relay.until_mail_is("250", "");
    client.submit("app@sender.test", &["after@x.test"], &mail("after", "x"));
    mx.wait_accepted(2);
    relay.assert_settled();
    relay.kill();
}
