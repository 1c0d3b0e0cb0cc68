//! The file of users (`auth/users`): each line is a user with a hash, or a fault that names its line and shows no secret; a file with a
//! fault puts nobody in force. The input is the file.

use std::collections::BTreeSet;

use weir::auth::options::is_user_name;
use weir::auth::{Auth, Hash, Users};
use weir::clock::Clock;
use weir::types::Timestamp;

use super::kit;

/// Shorter secrets stand in other words by chance.
const SECRET_MIN: usize = 16;

pub fn check(bytes: &[u8]) {
    let folder = kit::folder();
    let path = folder.path().join("users");
    std::fs::write(&path, bytes).expect("write the file");
    let expected = by_hand(bytes);
    match Users::load(&path.display().to_string(), &[]) {
        Ok(users) => {
            let names = expected.expect("a line that should not be taken was");
            assert_eq!(users.len(), names.len());
            kit::run(async {
                let auth = Auth::new(users, Clock::starting_at(Timestamp::from_secs(1_795_293_220)));
                assert_eq!(auth.has_users(), !names.is_empty());
                for name in names {
                    assert_eq!(auth.user(&name).map(|user| user.name.to_string()), Some(name));
                }
            });
        }
        Err(error) => {
            assert!(expected.is_none(), "a good file was refused: {error}");
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
            for secret in secrets(bytes) {
                assert!(!text.contains(&secret), "{secret:?} is shown in {text:?}");
            }
        }
    }
}

/// The names in the file; none where a line is none.
fn by_hand(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for line in bytes.split(|&octet| octet == b'\n') {
        let line = std::str::from_utf8(line).ok()?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line.split_once(':')?;
        let hash = Hash::parse(hash.trim()).ok()?;
        let again = Hash::parse(&hash.text()).expect("a hash reads what it writes");
        assert!(again == hash && !format!("{hash:?}").contains(&hash.text()));
        if !is_user_name(name) || !names.insert(name.to_string()) {
            return None;
        }
    }
    Some(names)
}

/// What stands behind the colons.
fn secrets(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let behind = |line: &str| line.split_once(':').map(|(_, secret)| secret.trim().to_string());
    text.lines().filter_map(behind).filter(|secret| secret.len() >= SECRET_MIN).collect()
}
