//! Who there is: the users of `[[relay.user]]` and of `relay.users_file`, each with the hash of a password.
//!
//! Rules that always hold:
//! - a table is whole or there is none: every fault is told, with its place and what to do, and no part of a faulty
//!   configuration is in force;
//! - a password that was given as it is, is hashed here and stands nowhere afterwards; no fault shows a password or a hash.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::User;
use super::hash::{BEGIN, Hash, HashError, is_foreign};
use super::options::{self, is_user_name};
use crate::types::Secret;

/// More users than one relay serves; each costs memory, not time.
const USERS_MAX: usize = 10_000;
/// Room for as many long names and hashes.
const FILE_SIZE_MAX: u64 = 4 << 20;
/// A file with a password in it holds one line.
const PASSWORD_FILE_SIZE_MAX: u64 = 8 << 10;

/// All users. `Users::default()`: nobody.
#[derive(Clone, Debug, Default)]
pub struct Users {
    table: BTreeMap<Arc<str>, Entry>,
    /// Whose each token is, by its hash.
    tokens: BTreeMap<[u8; SHA256_OUTPUT_LEN], Arc<str>>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) user: Arc<User>,
    pub(super) hash: Arc<Hash>,
}

/// Everything that is wrong with the users.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(UserFault::to_string).collect::<Vec<_>>().join("; "))]
pub struct UsersError(pub Vec<UserFault>);

/// One thing that is wrong: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum UserFault {
    #[error(
        "{file}: cannot be read: {source}: name a file of `name:hash` lines in relay.users_file, and let the user weir runs as read it"
    )]
    File { file: String, source: io::Error },
    #[error("{file}:{line}: has no `:` between name and hash: write a line as `weir password --user NAME` prints it")]
    NoColon { file: String, line: usize },
    #[error("{file}:{line}: the name cannot be a user's: {}", options::NAME_EXPECTED)]
    NameInFile { file: String, line: usize },
    #[error("{file}:{line}: a second line for user `{name}`: take one of them out (the first is line {first})")]
    Twice { file: String, line: usize, name: String, first: usize },
    #[error("{file}:{line}: what stands behind the name {source}")]
    HashInFile { file: String, line: usize, source: HashError },
    #[error("relay.user: `{name}` cannot be a user's name: {}", options::NAME_EXPECTED)]
    Name { name: String },
    #[error("relay.user: there is a second user `{name}`: give it another name, or take one of them out")]
    TwoUsers { name: String },
    #[error(
        "relay.user `{name}` has no password: give it password_hash or password_file, or add a line to relay.users_file"
    )]
    NoPassword { name: String },
    #[error(
        "relay.user `{name}` has more than one password: keep one of password_hash, password_file, password and the line in relay.users_file"
    )]
    TwoPasswords { name: String },
    #[error("relay.user `{name}`: its {key} {source}")]
    Hash { name: String, key: &'static str, source: HashError },
    #[error(
        "relay.user `{name}`: its password_file {file} cannot be read: {source}: name a file with one line, the hash or the password"
    )]
    PasswordFile { name: String, file: String, source: io::Error },
    #[error(
        "relay.user `{name}`: its token_file {file} cannot be read: {source}: name a file with a token on each line"
    )]
    TokenFile { name: String, file: String, source: io::Error },
    #[error("relay.user `{name}`: its {key} {place}cannot be a token: write {}", options::TOKEN_EXPECTED)]
    Token { name: String, key: &'static str, place: String },
    #[error("relay.user `{name}` has a token that `{other}` has, too: make another one")]
    SameToken { name: String, other: String },
    #[error("relay.user: there are {count} users: {USERS_MAX} are the most")]
    TooMany { count: usize },
}

