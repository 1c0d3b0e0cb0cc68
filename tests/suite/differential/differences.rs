//! Where Postfix and Exim answer otherwise, and why the relay does as it does.

use crate::kit::mta::Kind::{self, Exim, Postfix};

/// `server` comes to something else with a scripted dialogue.
pub(super) struct Difference {
    pub(super) dialogue: &'static str,
    pub(super) server: Kind,
    pub(super) theirs: &'static str,
    pub(super) why: &'static str,
}

/// `server` answers a line of a walk otherwise; the state of the dialogue stays the same.
pub(super) struct StepDifference {
    pub(super) line: &'static str,
    pub(super) server: Kind,
    pub(super) ours: char,
    pub(super) theirs: char,
    pub(super) why: &'static str,
}

const fn differs(dialogue: &'static str, server: Kind, theirs: &'static str, why: &'static str) -> Difference {
    Difference { dialogue, server, theirs, why }
}

const EVERY_NAME: &str =
    "nobody is refused for the name of his host: it decides nothing, and old devices have odd ones";
const NO_QUEUE_RUN: &str = "ETRN (RFC 1985) starts queues of others: it is not offered, and 502 says so";
const NO_ROUTES: &str =
    "RFC 5321 appendix C lets a server refuse source routes; to strip one is to go another way than was asked for";
const NO_OTHER_ENCODING: &str = "RFC 6531 section 3.5: an address beyond ASCII without SMTPUTF8 gets 553 5.6.7";
const NO_NUL: &str =
    "RFC 5322 section 4 forbids NUL: receivers cut such messages off or refuse them, so the client hears it at once";
const NOT_MENDED: &str =
    "RFC 5321 section 4.1.2: no blank and no second @ stands in an address; a mended one is another's";
const FINAL_DOT: &str = "a final dot is how zone files write the same domain: it is taken off, as Postfix does";
const LOCAL_PART: &str = "RFC 5321 section 4.5.3.1.1: a local part has 64 octets, and receivers refuse longer ones";
const DOMAIN_NEEDED: &str = "RFC 5321 section 2.3.5: a domain is needed; to add our own makes an address nobody wrote";
const LITERALS: &str = "RFC 5321 section 4.1.3: an address literal is an address; the IP address has to be in brackets";
const ANSWERED_ONE_BY_ONE: &str = "what is pipelined before EHLO's answer is a command like any other here: nothing that was sent is thrown away or closed over";
const NOT_IN_STEP: &str = "a message sent without waiting for 354: RFC 2920 section 3.1 forbids it, and servers that obey the octets agree with one another \
     on what they mean, so nothing is gained by refusing it";
const BOTH_SAID: &str = "octets behind a refused DATA end the connection at both; here DATA has its own answer before that, as every command";
const CONTROL: &str =
    "a control character or octets that are no UTF-8 refuse the line, so that nothing of it reaches a header or a log";

