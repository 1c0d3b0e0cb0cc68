//! `sandbox`: shuts the process into its own folders, where the kernel can do that (Landlock, landlock(7)).
//!
//! Whoever takes over the relay shall find no more than the relay needs. Rules that always hold:
//!
//! - it writes below the folders of [`Needs::writes`] alone, and reads there, in the folders of the files it was given and in
//!   [`SYSTEM`], but nothing else; it runs no program, signals nobody and listens on no port that is not its own;
//! - a program of the operator's runs within the same walls, so where one is configured only writing is shut: such a program
//!   must find its interpreter, its libraries and its settings. In either case nobody in here gains rights by running a
//!   program (no setuid, no setgid);
//! - a file is allowed together with its folder, and with the folder of what a link leads to: certificates, secrets and settings
//!   are changed by putting another file or another link in their place;
//! - an older kernel does what it can. That fails a start only where `require` is written.
//!
//! Walls hold for the thread that builds them and for all it starts afterwards: they are built before the runtime is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

/// Whether the process is shut in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// As far as the kernel can.
    #[default]
    Auto,
    Off,
    /// Without it the relay does not start.
    Require,
}

/// What the process must be able to do from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Folders with everything below them.
    pub writes: Vec<PathBuf>,
    /// Files, which may be replaced by others in their folders.
    pub reads: Vec<PathBuf>,
    /// TCP ports. The ports of outgoing connections need no entry.
    pub listens: Vec<u16>,
    /// A program of the operator's is started.
    pub runs_programs: bool,
    /// Folders in which such programs keep things for a moment.
    pub scratch: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("sandbox = \"require\": {0}; set it to \"auto\" to start without")]
    Missing(&'static str),
    #[error("cannot build the sandbox ({0}); sandbox = \"off\" starts without")]
    Failed(#[from] RulesetError),
}

/// The rights that are shut off; what a kernel does not know of them stays open there.
const KNOWN: ABI = ABI::V6;
/// From here on the kernel refuses every way to change a file that is not ours, truncation included (Linux 6.2).
const ENOUGH: ABI = ABI::V3;

/// What the relay reads beside its own files: name servers and names, addresses and routes of this host, what it may use of
/// processors and memory. Chance comes from the kernel's call; a static program does not find that, and reads the one device once
/// the other has said that there is some.
const SYSTEM: [&str; 10] = [
    "/dev/random",
    "/dev/urandom",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/proc/self",
    "/proc/sys/kernel/hostname",
    "/proc/meminfo",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
];
/// Where the output of programs goes that nobody reads.
const NULL: &str = "/dev/null";

/// The walls that stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Folders and files that can be read, without links; none: everything can.
    readable: Option<BTreeSet<PathBuf>>,
    runs_programs: bool,
    kernel: String,
}

/// Builds the walls round this thread and all it will start. `None`: there are none, which is said in the log.
pub fn confine(mode: Sandbox, needs: &Needs) -> Result<Option<Confined>, SandboxError> {
    if mode == Sandbox::Off {
        tracing::info!("no sandbox: it is switched off");
        return Ok(None);
    }
    let readable = readable(needs);
    let status = if needs.runs_programs { open_to_read(needs) } else { closed(needs, &readable) }?.restrict_self()?;
    let kernel = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            if mode == Sandbox::Require && effective_abi < ENOUGH {
                return Err(SandboxError::Missing("this kernel can shut off too little: it takes Linux 6.2"));
            }
            format!("Landlock {effective_abi}")
        }
        _ if mode == Sandbox::Require => {
            return Err(SandboxError::Missing("this kernel has no Landlock, or a container's rules forbid it"));
        }
        _ => {
            tracing::info!("no sandbox: this kernel has no Landlock, or a container's rules forbid it");
            return Ok(None);
        }
    };
    let readable = (!needs.runs_programs).then_some(readable);
    Ok(Some(Confined { readable, runs_programs: needs.runs_programs, kernel }))
}

/// What the kernel has for it, without a wall being built round anybody: a thread is shut in and ends. None: nothing.
pub fn kernel() -> Option<String> {
    let tried = std::thread::spawn(|| {
        let rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.create()?;
        rules.restrict_self()
    });
    let status = tried.join().ok()?.ok()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            let partly = if effective_abi < ENOUGH { ", which shuts off too little: it takes Linux 6.2" } else { "" };
            Some(format!("Landlock {effective_abi}{partly}"))
        }
        _ => None,
    }
}

/// Nothing but what is needed.
fn closed(needs: &Needs, readable: &BTreeSet<PathBuf>) -> Result<RulesetCreated, RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(readable, reading))?
        .add_rules(path_beneath_rules(trees(&needs.writes), reading | writing()))?
        .add_rules(path_beneath_rules([NULL], AccessFs::ReadFile | AccessFs::WriteFile))?;
    // Outgoing connections from an address of their own are bound as well: to whatever port is free.
    let ports = needs.listens.iter().chain(&[0]).collect::<BTreeSet<_>>();
    ports.into_iter().try_fold(rules, |rules, &port| rules.add_rule(NetPort::new(port, AccessNet::BindTcp)))
}

