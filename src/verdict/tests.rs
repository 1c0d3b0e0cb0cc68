//! The shipped tables against replies of real servers, and the room's laws against anything.

use proptest::prelude::*;

use super::*;
use crate::types::Enhanced;

/// One reply a line: provider, reply, class, scope, verdict, suppress, breaker.
const EXPECTED: &str = include_str!("../../tests/replies/expected.tsv");

/// Replies of all kinds of receivers, one a line: receiver, stage, reply (`\\n` between its lines), class, scope, suppress, breaker.
const RECEIVERS: &str = include_str!("../../tests/replies/receivers.tsv");

#[derive(Clone, Debug)]
struct Expected {
    provider: &'static str,
    reply: &'static str,
    words: [&'static str; 5],
}

fn expected() -> Vec<Expected> {
    let rows = EXPECTED.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [provider, reply, class, scope, verdict, suppress, breaker] = fields[..] else {
            panic!("seven fields in `{line}`")
        };
        Expected { provider, reply, words: [class, scope, verdict, suppress, breaker] }
    });
    rows.collect()
}

fn words(reading: &Reading) -> [&'static str; 5] {
    let yes = |is| if is { "yes" } else { "no" };
    let Reading { class, scope, verdict, suppress, breaker, .. } = reading;
    [class.as_str(), scope.as_str(), verdict.as_str(), yes(*suppress), yes(*breaker)]
}

fn explain(rules: &Rules, provider: &str, reply: &str) -> Reading {
    rules.explain(provider, None, &Reply::parse(reply).unwrap()).0
}

