//! The shipped tables against replies of real servers, and the room's laws against anything.

use proptest::prelude::*;

use super::*;

/// One reply a line: provider, reply, class, scope, verdict, suppress, breaker.
const EXPECTED: &str = include_str!("../../tests/replies/expected.tsv");

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
        folded.join("\n"),
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
fn a_faulty_table_says_file_rule_and_fault() {
    let rule = |name: &str, rest: &str| {
        format!("order = ['default']\n[[rule]]\nname = \"{name}\"\ncause = 'c'\nremedy = 'r'\nsource = 's'\n{rest}")
    };
    for (text, rule_name, words) in [
        (rule("a", "match = [{ code = ['9xx'] }]\nclass = 'other'\nscope = 'message'"), Some("a"), "`9xx` in `code`"),
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