/// Everything can be read and run; only writing is shut.
fn open_to_read(needs: &Needs) -> Result<RulesetCreated, RulesetError> {
    let devices = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    Ruleset::default()
        .handle_access(AccessFs::from_write(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(trees(&needs.writes), writing()))?
        .add_rules(path_beneath_rules(&needs.scratch, writing()))?
        // What the user may write in there is the kernel's to say: a terminal, a log, nothing.
        .add_rules(path_beneath_rules(["/dev"], devices))
}

/// Files, folders and sockets; no devices, and no links that could lead out.
fn writing() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{
        WriteFile | Truncate | MakeReg | MakeDir | MakeSock | RemoveFile | RemoveDir | Refer
    })
}

/// `folders`, and the folders that links directly in them lead to: part of a data folder may lie on another disk.
fn trees(folders: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut trees = BTreeSet::new();
    for folder in folders {
        trees.extend(folder.canonicalize());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_symlink() {
                trees.extend(entry.path().canonicalize().ok().filter(|target| target.is_dir()));
            }
        }
    }
    trees
}

/// Whatever can be read, without links.
fn readable(needs: &Needs) -> BTreeSet<PathBuf> {
    let mut readable = trees(&needs.writes);
    for file in &needs.reads {
        readable.extend(places(file));
    }
    for path in SYSTEM.map(Path::new) {
        let Ok(real) = path.canonicalize() else { continue };
        // A link out of /etc leads to a folder of the program that keeps the file, which puts new files there.
        let is_led_away = path.starts_with("/etc") && !real.starts_with("/etc");
        readable.extend(real.parent().filter(|parent| is_led_away && parent.parent().is_some()).map(Path::to_path_buf));
        readable.insert(real);
    }
    readable
}

/// Where a file is found after it was replaced: its folder, and the folder of what a link leads to. The root of all folders is
/// never one of them; there the file stands alone, and one put in its place cannot be read.
fn places(file: &Path) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| path.parent().filter(|parent| parent.parent().is_some()).map(Path::to_path_buf);
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let mut places: BTreeSet<PathBuf> =
        folder(&absolute).and_then(|folder| folder.canonicalize().ok()).into_iter().collect();
    if let Ok(real) = absolute.canonicalize() {
        places.insert(folder(&real).unwrap_or(real));
    }
    places
}

impl Confined {
    /// The first of `files` that cannot be read from in here.
    pub fn outside<'a>(&self, files: impl IntoIterator<Item = &'a Path>) -> Option<&'a Path> {
        let readable = self.readable.as_ref()?;
        files.into_iter().find(|file| {
            let places = places(file);
            let is_inside = |place: &PathBuf| readable.iter().any(|tree| place.starts_with(tree));
            places.is_empty() || !places.iter().all(is_inside)
        })
    }
}

