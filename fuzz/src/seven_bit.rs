//! Eight-bit content made fit for seven bits (`smtp/seven_bit`): how it is cut changes nothing, what is written needs no conversion any
//! more, and what needs none is found to need none.

use weir::smtp::seven_bit::{Converter, Obstacle, Plan, Survey};

use super::kit;

pub fn check(bytes: &[u8]) {
    let whole = converted(&[bytes]);
    for cut in kit::places(bytes.len()) {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(converted(&[first, second]), whole, "cut at {cut}");
    }
    let octets: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(converted(&octets), whole, "in single octets");
    match whole {
        Ok(Some(written)) => {
            assert!(!bytes.is_ascii(), "seven bits were converted");
            assert_eq!(planned(&[&written]).map(|plan| plan.is_none()), Ok(true), "{}", written.escape_ascii());
        }
        Ok(None) => {}
        Err(obstacle) => assert!(!bytes.is_ascii(), "seven bits met an obstacle: {obstacle}"),
    }
}

fn planned(pieces: &[&[u8]]) -> Result<Option<Plan>, Obstacle> {
    let mut survey = Survey::new(|value: &[u8]| kit::contains(value, b"ours"));
    pieces.iter().for_each(|piece| survey.take(piece));
    survey.finish()
}

fn converted(pieces: &[&[u8]]) -> Result<Option<Vec<u8>>, Obstacle> {
    let Some(plan) = planned(pieces)? else { return Ok(None) };
    let (mut converter, mut out) = (Converter::new(plan), Vec::new());
    pieces.iter().for_each(|piece| converter.take(piece, &mut out));
    converter.finish(&mut out);
    Ok(Some(out))
}
