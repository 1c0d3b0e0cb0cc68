//! Replies that a program gave in somebody's absence (RFC 3834), also by programs that do not know the standard. They mean nothing for the list.

use super::mime::Fields;

/// What the subject of such a reply begins with, in lower case.
const SUBJECTS: &[&str] = &[
    "out of office",
    "out of the office",
    "automatic reply",
    "auto reply",
    "auto-reply",
    "autoreply",
    "auto response",
    "autoresponse",
    "vacation",
    "on vacation",
    "away from",
    "i am away",
    "i'm away",
    "abwesenheit",
    "abwesenheitsnotiz",
    "automatische antwort",
    "ich bin abwesend",
    "nicht im büro",
    "réponse automatique",
    "reponse automatique",
    "absence du bureau",
    "absent du bureau",
    "respuesta automática",
    "respuesta automatica",
    "fuera de la oficina",
    "risposta automatica",
    "fuori sede",
    "fuori ufficio",
    "resposta automática",
    "ausência",
    "fora do escritório",
    "automatisch antwoord",
    "afwezig",
    "niet aanwezig",
    "autosvar",
    "frånvaro",
    "fravær",
    "automaattinen vastaus",
    "automatyczna odpowiedź",
    "odpowiedź automatyczna",
    "automatická odpověď",
    "автоматический ответ",
    "автоответ",
    "otomatik yanıt",
    "自動返信",
    "自动回复",
    "自動回覆",
    "不在",
];

/// Is this such a reply?
pub(super) fn is_auto_reply(fields: &Fields) -> bool {
    let lower = |name| fields.get(name).map(str::trim).map(str::to_ascii_lowercase);
    // RFC 3834 section 5: `auto-generated` is a list's or a machine's mail, and may be anything.
    let submitted = lower("auto-submitted").is_some_and(|value| value.starts_with("auto-replied"));
    let by_name = [
        "x-autoreply",
        "x-autorespond",
        "x-autoresponder",
        "x-auto-reply",
        "x-vacation",
        "x-mail-autoreply",
        "x-autoreply-from",
    ]
    .iter()
    .any(|name| lower(name).is_some_and(|value| value != "no"));
    let by_kind = lower("x-precedence").or_else(|| lower("precedence")).is_some_and(|value| value == "auto_reply");
    let by_trait = lower("x-auto-response-suppress").is_some() && lower("in-reply-to").is_some() && has_subject(fields);
    submitted || by_name || by_kind || by_trait || has_subject(fields)
}

fn has_subject(fields: &Fields) -> bool {
    let Some(subject) = fields.words("subject") else { return false };
    let subject = subject.to_lowercase();
    let subject = subject.trim().trim_start_matches(['[', '(', '*']).trim_start();
    let rest =
        ["re:", "aw:", "auto:"].iter().find_map(|start| subject.strip_prefix(start)).unwrap_or(subject).trim_start();
    SUBJECTS.iter().any(|start| rest.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_programs_are_known_by_what_each_of_them_writes() {
        for (header, is_one) in [
            ("Auto-Submitted: auto-replied", true),
            ("Auto-Submitted: auto-replied (vacation)", true),
            ("Auto-Submitted: auto-generated", false),
            ("Auto-Submitted: no\nSubject: unsubscribe", false),
            ("X-Autoreply: yes", true),
            ("Precedence: auto_reply", true),
            ("Precedence: bulk", false),
            ("Subject: Automatic reply: your order", true),
            ("Subject: Re: Out of office", true),
            ("Subject: =?utf-8?B?UsOpcG9uc2UgYXV0b21hdGlxdWU=?=: x", true),
            ("Subject: Abwesenheitsnotiz: x", true),
            ("Subject: 自動返信", true),
            ("Subject: unsubscribe", false),
            ("Subject: my vacation", false),
            ("From: a@x.example", false),
        ] {
            let (fields, _) = Fields::read(format!("{header}\n\n").as_bytes());
            assert_eq!(is_auto_reply(&fields), is_one, "{header}");
        }
    }
}