impl std::fmt::Display for Confined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rest = if self.runs_programs {
            "alerts.command writes nothing else either, /tmp aside"
        } else {
            "reads only there, its settings and what it needs of the system"
        };
        write!(f, "sandbox ({}): writes only below data_dir; {rest}", self.kernel)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    const FOLDER: &str = "WEIR_TEST_SANDBOX";

    /// `outside/`, `data/`, `etc/` with a link as Kubernetes makes them, `live/` with a link as certbot makes them.
    fn build(root: &Path) -> Needs {
        for folder in ["outside", "data", "data/events", "etc/..1", "live", "archive", "disk", "scratch"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["outside/secret", "data/old", "etc/..1/weir.toml", "archive/key1", "archive/key2"] {
            std::fs::write(root.join(file), "x").unwrap();
        }
        symlink("..1", root.join("etc/..data")).unwrap();
        symlink("..data/weir.toml", root.join("etc/weir.toml")).unwrap();
        symlink("../archive/key1", root.join("live/key")).unwrap();
        symlink(root.join("disk"), root.join("data/bodies")).unwrap();
        Needs {
            writes: vec![root.join("data")],
            reads: vec![root.join("etc/weir.toml"), root.join("live/key")],
            listens: vec![2525],
            runs_programs: false,
            scratch: vec![root.join("scratch")],
        }
    }

    /// Runs the test `name` of this program again, in a process of its own, for walls cannot be taken down; there this gives
    /// the folder to play in.
    fn in_a_process_of_its_own(name: &str) -> Option<PathBuf> {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return Some(PathBuf::from(folder));
        }
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("sandbox::tests::{name}"), "--nocapture"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        None
    }

    /// Kernels that can do less are no fault of ours.
    fn walls(needs: &Needs) -> Option<Confined> {
        let walls = confine(Sandbox::Require, needs);
        if walls.is_err() {
            eprintln!("this kernel cannot shut a process in: {walls:?}");
        }
        walls.ok().flatten()
    }

    #[track_caller]
    fn denied<T>(what: &str, result: io::Result<T>) {
        let kind = result.err().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::PermissionDenied), "{what}");
    }

    #[test]
    fn inside_only_what_is_needed_can_be_reached() {
        let Some(root) = in_a_process_of_its_own("inside_only_what_is_needed_can_be_reached") else { return };
        let needs = build(&root);
        let Some(confined) = walls(&needs) else { return };
        let at = |path: &str| root.join(path);

        denied("read elsewhere", std::fs::read(at("outside/secret")));
        denied("list elsewhere", std::fs::read_dir(at("outside")));
        denied("write elsewhere", std::fs::write(at("outside/new"), "x"));
        denied("truncate elsewhere", std::fs::File::create(at("outside/secret")));
        denied("remove elsewhere", std::fs::remove_file(at("outside/secret")));
        denied("write the settings", std::fs::write(at("etc/weir.toml"), "x"));
        denied("put a file beside the settings", std::fs::write(at("etc/new"), "x"));
        denied("carry out", std::fs::rename(at("data/old"), at("outside/old")));
        denied("lead out", symlink(at("outside"), at("data/link")));
        denied("read the users", std::fs::read("/etc/passwd"));
        denied("write where programs may", std::fs::write(at("scratch/new"), "x"));
        denied("run a program", Command::new("/bin/true").status());
        denied("listen elsewhere", std::net::TcpListener::bind("127.0.0.1:2526"));

        // Into its folder, links to other disks included.
        std::fs::write(at("data/new"), "x").unwrap();
        std::fs::rename(at("data/new"), at("data/events/new")).unwrap();
        std::fs::remove_file(at("data/old")).unwrap();
        std::fs::write(at("data/bodies/1"), "x").unwrap();
        UnixListener::bind(at("data/socket")).unwrap();
        // Its files, and whatever takes their places.
        for file in ["etc/weir.toml", "live/key", "archive/key2"] {
            std::fs::read(at(file)).unwrap();
        }
        for file in SYSTEM.iter().filter(|path| Path::new(path).is_file()) {
            std::fs::read(file).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        std::fs::read("/proc/net/route").unwrap();
        for device in ["/dev/random", "/dev/urandom"] {
            std::fs::File::open(device).and_then(|mut chance| chance.read_exact(&mut [0; 8])).unwrap();
        }
        std::fs::write(NULL, "x").unwrap();
        std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // A thread that is started afterwards is in here as well.
        let file = at("outside/secret");
        denied("in a thread", std::thread::spawn(move || std::fs::read(file)).join().unwrap());

        let outside = |file: &str| confined.outside([at(file).as_path()]).is_some();
        assert!(outside("outside/secret") && outside("nowhere/new"));
        assert!(!outside("etc/weir.toml") && !outside("etc/not-yet") && !outside("live/key"));
    }

    #[test]
    fn with_a_program_to_run_only_writing_is_shut() {
        let Some(root) = in_a_process_of_its_own("with_a_program_to_run_only_writing_is_shut") else { return };
        let needs = Needs { runs_programs: true, ..build(&root) };
        let Some(confined) = walls(&needs) else { return };
        let at = |path: &str| root.join(path);
        let run =
            |text: &str| Command::new("/bin/sh").args(["-c", text]).current_dir(&root).status().unwrap().success();
        assert!(run("cat outside/secret > /dev/null && echo x > data/new"));
        assert!(run("echo x > scratch/new && mv scratch/new scratch/old && rm scratch/old"));
        assert!(!run("echo x > outside/new") && !at("outside/new").exists());
        denied("write elsewhere", std::fs::write(at("outside/new"), "x"));
        assert_eq!(confined.outside([at("outside/secret").as_path()]), None, "everything can be read");
    }

    #[test]
    fn asking_the_kernel_shuts_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        if kernel().is_none() {
            eprintln!("this kernel has no Landlock");
        }
        std::fs::write(folder.path().join("after"), "x").unwrap();
    }

    #[test]
    fn a_file_stands_with_its_folder_and_its_links_but_never_with_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        build(&root);
        let expected = |paths: &[&str]| paths.iter().map(|path| root.join(path)).collect::<BTreeSet<_>>();
        assert_eq!(places(&root.join("etc/weir.toml")), expected(&["etc", "etc/..1"]));
        assert_eq!(places(&root.join("live/key")), expected(&["live", "archive"]));
        assert_eq!(places(&root.join("live/none")), expected(&["live"]));
        assert_eq!(places(Path::new("/etc/hosts")).iter().next(), Some(&PathBuf::from("/etc")));
        assert!(!places(Path::new("/proc")).contains(Path::new("/")), "a file of the root stands alone");
    }
}