pub(super) const DIFFERENCES: &[Difference] = &[
    differs(
        "then HELP",
        Postfix,
        "225|2 q=0",
        "RFC 5321 section 4.1.1.8: a person at the keyboard is told the commands",
    ),
    differs("then ETRN x.test", Postfix, "224|2 q=0", NO_QUEUE_RUN),
    differs("then ETRN x.test", Exim, "224|2 q=0", NO_QUEUE_RUN),
    differs(
        "then BDAT 0 LAST",
        Postfix,
        "225| q=0",
        "a chunk whose size is known is passed over, and the dialogue goes on",
    ),
    differs("then  NOOP", Postfix, "222|2 q=0", "RFC 5321 section 4.1.1: a command begins its line"),
    differs(
        "then GET / HTTP/1.1",
        Exim,
        "225|2 q=0",
        "a browser that was made to talk to us: nothing behind is obeyed",
    ),
    differs(
        "then POST / HTTP/1.1",
        Exim,
        "225|2 q=0",
        "a browser that was made to talk to us: nothing behind is obeyed",
    ),
    differs(
        "then GET / HTTP/1.1",
        Postfix,
        "222| q=0",
        "it says 221 to a browser; that is no QUIT, and 500 is a refusal",
    ),
    differs(
        "then POST / HTTP/1.1",
        Postfix,
        "222| q=0",
        "it says 221 to a browser; that is no QUIT, and 500 is a refusal",
    ),
    differs(
        "then MAILFROM:<a@b.test>",
        Postfix,
        "222| q=0",
        "it takes a word with a colon for a header of HTTP and ends the connection with 221",
    ),
    differs("then VRFY u", Exim, "225|2 q=0", "RFC 5321 section 3.5.3: 252 where nothing is verified"),
    differs("first EHLO _odd", Exim, "25|2 q=0", EVERY_NAME),
    differs("first EHLO a b", Exim, "25|2 q=0", EVERY_NAME),
    differs("MAIL FROM:<\u{fc}@sender.test>", Postfix, "222|2 q=0", NO_OTHER_ENCODING),
    differs("MAIL FROM:<\u{fc}@sender.test>", Exim, "222|2 q=0", NO_OTHER_ENCODING),
    differs("RCPT TO:<\u{fc}@x.test>", Postfix, "2222|2 q=0", NO_OTHER_ENCODING),
    differs("RCPT TO:<\u{fc}@x.test>", Exim, "2222|2 q=0", NO_OTHER_ENCODING),
    differs(
        "MAIL FROM:<app@sender.test>>",
        Postfix,
        "222|2 q=0",
        "what stands behind the closing bracket is no parameter",
    ),
    differs("MAIL FROM:<@a.test:app@sender.test>", Postfix, "222|2 q=0", NO_ROUTES),
    differs("MAIL FROM:<@a.test:app@sender.test>", Exim, "222|2 q=0", NO_ROUTES),
    differs("RCPT TO:<@a.test:u@x.test>", Postfix, "2222|2 q=0", NO_ROUTES),
    differs("RCPT TO:<@a.test:u@x.test>", Exim, "2222|2 q=0", NO_ROUTES),
    differs("RCPT TO:<@a.test,@b.test:u@x.test>", Postfix, "2222|2 q=0", NO_ROUTES),
    differs("RCPT TO:<@a.test,@b.test:u@x.test>", Exim, "2222|2 q=0", NO_ROUTES),
    differs("MAIL FROM:<app>", Postfix, "222|2 q=0", DOMAIN_NEEDED),
    differs("RCPT TO:<u>", Postfix, "2222|2 q=0", DOMAIN_NEEDED),
    differs(
        "MAIL FROM:<app@sender.test> SIZE=x",
        Exim,
        "222|2 q=0",
        "RFC 1870 section 3: SIZE is a number; a guess would be a promise",
    ),
    differs("MAIL FROM:<app@[192.0.2.1]>", Exim, "225|2 q=0", LITERALS),
    differs("MAIL FROM:<app@192.0.2.1>", Exim, "222|2 q=0", LITERALS),
    differs("RCPT TO:<u@[127.0.0.1]>", Exim, "2225|2 q=0", LITERALS),
    differs("RCPT TO:<u@[IPv6:::1]>", Exim, "2225|2 q=0", LITERALS),
    differs("RCPT TO:<u@127.0.0.1>", Exim, "2222|2 q=0", LITERALS),
    differs("RCPT TO:<u@x.test.>", Exim, "2225|2 q=0", FINAL_DOT),
    differs("RCPT TO:<u@x.test >", Postfix, "2222|2 q=0", NOT_MENDED),
    differs("RCPT TO:<u@other.test@x.test>", Postfix, "2222|2 q=0", NOT_MENDED),
    differs("RCPT TO:<u\t@x.test>", Postfix, "2222|2 q=0", NOT_MENDED),
    differs("RCPT TO:<u\t@x.test>", Exim, "2222|2 q=0", NOT_MENDED),
    differs("RCPT TO:<u@x.test> ORCPT=u", Exim, "2222|2 q=0", "RFC 3461 section 4.2: ORCPT has a type and an address"),
    differs("data CRLF NUL . CRLF", Postfix, "22223|22 q=1", NO_NUL),
    differs("data CRLF NUL . CRLF", Exim, "22223|22 q=1", NO_NUL),
    differs("data CRLF . NUL CRLF", Postfix, "22223|22 q=1", NO_NUL),
    differs("data CRLF . NUL CRLF", Exim, "22223|22 q=1", NO_NUL),
    differs("data CRCRLF . CRLF", Postfix, "22223|2225 q=1", NOT_IN_STEP),
    differs("data CRCRLF . CRLF", Exim, "22223|2225 q=1", NOT_IN_STEP),
    differs("data true end", Postfix, "22223|2225 q=1", NOT_IN_STEP),
    differs("data true end", Exim, "22223|2225 q=1", NOT_IN_STEP),
    differs("a message with its envelope in one flight", Postfix, "22|225 q=0", NOT_IN_STEP),
    differs(
        "a message that does not end",
        Exim,
        "22223|4 q=0",
        "whoever has closed hears nothing, and a 421 to nobody is left out",
    ),
    differs("the envelope is gone after a message", Postfix, "22223|255 q=1", BOTH_SAID),
    differs("the envelope is gone after a message", Exim, "22223|255 q=1", BOTH_SAID),
    differs("a body behind a refused DATA", Postfix, "22|25 q=0", BOTH_SAID),
    differs(
        "a pipelined envelope",
        Exim,
        "22|22234 q=0",
        "whoever has closed hears nothing, and a 421 to nobody is left out",
    ),
    differs("pipelining before EHLO", Postfix, "2|5 q=0", ANSWERED_ONE_BY_ONE),
    differs("pipelining past EHLO", Postfix, "2|5 q=0", ANSWERED_ONE_BY_ONE),
    differs("commands with LF alone", Postfix, "2|5 q=0", ANSWERED_ONE_BY_ONE),
    differs(
        "BDAT that is not offered",
        Postfix,
        "22|225 q=0",
        "the announced octets are passed over, and the dialogue goes on",
    ),
    differs(
        "BDAT that is not offered",
        Exim,
        "22|22522 q=0",
        "the announced octets are content, whether BDAT is offered or not: RSET in them is not obeyed",
    ),
    differs("octets that are no UTF-8", Exim, "22|222 q=0", CONTROL),
    differs("NUL in a command", Postfix, "22|5 q=0", "it closes; here the line is refused, and the dialogue goes on"),
    differs("CR in a command", Postfix, "22|5 q=0", "it closes; here the line is refused, and the dialogue goes on"),
    differs("CR in a command", Exim, "22|222 q=0", CONTROL),
    differs("a local part of 65", Postfix, "2222|2 q=0", LOCAL_PART),
    differs("a local part of 65", Exim, "2222|2 q=0", LOCAL_PART),
    differs(
        "a command of 5000 octets",
        Postfix,
        "22|5 q=0",
        "it closes; here the line is refused, and the dialogue goes on",
    ),
    differs(
        "a command of 5000 octets",
        Exim,
        "22|22 q=0",
        "RFC 5321 section 4.5.3.1.4: 512 octets, and what extensions add: 2,048 here",
    ),
];

pub(super) const STEP_DIFFERENCES: &[StepDifference] = &[StepDifference {
    line: "RCPT TO:<u@x.test>",
    server: Exim,
    ours: '2',
    theirs: '4',
    why: "Exim counts refused recipients against recipients_max; here only those taken count (RFC 5321 section 4.5.3.1.8)",
}];
