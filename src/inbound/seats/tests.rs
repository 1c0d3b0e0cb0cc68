//! Who comes first and who goes, as sequences of events with their times.

use proptest::prelude::*;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The numbers of those who got a place.
fn numbers(granted: &[Granted<u64>]) -> Vec<u64> {
    granted.iter().map(|granted| granted.number).collect()
}

/// A list in which every newcomer's answer is its number; sessions leave when they are asked to.
struct Door {
    seats: Seats<u64>,
    leaves: BTreeMap<u64, CancellationToken>,
}

impl Door {
    fn new(places: usize) -> Door {
        Door { seats: Seats::new(places), leaves: BTreeMap::new() }
    }

    fn take(&mut self, granted: Vec<Granted<u64>>) -> Vec<u64> {
        let numbers = numbers(&granted);
        self.leaves.extend(granted.into_iter().map(|granted| (granted.number, granted.leave)));
        numbers
    }

    fn come(&mut self, rank: Rank, client: &str, now: i64) -> u64 {
        let number = self.seats.next;
        let (_, granted) = self.seats.join(rank, ip(client), at(now), number);
        self.take(granted);
        number
    }

    fn look(&mut self, now: i64) -> Vec<u64> {
        let (granted, _) = self.seats.serve(at(now));
        self.take(granted)
    }

    fn sits(&self, number: u64) -> bool {
        self.leaves.get(&number).is_some_and(|leave| !leave.is_cancelled())
    }

    /// Those who were asked to leave do.
    fn clear(&mut self) {
        let asked: Vec<u64> = self.leaves.iter().filter(|(_, l)| l.is_cancelled()).map(|(n, _)| *n).collect();
        for number in asked {
            self.leaves.remove(&number);
            self.seats.end(number);
        }
    }
}

#[test]
fn surplus_goes_first_then_strangers_and_both_at_once_for_clients_we_know() {
    let mut door = Door::new(4);
    let places: Vec<u64> = (0..4i64)
        .map(|n| {
            let rank = [Rank::Known, Rank::Stranger, Rank::Stranger, Rank::Surplus][usize::try_from(n).unwrap()];
            door.come(rank, &format!("192.0.{n}.1"), n)
        })
        .collect();
    for leaves in [3, 1, 2] {
        let newcomer = door.come(Rank::Known, "10.0.0.1", 10);
        assert!(door.sits(newcomer) && !door.sits(places[leaves]), "{leaves}");
    }
    let newcomer = door.come(Rank::Known, "10.0.0.1", 11);
    assert!(!door.sits(newcomer) && door.sits(places[0]), "one worth as much waits");
    assert_eq!(door.look(5000), [newcomer]);
    assert!(!door.sits(places[0]));
}

#[test]
fn only_so_many_are_on_their_way_out() {
    let mut door = Door::new(LEAVING_MAX + 5);
    for n in 0..LEAVING_MAX + 5 {
        door.come(Rank::Stranger, &format!("192.0.{n}.1"), 0);
    }
    let newcomers: Vec<u64> = (0..LEAVING_MAX + 5).map(|_| door.come(Rank::Known, "10.0.0.1", 1)).collect();
    assert_eq!(newcomers.iter().filter(|n| door.sits(**n)).count(), LEAVING_MAX);
    door.clear();
    assert_eq!(door.look(2), newcomers[LEAVING_MAX..]);
}

#[test]
fn a_stranger_whose_network_holds_a_crowd_makes_room_for_one_of_another() {
    let mut door = Door::new(10);
    let honest = door.come(Rank::Stranger, "198.51.100.7", 0);
    let crowd: Vec<u64> = (0..9).map(|n| door.come(Rank::Stranger, &format!("192.0.2.{n}"), 1 + n)).collect();
    // One of the crowd's network is worth no more than those who are there.
    let another = door.come(Rank::Stranger, "192.0.2.99", 500);
    let newcomer = door.come(Rank::Stranger, "203.0.113.5", 600);
    assert!(!door.sits(another) && !door.sits(newcomer));
    assert_eq!(door.look(999), [] as [u64; 0]);
    // It came later and comes first.
    assert_eq!(door.look(1001), [newcomer]);
    assert!(!door.sits(crowd[0]) && door.sits(honest));
    assert_eq!(door.look(4999), [] as [u64; 0]);
    assert_eq!(door.look(5002), [another]);
    assert!(door.sits(honest) && !door.sits(crowd[1]), "who makes room is of the crowd, though it came later");
}

