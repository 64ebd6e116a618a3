//! Points to requests: what is asked of the devices, and where in the answers each value stands.
//!
//! Points of one device, register kind and period are read together where their registers touch or
//! overlap; a gap is never read, since some devices refuse or garble a block with a hole in it. One
//! point is never split over two requests, so its words are always of one moment.

use std::time::Duration;

use crate::register::{Kind, Register};

/// A point as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The device's place in the bus's list.
    pub device: usize,
    /// The first of its registers.
    pub register: Register,
    /// How many registers or bits.
    pub addresses: u16,
    /// How often.
    pub every: Duration,
}

/// One request, sent as often as its points want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The device's place in the bus's list.
    pub device: usize,
    /// Which table.
    pub kind: Kind,
    /// The first address.
    pub address: u16,
    /// How many, within the protocol's limit.
    pub quantity: u16,
    /// How often.
    pub every: Duration,
    /// The points in the answer.
    pub slots: Vec<Slot>,
}

/// Where a point stands in a request's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The point's place in the list that was planned.
    pub point: usize,
    /// Its first address, counted from the request's.
    pub offset: u16,
    /// How many addresses it takes.
    pub addresses: u16,
}

/// The requests that read all of `points`, ordered by device, kind, period and address.
pub fn plan(points: &[Wanted]) -> Vec<Request> {
    let mut order: Vec<(usize, &Wanted)> = points.iter().enumerate().collect();
    order.sort_by_key(|(index, point)| {
        (point.device, point.register.kind, point.every, point.register.address, *index)
    });
    let mut requests: Vec<Request> = Vec::new();
    for (index, point) in order {
        let joined = requests.last_mut().is_some_and(|request| request.join(index, point));
        if !joined {
            requests.push(Request::of(index, point));
        }
    }
    requests
}

impl Request {
    fn of(index: usize, point: &Wanted) -> Request {
        Request {
            device: point.device,
            kind: point.register.kind,
            address: point.register.address,
            quantity: point.addresses,
            every: point.every,
            slots: vec![Slot { point: index, offset: 0, addresses: point.addresses }],
        }
    }

    /// Takes the point in, where it belongs here and touches what is read already.
    fn join(&mut self, index: usize, point: &Wanted) -> bool {
        let alike =
            self.device == point.device && self.kind == point.register.kind && self.every == point.every;
        let Some(offset) = point.register.address.checked_sub(self.address) else { return false };
        let quantity = self.quantity.max(offset.saturating_add(point.addresses));
        let fits = offset <= self.quantity && quantity <= self.kind.quantity_max();
        if !(alike && fits) {
            return false;
        }
        self.quantity = quantity;
        self.slots.push(Slot { point: index, offset, addresses: point.addresses });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points as `device register addresses every-in-seconds`, requests as `device kind address+quantity/every: points`.
    fn check(points: &[&str], expected: &str) {
        let points: Vec<Wanted> = points.iter().map(|text| wanted(text)).collect();
        let shown: Vec<String> = plan(&points)
            .iter()
            .map(|request| {
                let slots: Vec<String> =
                    request.slots.iter().map(|slot| format!("{}@{}", slot.point, slot.offset)).collect();
                format!(
                    "{} {:?} {}+{}/{} {}",
                    request.device,
                    request.kind,
                    request.address,
                    request.quantity,
                    request.every.as_secs(),
                    slots.join(" ")
                )
            })
            .collect();
        assert_eq!(shown.join("\n"), expected);
    }

    fn wanted(text: &str) -> Wanted {
        let words: Vec<&str> = text.split(' ').collect();
        Wanted {
            device: words[0].parse().expect("a number"),
            register: Register::parse(words[1]).expect("a register"),
            addresses: words[2].parse().expect("a number"),
            every: Duration::from_secs(words[3].parse().expect("a number")),
        }
    }

    #[test]
    fn registers_that_touch_or_overlap_are_read_together() {
        check(
            &["0 input:2 2 1", "0 input:0 2 1", "0 input:1 2 1", "0 input:4 1 1"],
            "0 Input 0+5/1 1@0 2@1 0@2 3@4",
        );
    }

    #[test]
    fn a_gap_is_never_read() {
        check(&["0 input:0 2 1", "0 input:3 1 1"], "0 Input 0+2/1 0@0\n0 Input 3+1/1 1@0");
    }

    #[test]
    fn device_kind_and_period_each_part() {
        check(
            &["0 input:0 1 1", "0 input:1 1 2", "0 holding:2 1 1", "1 input:1 1 1"],
            "0 Input 0+1/1 0@0\n0 Input 1+1/2 1@0\n0 Holding 2+1/1 2@0\n1 Input 1+1/1 3@0",
        );
    }

    #[test]
    fn no_request_is_larger_than_the_protocol_allows_and_no_point_is_split() {
        let points: Vec<String> = (0..100).map(|n| format!("0 holding:{} 2 1", n * 2)).collect();
        let points: Vec<Wanted> = points.iter().map(|text| wanted(text)).collect();
        let requests = plan(&points);
        let sizes: Vec<u16> = requests.iter().map(|request| request.quantity).collect();
        assert_eq!(sizes, [124, 76]);
        let bits: Vec<Wanted> = (0..2_500).map(|n| wanted(&format!("0 coil:{n} 1 1"))).collect();
        let sizes: Vec<u16> = plan(&bits).iter().map(|request| request.quantity).collect();
        assert_eq!(sizes, [2_000, 500]);
    }

    #[test]
    fn every_point_is_read_exactly_once_whatever_the_list() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let points: Vec<Wanted> = (0..random(80))
                .map(|_| {
                    let words = ["input", "holding", "coil", "discrete"];
                    let word = words[usize::try_from(random(4)).expect("small")];
                    let every = 1 + random(2);
                    wanted(&format!("{} {word}:{} {} {every}", random(2), random(300), 1 + random(4)))
                })
                .collect();
            let requests = plan(&points);
            let mut seen = vec![0; points.len()];
            for request in &requests {
                assert!(request.quantity <= request.kind.quantity_max());
                for slot in &request.slots {
                    seen[slot.point] += 1;
                    let point = points[slot.point];
                    assert_eq!(request.address + slot.offset, point.register.address);
                    assert!(slot.offset + point.addresses <= request.quantity);
                }
            }
            assert!(seen.iter().all(|count| *count == 1));
        }
    }

    #[test]
    fn the_last_address_can_be_read() {
        check(&["0 holding:65534 2 1", "0 holding:65535 1 1"], "0 Holding 65534+2/1 0@0 1@1");
    }
}
