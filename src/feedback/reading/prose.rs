//! Bounces that keep to no standard: a reply quoted in prose, or only words, in one of many languages.
//!
//! Only what the bounce itself says is looked at: not the message that it returns, whose words are anybody's. A reply that is quoted is taken as
//! it stands. Without one, a phrase that cannot be mistaken stands for a status, and that is marked as derived.

use super::status::{address, one_line};
use crate::types::Reply;

/// Of a text in which a reason is looked for.
const TEXT_MAX: usize = 8 << 10;
const LINES_MAX: usize = 200;
/// Lines of one reply.
const REPLY_LINES: usize = 4;

/// Where the returned message begins. In lower case.
const ENDS: &[&str] = &[
    "--- below this line is a copy of the message",
    "------ this is a copy of the message",
    "------ this is a copy of your message",
    "----- original message",
    "-----original message",
    "----- unsent message follows",
    "----- message header follows",
    "--- original message follows",
    "--- returned message",
    "original message headers",
    "the original message follows",
    "ursprüngliche nachricht",
    "message d'origine",
    "mensaje original",
    "messaggio originale",
    "mensagem original",
    "oorspronkelijk bericht",
    "received: ",
    "return-path: ",
    "dkim-signature: ",
];

/// What stands for a status where nothing else does: the words, in lower case, and the reply they amount to.
const PHRASES: &[(&str, &[&str])] = &[
    (
        "552 5.2.2 mailbox full",
        &[
            "mailbox full",
            "mailbox is full",
            "mailbox has exceeded",
            "mailbox size limit",
            "mailbox quota",
            "quota exceeded",
            "exceeded the quota",
            "exceeded storage",
            "over quota",
            "overquota",
            "out of storage space",
            "storage quota",
            "postfach ist voll",
            "postfach voll",
            "postfach des empfängers ist voll",
            "speicherplatz ist erschöpft",
            "boîte aux lettres est pleine",
            "boite aux lettres est pleine",
            "boîte pleine",
            "quota dépassé",
            "buzón está lleno",
            "buzón lleno",
            "cuota excedida",
            "casella piena",
            "casella di posta è piena",
            "caixa de correio cheia",
            "caixa postal está cheia",
            "cota excedida",
            "mailbox is vol",
            "postvak is vol",
            "skrzynka jest pełna",
            "skrzynka pocztowa jest przepełniona",
            "ящик переполнен",
            "почтовый ящик переполнен",
            "posta kutusu dolu",
            "メールボックスがいっぱい",
            "容量を超え",
            "邮箱已满",
            "郵箱已滿",
        ],
    ),
    (
        "550 5.2.1 mailbox disabled",
        &[
            "account has been disabled",
            "account is disabled",
            "account disabled",
            "account that you tried to reach is disabled",
            "mailbox disabled",
            "mailbox has been disabled",
            "account is inactive",
            "inactive account",
            "account has been suspended",
            "account suspended",
            "konto ist deaktiviert",
            "konto wurde deaktiviert",
            "postfach ist deaktiviert",
            "compte est désactivé",
            "compte désactivé",
            "cuenta está deshabilitada",
            "cuenta desactivada",
            "account disabilitato",
            "casella disabilitata",
            "conta desativada",
            "konto zostało zablokowane",
            "учетная запись отключена",
            "ящик отключен",
            "hesap devre dışı",
        ],
    ),
    (
        "550 5.1.1 user unknown",
        &[
            "user unknown",
            "unknown user",
            "unknown recipient",
            "recipient unknown",
            "no such user",
            "no such mailbox",
            "no such recipient",
            "no mailbox here by that name",
            "user does not exist",
            "user doesn't exist",
            "account does not exist",
            "address does not exist",
            "address doesn't exist",
            "mailbox does not exist",
            "recipient does not exist",
            "recipient address was not found",
            "address couldn't be found",
            "address could not be found",
            "e-mail address you entered couldn't be found",
            "user not found",
            "recipient not found",
            "mailbox not found",
            "unrouteable address",
            "is not a known user",
            "not listed in",
            "empfänger unbekannt",
            "empfänger existiert nicht",
            "benutzer unbekannt",
            "unbekannter benutzer",
            "adresse existiert nicht",
            "postfach existiert nicht",
            "konnte nicht gefunden werden",
            "utilisateur inconnu",
            "destinataire inconnu",
            "adresse n'existe pas",
            "destinataire n'existe pas",
            "boîte aux lettres n'existe pas",
            "usuario desconocido",
            "destinatario desconocido",
            "usuario no existe",
            "dirección no existe",
            "destinatario no existe",
            "buzón no existe",
            "utente sconosciuto",
            "destinatario sconosciuto",
            "utente non esiste",
            "indirizzo non esiste",
            "casella non esiste",
            "usuário desconhecido",
            "usuário não existe",
            "destinatário não existe",
            "endereço não existe",
            "onbekende gebruiker",
            "adres bestaat niet",
            "gebruiker bestaat niet",
            "nieznany użytkownik",
            "użytkownik nie istnieje",
            "adres nie istnieje",
            "skrzynka nie istnieje",
            "пользователь не найден",
            "адрес не существует",
            "получатель не найден",
            "ящик не существует",
            "kullanıcı bulunamadı",
            "adres bulunamadı",
            "okänd mottagare",
            "ukendt modtager",
            "neznámý uživatel",
            "宛先が見つかりません",
            "ユーザーは存在しません",
            "アドレスは存在しません",
            "用户不存在",
            "收件人不存在",
            "地址不存在",
            "收件人不存在",
            "使用者不存在",
        ],
    ),
];