#[test]
fn besiegers_of_few_addresses_keep_nobody_from_logging_in() {
    for (places, rate) in [(300, 1000), (20, 200)] {
        let mut door = Door::new(places);
        let (mut turn, mut waited) = (0u64, Vec::new());
        let mut honest: Option<(u64, i64, bool)> = None;
        for now in 0..13_000i64 {
            if now * rate / 1000 != (now - 1) * rate / 1000 {
                turn += 1;
                door.come(Rank::Stranger, &format!("192.0.{}.{}", turn % 8, turn % 3), now);
            }
            if now % 1000 == 999 && honest.is_none() {
                honest = Some((door.come(Rank::Stranger, "198.51.100.7", now), now, false));
            }
            if now % 200 == 0 {
                door.look(now);
            }
            if let Some((number, came, seated)) = honest {
                if door.sits(number) && !seated {
                    waited.push(now - came);
                    honest = Some((number, now, true));
                } else if seated {
                    assert!(door.sits(number), "cut off after {} ms", now - came);
                    match now - came {
                        // A third of a second to STARTTLS, four seconds for a slow handshake and the password.
                        300 => door.seats.set_rank(number, Rank::Knocking),
                        4300 => {
                            door.seats.end(number);
                            door.leaves.remove(&number);
                            honest = None;
                        }
                        _ => {}
                    }
                }
            }
            door.clear();
        }
        let longest = waited.iter().max().copied().unwrap_or(i64::MAX);
        assert!(waited.len() >= 2 && longest <= 5200, "{places} places: {waited:?}");
    }
}

#[test]
fn who_has_said_starttls_keeps_its_place_though_besiegers_say_it_too() {
    let mut door = Door::new(8);
    let honest = door.come(Rank::Stranger, "198.51.100.7", 0);
    door.seats.set_rank(honest, Rank::Knocking);
    let crowd: Vec<u64> = (0..7).map(|n| door.come(Rank::Stranger, &format!("192.0.2.{n}"), 1)).collect();
    // With two of them the part of the places that is kept is used up, and with more they are mere strangers again.
    crowd[..5].iter().for_each(|number| door.seats.set_rank(*number, Rank::Knocking));
    for n in 0..7 {
        let newcomer = door.come(Rank::Known, "10.0.0.1", 2);
        assert!(door.sits(newcomer) == (n < 6), "{n}");
    }
    assert!(door.sits(honest), "one of two who knock");
    assert_eq!(door.look(5000).len(), 1);
}

#[test]
fn a_line_that_is_too_long_lets_those_of_the_greatest_crowd_go() {
    let mut door = Door::new(1);
    let place = door.come(Rank::Known, "10.0.0.1", 0);
    assert!(door.seats.set_idle(place, None));
    let honest = door.come(Rank::Stranger, "198.51.100.7", 1);
    let known = door.come(Rank::Known, "10.0.0.2", 1);
    for n in 0..1000 {
        door.come(Rank::Stranger, &format!("192.0.2.{}", n % 250), 2);
    }
    assert_eq!(door.seats.waiting.len(), WAITING_MAX);
    door.seats.end(place);
    assert_eq!(door.look(3), [known]);
    door.seats.end(known);
    assert_eq!(door.look(4), [honest]);
}

#[test]
fn strangers_push_out_a_client_we_know_only_where_there_is_no_stranger() {
    let mut door = Door::new(2);
    let known = door.come(Rank::Known, "10.0.0.1", 0);
    let stranger = door.come(Rank::Stranger, "192.0.2.1", 20_000);
    let newcomer = door.come(Rank::Stranger, "192.0.3.1", 20_001);
    assert!(!door.sits(newcomer) && door.sits(known));
    assert_eq!(door.look(25_000), [newcomer]);
    assert!(!door.sits(stranger) && door.sits(known));
    door.seats.set_rank(newcomer, Rank::Known);
    let last = door.come(Rank::Stranger, "192.0.4.1", 25_001);
    assert!(door.sits(last) && !door.sits(known), "or nobody could log in any more");
}

