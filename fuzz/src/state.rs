//! What lanes have learned, read back at a start (`throttle`): a record that somebody or something has damaged is passed over or gives a
//! lane within its limits; and what a lane saves, it takes back as it was. The input is the record of one lane.

use weir::throttle::{About, Answer, LaneName, LaneRecord, Profiles, Signal, Throttle};
use weir::types::{QueueId, Reply, Stage, Timestamp};
use weir::verdict::Rules;

use super::kit;

/// Connections in all: more than the profile of any provider here.
const CONNECTIONS: usize = 2000;
const NOW: Timestamp = Timestamp::from_secs(1_795_293_220);

pub fn check(mut bytes: &[u8]) {
    let choice = kit::first(&mut bytes);
    let provider = ["outlook", "gmail", "mx.somewhere.test"][usize::from(choice) % 3];
    let source = if choice & 0x80 == 0 { "default" } else { "*" };
    let record = LaneRecord {
        name: LaneName { provider: provider.into(), source: source.into() },
        state: String::from_utf8_lossy(bytes).into_owned(),
    };
    let mut throttle = start(vec![record]);
    is_within_limits(&throttle, NOW);
    let lane = LaneName { provider: provider.into(), source: "default".into() };
    works(&mut throttle, &lane);
    comes_back(&mut throttle);
}

fn start(records: Vec<LaneRecord>) -> Throttle {
    let mut throttle = Throttle::new(Profiles::new(&[]), CONNECTIONS, 7);
    throttle.restore(records, NOW);
    throttle
}

fn is_within_limits(throttle: &Throttle, now: Timestamp) {
    for lane in throttle.status(now) {
        let profile = throttle.profile(&lane.provider);
        assert!(lane.connections_allowed <= profile.max_connections, "{lane:?}");
        assert!(lane.connections <= lane.connections_allowed.max(profile.max_connections), "{lane:?}");
        assert!(
            lane.rate.is_finite() && lane.rate_allowed.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "{lane:?}"
        );
        assert!(lane.until != Some(Timestamp::NEVER), "{lane:?}");
    }
}

/// A day of a lane: it sends, is refused, waits, sends again.
fn works(throttle: &mut Throttle, lane: &LaneName) {
    let rules = Rules::shipped();
    let refusals = ["421 RP-001 slow down", "451 4.7.500 Server busy", "550 5.7.1 S3150 blocked", "452 4.5.3 too many"];
    let mut now = NOW;
    for hour in 0..24 {
        let mut permits = Vec::new();
        while permits.len() < 8 {
            let Answer::Granted(permit) = throttle.permit(lane, true, now) else { break };
            permits.push(permit);
        }
        for mut permit in permits {
            let about =
                About { message: QueueId::from_key(9), sender_domain: None, recipient_domain: None, carried: 0 };
            if let Answer::Granted(grant) = throttle.grant(&mut permit, 3, now) {
                assert!((1..=throttle.profile(&lane.provider).recipients_per_message).contains(&grant.recipients));
                throttle.began(lane, &about, now);
                let reply = Reply::parse(refusals[hour % refusals.len()]).expect("a reply");
                let reading = rules.read(&lane.provider, Stage::Rcpt, &reply);
                let signal = if hour % 3 == 0 {
                    Signal::Refused { reading: &reading, reply: refusals[hour % refusals.len()], started: now, about }
                } else {
                    Signal::Accepted { recipients: 1, started: now, about }
                };
                throttle.report(lane, &signal, now);
            }
            throttle.release(permit);
        }
        throttle.sweep(now);
        is_within_limits(throttle, now);
        now = now + std::time::Duration::from_secs(3600);
    }
    assert_eq!(throttle.open(), 0, "every permit went back");
}

/// What was saved, read and saved again is the same.
fn comes_back(throttle: &mut Throttle) {
    let saved = throttle.unsaved(usize::MAX, NOW);
    let again = start(saved.clone());
    for record in saved.iter().filter(|record| !record.state.is_empty() && &*record.name.source != "*") {
        let is_there = again.status(NOW).iter().any(|lane| lane.provider == record.name.provider);
        assert!(is_there, "a lane does not read what it saved: {}", record.state);
    }
}
