//! An endpoint as it is used: its files read, its words checked, and which addresses its name may lead to.

use std::io::Read as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::options::{Format, Webhook, is_clear_text_abroad, is_secret};
use crate::post::{LOCALHOST, Target};
use crate::types::internet::is_global;
use crate::types::{EventKind, Secret};

/// More than any URL, or any eight secrets.
const FILE_MAX: u64 = 16 << 10;

/// Two that are equal need not be told apart by a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) secret: Secret,
    pub(super) format: Format,
    pub(super) kinds: Vec<EventKind>,
    networks: Vec<IpNet>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("webhook `{name}`: cannot read {key} {file}: {source}")]
    Read { name: String, key: &'static str, file: String, source: std::io::Error },
    #[error("webhook `{name}`: {key} holds no {what}")]
    Content { name: String, key: &'static str, what: &'static str },
    #[error(
        "webhook `{name}`: http:// would send events in clear text over the Internet: write https://, or name the endpoint's networks"
    )]
    ClearText { name: String },
}

impl Endpoint {
    /// Reads what stands in files. For a thread that may block.
    pub fn load(options: &Webhook) -> Result<Endpoint, LoadError> {
        let content = |key, what| LoadError::Content { name: options.name.clone(), key, what };
        let (url, url_key) = match options.url_file.is_empty() {
            true => (options.url.clone(), "url"),
            false => (String::from_utf8(read(options, "url_file", &options.url_file)?).unwrap_or_default(), "url_file"),
        };
        let target = Target::parse_with_user(url.trim());
        let target = target.ok_or_else(|| content(url_key, "URL that begins with http:// or https://"))?;
        if is_clear_text_abroad(&target, &options.networks) {
            return Err(LoadError::ClearText { name: options.name.clone() });
        }
        let secret = match options.secret_file.is_empty() {
            true => options.secret.clone(),
            false => Secret::new(read(options, "secret_file", &options.secret_file)?),
        };
        let is_wanted = !options.secret_file.is_empty() || !secret.is_empty();
        if is_wanted && !std::str::from_utf8(secret.expose()).is_ok_and(is_secret) {
            let key = if options.secret_file.is_empty() { "secret" } else { "secret_file" };
            return Err(content(key, "secret: a text, or `whsec_` and base64"));
        }
        Ok(Endpoint {
            name: options.name.clone(),
            target,
            secret,
            format: options.format,
            kinds: options.kinds(),
            networks: options.networks.clone(),
        })
    }

    /// Why an address that its name leads to must not be spoken to. An address that the URL itself names, the operator has
    /// named; so is this host by `localhost`.
    pub(super) fn may_reach(&self, address: IpAddr) -> Result<(), String> {
        let host = &self.target.host;
        let is_named = host.parse::<IpAddr>().is_ok()
            || (host.eq_ignore_ascii_case(LOCALHOST) && address.is_loopback())
            || self.networks.iter().any(|network| network.contains(&address));
        match (is_named, self.target.is_tls) {
            (true, _) => Ok(()),
            (false, true) if is_global(address) => Ok(()),
            (false, true) => Err(format!(
                "{host} leads to {address}, which is not of the public Internet and in none of its `networks`"
            )),
            (false, false) => Err(format!(
                "{host} leads to {address}, which is in none of its `networks`, and http:// is used in those alone"
            )),
        }
    }
}

fn read(options: &Webhook, key: &'static str, file: &str) -> Result<Vec<u8>, LoadError> {
    let fault = |source| LoadError::Read { name: options.name.clone(), key, file: file.to_string(), source };
    let mut content = Vec::new();
    std::fs::File::open(file).and_then(|open| open.take(FILE_MAX).read_to_end(&mut content)).map_err(fault)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(url: &str, networks: &[&str]) -> Webhook {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Webhook { name: "app".into(), url: url.into(), networks, ..Webhook::default() }
    }

    #[test]
    fn private_addresses_are_reached_only_where_they_are_named() {
        for (url, networks, address, may) in [
            ("https://app.example/", &[][..], "8.8.8.8", true),
            ("https://app.example/", &[], "2a01:111:f403::1", true),
            ("https://app.example/", &[], "127.0.0.1", false),
            ("https://app.example/", &[], "10.0.0.5", false),
            ("https://app.example/", &[], "169.254.169.254", false),
            ("https://app.example/", &[], "::1", false),
            ("https://app.example/", &[], "::ffff:127.0.0.1", false),
            ("https://app.example/", &[], "64:ff9b::7f00:1", false),
            ("https://app.example/", &["10.0.0.0/8"], "10.0.0.5", true),
            ("https://app.example/", &["10.0.0.0/8"], "::ffff:10.0.0.5", false),
            ("https://app.example/", &["10.0.0.0/8"], "192.168.0.1", false),
            ("https://app.example/", &["10.0.0.0/8"], "8.8.8.8", true),
            ("http://app.example/", &["10.0.0.0/8"], "10.0.0.5", true),
            ("http://app.example/", &["10.0.0.0/8"], "8.8.8.8", false),
            ("http://127.0.0.1:9000/", &[], "127.0.0.1", true),
            ("https://10.1.1.1/", &[], "10.1.1.1", true),
            ("http://localhost:9000/", &[], "127.0.0.1", true),
            ("http://localhost:9000/", &[], "10.0.0.1", false),
        ] {
            let endpoint = Endpoint::load(&hook(url, networks)).unwrap();
            let result = endpoint.may_reach(address.parse().unwrap());
            assert_eq!(result.is_ok(), may, "{url} {networks:?} {address}: {result:?}");
        }
    }

    #[test]
    fn url_and_secret_come_from_files_too_and_no_fault_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let url = file("url", "https://app.example/T0KEN\n");
        let secret = file("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        let with = |url_file: &str, secret_file: &str| {
            Endpoint::load(&Webhook { url_file: url_file.into(), secret_file: secret_file.into(), ..hook("", &[]) })
        };
        let endpoint = with(&url, &secret).unwrap();
        assert_eq!((endpoint.target.host.as_str(), endpoint.secret.len()), ("app.example", 39));
        let (bad, empty) = (file("bad", "T0KEN"), file("empty", "\n"));
        let missing = folder.path().join("none").display().to_string();
        for (url_file, secret_file, expected) in [
            (&bad, "", "webhook `app`: url_file holds no URL"),
            (&empty, "", "webhook `app`: url_file holds no URL"),
            (&url, empty.as_str(), "webhook `app`: secret_file holds no secret"),
            (&url, missing.as_str(), "webhook `app`: cannot read secret_file"),
            (&file("clear", "http://app.example/T0KEN"), "", "webhook `app`: http:// would send events in clear text"),
        ] {
            let error = with(url_file, secret_file).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains("T0KEN"), "{error}");
        }
    }
}
