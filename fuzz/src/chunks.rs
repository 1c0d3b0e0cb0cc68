//! BDAT (RFC 3030) in every state, offered or not: the octets that are announced are taken off the wire and never read as commands, whatever they say
//! and however they are cut. The input is a story, an octet or a few for each step.

use super::kit;
use super::server_dialogue::throw;
use super::shelf::Setting;

/// Steps of one story.
const STEPS_MAX: usize = 24;
const COMMANDS: [&[u8]; 12] = [
    b"EHLO client.test\r\n",
    b"HELO client.test\r\n",
    b"MAIL FROM:<app@own.test>\r\n",
    b"MAIL FROM:<app@own.test> BODY=8BITMIME SIZE=100\r\n",
    b"RCPT TO:<u@x.test>\r\n",
    b"RCPT TO:<suppressed@x.test>\r\n",
    b"DATA\r\n",
    b"Subject: s\r\n\r\nbody\r\n.\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"BDAT 0 LAST\r\n",
];
/// What a chunk says: commands that would show, ends of data, halves of both.
const SAYINGS: [&[u8]; 10] = [
    b"QUIT\r\n",
    b"MAIL FROM:<smuggled@own.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\n",
    b"RSET\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"BDAT 6 LAST\r\nQUIT\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"Subject: chunk\r\n\r\nbody",
    b"\r",
    b"\n",
];

pub fn check(mut bytes: &[u8]) {
    let choice = kit::first(&mut bytes);
    let setting = Setting::of(choice);
    let mut wire = Vec::new();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        step(&mut bytes, &mut wire);
    }
    throw(setting, b"", &wire, usize::from(choice >> 3));
}

fn step(bytes: &mut &[u8], wire: &mut Vec<u8>) {
    let what = usize::from(kit::first(bytes));
    if what < 0x80 {
        return wire.extend_from_slice(COMMANDS[what % COMMANDS.len()]);
    }
    let mut chunk = Vec::new();
    for _ in 0..what & 3 {
        chunk.extend_from_slice(SAYINGS[usize::from(kit::first(bytes)) % SAYINGS.len()]);
    }
    if what & 4 != 0 {
        chunk.extend_from_slice(kit::part(bytes));
    }
    let size = chunk.len();
    // Numbers as nobody should write them.
    let number = match what >> 3 & 7 {
        0..5 => size.to_string(),
        5 => format!("{size:020}"),
        6 => format!("{size} LAST LAST"),
        _ => String::from_utf8_lossy(kit::part(bytes)).replace(['\r', '\n'], " "),
    };
    let last = if what & 0x40 == 0 { "" } else { " LAST" };
    wire.extend_from_slice(format!("BDAT {number}{last}\r\n").as_bytes());
    wire.extend_from_slice(&chunk);
}