#[test]
fn addresses_whose_sessions_are_all_at_work_hide_nobody_who_could_go() {
    let mut door = Door::new(200);
    // Forty addresses with four places each, every one in a transaction; somewhere an idle stranger.
    for n in 0..160 {
        let number = door.come(Rank::Stranger, &format!("198.51.{}.{}", n % 8, n % 40), 0);
        assert!(door.seats.set_idle(number, None));
    }
    let idle: Vec<u64> = (0..40).map(|n| door.come(Rank::Stranger, &format!("203.0.113.{n}"), n)).collect();
    let friend = door.come(Rank::Known, "192.0.2.1", 100);
    assert!(door.sits(friend) && !door.sits(idle[0]), "who was idle longest made room");
}

#[test]
fn of_many_who_wait_one_looks_for_all() {
    let mut door = Door::new(1);
    let first = door.come(Rank::Stranger, "203.0.113.1", 0);
    let [second, third] = [2, 3].map(|n| door.come(Rank::Stranger, &format!("198.51.100.{n}"), 10));
    let due = door.seats.serve(at(20)).1.expect("when the first may go");
    let (granted, _) = door.seats.look_again(due, due);
    assert_eq!((door.take(granted), door.sits(first)), (vec![second], false));
    let (granted, then) = door.seats.look_again(due, due + Duration::from_millis(1));
    assert_eq!((granted.len(), then.is_some()), (0, true), "it was looked for the other one, too");
    door.clear();
    let (granted, _) = door.seats.look_again(then.unwrap(), then.unwrap());
    assert_eq!(door.take(granted), [third]);
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_waiting() {
    let mut door = Door::new(1);
    door.come(Rank::Known, "10.0.0.1", 3_600_000);
    let newcomer = door.come(Rank::Known, "10.0.0.2", 0);
    assert!(door.sits(newcomer));
}

proptest! {
    /// Whatever happens, no more places are taken than there are, nobody in a transaction is asked to leave, and all comes back.
    #[test]
    fn the_books_are_right_whatever_happens(events in prop::collection::vec((0..6u8, 0..40u64, 0..2000i64), 1..300)) {
        let places = 5;
        let mut door = Door::new(places);
        let (mut now, mut busy) = (0, BTreeSet::new());
        for (what, which, later) in events {
            now += later;
            let seated: Vec<u64> = door.leaves.keys().copied().collect();
            let number = seated.get(usize::try_from(which).unwrap() % seated.len().max(1)).copied();
            match (what, number) {
                (0 | 1, _) => {
                    let rank = if which % 3 == 0 { Rank::Known } else { Rank::Stranger };
                    door.come(rank, &format!("192.0.{}.{which}", which % 4), now);
                }
                (2, Some(number)) => {
                    if door.seats.set_idle(number, None) {
                        busy.insert(number);
                    }
                }
                (3, Some(number)) => {
                    door.seats.set_idle(number, Some(at(now)));
                    busy.remove(&number);
                }
                (4, Some(number)) => {
                    let rank = [Rank::Surplus, Rank::Stranger, Rank::Knocking, Rank::Known];
                    door.seats.set_rank(number, rank[usize::try_from(which).unwrap() % 4]);
                }
                (_, Some(number)) => {
                    door.seats.end(number);
                    door.leaves.remove(&number);
                    busy.remove(&number);
                }
                (_, None) => {}
            }
            door.look(now);
            let taken = door.leaves.values().filter(|leave| !leave.is_cancelled()).count();
            prop_assert!(taken <= places);
            prop_assert!(busy.iter().all(|number| door.sits(*number)));
            prop_assert!(door.seats.waiting.is_empty() || taken == places || door.seats.leaving == LEAVING_MAX);
        }
        for number in std::mem::take(&mut door.leaves).into_keys() {
            door.seats.end(number);
        }
        let numbers: Vec<u64> = door.seats.waiting.keys().copied().collect();
        numbers.into_iter().for_each(|number| door.seats.give_up(number));
        prop_assert_eq!((door.seats.open(), door.seats.held, door.seats.knocking, door.seats.leaving), (0, 0, 0, 0));
        prop_assert!(door.seats.strangers.is_empty() && door.seats.known.is_empty());
        prop_assert!(door.seats.by_load.0.is_empty());
    }
}
