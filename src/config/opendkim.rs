//! The DKIM keys of other relay images: `/etc/opendkim/keys/DOMAIN.private` for each of `ALLOWED_SENDER_DOMAINS`, under the selector of
//! `DKIM_SELECTOR`, and made at the first start where `DKIM_AUTOGENERATE` asks for it.
//!
//! The rule that always holds: a domain with a `[[dkim]]` of its own is left alone.

use std::path::Path;

use super::Config;
use super::file::quoted;
use super::finding::{Findings, Place};
use crate::dkim::options::{Dkim, Origin, is_selector};
use crate::types::Domain;

pub(super) const SELECTOR: &str = "DKIM_SELECTOR";
pub(super) const AUTOGENERATE: &str = "DKIM_AUTOGENERATE";
/// What says that there are such keys at all.
const DOMAINS: &str = "ALLOWED_SENDER_DOMAINS";
/// The selector that nobody chose.
const USUAL: &str = "mail";

/// Adds an entry for each domain that has a key in `folder`, or shall have one.
pub(super) fn keys(config: &mut Config, familiar: &[(String, String)], folder: &Path, findings: &mut Findings) {
    let of = |wanted: &str| familiar.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
    let (selector, autogenerate) = (of(SELECTOR), of(AUTOGENERATE).filter(|text| is_on(text)));
    if selector.is_none() && autogenerate.is_none() && of(DOMAINS).is_none() {
        return;
    }
    let mut found = Vec::new();
    for domain in &config.relay.sender_domains {
        let name = domain.as_str();
        let is_named = |entry: &Dkim| Domain::parse(&entry.domain).is_ok_and(|known| known == *domain);
        let file = |folder: &Path| folder.join(format!("{name}.private"));
        let (key_file, origin) = match file(folder) {
            _ if config.dkim.iter().any(is_named) => continue,
            mounted if mounted.exists() => (mounted, Origin::Mounted),
            _ if autogenerate.is_some() => (file(&config.data_dir.join("dkim")), Origin::Generated),
            _ => continue,
        };
        let Some(selector) = selector_of(selector.unwrap_or(USUAL), name, findings) else { return };
        let (domain, key_file) = (name.to_string(), key_file.display().to_string());
        found.push(Dkim { domain, selector, key_file, origin, ..Dkim::default() });
    }
    config.dkim.extend(found);
    if let (Some(variable), true) =
        (selector.map(|_| SELECTOR).or(autogenerate.map(|_| AUTOGENERATE)), config.dkim.is_empty())
    {
        let remedy = format!(
            "name the domains in {DOMAINS}, and mount a key for each as {}/DOMAIN.private, or set {AUTOGENERATE}=true; or write [[dkim]]",
            folder.display()
        );
        findings.warning(
            Place::variable(variable),
            "changes nothing: there is no domain with a key".to_string(),
            remedy,
        );
    }
}

fn is_on(text: &str) -> bool {
    !["false", "no", "0"].contains(&text.trim().to_lowercase().as_str())
}

/// `mail`, or with others for single domains: `mail,example.org=relay`.
fn selector_of(text: &str, domain: &str, findings: &mut Findings) -> Option<String> {
    let (mut usual, mut own) = (USUAL, None);
    for entry in text.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.split_once('=') {
            Some((of, selector)) if of.eq_ignore_ascii_case(domain) => own = Some(selector),
            Some(_) => {}
            None => usual = entry,
        }
    }
    let selector = own.unwrap_or(usual);
    if is_selector(selector) {
        return Some(selector.to_string());
    }
    let what = format!("is {}, which is no selector", quoted(selector));
    findings.fault(Place::variable(SELECTOR), what, "write letters, digits and hyphens, as in \"mail\"".to_string());
    None
}
