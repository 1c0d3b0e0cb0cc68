//! What goes wrong in a container and shows only later: a queue that is lost with it, keys that nobody uses.
//!
//! The rule that always holds: what is said here stands in the log before any mail is taken, and in `weir check`.

use std::path::Path;

use crate::config::{Config, FOREIGN_KEYS};

/// Where the kernel shows what is mounted where.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The warnings for this process.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
    let data = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let lost = lost_with(&mounts, &data).map(|how| {
        format!(
            "THE QUEUE WILL BE LOST WITH THIS CONTAINER: {} {how}. Accepted mail, the suppression list and what was learned of receivers \
             are in it. Mount a volume with a name there: -v queue:{}",
            data.display(),
            data.display()
        )
    });
    lost.into_iter().chain(unused_keys(Path::new(FOREIGN_KEYS), config)).collect()
}

/// Why what is written to `folder` does not outlive the container; nothing where it does, or where the kernel does not tell.
fn lost_with(mounts: &str, folder: &Path) -> Option<&'static str> {
    let mount = mounts.lines().filter_map(Mount::read).filter(|mount| folder.starts_with(&mount.point));
    // The later of two at one place lies over the other.
    let mount = mount.max_by_key(|mount| mount.point.len())?;
    if mount.point == "/" {
        Some("is no mount")
    } else if ["tmpfs", "ramfs"].contains(&mount.kind) {
        Some("is kept in memory alone (tmpfs)")
    } else if mount.root.contains("/kubernetes.io~empty-dir/") {
        Some("is an emptyDir, which ends with its pod")
    } else if is_anonymous(mount.root) {
        Some("is a volume without a name, which no other container will find again")
    } else {
        None
    }
}

/// One line of `mountinfo` (proc(5)).
struct Mount<'a> {
    /// What of the file system is mounted.
    root: &'a str,
    point: String,
    kind: &'a str,
}

impl Mount<'_> {
    fn read(line: &str) -> Option<Mount<'_>> {
        let (before, behind) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Mount { root, point: point.replace("\\040", " "), kind: behind.split(' ').next()? })
    }
}

/// Docker and Podman name a volume that nobody named by 64 hexadecimal digits.
fn is_anonymous(root: &str) -> bool {
    let name = root.strip_suffix("/_data").and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    name.len() == 64 && name.bytes().all(|octet| octet.is_ascii_hexdigit())
}

/// Mail that was signed until now would go out unsigned, and nobody would notice.
fn unused_keys(folder: &Path, config: &Config) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let is_used = |domain: &String| config.dkim.iter().any(|entry| entry.domain.eq_ignore_ascii_case(domain));
    let mut domains: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".private")?.to_string()))
        .filter(|domain| !is_used(domain))
        .collect();
    domains.sort();
    (!domains.is_empty()).then(|| {
        format!(
            "{}: no mail is signed with the keys of {}: name the domains in ALLOWED_SENDER_DOMAINS, or write a [[dkim]] for each",
            folder.display(),
            domains.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_what_outlives_the_container() {
        const ROOT: &str = "700 600 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b\n";
        let hex = "0123456789abcdef".repeat(4);
        for (line, expected) in [
            (String::new(), Some("is no mount")),
            ("701 700 8:1 /var/lib/docker/volumes/weir_queue/_data /var/lib/weir rw - ext4 /dev/vda rw".into(), None),
            ("701 700 8:1 /srv/queue /var/lib/weir rw,relatime shared:1 - xfs /dev/vda rw".into(), None),
            ("701 700 8:1 / /var/lib rw - ext4 /dev/vdb rw".into(), None),
            ("701 700 0:9 / /var/lib/weir2 rw - ext4 /dev/vdb rw".into(), Some("is no mount")),
            ("701 700 0:9 / /var/lib/weir rw - tmpfs tmpfs rw".into(), Some("is kept in memory alone (tmpfs)")),
            (
                format!("701 700 8:1 /var/lib/docker/volumes/{hex}/_data /var/lib/weir rw - ext4 /dev/vda rw"),
                Some("is a volume without a name, which no other container will find again"),
            ),
            (
                "701 700 8:1 /var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/queue /var/lib/weir rw - ext4 /dev/vda rw".into(),
                Some("is an emptyDir, which ends with its pod"),
            ),
        ] {
            assert_eq!(lost_with(&format!("{ROOT}{line}\n"), Path::new("/var/lib/weir")), expected, "{line}");
        }
        assert_eq!(lost_with("nonsense\n", Path::new("/x")), None);
    }

    #[test]
    fn keys_that_nobody_uses_are_told_of() {
        let (folder, mut config) = (tempfile::tempdir().unwrap(), Config::default());
        assert_eq!(unused_keys(folder.path(), &config), None);
        std::fs::write(folder.path().join("example.com.private"), "x").unwrap();
        assert!(
            unused_keys(folder.path(), &config).unwrap().contains("no mail is signed with the keys of example.com")
        );
        config.dkim.push(crate::dkim::options::Dkim { domain: "Example.com".into(), ..Default::default() });
        assert_eq!(unused_keys(folder.path(), &config), None);
        assert_eq!(unused_keys(Path::new("/nowhere"), &config), None);
    }
}