impl Users {
    /// Reads the file and the passwords' files, and hashes what is given as it is: some 30 ms for each of those, so not
    /// for a thread that others wait for. An empty `users_file` is none.
    pub fn load(users_file: &str, users: &[options::User]) -> Result<Users, UsersError> {
        let mut faults = Vec::new();
        let mut lines = match users_file {
            "" => BTreeMap::new(),
            file => read_lines(file, &mut faults),
        };
        let (mut table, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        for user in users {
            add_tokens(user, &mut tokens, &mut faults);
            let line = lines.remove(user.name.as_str());
            match entry(user, line) {
                Ok(entry) => {
                    if table.insert(entry.user.name.clone(), entry).is_some() {
                        faults.push(UserFault::TwoUsers { name: shown(&user.name) });
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        for (name, hash) in lines {
            let user = Arc::new(User::from(&options::User { name, ..options::User::default() }));
            table.insert(user.name.clone(), Entry { user, hash: Arc::new(hash) });
        }
        if table.len() > USERS_MAX {
            faults.push(UserFault::TooMany { count: table.len() });
        }
        if faults.is_empty() { Ok(Users { table, tokens }) } else { Err(UsersError(faults)) }
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.table.get(name)
    }

    /// Whose token this is. It is looked for by its hash, so that nothing is learned from how long that takes.
    pub(super) fn of_token(&self, token: &[u8]) -> Option<&Entry> {
        self.get(self.tokens.get(&hash_of_token(token))?)
    }
}

fn hash_of_token(token: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

/// Reads the tokens of a user.
fn add_tokens(
    user: &options::User,
    tokens: &mut BTreeMap<[u8; SHA256_OUTPUT_LEN], Arc<str>>,
    faults: &mut Vec<UserFault>,
) {
    let mut add = |token: &[u8], key: &'static str, place: String, faults: &mut Vec<UserFault>| {
        if !std::str::from_utf8(token).is_ok_and(options::is_token) {
            return faults.push(UserFault::Token { name: shown(&user.name), key, place });
        }
        let other = tokens.insert(hash_of_token(token), user.name.as_str().into());
        if let Some(other) = other.filter(|other| **other != *user.name) {
            faults.push(UserFault::SameToken { name: shown(&user.name), other: shown(&other) });
        }
    };
    if !user.token.is_empty() {
        add(user.token.expose(), "token", String::new(), faults);
    }
    if user.token_file.is_empty() {
        return;
    }
    match read(Path::new(&user.token_file), FILE_SIZE_MAX) {
        Ok(content) => {
            let lines = content.expose().split(|&b| b == b'\n').map(<[u8]>::trim_ascii).enumerate();
            for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#")) {
                add(line, "token_file", format!("{}:{} ", user.token_file, at + 1), faults);
            }
        }
        Err(source) => {
            faults.push(UserFault::TokenFile { name: shown(&user.name), file: user.token_file.clone(), source });
        }
    }
}

impl From<&options::User> for User {
    fn from(options: &options::User) -> User {
        User {
            name: options.name.as_str().into(),
            class: options.class,
            class_max: options.class_max.unwrap_or(options.class),
            sender_domains: options.sender_domains.clone(),
            rate: options.rate,
            daily_recipients: (options.daily_recipients > 0).then_some(options.daily_recipients),
            expire: options.expire.map(|span| span.0),
        }
    }
}

/// The user as it is in force. `line`: the hash that stands in the file of users.
fn entry(user: &options::User, line: Option<Hash>) -> Result<Entry, UserFault> {
    let name = || shown(&user.name);
    if !is_user_name(&user.name) {
        return Err(UserFault::Name { name: name() });
    }
    let given =
        [!user.password_hash.is_empty(), !user.password_file.is_empty(), !user.password.is_empty(), line.is_some()];
    match given.iter().filter(|given| **given).count() {
        // Who has a token alone logs in nowhere.
        0 if user.has_token() => {
            return Ok(Entry { user: Arc::new(User::from(user)), hash: Arc::new(Hash::of_nothing()) });
        }
        0 => return Err(UserFault::NoPassword { name: name() }),
        1 => {}
        _ => return Err(UserFault::TwoPasswords { name: name() }),
    }
    let fault = |key| move |source| UserFault::Hash { name: shown(&user.name), key, source };
    let hash = match (line, user.password_file.as_str()) {
        (Some(hash), _) => hash,
        (None, "") if !user.password.is_empty() => plain(&user.password).map_err(fault("password"))?,
        (None, "") => parsed(&user.password_hash).map_err(fault("password_hash"))?,
        (None, file) => {
            let secret = password_of(file).map_err(|source| {
                let file = file.to_string();
                UserFault::PasswordFile { name: name(), file, source }
            })?;
            hash_or_plain(&secret).map_err(fault("password_file"))?
        }
    };
    Ok(Entry { user: Arc::new(User::from(user)), hash: Arc::new(hash) })
}

fn parsed(secret: &Secret) -> Result<Hash, HashError> {
    std::str::from_utf8(secret.expose()).map_err(|_| HashError::NotArgon2).and_then(Hash::parse)
}

fn plain(secret: &Secret) -> Result<Hash, HashError> {
    match std::str::from_utf8(secret.expose()) {
        Ok(text) if is_foreign(text) => Err(HashError::Foreign),
        _ => Hash::of(secret.expose()),
    }
}

/// A hash is known by its beginning; all else is the password itself.
fn hash_or_plain(secret: &Secret) -> Result<Hash, HashError> {
    if secret.expose().starts_with(BEGIN.as_bytes()) { parsed(secret) } else { plain(secret) }
}

/// What the file of one password says: its only line, without the line end.
fn password_of(file: &str) -> io::Result<Secret> {
    let content = read(Path::new(file), PASSWORD_FILE_SIZE_MAX)?;
    let line = content.expose();
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    if line.contains(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than one line"));
    }
    Ok(Secret::new(line))
}

fn read(path: &Path, size_max: u64) -> io::Result<Secret> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(size_max + 1).read_to_end(&mut bytes)?;
    let content = Secret::new(bytes);
    if content.expose().len() as u64 > size_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {} KiB", size_max >> 10)));
    }
    Ok(content)
}

/// The lines of the file of users. Faults are told, and what they stand in is left out.
fn read_lines(file: &str, faults: &mut Vec<UserFault>) -> BTreeMap<String, Hash> {
    let content = match read(Path::new(file), FILE_SIZE_MAX) {
        Ok(content) => content,
        Err(source) => {
            faults.push(UserFault::File { file: file.to_string(), source });
            return BTreeMap::new();
        }
    };
    let mut lines = BTreeMap::new();
    for (at, line) in content.expose().split(|&b| b == b'\n').enumerate() {
        // What is no text has no name that can be a user's.
        let text = std::str::from_utf8(line).unwrap_or(":").trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Err(fault) = read_line(file, at + 1, text, &mut lines) {
            faults.push(fault);
        }
    }
    lines.into_iter().map(|(name, (_, hash))| (name, hash)).collect()
}

/// `lines`: what stands in those before it, with their numbers.
fn read_line(
    file: &str,
    line: usize,
    text: &str,
    lines: &mut BTreeMap<String, (usize, Hash)>,
) -> Result<(), UserFault> {
    let place = || file.to_string();
    let (name, hash) = text.split_once(':').ok_or_else(|| UserFault::NoColon { file: place(), line })?;
    if !is_user_name(name) {
        return Err(UserFault::NameInFile { file: place(), line });
    }
    if let Some((first, _)) = lines.get(name) {
        return Err(UserFault::Twice { file: place(), line, name: name.to_string(), first: *first });
    }
    let hash = Hash::parse(hash.trim());
    let fault = hash.as_ref().err().copied();
    // A faulty line stands in for a good one: the user's settings are not to be told that they lack a password.
    lines.insert(name.to_string(), (line, hash.unwrap_or_else(|_| Hash::of_nothing())));
    fault.map_or(Ok(()), |source| Err(UserFault::HashInFile { file: place(), line, source }))
}

/// A name as it is shown, one line and not long.
fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Priority;

    const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_string()
        }
    }

    fn user(name: &str) -> options::User {
        options::User { name: name.into(), ..options::User::default() }
    }

    fn hashed(name: &str) -> options::User {
        options::User { password_hash: Secret::new(HASH), ..user(name) }
    }

    fn faults(users_file: &str, users: &[options::User]) -> Vec<String> {
        let error = Users::load(users_file, users).unwrap_err();
        assert!(!error.to_string().contains("c29tZXNhbHQ") && !error.to_string().contains("s3cret"), "{error}");
        error.0.iter().map(UserFault::to_string).collect()
    }

    fn lets_in(users: &Users, name: &str, password: &str) -> bool {
        users.get(name).unwrap().hash.matches(password.as_bytes())
    }

    #[test]
    fn users_come_from_the_file_with_the_settings_of_the_same_name() {
        let folder = Folder::new();
        let file = folder.file("users", format!("# those who send\n\n  app:{HASH}  \r\nme@example.com:{HASH}\n"));
        let settings = options::User { class: Priority::Bulk, daily_recipients: 500, ..user("app") };
        let users = Users::load(&file, &[settings, hashed("third")]).unwrap();
        assert_eq!(users.len(), 3);
        for name in ["app", "me@example.com", "third"] {
            assert!(lets_in(&users, name, "password"), "{name}");
        }
        let app = &users.get("app").unwrap().user;
        assert_eq!((app.class, app.daily_recipients), (Priority::Bulk, Some(500)));
        let me = &users.get("me@example.com").unwrap().user;
        assert_eq!((me.class, me.daily_recipients), (Priority::Normal, None));
        assert!(users.get("App").is_none());
    }

    #[test]
    fn a_password_can_be_given_in_four_ways() {
        let folder = Folder::new();
        let file =
            |name: &str, content: &str| options::User { password_file: folder.file(name, content), ..user(name) };
        let users = [
            hashed("hash"),
            options::User { password: Secret::new("password"), ..user("plain") },
            file("hash-file", &format!("{HASH}\n")),
            file("plain-file", "password\r\n"),
        ];
        let users = Users::load("", &users).unwrap();
        for name in ["hash", "plain", "hash-file", "plain-file"] {
            assert!(lets_in(&users, name, "password") && !lets_in(&users, name, "password\n"), "{name}");
        }
    }

    #[test]
    fn every_fault_of_the_file_is_told_with_its_line() {
        let folder = Folder::new();
        let content = format!(
            "app:{HASH}\nnobody\na b:{HASH}\napp:{HASH}\n\nplain:s3cret\n# x\nold:$2y$10$c29tZXNhbHQabcdefghij\n"
        );
        let file = folder.file("users", [content.as_bytes(), b"\xff\xfe:x\n"].concat());
        let faults = faults(&file, &[user("plain")]);
        let expected = [
            ":2: has no `:` between name and hash: write a line as",
            ":3: the name cannot be a user's",
            ":4: a second line for user `app`: take one of them out (the first is line 1)",
            ":6: what stands behind the name is no Argon2 hash: make one with `weir password`",
            ":8: what stands behind the name is a hash of another kind",
            ":9: the name cannot be a user's",
        ];
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(&format!("{file}{expected}")), "{fault}\nis not\n{expected}");
        }
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    }

    #[test]
    fn every_fault_of_the_settings_is_told() {
        let folder = Folder::new();
        let file = folder.file("users", format!("both:{HASH}\n"));
        let with_file =
            |name: &str, content: &str| options::User { password_file: folder.file(name, content), ..user(name) };
        for (given, expected) in [
            (vec![user("none")], "relay.user `none` has no password: give it password_hash or password_file"),
            (vec![hashed("both")], "relay.user `both` has more than one password: keep one of"),
            (vec![hashed("a"), hashed("a")], "there is a second user `a`"),
            (vec![hashed("a b")], "`a b` cannot be a user's name"),
            (vec![hashed("a\nb")], "`a\\nb` cannot be a user's name"),
            (
                vec![options::User { password_hash: Secret::new("s3cret"), ..user("a") }],
                "relay.user `a`: its password_hash is no Argon2 hash",
            ),
            (
                vec![options::User { password: Secret::new("$6$salt$s3crets3crets3crets3cret"), ..user("a") }],
                "its password is a hash of another kind",
            ),
            (
                vec![options::User { password_file: "/nowhere/x".into(), ..user("a") }],
                "its password_file /nowhere/x cannot be read: No such file",
            ),
            (vec![with_file("empty", "\n")], "it is empty"),
            (vec![with_file("two", "s3cret\nx\n")], "it has more than one line"),
            (vec![with_file("long", &"s3cret".repeat(2000))], "it is longer than 8 KiB"),
            (vec![with_file("torn", "$argon2id$v=19$m=1")], "its password_file is no whole Argon2 hash"),
        ] {
            let faults = faults(&file, &given);
            assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:#?}\nis not\n{expected}");
        }
        let missing = faults("/nowhere/users", &[]);
        assert!(missing[0].starts_with("/nowhere/users: cannot be read: No such file"), "{missing:?}");
    }

    #[test]
    fn nothing_of_a_password_is_shown() {
        let given = [hashed("a"), options::User { password: Secret::new("s3cret"), ..user("b") }];
        let shown = format!("{given:?} {:?}", Users::load("", &given).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("c29tZXNhbHQ"), "{shown}");
    }
}