#[test]
fn every_known_reply_gets_its_reading() {
    let rules = Rules::shipped();
    let rows = expected();
    assert_eq!(rows.len(), 147);
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let reading = explain(&rules, row.provider, row.reply);
            (words(&reading) != row.words).then(|| {
                format!(
                    "{}: {}\n  is {:?} by {}\n  not {:?}",
                    row.provider,
                    row.reply,
                    words(&reading),
                    reading.rule,
                    row.words
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// What differs from one day, server and sender to the next, and must not matter.
fn variations(reply: &str) -> Vec<String> {
    let (code, text) = reply.split_once(' ').unwrap();
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 40 => line.extend([" ", word]),
            _ => lines.push(word.to_string()),
        }
    }
    let folded: Vec<String> = lines.iter().map(|line| format!("{code}-{line}")).collect();
    vec![
        format!("{code} {}", text.to_uppercase()),
        format!("{code} {}", text.to_lowercase()),
        format!("{reply} [DB1PEPF000509EF.eurprd03.prod.outlook.com 2031-01-02T03:04:05.678Z 08DDE524AD2CBD69]"),
        format!("{reply} <sc-001.spamhaus-policy@relay.block.example>"),
        reply.replace("192.0.2.", "203.0.113.").replace("example.com", "example.net").replace("namprd02", "eurprd05"),
        reply.replace("2024-", "2031-").replace("2025-", "2032-").replace("(COL0-", "(BAY9-").replace("00:", "23:"),
        reply.replace("(S775)", "(S843)").replace("S3150", "S3140").replace("AS(1410)", "AS(1420)"),
        folded.join("\n"),
        folded.join("\r\n"),
        // As servers that repeat the enhanced code on every line (RFC 2034 section 4).
        match text.split_once(' ').filter(|(first, _)| Enhanced::at_start(first.as_bytes()).is_some()) {
            Some((enhanced, rest)) => {
                let middle = rest.find(' ').unwrap_or(rest.len());
                format!("{code}-{enhanced} {}\n{code} {enhanced}{}", &rest[..middle], &rest[middle..])
            }
            None => reply.to_string(),
        },
    ]
}

#[test]
fn addresses_hosts_dates_letter_case_and_line_ends_change_nothing() {
    let rules = Rules::shipped();
    for row in expected() {
        for reply in variations(row.reply) {
            let reading = explain(&rules, row.provider, &reply);
            assert_eq!(words(&reading), row.words, "{reply} by {}", reading.rule);
        }
    }
}

struct Said {
    receiver: &'static str,
    stage: Stage,
    reply: String,
    words: [&'static str; 4],
}

fn receivers() -> Vec<Said> {
    let rows = RECEIVERS.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [receiver, stage, reply, class, scope, suppress, breaker] = fields[..] else {
            panic!("seven fields in `{line}`")
        };
        let reply = reply.replace("\\n", "\n");
        Said { receiver, stage: stage.parse().unwrap(), reply, words: [class, scope, suppress, breaker] }
    });
    rows.collect()
}

/// The same, said on another day, by another server, to another sender, of another recipient.
fn said_otherwise(reply: &str) -> Vec<String> {
    let one_line = Reply::parse(reply).unwrap();
    let lines = one_line.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>().join(" ");
    let mut all = variations(&format!("{} {lines}", one_line.code()));
    let ipv4 = ["192.0.2.9", "198.51.100.5", "198.51.100.42", "192.0.2.4", "192.0.2.222"];
    for other in ["203.0.113.77", "2001:db8::77"] {
        all.push(ipv4.iter().fold(reply.to_string(), |reply, ip| reply.replace(ip, other)));
    }
    for (name, other) in [("example@", "anne.spam-limit@"), ("email@", "your.policy@"), ("user@", "blocked@")] {
        all.push(reply.replace(name, other));
    }
    // Servers count, name their parts and date what they say.
    all.push(format!("{reply} (q9si1044771wrt.371 mx17-prd 2031-01-02T03:04:05Z 7f3a99)"));
    all.retain(|other| Reply::parse(other).is_some());
    all
}

#[test]
fn every_receiver_is_understood_however_it_says_it() {
    let rules = Rules::shipped();
    let rows = receivers();
    assert!(rows.len() > 420, "{}", rows.len());
    let mut wrong = Vec::new();
    for Said { receiver, stage, reply, words: right } in &rows {
        for said in std::iter::once(reply.clone()).chain(said_otherwise(reply)) {
            let reading = rules.read(receiver, *stage, &Reply::parse(&said).unwrap());
            let [class, scope, _, suppress, breaker] = words(&reading);
            let is = [class, scope, suppress, breaker];
            if is != *right {
                wrong.push(format!("{receiver} at {stage}: {said}\n  is {is:?} by {}\n  not {right:?}", reading.rule));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whoever knows no rule for its words must not think that people do not exist: what speaks of anything else lists nobody.
#[test]
fn the_fall_back_takes_nobody_for_unknown_whose_reply_speaks_of_something_else() {
    let rules = Rules::shipped();
    for words in [
        "Ip frequency limited",
        "Ip frequency is too high",
        "192.0.2.9 has sent too many messages this hour. IB504",
        "rejecting spoofed message",
        "5.1.90 you have reached your daily limit",
        "5.1.0 reputation of your host is poor",
        "rate exceeded",
        "hourly volume reached",
        "spam not wanted",
        "our policy says no",
        "you are on a list",
        "no DNS for it",
        "authentication failed",
        "SPF says no",
        "over quota",
        "5.1.7 sender unknown here",
        "envelope sender is unknown user",
        "address of yours is blocked",
        "5.1.1 mailbox rate is limited",
        "user unknown to our greylist, slow down",
        "not while your IP is in jail",
        "too many unknown users from you",
        "user not found in the list of those who may write to it by policy",
    ] {
        for code in ["550", "551", "553"] {
            for provider in ["default", "gmail", "yahoo", "outlook", "microsoft365"] {
                let reply = Reply::parse(&format!("{code} {words}")).unwrap();
                let reading = rules.read(provider, Stage::Rcpt, &reply);
                assert!(!reading.suppress, "{provider}: {code} {words} by {}", reading.rule);
                assert_ne!(reading.class, Class::RecipientUnknown, "{provider}: {code} {words} by {}", reading.rule);
            }
        }
    }
    // What is concluded from silence alone is only provisional; what is said is not.
    for (words, provisional) in [("Nobody here", true), ("5.1.0 no", true), ("5.1.1 user unknown", false)] {
        let reading = rules.read("default", Stage::Rcpt, &Reply::parse(&format!("550 {words}")).unwrap());
        assert!(reading.suppress && reading.effects.provisional == provisional, "{words} by {}", reading.rule);
    }
}

#[test]
fn words_suffice_where_the_enhanced_code_is_missing() {
    let rules = Rules::shipped();
    for (reply, class) in [
        ("451 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.", Class::RateLimit),
        ("451 The mail server [192.0.2.1] has exceeded the maximum number of connections.", Class::ConnectionLimit),
        ("550 Access denied, banned sending IP [192.0.2.1].", Class::IpBlock),
        (
            "550 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list.",
            Class::IpBlock,
        ),
        ("451 Server busy. Please try again later from [192.0.2.1].", Class::RateLimit),
        ("550 Recipient address rejected: Access denied", Class::RecipientUnknown),
        (
            "550 Access denied, sending domain EXAMPLE.COM does not meet the required authentication level",
            Class::Authentication,
        ),
        ("452 Too many recipients", Class::TooManyRecipients),
        ("530 Must issue a STARTTLS command first", Class::Tls),
    ] {
        assert_eq!(explain(&rules, "outlook", reply).class, class, "{reply}");
    }
}

#[test]
fn what_cannot_be_mistaken_is_read_right_whoever_says_it() {
    let rules = Rules::shipped();
    let certain = ["RP-0", "SC-0", "DY-0", "OU-0", "(S31", "(AS31", "4.7.65", "banned sending IP", "using Spamhaus"];
    let rows: Vec<Expected> =
        expected().into_iter().filter(|row| certain.iter().any(|mark| row.reply.contains(mark))).collect();
    assert!(rows.len() > 20);
    for row in rows {
        for provider in ["default", "gmail", "yahoo", "mx.example.org"] {
            assert_eq!(words(&explain(&rules, provider, row.reply)), row.words, "{provider}: {}", row.reply);
        }
    }
}

#[test]
fn tags_come_along() {
    let rules = Rules::shipped();
    for (reply, tag) in
        [("421 RP-001 (x) slow", Some("RP-001")), ("550 5.7.511 x. AS(1410) [y]", Some("AS(1410)")), ("550 no", None)]
    {
        assert_eq!(explain(&rules, "outlook", reply).tag.as_deref(), tag, "{reply}");
    }
}

/// As the receivers' postmaster page names them.
#[test]
fn the_codes_of_the_postmaster_page_are_read_by_name() {
    use Class::{ConnectionLimit, Content, IpBlock, MessageLimit, RateLimit};
    let rules = Rules::shipped();
    for (code, tag, class, scope, breaker) in [
        (421, "RP-001", RateLimit, Scope::Source, false),
        (421, "RP-002", MessageLimit, Scope::Connection, false),
        (421, "RP-003", ConnectionLimit, Scope::Source, false),
        (550, "SC-001", IpBlock, Scope::Source, true),
        (550, "SC-002", IpBlock, Scope::Source, true),
        (550, "SC-003", IpBlock, Scope::Source, true),
        (550, "SC-004", IpBlock, Scope::Source, true),
        (550, "DY-001", IpBlock, Scope::Source, true),
        (550, "DY-002", IpBlock, Scope::Source, true),
        (550, "OU-001", IpBlock, Scope::Source, true),
        (550, "OU-002", Content, Scope::Message, false),
    ] {
        for text in [
            format!("{code} {tag} (BAY004-MC1F1) Unfortunately, words that nobody has seen before"),
            format!("{code} {}", tag.to_lowercase()),
            format!("{code} 5.7.1 Refused ({tag})."),
            format!("{code}-Go away.\n{code} {tag}"),
        ] {
            for stage in Stage::ALL.iter().copied().map(Some).chain([None]) {
                let (reading, _) = rules.explain("outlook", stage, &Reply::parse(&text).unwrap());
                let is = (reading.class, reading.scope, reading.breaker, reading.suppress, reading.tag.as_deref());
                assert_eq!(is, (class, scope, breaker, false, Some(tag)), "{text:?} at {stage:?} by {}", reading.rule);
            }
        }
    }
}

#[test]
fn a_mailbox_that_is_unavailable_and_a_name_that_is_refused_are_told_apart_from_blocks() {
    let rules = Rules::shipped();
    let unavailable = Reply::parse("550 Requested action not taken: mailbox unavailable").unwrap();
    for provider in ["outlook", "microsoft365", "default"] {
        let reading = rules.read(provider, Stage::Rcpt, &unavailable);
        assert_eq!((reading.class, reading.suppress), (Class::RecipientUnknown, true), "{provider}");
        for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Data] {
            assert!(!rules.read(provider, stage, &unavailable).suppress, "{provider} {stage}");
        }
    }
    let name = Reply::parse("501 5.5.4 Invalid domain name").unwrap();
    for stage in [Stage::Ehlo, Stage::Connect, Stage::Mail] {
        let reading = rules.read("outlook", stage, &name);
        assert_eq!((reading.class, reading.breaker, reading.suppress), (Class::Protocol, true, false), "{stage}");
        assert!(reading.remedy.contains("hostname"), "{}", reading.remedy);
    }
}

#[test]
fn rules_ask_for_the_waits_counts_and_probes_of_their_kind() {
    let rules = Rules::shipped();
    let wait = |hundredths| Effects { wait: Some(hundredths), ..Effects::default() };
    let after = |after| Effects { after, ..Effects::default() };
    let early = Effects { probe_early: true, ..Effects::default() };
    for (reply, effects) in [
        ("421 RP-001 (x) slow", wait(100)),
        ("421 RP-002 (x) slow", wait(5)),
        ("421 4.4.2 The maximum number of messages per connection has been reached", wait(5)),
        ("421 RP-003 (x) slow", wait(20)),
        ("451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections.", wait(20)),
        ("421 4.3.2 The maximum number of concurrent connections has exceeded a limit", wait(20)),
        ("451 4.7.500 Server busy. Please try again later from [192.0.2.1].", wait(150)),
        ("451 4.7.699 x", wait(150)),
        ("451 4.7.850 Access denied, please try again later", wait(150)),
        ("451 4.7.650 x", wait(400)),
        ("451 4.7.651 x", wait(400)),
        ("550 5.7.1 MailFrom domain is listed in Spamhaus (S8002)", after(1)),
        ("550 5.7.501 Access denied, spam abuse detected", after(3)),
        ("550 5.7.705 Access denied, tenant has exceeded threshold", after(3)),
        ("550 5.7.750 Client blocked from sending from unregistered domains", after(3)),
        ("550 5.7.515 Access denied, sending domain X does not meet the required authentication level", after(3)),
        ("550 5.7.509 Access denied, sending domain X does not pass DMARC verification", after(3)),
        ("550 5.7.23 The message was rejected because of Sender Policy Framework violation", after(3)),
        ("550 SC-001 (x) Mail rejected by Outlook.com for policy reasons", early),
        ("550 SC-001 (x) Part of their network is on our block list", Effects::default()),
        ("550 5.7.1 (S3150)", Effects::default()),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", Effects::default()),
        ("250 2.6.0 ok", Effects::default()),
    ] {
        for provider in ["outlook", "microsoft365"] {
            let reading = explain(&rules, provider, reply);
            assert_eq!(reading.effects, effects, "{provider}: {reply} by {}", reading.rule);
        }
    }
    // Whatever slows a lane says for how long.
    for provider in ["outlook", "microsoft365", "gmail", "yahoo", "default"] {
        for rule in rules.list(provider) {
            let slows = matches!(rule.class, Class::RateLimit | Class::ConnectionLimit | Class::MessageLimit)
                && matches!(rule.scope, Scope::Source | Scope::Connection);
            assert_eq!(rule.effects.wait.is_some(), slows, "{provider}: {}", rule.name);
            let holds =
                matches!(rule.class, Class::SenderBlock | Class::Authentication) && rule.scope == Scope::SenderDomain;
            assert_eq!(rule.effects.after > 0, holds, "{provider}: {}", rule.name);
        }
    }
}

/// Pause of the words below.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(600);

#[test]
fn what_weir_does_is_told_in_words() {
    let rules = Rules::shipped();
    for (reply, words) in [
        ("421 RP-001 (x)", "pauses for 10m"),
        ("451 4.7.650 x", "pauses for 40m"),
        ("421 RP-002 (x)", "the next connection waits for 30s"),
        ("421 RP-003 (x)", "no new one is opened for 2m"),
        ("452 4.5.3 Too many recipients", "The rest goes in further transactions"),
        ("552 5.5.3 Too many recipients", "never offered to this recipient again. Further messages go to half as many"),
        ("550 SC-001 (x) x", "another sender soon"),
        ("550 5.7.1 (S3150)", "A rare probe"),
        ("501 5.5.4 Invalid domain name", "until `hostname` is changed"),
        ("550 5.7.515 x", "After 3 such refusals"),
        ("550 5.7.1 MailFrom domain is listed in Spamhaus (S8002)", "From now on mail of this sender domain"),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", "comes onto the suppression list"),
        ("550 5.2.2 mailbox full", "several on different days"),
        ("451 4.4.62 x", "looked up again"),
        ("421 4.3.2 Service not available", "Another address"),
        ("250 2.0.0 ok", "The message is delivered."),
    ] {
        let reading = explain(&rules, "outlook", reply);
        let said = does(&reading, PAUSE);
        assert!(said.contains(words), "{reply}: {said}");
        assert!(!whose(&reading).is_empty());
    }
}

#[test]
fn the_words_keep_to_the_reading_whatever_it_is() {
    for provider in ["outlook", "microsoft365", "gmail", "yahoo", "default"] {
        for rule in Rules::shipped().list(provider) {
            for verdict in [Verdict::Delivered, Verdict::Retry, Verdict::Bounce] {
                let reading = Reading {
                    verdict,
                    class: rule.class,
                    scope: rule.scope,
                    suppress: rule.suppress && verdict == Verdict::Bounce,
                    breaker: rule.breaker,
                    rule: rule.name.into(),
                    tag: None,
                    cause: rule.cause.into(),
                    remedy: rule.remedy.into(),
                    effects: rule.effects,
                };
                let said = does(&reading, PAUSE);
                assert_eq!(said.contains("goes back to its sender"), verdict == Verdict::Bounce, "{said}");
                assert_eq!(said.contains("comes onto the suppression list"), reading.suppress, "{said}");
                assert_eq!(said.contains("an alert is raised. "), reading.breaker, "{said}");
            }
        }
    }
}

fn own(text: &str) -> Vec<toml::Table> {
    let file: toml::Table = text.parse().unwrap();
    file["rule"].as_array().unwrap().iter().map(|rule| rule.as_table().unwrap().clone()).collect()
}

const LUNCH: &str = "[[rule]]\nname = 'lunch'\nmatch = [{ any = ['after lunch'] }]\nclass = 'rate-limit'\nscope = 'source'\n\
                     wait = 2\ncause = 'They eat.'\n";

#[test]
fn own_rules_are_asked_first_and_keep_the_others() {
    let lunch = own(LUNCH);
    let rules = Rules::with_own([("outlook", lunch.as_slice()), ("corp", lunch.as_slice())]).unwrap();
    let shipped = Rules::shipped();
    for provider in ["outlook", "corp"] {
        let reading = explain(&rules, provider, "451 4.7.650 Come back after lunch");
        assert_eq!((&*reading.rule, reading.effects.wait), ("lunch", Some(200)), "{provider}");
        let behind: Vec<String> = rules.list(provider).skip(1).map(|rule| rule.name.to_string()).collect();
        let before: Vec<String> = shipped.list(provider).map(|rule| rule.name.to_string()).collect();
        assert_eq!(behind, before, "{provider}");
    }
    let elsewhere = explain(&rules, "gmail", "451 Come back after lunch");
    assert_eq!(&*elsewhere.rule, "temporary");
}

#[test]
fn an_own_rule_replaces_the_shipped_one_of_its_name() {
    let other = own(
        "[[rule]]\nname = 'rp-001'\nmatch = [{ tag = ['RP-001'], all = ['today'] }]\nclass = 'rate-limit'\nscope = 'source'\n\
         wait = 9\ncause = 'c'\nremedy = 'r'",
    );
    let rules = Rules::with_own([("outlook", other.as_slice())]).unwrap();
    assert_eq!(explain(&rules, "outlook", "421 RP-001 not today").effects.wait, Some(900));
    assert_eq!(&*explain(&rules, "outlook", "421 RP-001 slow").rule, "microsoft-temporary");
    assert_eq!(rules.list("outlook").filter(|rule| rule.name == "rp-001").count(), 1);
    assert_eq!(explain(&rules, "microsoft365", "421 RP-001 not today").effects.wait, Some(100));
}

#[test]
fn own_rules_of_default_read_for_all_without_a_table() {
    let (lunch, tea) = (own(LUNCH), own(&LUNCH.replace("lunch", "tea")));
    let rules = Rules::with_own([("corp", tea.as_slice()), (DEFAULT, lunch.as_slice())]).unwrap();
    for provider in ["mx.example.org", "corp", "default"] {
        assert_eq!(&*explain(&rules, provider, "451 after lunch").rule, "lunch", "{provider}");
    }
    assert_eq!(&*explain(&rules, "corp", "451 after tea").rule, "tea");
    assert_eq!(&*explain(&rules, "outlook", "451 after lunch").rule, "microsoft-temporary");
}

#[test]
fn a_faulty_own_rule_says_provider_rule_and_fault() {
    for (change, words) in [
        (("rate-limit", "rat-limit"), "`rat-limit` is none of"),
        (("wait = 2", "wait = 200"), "`wait` is 200"),
        (("wait = 2", "wait = nan"), "`wait` is NaN"),
        (("wait = 2", "after = 2"), "`after` goes with scope `sender-domain`"),
        (("wait = 2", "probe = 'early'"), "`probe` goes with class `ip-block`"),
        (("wait = 2", "suppress = true"), "`suppress` goes with"),
        (("after lunch", "a@b.example"), "`a@b.example` in `any`"),
        (("after lunch", "@us"), "`@us` in `any`"),
        (("wait = 2", "provisional = true"), "`provisional` goes with `suppress`"),
    ] {
        let own = own(&LUNCH.replace(change.0, change.1));
        let error = Rules::with_own([("outlook", own.as_slice())]).unwrap_err();
        assert_eq!((error.file.as_str(), error.rule.as_deref()), ("[[provider]] outlook", Some("lunch")), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn there_is_a_limit_to_own_rules_and_to_what_they_ask() {
    let many = own(&(0..=options::RULES_MAX).map(|n| LUNCH.replace("'lunch'", &format!("'r{n}'"))).collect::<String>());
    assert!(Rules::with_own([("outlook", many.as_slice())]).unwrap_err().fault.contains("over 200"));
    let entries: Vec<String> = (0..1100).map(|n| format!("{{ any = ['phrase {n}'] }}")).collect();
    let wide = own(&LUNCH.replace("{ any = ['after lunch'] }", &entries.join(", ")));
    assert!(Rules::with_own([("outlook", wide.as_slice())]).unwrap_err().fault.contains("1024"));
}

#[test]
fn the_pages_for_delisting_are_known() {
    let rules = Rules::shipped();
    assert_eq!(rules.delisting("outlook"), Some("https://olcsupport.office.com/"));
    assert_eq!(rules.delisting("microsoft365"), Some("https://sender.office.com/"));
    assert_eq!(rules.delisting("mx.example.org"), None);
}

#[test]
fn unknown_wordings_are_read_by_code_and_stage() {
    let rules = Rules::shipped();
    for (stage, reply, class, suppress) in [
        (Stage::Rcpt, "550 Nobody here", Class::RecipientUnknown, true),
        (Stage::Rcpt, "551 5.1.6 Moved", Class::RecipientUnknown, true),
        (Stage::Rcpt, "553 5.1.2 Cannot go there", Class::RecipientUnknown, true),
        (Stage::Rcpt, "550 Policy forbids", Class::Other, false),
        (Stage::Rcpt, "550 SPAM is not for us", Class::Other, false),
        (Stage::Rcpt, "550 5.1.1 blocked", Class::Other, false),
        (Stage::Rcpt, "550 You are on a list", Class::Other, false),
        (Stage::Rcpt, "550 no relay", Class::Other, false),
        (Stage::Rcpt, "550 authentication needed", Class::Other, false),
        (Stage::Rcpt, "550 DNS says no", Class::Other, false),
        (Stage::Rcpt, "550 5.7.1 No", Class::Other, false),
        (Stage::Rcpt, "554 No", Class::Other, false),
        (Stage::Rcpt, "550 5.1.1 <spam.policy@list.example>: gone", Class::RecipientUnknown, true),
        (Stage::Data, "550 Nobody here", Class::Other, false),
        (Stage::Data, "550 5.1.1 User unknown", Class::Other, false),
        (Stage::Mail, "550 5.1.1 User unknown", Class::Other, false),
        (Stage::Connect, "554 5.1.1 Go away", Class::Other, false),
        (Stage::Rcpt, "450 4.1.1 User unknown", Class::Temporary, false),
        (Stage::Rcpt, "550 5.1.8 Sender address rejected", Class::Other, false),
    ] {
        for provider in ["default", "outlook", "gmail", "yahoo"] {
            let reading = rules.read(provider, stage, &Reply::parse(reply).unwrap());
            assert_eq!(
                (reading.class, reading.suppress),
                (class, suppress),
                "{provider} {stage} {reply} by {}",
                reading.rule
            );
        }
    }
}

#[test]
fn an_unknown_wording_at_an_unknown_stage_is_taken_for_an_answer_to_rcpt() {
    let rules = Rules::shipped();
    for (reply, class) in [
        ("550 the host and its helo, the content, the domain: spam", Class::Other),
        ("550 nobody of that name", Class::RecipientUnknown),
        ("554 sorry", Class::Other),
    ] {
        let (reading, stage) = rules.explain("default", None, &Reply::parse(reply).unwrap());
        assert_eq!((reading.class, reading.breaker, stage), (class, false, Stage::Rcpt), "{reply} by {}", reading.rule);
    }
}

#[test]
fn the_helo_refusal_is_one_at_ehlo_only() {
    let rules = Rules::shipped();
    let reply = Reply::parse("501 5.5.4 Invalid argument").unwrap();
    assert!(rules.read("outlook", Stage::Ehlo, &reply).breaker);
    let later = rules.read("outlook", Stage::Rcpt, &reply);
    assert_eq!((later.class, later.breaker), (Class::Protocol, false));
}

#[test]
fn greylisting_is_about_one_delivery_and_says_when_however_it_is_worded() {
    let rules = Rules::shipped();
    for (text, secs) in [
        // Postgrey, and Postfix in front of it.
        (
            "450 4.2.0 <u@x.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x.test.html",
            300,
        ),
        ("450 4.2.0 <u@x.test>: Recipient address rejected: Greylisted for 60 seconds (see https://x.test/grey)", 60),
        ("450 4.7.1 <u@x.test>: Recipient address rejected: Greylisting in effect, please come back later", 300),
        ("450 4.7.1 <u@x.test>: Recipient address rejected: try again in 300 seconds", 300),
        ("451 4.7.1 <u@x.test>: Recipient address rejected: Please try again in 90 secs.", 90),
        // SQLgrey, gld, policyd.
        ("450 4.7.1 <u@x.test>: Recipient address rejected: Greylisted for 5 minutes", 300),
        (
            "450 <u@x.test>: Recipient address rejected: Service temporarily unavailable, greylisted (http://x.test/greylisting/)",
            300,
        ),
        ("450 4.7.1 <u@x.test>: Recipient address rejected: Policy Rejection - Graylisted, retry in 15 min", 900),
        // milter-greylist.
        ("451 4.7.1 Greylisting in action, please come back later", 300),
        ("451 4.7.1 Greylisting in action, please come back in 00:10:00", 600),
        // rspamd.
        ("451 4.7.1 Try again later", 300),
        ("451 4.7.1 Greylisted, please try again after 2 minutes", 120),
        // Exim, OpenBSD's spamd, and others.
        ("451 Greylisted, please try again in 600 seconds", 600),
        ("451 u@x.test: temporarily deferred (grey-listed), retry in 1 hour", 3600),
        ("451 Grey listing in force; come back in five minutes", 300),
        ("450-4.7.1 You are greylisted.\n450 4.7.1 Come back in 120 seconds", 120),
        ("451 4.7.1 Please come back in 3 days and 10 seconds", 60),
    ] {
        for provider in ["default", "mx.example.org", "gmail", "yahoo"] {
            let reading = rules.read(provider, Stage::Rcpt, &Reply::parse(text).unwrap());
            let read = (reading.class, reading.scope, reading.effects.again_secs);
            assert_eq!(
                read,
                (Class::Temporary, Scope::Recipient, Some(secs)),
                "{text} at {provider}, by {}",
                reading.rule
            );
            let (explained, _) = rules.explain(provider, None, &Reply::parse(text).unwrap());
            assert_eq!(explained, reading, "{text}");
            let does = does(&reading, PAUSE);
            let wait = crate::types::Span(std::time::Duration::from_secs(u64::from(secs)));
            assert!(does.contains(&format!("is tried again after {wait}. All other mail goes on.")), "{does}");
        }
    }
}

#[test]
fn what_is_no_greylisting_is_not_taken_for_it() {
    let rules = Rules::shipped();
    for (text, class, scope) in [
        ("450 4.7.1 Rate limit exceeded, try again in 300 seconds", Class::RateLimit, Scope::Source),
        ("421 4.7.0 Too many connections, try again in 60 seconds", Class::ConnectionLimit, Scope::Source),
        ("452 4.5.3 Too many recipients, try again later", Class::TooManyRecipients, Scope::Message),
        ("451 4.3.0 Temporary lookup failure", Class::Temporary, Scope::Server),
        ("450 4.2.0 try later", Class::Temporary, Scope::Server),
        ("452 4.2.2 Mailbox full, try again in 2 hours", Class::MailboxFull, Scope::Recipient),
        ("550 5.7.1 Greylisted for ever", Class::RecipientUnknown, Scope::Recipient),
    ] {
        let reading = rules.read("default", Stage::Rcpt, &Reply::parse(text).unwrap());
        if !text.starts_with('5') {
            assert_eq!((reading.class, reading.scope), (class, scope), "{text}, by {}", reading.rule);
        }
        // A full mailbox is asked again when it says so; what speaks of our address is waited for by the lane.
        let again = text.contains("Mailbox full").then_some(3600);
        assert_eq!(reading.effects.again_secs, again, "{text}");
    }
}

#[test]
fn who_asks_to_come_back_is_asked_again_then() {
    let rules = Rules::shipped();
    for (text, secs) in [
        ("451 4.3.0 Overloaded, come back in 120 seconds", 120),
        ("421 4.3.2 Shutting down, please try again in 5 minutes", 300),
        ("452 4.3.1 Out of memory, retry after 90 seconds", 90),
        ("451 4.4.0 Resources busy; please wait 10 minutes", 600),
        ("450 4.3.0 come back in 3 days and 20 hours", 3600),
        ("450 4.3.0 come back in 2 seconds", 60),
    ] {
        for (provider, stage) in [("default", Stage::Rcpt), ("outlook", Stage::Data), ("yahoo", Stage::Mail)] {
            let reading = rules.read(provider, stage, &Reply::parse(text).unwrap());
            assert_eq!(reading.effects.again_secs, Some(secs), "{provider} {text} by {}", reading.rule);
        }
    }
    let never = rules.read("default", Stage::Rcpt, &Reply::parse("550 5.3.0 come back in 5 minutes").unwrap());
    assert_eq!(never.effects.again_secs, None);
}

#[test]
fn a_limit_of_one_mailbox_is_about_that_mailbox() {
    let rules = Rules::shipped();
    for (provider, text, again) in [
        ("microsoft365", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", None),
        ("default", "432 4.3.2 recipient thread limit exceeded", None),
        ("default", "450 4.2.1 The user you are trying to contact is receiving mail too quickly", None),
        ("default", "450 4.2.1 Recipient rate limit exceeded, try again in 10 minutes", Some(600)),
        ("default", "451 4.7.1 Too many messages for this recipient in an hour", Some(3600)),
        ("gmail", "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents", None),
    ] {
        let reading = rules.read(provider, Stage::Rcpt, &Reply::parse(text).unwrap());
        let read = (reading.class, reading.scope, reading.effects.again_secs);
        assert_eq!(read, (Class::RateLimit, Scope::Recipient, again), "{text}, by {}", reading.rule);
        assert!(does(&reading, PAUSE).contains("Other messages to this mailbox wait for"), "{}", does(&reading, PAUSE));
    }
}

/// docs/rules.md shows which scopes go with a class; every shipped rule is such a pair, or its table could not be read.
#[test]
fn the_document_shows_the_pairs_that_make_sense() {
    let document = include_str!("../../docs/rules.md");
    for class in Class::ALL {
        let scopes: Vec<&str> = super::rule::scopes(*class).iter().map(|scope| scope.as_str()).collect();
        let row = format!("| {class} | {} |", scopes.join(", "));
        assert!(document.contains(&row), "docs/rules.md lacks the row\n{row}");
    }
}

#[test]
fn a_rule_whose_class_and_scope_do_not_go_together_is_refused() {
    let read = |class: Class, scope: Scope, rest: &str| {
        let text = format!(
            "name = 'a'\nmatch = [{{ code = ['4xx'] }}]\nclass = '{class}'\nscope = '{scope}'\ncause = 'c'\n{rest}"
        );
        Rules::with_own([("outlook", [text.parse::<toml::Table>().unwrap()].as_slice())]).map(drop)
    };
    for class in Class::ALL.iter().copied().filter(|class| *class != Class::Delivered) {
        for scope in Scope::ALL.iter().copied() {
            let rest = if (class, scope) == (Class::Protocol, Scope::Source) { "breaker = true" } else { "" };
            let fits = super::rule::scopes(class).contains(&scope);
            assert_eq!(read(class, scope, rest).is_ok(), fits, "{class} {scope}");
        }
    }
    let error = read(Class::RateLimit, Scope::Connection, "").unwrap_err().to_string();
    assert!(error.contains("class `rate-limit` does not go with scope `connection`"), "{error}");
    assert!(error.contains("write scope `source` or `sender-domain`"), "{error}");
    assert!(read(Class::Protocol, Scope::Source, "").unwrap_err().to_string().contains("needs `breaker = true`"));
    for (class, again, words) in [
        (Class::Temporary, "30s", "`again` is 30s"),
        (Class::Temporary, "2h", "`again` is 2h"),
        (Class::Other, "5m", "goes with class `temporary`"),
    ] {
        let error = read(class, Scope::Recipient, &format!("again = '{again}'")).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(read(Class::Temporary, Scope::Recipient, "again = '10m'").is_ok());
}

#[test]
fn a_faulty_table_says_file_rule_and_fault() {
    let rule = |name: &str, rest: &str| {
        format!("order = ['default']\n[[rule]]\nname = \"{name}\"\ncause = 'c'\nremedy = 'r'\nsource = 's'\n{rest}")
    };
    for (text, rule_name, words) in [
        (rule("a", "match = [{ code = ['9xx'] }]\nclass = 'other'\nscope = 'message'"), Some("a"), "`9xx` in `code`"),
        (rule("a", "match = [{ any = ['ab'] }]\nclass = 'other'\nscope = 'message'"), Some("a"), "`ab` in `any`"),
        (rule("a", "match = [{ code = ['5xx'] }]\nclass = 'oter'\nscope = 'message'"), Some("a"), "`oter` is none of"),
        (rule("a", "match = [{ colour = 1 }]\nclass = 'other'\nscope = 'message'"), Some("a"), "unknown field"),
        (rule("A b", "match = [{ code = ['5xx'] }]\nclass = 'other'\nscope = 'message'"), Some("A b"), "small letters"),
        (rule("a", "match = []\nclass = 'other'\nscope = 'message'"), Some("a"), "never be used"),
        (
            rule(
                "a",
                "match = [{ code = ['5xx'], stage = ['rcpt'] }]\nclass = 'ip-block'\nscope = 'source'\nsuppress = true",
            ),
            Some("a"),
            "`suppress` goes with",
        ),
        (
            rule(
                "a",
                "match = [{ code = ['5xx'] }]\nclass = 'recipient-unknown'\nscope = 'recipient'\nsuppress = true",
            ),
            Some("a"),
            "`suppress` needs `stage`",
        ),
        (
            rule("a", "match = [{ code = ['5xx'] }]\nclass = 'other'\nscope = 'message'\nbreaker = true"),
            Some("a"),
            "`breaker` goes with",
        ),
        (
            rule("a", "match = [{ any = ['@nobody'] }]\nclass = 'other'\nscope = 'message'"),
            Some("a"),
            "`@nobody` is no list of words",
        ),
        ("order = ['default', 'nowhere']".to_string(), None, "`nowhere`"),
        ("order = ".to_string(), None, "line 1"),
    ] {
        let error = Rules::from_tables(&[("default", &text)]).unwrap_err();
        assert_eq!((error.file.as_str(), error.rule.as_deref()), ("default", rule_name), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(Rules::from_tables(&[]).unwrap_err().to_string().contains("missing"));
}

/// Others read `[profile]` of the same files.
#[test]
fn every_provider_has_a_profile_of_its_name() {
    for (name, text) in SHIPPED {
        let file: toml::Table = toml::from_str(text).unwrap();
        let is_provider = file.contains_key("order");
        let profile = file.get("profile").and_then(|profile| profile.as_table());
        assert_eq!(profile.is_some(), is_provider, "{name}");
        if let Some(profile) = profile {
            assert_eq!(profile["name"].as_str(), Some(name));
        }
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let known = proptest::sample::select(expected()).prop_map(|row| Reply::parse(row.reply).unwrap());
    let codes = prop_oneof![200u16..600, Just(550), Just(421), Just(501)];
    let made = (codes, "([245]\\.[0-7]\\.[0-9]{1,3} )?[ -~]{0,60}").prop_map(|(code, text)| Reply::new(code, text));
    let shuffled = (any_code(), proptest::sample::select(expected()))
        .prop_map(|(code, row)| Reply::new(code, row.reply.get(4..).unwrap_or_default()));
    prop_oneof![known, made, shuffled]
}

fn any_rule() -> impl Strategy<Value = String> {
    let conditions = proptest::sample::select(vec![
        "{ code = ['5xx'] }",
        "{ code = ['550'], stage = ['rcpt'] }",
        "{ code = ['2xx', '4xx', '5xx'], stage = ['rcpt', 'data'] }",
        "{ any = ['unfortunately', 'access denied'], stage = ['data'] }",
        "{ tag = ['S31xx'], stage = ['rcpt'] }",
        "{ enhanced = ['x.x.x'] }",
        "{ stage = ['connect', 'rcpt'] }",
    ]);
    let (class, scope) = (proptest::sample::select(Class::ALL), proptest::sample::select(Scope::ALL));
    (conditions, class, scope, any::<bool>(), any::<bool>()).prop_map(|(condition, class, scope, suppress, breaker)| {
        format!(
            "name = 'odd'\nmatch = [{condition}]\nclass = '{class}'\nscope = '{scope}'\nsuppress = {suppress}\n\
             breaker = {breaker}\ncause = 'c'"
        )
    })
}

fn any_code() -> impl Strategy<Value = u16> {
    prop_oneof![Just(250u16), Just(421), Just(451), Just(501), Just(550), Just(554)]
}

fn any_provider() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["outlook", "microsoft365", "gmail", "yahoo", "default", "mx.example.org"])
}

proptest! {
    #[test]
    fn the_laws_hold_for_any_reply(
        provider in any_provider(),
        stage in proptest::option::of(proptest::sample::select(Stage::ALL)),
        reply in any_reply(),
    ) {
        let rules = RULES.with(Clone::clone);
        let (reading, expected) = rules.explain(provider, stage, &reply);
        let verdict = match reply.code() / 100 { 2 => Verdict::Delivered, 5 => Verdict::Bounce, _ => Verdict::Retry };
        prop_assert_eq!(reading.verdict, verdict);
        prop_assert_eq!(reading.class == Class::Delivered, verdict == Verdict::Delivered);
        prop_assert_ne!(&*reading.rule, "none");
        if reading.suppress {
            prop_assert!(reading.scope == Scope::Recipient && !reading.breaker && verdict == Verdict::Bounce);
            prop_assert!(matches!(expected, Stage::Rcpt | Stage::Data));
        }
        prop_assert!(!reading.breaker || reading.scope == Scope::Source);
        prop_assert!(reading.class != Class::IpBlock || reading.breaker);
        // What `explain` finds without a stage is what `read` finds at the stage it names.
        prop_assert_eq!(stage.unwrap_or(expected), expected);
        prop_assert_eq!(rules.read(provider, expected, &reply), reading);
    }

    #[test]
    fn no_table_however_odd_makes_a_reply_about_us_suppress(rule in any_rule(), stage in proptest::option::of(proptest::sample::select(Stage::ALL)), reply in any_reply()) {
        let rule: toml::Table = rule.parse().unwrap();
        // Most are refused, and rightly so; what is taken keeps the laws.
        if let Ok(rules) = Rules::with_own([("outlook", [rule].as_slice())]) {
            let (reading, stage) = rules.explain("outlook", stage, &reply);
            prop_assert_eq!(reading.verdict, verdict(&reply));
            prop_assert_eq!(reading.class == Class::Delivered, reply.is_positive());
            prop_assert!(!reading.suppress || reading.scope == Scope::Recipient && !reading.breaker && reply.is_permanent());
            prop_assert!(!reading.suppress || matches!(stage, Stage::Rcpt | Stage::Data));
            prop_assert!(!reading.breaker || reading.scope == Scope::Source);
        }
    }

    #[test]
    fn reading_takes_any_bytes(
        provider in any_provider(),
        stage in proptest::option::of(proptest::sample::select(Stage::ALL)),
        code in 0u16..1000,
        text in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
    ) {
        let rules = RULES.with(Clone::clone);
        let reply = Reply::new(code, text);
        let (reading, _) = rules.explain(provider, stage, &reply);
        prop_assert_eq!(reading.verdict, verdict(&reply));
        prop_assert!(!does(&reading, PAUSE).is_empty());
    }

    #[test]
    fn an_address_in_a_reply_has_no_say(
        provider in any_provider(),
        local in "(spam|policy|rp-001|sc-001|block|list|spamhaus|user|disabled|[a-z.+-]{1,8}){1,3}",
    ) {
        let rules = RULES.with(Clone::clone);
        let read = |address: &str| {
            let reply = Reply::new(550, format!("5.1.1 <{address}>: gone"));
            rules.read(provider, Stage::Rcpt, &reply)
        };
        prop_assert_eq!(read(&format!("{local}@example.com")), read("ann@example.org"));
    }
}

thread_local! {
    static RULES: Rules = Rules::shipped();
}
