//! Hashes of passwords: Argon2 (RFC 9106) in the PHC string format, `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
//!
//! Rules that always hold:
//! - new hashes are argon2id with the parameters OWASP names first: 19 MiB, two passes, one lane;
//! - a hash made elsewhere keeps its own parameters, but never costs more than stated here: a check runs on each core, and
//!   whoever can connect can have one run;
//! - comparing takes the same time whatever differs; no error text shows a hash.

use std::fmt;

use argon2::password_hash::phc::{PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// A check takes this much memory at most: twice what the usual programs choose (64 MiB).
pub const MEMORY_MIB_MAX: u32 = 128;
/// Memory times passes at most, about half a second.
pub const WORK_MIB_MAX: u32 = 512;
/// Lanes change little here, for they are worked through one after the other.
const LANES_MAX: u32 = 64;
/// Octets of the hash itself.
const OUTPUT_LEN: usize = 32;
/// How every hash that is read here begins: `$argon2id$` or `$argon2i$`.
pub(super) const BEGIN: &str = "$argon2";

/// Why a text is no hash that can be used. The text itself is never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error("is no Argon2 hash: make one with `weir password`")]
    NotArgon2,
    #[error("is a hash of another kind than Argon2: make one with `weir password`")]
    Foreign,
    #[error("is no whole Argon2 hash: copy all of the line that `weir password` prints")]
    Broken,
    #[error("is an argon2d hash, which is not for passwords: make another with `weir password`")]
    Argon2d,
    #[error(
        "costs too much, {memory_mib} MiB in {passes} passes: at most {MEMORY_MIB_MAX} MiB, and {WORK_MIB_MAX} MiB times passes, make another with `weir password`"
    )]
    TooCostly { memory_mib: u32, passes: u32 },
    #[error("cannot be made: {0}")]
    Unmade(argon2::Error),
}

/// The hash of one password.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Hash {
    pub fn parse(text: &str) -> Result<Hash, HashError> {
        if !text.starts_with(BEGIN) {
            return Err(if is_foreign(text) { HashError::Foreign } else { HashError::NotArgon2 });
        }
        let parsed = PasswordHash::new(text).map_err(|_| HashError::Broken)?;
        let algorithm = match parsed.algorithm.as_str() {
            "argon2id" => Algorithm::Argon2id,
            "argon2i" => Algorithm::Argon2i,
            "argon2d" => return Err(HashError::Argon2d),
            _ => return Err(HashError::Broken),
        };
        // Hashes made before the version was written down are of the first one.
        let version = parsed.version.unwrap_or(Version::V0x10.into());
        Ok(Hash {
            algorithm,
            version: Version::try_from(version).map_err(|_| HashError::Broken)?,
            params: params(&parsed)?,
            salt: parsed.salt.ok_or(HashError::Broken)?.to_vec(),
            output: parsed.hash.ok_or(HashError::Broken)?.as_bytes().to_vec(),
        })
    }

    /// A new hash of `password`, with a salt of its own.
    pub fn of(password: &[u8]) -> Result<Hash, HashError> {
        let mut hash = Hash::of_nothing();
        hash.output = hash.work(password, OUTPUT_LEN).map_err(HashError::Unmade)?;
        Ok(hash)
    }

    /// Costs what a new hash costs and is matched by no password anybody finds.
    pub(super) fn of_nothing() -> Hash {
        Hash {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            params: Params::DEFAULT,
            salt: Salt::generate().to_vec(),
            output: [Salt::generate(), Salt::generate()].iter().flat_map(|half| half.to_vec()).collect(),
        }
    }

    /// Is it `password`? Takes some 30 ms, by design.
    pub fn matches(&self, password: &[u8]) -> bool {
        self.work(password, self.output.len())
            .is_ok_and(|output| verify_slices_are_equal(&output, &self.output).is_ok())
    }

    fn work(&self, password: &[u8], output_len: usize) -> Result<Vec<u8>, argon2::Error> {
        let argon2 = Argon2::new(self.algorithm, self.version, self.params.clone());
        let mut output = vec![0; output_len];
        argon2.hash_password_into(password, &self.salt, &mut output)?;
        Ok(output)
    }

    /// In the PHC string format. A method and no `Display`, so that none gets into a text by chance.
    pub fn text(&self) -> String {
        let (m, t, p) = (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        let [salt, output] = [&self.salt, &self.output].map(|bytes| STANDARD_NO_PAD.encode(bytes));
        format!("${}$v={}$m={m},t={t},p={p}${salt}${output}", self.algorithm.as_str(), u32::from(self.version))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::types::MASK)
    }
}

/// What the hash says about its cost, if it may cost so much.
fn params(parsed: &PasswordHash) -> Result<Params, HashError> {
    if parsed.params.iter().any(|(name, _)| !["m", "t", "p"].contains(&name.as_str())) {
        return Err(HashError::Broken);
    }
    let number = |name: &str| parsed.params.get_decimal(name).ok_or(HashError::Broken);
    let (memory_kib, passes, lanes) = (number("m")?, number("t")?, number("p")?);
    let work_kib = u64::from(memory_kib) * u64::from(passes);
    if memory_kib > MEMORY_MIB_MAX << 10 || work_kib > u64::from(WORK_MIB_MAX) << 10 {
        return Err(HashError::TooCostly { memory_mib: memory_kib.div_ceil(1024), passes });
    }
    if lanes > LANES_MAX {
        return Err(HashError::Broken);
    }
    Params::new(memory_kib, passes, lanes, None).map_err(|_| HashError::Broken)
}

