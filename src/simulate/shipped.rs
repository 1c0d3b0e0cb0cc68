//! Profiles that come with the program, by name: the files of `config/simulate`.

use super::profile::Profile;

/// Name and text; the first one is taken where none is named.
const SHIPPED: [(&str, &str); 13] = [
    ("outlook", include_str!("../../config/simulate/outlook.toml")),
    ("gentle", include_str!("../../config/simulate/gentle.toml")),
    ("strict", include_str!("../../config/simulate/strict.toml")),
    ("punishing", include_str!("../../config/simulate/punishing.toml")),
    ("dead-hosts", include_str!("../../config/simulate/dead-hosts.toml")),
    ("falling", include_str!("../../config/simulate/falling.toml")),
    ("blocking", include_str!("../../config/simulate/blocking.toml")),
    ("window", include_str!("../../config/simulate/window.toml")),
    ("bucket", include_str!("../../config/simulate/bucket.toml")),
    ("fast", include_str!("../../config/simulate/fast.toml")),
    ("noisy", include_str!("../../config/simulate/noisy.toml")),
    ("penalties", include_str!("../../config/simulate/penalties.toml")),
    ("flapping", include_str!("../../config/simulate/flapping.toml")),
];

impl Profile {
    /// A profile that comes with the program.
    pub fn shipped(name: &str) -> Option<Profile> {
        let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Some(Profile::parse(text).expect("a shipped profile is valid, a test holds it"))
    }

    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_can_be_read_and_keeps_the_ceiling() {
        for name in Profile::shipped_names() {
            let profile = Profile::shipped(name).unwrap();
            assert_eq!(profile.limits.connections, Some(500), "{name}");
        }
        assert!(Profile::shipped("nobody").is_none());
    }

    #[test]
    fn every_file_of_the_folder_is_shipped_and_documented() {
        let document = include_str!("../../docs/simulate.md");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/simulate");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(Profile::shipped(name).is_some(), "{name} is not in SHIPPED");
            assert!(document.contains(&format!("| `{name}` |")), "{name} is not in docs/simulate.md");
        }
    }
}