/// What prose says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) reply: String,
    /// A phrase stood for it.
    pub(super) is_derived: bool,
    /// Addresses that stand alone at the beginning of a line, as qmail and others name who was not reached.
    pub(super) named: Vec<String>,
}

/// None: it says nothing that is understood.
pub(super) fn read(text: &str) -> Option<Said> {
    let own = own_words(text);
    let lines: Vec<&str> = own.lines().take(LINES_MAX).collect();
    let named: Vec<String> = lines.iter().filter_map(|line| named(line)).collect();
    if let Some(reply) = quoted(&lines) {
        return Some(Said { reply, is_derived: false, named });
    }
    let lower = own.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let found = PHRASES.iter().find(|(_, phrases)| phrases.iter().any(|phrase| lower.contains(phrase)));
    found.map(|(reply, _)| Said { reply: reply.to_string(), is_derived: true, named })
}

/// Without the message that is returned.
fn own_words(text: &str) -> String {
    let mut own = String::new();
    for line in text.lines() {
        let lower = line.trim_start().to_lowercase();
        // Behind the first words: a bounce that begins with a header of its own says something below it.
        if own.len() >= TEXT_MAX
            || (!own.trim().is_empty() && ENDS.iter().any(|end| lower.contains(end) && is_mark(&lower, end)))
        {
            break;
        }
        own.push_str(line);
        own.push('\n');
    }
    own
}

/// Fields stand at the beginning of a line; the other marks stand where they like.
fn is_mark(line: &str, end: &str) -> bool {
    !end.ends_with(": ") || line.starts_with(end)
}

fn named(line: &str) -> Option<String> {
    let line = line.trim();
    let is_alone = line.starts_with('<') && (line.ends_with(">:") || line.ends_with('>'));
    let is_bare = !line.contains(' ') && !line.contains('=') && line.contains('@');
    (is_alone || is_bare).then(|| address(line.trim_end_matches(':')))?
}

/// The first reply that stands in the lines, with the lines that belong to it.
fn quoted(lines: &[&str]) -> Option<String> {
    for (at, line) in lines.iter().enumerate() {
        let Some(start) = reply_start(line) else { continue };
        let mut text = line[start..].trim().to_string();
        for next in lines[at + 1..].iter().take(REPLY_LINES) {
            let is_more = next.starts_with([' ', '\t']) || reply_start(next) == Some(0);
            if next.trim().is_empty() || !is_more {
                break;
            }
            text.push(' ');
            text.push_str(next.trim());
        }
        let text = one_line(&text);
        if Reply::parse(&text).is_some() {
            return Some(text.trim_end_matches(['\'', '"', ')', '#']).trim().to_string());
        }
    }
    lines.iter().find_map(|line| status_alone(line))
}

