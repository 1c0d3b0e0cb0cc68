//! What is found in the files of mail servers, and the lines that are written for them.

use super::*;
use crate::types::Status;

/// A host with these files.
fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

fn looked(files: &[(&str, &str)], config: &str, microsoft_only: bool) -> Vec<Finding> {
    let root = host(files);
    let config: Config = toml::from_str(config).unwrap();
    let found = look(&config, &Asked { root: root.path().to_path_buf(), microsoft_only });
    for line in found.iter().filter_map(|finding| finding.remedy.as_ref()).flat_map(|remedy| remedy.lines().skip(1)) {
        assert!(line.chars().count() <= 72, "too long for a terminal: {line}");
    }
    found
}

/// What is said of the one server that is there.
fn one(file: &str, text: &str, config: &str, microsoft_only: bool) -> (Status, String, String) {
    let mut found = looked(&[(file, text)], config, microsoft_only);
    assert_eq!(found.len(), 1, "{found:#?}");
    let found = found.remove(0);
    (found.status, found.text, found.remedy.unwrap_or_default())
}

const POSTFIX: &str = "etc/postfix/main.cf";
const DEBIAN: &str = "etc/exim4/update-exim4.conf.conf";
const SENDMAIL: &str = "etc/mail/sendmail.mc";
const MSMTP: &str = "etc/msmtprc";

#[test]
fn a_server_that_hands_its_mail_to_weir_is_well() {
    for (file, text) in [
        (POSTFIX, "# relayhost = [no]\nmyhostname = a.dev\nrelayhost =\n  [127.0.0.1]:2525\n"),
        (POSTFIX, "relayhost = [mail.isp.dev]:25\nrelayhost = [localhost]:2525\n"),
        (DEBIAN, "dc_eximconfig_configtype='satellite'\ndc_smarthost='127.0.0.2::2525'\n"),
        (
            SENDMAIL,
            "divert(-1)\ndefine(`SMART_HOST', `relay:[127.0.0.1]')dnl\ndefine(`RELAY_MAILER_ARGS', `TCP $h 2525')dnl\n",
        ),
        (
            MSMTP,
            "defaults\ntls off\naccount weir\nhost 127.0.0.1\nport 2525\naccount other\nhost x\naccount default : weir\n",
        ),
        ("etc/exim4/exim4.conf", "begin routers\nweir:\n  driver = manualroute\n  route_list = * 127.0.0.1::2525\n"),
    ] {
        let (status, said, _) = one(file, text, "", false);
        assert!(status == Status::Ok && said.contains("to weir"), "{file}: {said}");
    }
}

#[test]
fn one_that_does_not_gets_the_lines_that_do() {
    for (file, text, says, lines) in [
        (
            POSTFIX,
            "myhostname = a.dev\n",
            "by itself",
            "\nrelayhost = [127.0.0.1]:2525\nsmtp_tls_security_level = may\n",
        ),
        (POSTFIX, "relayhost = [mail.isp.dev]\ntransport_maps = hash:x\n", "transport_maps may", "\npostfix reload\n"),
        (
            DEBIAN,
            "dc_eximconfig_configtype='internet'\ndc_smarthost=''\n",
            "by itself",
            "\ndc_eximconfig_configtype='smarthost'\ndc_smarthost='127.0.0.2::2525'\n",
        ),
        (
            DEBIAN,
            "dc_eximconfig_configtype='satellite'\ndc_smarthost='isp.dev::587'\n",
            "to isp.dev::587",
            "='satellite'\n",
        ),
        (
            SENDMAIL,
            "dnl define(`SMART_HOST', `[127.0.0.1]')\n",
            "by itself",
            "\ndefine(`SMART_HOST', `relay:[127.0.0.1]')dnl\ndefine(`RELAY_MAILER_ARGS', `TCP $h 2525')dnl\n",
        ),
        (MSMTP, "account a\nhost isp.dev\n", "to isp.dev port 25", "\naccount weir\nhost 127.0.0.1\nport 2525\n"),
        ("etc/exim4/exim4.conf", "begin routers\n", "no mail", "\n  route_list = * 127.0.0.1::2525\n  self = send\n"),
    ] {
        let (status, said, remedy) = one(file, text, "", false);
        assert!(status == Status::Warn && said.contains(says), "{file}: {said}");
        assert!(remedy.contains(lines), "{file}: {remedy}");
    }
}

