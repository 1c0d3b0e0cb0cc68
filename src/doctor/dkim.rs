//! DKIM as the header of a message shows it (RFC 6376): who signed, and for whom. Pure.

use crate::dkim::record::tag;

/// Who says that he signed: the tags `d` and `s` of one DKIM-Signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) domain: String,
    pub(super) selector: String,
}

impl Signature {
    /// Where its key lies.
    pub(super) fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// The values of a header's fields called `name`, unfolded.
fn fields<'h>(header: &'h str, name: &'h str) -> impl Iterator<Item = String> + 'h {
    let mut unfolded: Vec<String> = Vec::new();
    for line in header.lines().take_while(|line| !line.is_empty()) {
        match unfolded.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => field.push_str(line),
            _ => unfolded.push(line.to_string()),
        }
    }
    unfolded.into_iter().filter_map(move |field| {
        let (found, value) = field.split_once(':')?;
        found.trim_end().eq_ignore_ascii_case(name).then(|| value.trim().to_string())
    })
}

/// All signatures of a message.
pub(super) fn signatures(header: &str) -> Vec<Signature> {
    let signature = |value: String| {
        let (domain, selector) = (tag(&value, "d")?.to_ascii_lowercase(), tag(&value, "s")?);
        (!domain.is_empty() && !selector.is_empty()).then_some(Signature { domain, selector })
    };
    fields(header, "DKIM-Signature").filter_map(signature).collect()
}

/// The domain of the address in From, where there is one.
pub(super) fn from_domain(header: &str) -> Option<String> {
    let value = fields(header, "From").next()?;
    let address = value.rsplit_once('<').map_or(value.as_str(), |(_, rest)| rest.split('>').next().unwrap_or_default());
    let domain = address.rsplit_once('@')?.1.trim().trim_end_matches('.').to_ascii_lowercase();
    (!domain.is_empty() && !domain.contains([' ', ',', '"'])).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Received: from x\r\nDKIM-Signature: v=1; a=rsa-sha256; d=News.weir.dev;\r\n\ts=s 1; h=From;\r\n b=abc\r\n\
                          from: \"Shop, the <one>\" <shop@news.weir.dev>\r\nDKIM-Signature: v=1; d=esp.example; s=x; b=y\r\n\r\n\
                          DKIM-Signature: d=body.example; s=b\r\n";

    #[test]
    fn signatures_are_read_in_the_header_alone() {
        let found: Vec<String> = signatures(HEADER).iter().map(Signature::name).collect();
        assert_eq!(found, ["s1._domainkey.news.weir.dev", "x._domainkey.esp.example"]);
        assert_eq!(from_domain(HEADER).as_deref(), Some("news.weir.dev"));
        assert_eq!(from_domain("From: app@weir.dev\r\n").as_deref(), Some("weir.dev"));
        assert_eq!(from_domain("From: nobody\r\n"), None);
        assert_eq!(signatures("DKIM-Signature: nonsense\r\n"), []);
    }
}