/// Where a reply begins in a line: three digits, of which the first is a 4 or a 5, and behind them a blank or a hyphen and an enhanced status or
/// a word. `Error 550`, `said: 550 5.1.1`, `#550 5.1.1`.
fn reply_start(line: &str) -> Option<usize> {
    let octets = line.as_bytes();
    (0..octets.len().saturating_sub(4)).find(|&at| {
        let is_free = at == 0
            || !(octets[at - 1].is_ascii_alphanumeric() || matches!(octets[at - 1], b'.' | b'-' | b':' | b'/' | b'+'))
            || (at > 1 && octets[at - 1] == b':' && !octets[at - 2].is_ascii_digit());
        let is_code = matches!(octets[at], b'4' | b'5')
            && octets[at + 1] <= b'5'
            && octets[at + 1..at + 3].iter().all(u8::is_ascii_digit);
        let behind = &octets[at + 3..];
        let is_status = behind.len() > 5
            && matches!(behind[0], b' ' | b'-')
            && matches!(behind[1], b'4' | b'5' | b'#')
            && behind[2..].iter().take(6).any(|octet| *octet == b'.');
        let before = line.get(..at).unwrap_or_default().trim_end().to_lowercase();
        let is_told = at == 0
            || [
                "said:",
                "said",
                "error:",
                "error",
                "response:",
                "reply:",
                "answered:",
                "response was:",
                ":",
                "#",
                "code",
                "(",
                "<<<",
                "returned",
            ]
            .iter()
            .any(|word| before.ends_with(word));
        is_free && is_code && (is_status || (is_told && behind.len() > 2 && matches!(behind[0], b' ' | b'-')))
    })
}

/// `(#5.1.1)`, as qmail writes it, with the words of its line.
fn status_alone(line: &str) -> Option<String> {
    let at = line.find("(#").or_else(|| line.find("#5.")).or_else(|| line.find("(5."))?;
    let status: String =
        line[at..].trim_start_matches(['(', '#']).chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let parts: Vec<&str> = status.split('.').collect();
    let is_status = parts.len() == 3
        && matches!(parts[0], "4" | "5")
        && parts.iter().all(|part| !part.is_empty() && part.len() <= 3);
    let code = if status.starts_with('4') { 450 } else { 550 };
    is_status.then(|| format!("{code} {status} {}", line[..at].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Option<String> {
        read(text).map(|said| said.reply)
    }

    #[test]
    fn a_quoted_reply_is_found_wherever_it_stands() {
        for (text, expected) in [
            (
                "host mx.example[192.0.2.1] said: 550 5.1.1 <a@x.example>: no such user (in reply to RCPT)",
                "550 5.1.1 <a@x.example>: no such user (in reply to RCPT",
            ),
            ("Remote host said: 550 sorry, nobody here", "550 sorry, nobody here"),
            (
                "  SMTP error from remote mail server after RCPT TO:<a@x.example>:\n    550-5.1.1 no\n    550 5.1.1 such user",
                "550 5.1.1 no such user",
            ),
            ("#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##", "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found"),
            ("Sorry, no mailbox here by that name. (#5.1.1)", "550 5.1.1 Sorry, no mailbox here by that name."),
            ("<<< 550 5.1.1 unknown", "550 5.1.1 unknown"),
            ("The response from the remote server was:\n\n550 5.2.1 disabled", "550 5.2.1 disabled"),
        ] {
            assert_eq!(reply(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn phrases_stand_for_a_status_in_many_languages_and_only_in_the_bounces_own_words() {
        for (text, status) in [
            ("Der Empfänger existiert nicht.", "550 5.1.1"),
            ("L'adresse n'existe pas.", "550 5.1.1"),
            ("El buzón está lleno", "552 5.2.2"),
            ("Почтовый ящик переполнен", "552 5.2.2"),
            ("用户不存在", "550 5.1.1"),
            ("The account has been\n disabled by its owner", "550 5.2.1"),
        ] {
            let said = read(text).unwrap();
            assert!(said.is_derived && said.reply.starts_with(status), "{text}: {}", said.reply);
        }
        let returned = "Your message could not be delivered.\n\n----- Original message -----\nno such user, over quota, 550 5.1.1 x";
        assert_eq!(reply(returned), None);
        assert_eq!(reply("It is 550 miles to 5.1 surround at 10:550"), None);
        assert_eq!(reply("call +49 550 123 or see http://x.example/550 5"), None);
    }

    #[test]
    fn who_is_named_stands_alone_in_a_line() {
        let said = read("Hi. This is the qmail-send program.\n\n<a@x.example>:\nSorry. (#5.1.1)\n\nask postmaster@y.example for help").unwrap();
        assert_eq!(said.named, ["a@x.example"]);
    }
}
