//! `[delivery] ca_file`: authorities that are trusted beside the built-in ones, for every certificate that weir verifies.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// All public authorities together take a quarter of this.
const FILE_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("cannot read {} (delivery.ca_file): {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} (delivery.ca_file) is longer than 1 MiB: name the certificates of your own authorities alone", .0.display())]
    Long(PathBuf),
    #[error("{} (delivery.ca_file) holds no certificate: it takes PEM, `-----BEGIN CERTIFICATE-----`", .0.display())]
    None(PathBuf),
    #[error("certificate {number} of {} (delivery.ca_file) cannot be read: {why}", path.display())]
    Broken { path: PathBuf, number: usize, why: String },
}

/// The authorities in the file `path`; none where it is empty. For a thread that may block.
pub fn load(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut octets));
    read.map_err(|source| RootsError::Unreadable { path: path.to_path_buf(), source })?;
    if octets.len() as u64 > FILE_MAX {
        return Err(RootsError::Long(path.to_path_buf()));
    }
    let mut roots = Vec::new();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(&octets)) {
        let broken = |why: String| RootsError::Broken { path: path.to_path_buf(), number, why };
        let certificate = certificate.map_err(|error| broken(error.to_string()))?;
        RootCertStore::empty().add(certificate.clone()).map_err(|error| broken(error.to_string()))?;
        roots.push(certificate);
    }
    if roots.is_empty() { Err(RootsError::None(path.to_path_buf())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn several_authorities_are_read_and_what_is_none_is_a_fault_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            load(&path).map(|roots| roots.len()).map_err(|error| error.to_string())
        };
        assert_eq!(load(Path::new("")).unwrap().len(), 0);
        assert_eq!(read(&format!("# ours\n{}\n{}", authority(), authority())), Ok(2));
        let good = authority();
        let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, fault) in [
            (String::new(), "(delivery.ca_file) holds no certificate"),
            ("nothing\n".into(), "(delivery.ca_file) holds no certificate"),
            (format!("{good}{torn}"), "certificate 2 of "),
            ("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n".into(), "certificate 1 of "),
            ("x".repeat(1 << 21), "longer than 1 MiB"),
        ] {
            let said = read(&text).unwrap_err();
            assert!(said.contains(fault) && said.contains("ca.pem"), "{said}");
        }
        let gone = load(&folder.path().join("gone.pem")).unwrap_err().to_string();
        assert!(gone.contains("cannot read ") && gone.contains("(delivery.ca_file)"), "{gone}");
    }
}