#[test]
fn exim_freezes_mail_for_127_0_0_1() {
    let config = "[[listener]]\naddress = \"127.0.0.1:2525\"\n";
    let text = "dc_eximconfig_configtype='smarthost'\ndc_smarthost='127.0.0.1::2525'\n";
    let (status, said, remedy) = one(DEBIAN, text, config, false);
    assert!(status == Status::Fail && said.contains("freezes"), "{said}");
    assert!(remedy.contains("dc_smarthost='127.0.0.2::2525'"), "{remedy}");
    assert!(remedy.contains("[[listener]]\naddress = \"127.0.0.2:2525\""), "weir does not listen there yet: {remedy}");
}

#[test]
fn a_listener_that_wants_tls_and_a_user_gets_both() {
    let config = "[[listener]]\naddress = \"0.0.0.0:587\"\ntls = \"require\"\nauth = \"require\"\n";
    let postfix = one(POSTFIX, "", config, false).2;
    for line in [
        "relayhost = [127.0.0.1]:587",
        "smtp_sasl_auth_enable = yes",
        "smtp_tls_security_level = encrypt",
        "[127.0.0.1]:587 USER:PASSWORD",
    ] {
        assert!(postfix.lines().any(|known| known == line), "{line}: {postfix}");
    }
    let exim = one(DEBIAN, "", config, false).2;
    assert!(exim.contains("dc_smarthost='127.0.0.2::587'") && exim.contains("HOSTS_REQUIRE_TLS = *"), "{exim}");
    assert!(exim.contains("*:USER:PASSWORD") && !exim.contains("[[listener]]"), "{exim}");
    let msmtp = one(MSMTP, "", config, false).2;
    assert!(msmtp.contains("tls on\ntls_starttls on\nauth on\nuser USER"), "{msmtp}");
    let implicit = one(MSMTP, "", "[[listener]]\naddress = \"127.0.0.1:465\"\ntls = \"implicit\"\n", false).2;
    assert!(implicit.contains("tls on\ntls_starttls off\nauth off"), "{implicit}");
}

#[test]
fn only_microsofts_mail_goes_by_domain_and_where_possible_by_mx() {
    let text = "transport_maps = hash:/etc/postfix/transport\n";
    let (status, _, postfix) = one(POSTFIX, text, "", true);
    assert_eq!(status, Status::Warn);
    for line in [
        "transport_maps = texthash:/etc/postfix/weir_domains,",
        "  hash:/etc/postfix/transport",
        "  check_recipient_mx_access texthash:/etc/postfix/weir_mx",
        "mail.protection.outlook.com FILTER smtp:[127.0.0.1]:2525",
        "mx.microsoft FILTER smtp:[127.0.0.1]:2525",
        "hotmail.de smtp:[127.0.0.1]:2525",
    ] {
        assert!(postfix.lines().any(|known| known == line), "{line}: {postfix}");
    }
    let exim = one(DEBIAN, "dc_eximconfig_configtype='internet'\n", "", true).2;
    assert!(exim.contains("lookup dnsdb{defer_never,mxh=$domain}"), "{exim}");
    assert!(exim.contains("\n    mail\\.protection\\.outlook\\.com|\\\n"), "{exim}");
    let sendmail = one(SENDMAIL, "", "", true).2;
    assert!(sendmail.contains("\noutlook.com relay:[127.0.0.1]\n") && !sendmail.contains("SMART_HOST"), "{sendmail}");
    assert!(one(MSMTP, "", "", true).2.starts_with("msmtp cannot choose"));
    let done = "transport_maps = texthash:/etc/postfix/weir_domains\n\
                smtpd_recipient_restrictions = check_recipient_mx_access texthash:/etc/postfix/weir_mx\n";
    assert_eq!(one(POSTFIX, done, "", true).0, Status::Ok);
    // Who hands over everything hands over Microsoft's with it.
    assert_eq!(one(POSTFIX, "relayhost = [127.0.0.1]:2525\n", "", true).0, Status::Ok);
}

#[test]
fn a_host_without_any_is_told_what_applications_need() {
    let found = looked(&[], "", false);
    let remedy = found[0].remedy.as_deref().unwrap();
    assert!(found[0].status == Status::Warn && remedy.contains("host 127.0.0.1\nport 2525"), "{remedy}");
    let several = looked(&[(POSTFIX, ""), (MSMTP, "")], "", false);
    assert_eq!(several.iter().map(|f| f.subject.as_str()).collect::<Vec<_>>(), ["Postfix", "msmtp"]);
}