/// Does `text` look like a hash that other programs make: `$2y$…` (bcrypt), `$6$…` (crypt), `{SSHA}…`? It is never meant
/// as the password itself.
pub(super) fn is_foreign(text: &str) -> bool {
    let short_id = |rest: &str| rest.split_once('$').is_some_and(|(id, rest)| id.len() <= 8 && rest.len() >= 20);
    text.strip_prefix('$').is_some_and(short_id)
        || text.strip_prefix('{').and_then(|rest| rest.split_once('}')).is_some_and(|(scheme, rest)| {
            let is_scheme = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
            !scheme.is_empty() && scheme.bytes().all(is_scheme) && rest.len() >= 20
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the reference program: `echo -n password | argon2 somesalt -id -t 2 -m 8 -p 1` and the like.
    const REFERENCE: [(&str, &str); 3] = [
        ("password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
        ("password", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"),
        ("password", "$argon2i$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY"),
    ];

    #[test]
    fn hashes_of_the_reference_program_are_read_and_obeyed() {
        for (password, text) in REFERENCE {
            let hash = Hash::parse(text).unwrap();
            assert!(hash.matches(password.as_bytes()), "{text}");
            assert!(!hash.matches(b"Password") && !hash.matches(b""), "{text}");
        }
    }

    #[test]
    fn a_new_hash_has_the_parameters_of_owasp_and_its_own_salt() {
        let (one, other) = (Hash::of(b"s3cret").unwrap(), Hash::of(b"s3cret").unwrap());
        assert!(one.text().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.text());
        assert_ne!(one.text(), other.text());
        let again = Hash::parse(&one.text()).unwrap();
        assert_eq!(again, one);
        assert!(again.matches(b"s3cret") && !again.matches(b"s3cret "));
        assert_eq!(format!("{one:?}"), "***");
    }

    #[test]
    fn nothing_matches_the_hash_of_nothing() {
        let nothing = Hash::of_nothing();
        assert_eq!(nothing.params, Hash::of(b"x").unwrap().params);
        assert!(!nothing.matches(b"") && !nothing.matches(b"x"));
    }

    #[test]
    fn what_is_no_hash_that_may_be_used_says_why_and_never_shows_itself() {
        let salt_and_hash = "c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let with = |begin: &str| format!("{begin}${salt_and_hash}");
        for (text, expected) in [
            (String::new(), HashError::NotArgon2),
            ("s3cret".into(), HashError::NotArgon2),
            ("$2y$10$abcdefghijklmnopqrstuuAbCdEfGhIjKlMnOpQrStUvWxYz01234".into(), HashError::Foreign),
            ("$6$saltsalt$abcdefghijklmnopqrstuu".into(), HashError::Foreign),
            ("{SSHA}abcdefghijklmnopqrstuvwxyz".into(), HashError::Foreign),
            ("$argon2id$v=19$m=19456,t=2,p=1".into(), HashError::Broken),
            ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ".into(), HashError::Broken),
            (with("$argon2id$v=19$m=19456,t=2"), HashError::Broken),
            (with("$argon2id$v=20$m=19456,t=2,p=1"), HashError::Broken),
            (with("$argon2id$v=19$m=1,t=2,p=1"), HashError::Broken),
            (with("$argon2id$v=19$m=19456,t=0,p=1"), HashError::Broken),
            (with("$argon2id$v=19$m=19456,t=2,p=0"), HashError::Broken),
            (with("$argon2id$v=19$m=19456,t=2,p=4294967295"), HashError::Broken),
            (with("$argon2id$v=19$m=19456,t=2,p=1,x=1"), HashError::Broken),
            (with("$argon2x$v=19$m=19456,t=2,p=1"), HashError::Broken),
            (with("$argon2d$v=19$m=19456,t=2,p=1"), HashError::Argon2d),
            (with("$argon2id$v=19$m=131073,t=1,p=1"), HashError::TooCostly { memory_mib: 129, passes: 1 }),
            (with("$argon2id$v=19$m=131072,t=5,p=1"), HashError::TooCostly { memory_mib: 128, passes: 5 }),
            (
                with("$argon2id$v=19$m=4294967295,t=4294967295,p=1"),
                HashError::TooCostly { memory_mib: 1 << 22, passes: u32::MAX },
            ),
        ] {
            let error = Hash::parse(&text).expect_err(&text);
            assert_eq!(error, expected, "{text}");
            assert!(text.is_empty() || !error.to_string().contains(&text), "{error}");
        }
        assert!(Hash::parse(&with("$argon2id$v=19$m=65536,t=4,p=4")).is_ok(), "what PHP and Python make");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\$argon2(id|i|d))?(\\$|[a-z0-9=,+/]){0,80}") {
            let _ = Hash::parse(&text);
        }
    }
}
