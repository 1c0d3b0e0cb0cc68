//! Where a folder lies: which mount holds it, and whether that outlives a container.
//!
//! Pure, over the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

/// The mount that holds a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// The folder of the file system that is mounted there.
    pub(super) root: String,
    pub(super) kind: String,
}

/// What becomes of what is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    Yes,
    /// In memory: gone with the machine or the container.
    Memory,
    /// In the container's own layer: gone with it.
    Container,
    /// A volume that nobody named: `docker rm -v` and a new container lose it.
    Anonymous,
    /// On another machine; locks and syncs there are its business.
    Network,
}

/// The mount of `folder`, which is absolute and without links.
pub(super) fn of(folder: &Path, mountinfo: &str) -> Option<Mount> {
    // Of two at the same point the later one is seen.
    mountinfo
        .lines()
        .filter_map(parse)
        .filter(|mount| folder.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

fn parse(line: &str) -> Option<Mount> {
    let (mounted, file_system) = line.split_once(" - ")?;
    let mut fields = mounted.split(' ').skip(3);
    let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    Some(Mount { point: PathBuf::from(point), root, kind: file_system.split(' ').next()?.to_string() })
}

/// Blanks and the like are written as `\040`.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

impl Mount {
    pub(super) fn lasting(&self, in_container: bool) -> Lasting {
        let is_layer = in_container && (self.point == Path::new("/") || self.kind == "overlay");
        match self.kind.as_str() {
            "tmpfs" | "ramfs" => Lasting::Memory,
            _ if is_layer => Lasting::Container,
            "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "fuse.sshfs" | "fuse.glusterfs" => Lasting::Network,
            _ if in_container && self.is_anonymous() => Lasting::Anonymous,
            _ => Lasting::Yes,
        }
    }

    /// `…/volumes/<64 hexadecimal digits>/_data`, as Docker and Podman name volumes that nobody named.
    fn is_anonymous(&self) -> bool {
        let folder = self.root.strip_suffix("/_data").and_then(|root| root.rsplit_once("/volumes/"));
        folder.is_some_and(|(_, name)| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                        30 22 0:25 / /tmp rw shared:2 - tmpfs tmpfs rw\n\
                        31 22 8:2 / /srv/my\\040mail rw shared:3 - xfs /dev/sdb1 rw\n\
                        32 22 0:40 / /mnt rw - nfs4 server:/x rw\n";

    fn lasting(folder: &str, mountinfo: &str, in_container: bool) -> Option<Lasting> {
        of(Path::new(folder), mountinfo).map(|mount| mount.lasting(in_container))
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mount = of(Path::new("/srv/my mail/weir"), HOST).unwrap();
        assert_eq!((mount.point.to_str().unwrap(), mount.kind.as_str()), ("/srv/my mail", "xfs"));
        assert_eq!(lasting("/var/lib/weir", HOST, false), Some(Lasting::Yes));
        assert_eq!(lasting("/tmp/weir", HOST, false), Some(Lasting::Memory));
        assert_eq!(lasting("/mnt/weir", HOST, false), Some(Lasting::Network));
        assert_eq!(lasting("/x", "nonsense\n", false), None);
    }

    #[test]
    fn what_lies_in_the_container_itself_is_gone_with_it() {
        let volume = "a".repeat(64);
        let inside = format!(
            "500 400 0:90 / / rw - overlay overlay rw\n\
             510 500 8:1 /var/lib/docker/volumes/weir-data/_data /data rw - ext4 /dev/sda1 rw\n\
             511 500 8:1 /var/lib/docker/volumes/{volume}/_data /anonymous rw - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(lasting("/var/lib/weir", &inside, true), Some(Lasting::Container));
        assert_eq!(lasting("/data", &inside, true), Some(Lasting::Yes));
        assert_eq!(lasting("/anonymous/weir", &inside, true), Some(Lasting::Anonymous));
        assert_eq!(lasting("/data", &inside.replace("ext4", "tmpfs"), true), Some(Lasting::Memory));
    }
}
