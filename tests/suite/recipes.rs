//! Applications' mail libraries as clients, set as docs/recipes.md says: inside TLS, with a name and a password, the certificate checked.
//! Postfix and Exim are tried in `mtas` and `tls`.
//!
//! They lie in `target/ci`, where `.ci/run` puts them; with `WEIR_TEST_MTAS=required` they must be there.

use std::process::{Command, Output};

use crate::kit::image::built;
use crate::kit::papers::Papers;
use crate::kit::relay::{finish, program};
use crate::kit::{World, until};

const DJANGO: &str = "
import os
from django.conf import settings
settings.configure(
    EMAIL_HOST='localhost', EMAIL_PORT=int(os.environ['PORT']), EMAIL_HOST_USER='app',
    EMAIL_HOST_PASSWORD=os.environ['RELAY_PASSWORD'], EMAIL_USE_TLS=True, EMAIL_TIMEOUT=10)
from django.core.mail import send_mail
send_mail('recipe', 'text', 'app@sender.test', ['u@x.test'])
";

const NODEMAILER: &str = "
const fs = require('fs');
const transport = require('nodemailer').createTransport({
  pool: true, maxConnections: 5, maxMessages: 100,
  host: 'localhost', port: Number(process.env.PORT), secure: false, requireTLS: true,
  auth: { user: 'app', pass: process.env.RELAY_PASSWORD },
});
transport.sendMail({ from: 'app@sender.test', to: 'u@x.test', subject: 'recipe', text: 'text' })
  .then(() => transport.close(), error => { console.error(String(error), error.code); process.exit(1); });
";

/// Is it installed? Else that is said, or a failure.
fn has(interpreter: &str, library: &str) -> bool {
    if program(interpreter).is_some() && built(library).exists() {
        return true;
    }
    let is_required = std::env::var("WEIR_TEST_MTAS").is_ok_and(|v| v == "required");
    assert!(!is_required, "{interpreter} or target/{library} is missing; .ci/run installs it");
    eprintln!("skipped: {interpreter} or target/{library} is missing; .ci/run installs it");
    false
}

/// `of_authority`: what makes this client trust the certificate, the value being its file.
fn logs_in_and_sends(client: &dyn Fn() -> Command, of_authority: &str) {
    let (world, mx) = World::with_domain("x.test");
    let papers = Papers::issue();
    let maker = world.config().start();
    let line = maker.command_with_input(&["password", "--user", "app"], b"correct horse\n");
    papers.put("users", &String::from_utf8_lossy(&line.stdout));
    let users = format!("\"{}\"", papers.path("users").display());
    let door = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"require\"\nauth = \"require\"";
    let relay = papers.show(world.config()).set("relay", "users_file", &users).without_listeners().table(door).start();

    let run = |authority: Option<&str>, password: &str| -> Output {
        let mut command = client();
        command.env("PORT", relay.address().port().to_string()).env("RELAY_PASSWORD", password);
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"] {
            command.env_remove(variable);
        }
        if let Some(variable) = authority {
            command.env(variable, papers.path("certificate"));
        }
        finish(command, b"")
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).to_lowercase();
    // A certificate of one's own, and nobody told the client of its authority.
    let distrusted = run(None, "correct horse");
    assert!(!distrusted.status.success() && said(&distrusted).contains("self-signed certificate"), "{distrusted:?}");
    let refused = run(Some(of_authority), "wrong");
    assert!(!refused.status.success() && said(&refused).contains("535"), "{refused:?}");
    let sent = run(Some(of_authority), "correct horse");
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@x.test"]);
    let accepted = until("the event", || relay.events_of("accepted").pop());
    assert!(accepted["user"] == "app" && accepted["tls"].is_string(), "{accepted}");
}

#[test]
fn django_logs_in_and_sends() {
    if !has("python3", "ci/python/django") {
        return;
    }
    let client = || {
        let mut command = Command::new("python3");
        command.args(["-c", DJANGO]).env("PYTHONPATH", built("ci/python"));
        command
    };
    logs_in_and_sends(&client, "SSL_CERT_FILE");
}

#[test]
fn nodemailer_logs_in_and_sends() {
    if !has("node", "ci/node_modules/nodemailer") {
        return;
    }
    let client = || {
        let mut command = Command::new("node");
        command.args(["-e", NODEMAILER]).env("NODE_PATH", built("ci/node_modules"));
        command
    };
    logs_in_and_sends(&client, "NODE_EXTRA_CA_CERTS");
}
