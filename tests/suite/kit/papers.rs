//! A certificate for the relay's listeners, as an operator puts it beside the configuration.

use std::path::PathBuf;

use tempfile::TempDir;

use super::relay::Config;

pub struct Papers {
    folder: TempDir,
}

impl Papers {
    /// A certificate for `relay.test` and `localhost` that signs itself.
    pub fn issue() -> Papers {
        let papers = Papers { folder: tempfile::tempdir().expect("a folder for a certificate") };
        let (certificate, key) = Papers::text();
        papers.put("certificate", &certificate);
        papers.put("key", &key);
        papers
    }

    /// Another certificate for the same name, and its key; PEM.
    pub fn text() -> (String, String) {
        let names = ["relay.test", "localhost"].map(String::from);
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate for a test");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Puts a file in place of the one of this name at once, as those who renew certificates do it.
    pub fn put(&self, name: &str, text: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, text).expect("write a file");
        std::fs::rename(&fresh, self.path(name)).expect("put a file in place");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names both files in `[tls]`.
    pub fn show(&self, config: Config) -> Config {
        let quoted = |name: &str| format!("\"{}\"", self.path(name).display());
        config.set("tls", "certificate", &quoted("certificate")).set("tls", "key", &quoted("key"))
    }
}
