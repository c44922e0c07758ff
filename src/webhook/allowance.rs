//! How many deliveries somebody may send: ten at once and then one a second, each address by itself, so that a stranger
//! who knocks all the time does not keep the Git host out. Counted before anything is read or checked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Deliveries at once.
const BURST: f64 = 10.0;
/// Deliveries per second after that.
const RATE: f64 = 1.0;
/// Addresses that are told apart; the rest share one allowance.
const ADDRESSES: usize = 1024;

/// What each address has left.
#[derive(Default)]
pub(super) struct Allowances {
    addresses: HashMap<IpAddr, Allowance>,
    /// Of those that are not told apart.
    others: Allowance,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, at: None }
    }
}

impl Allowance {
    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.left = (self.left + passed.as_secs_f64() * RATE).min(BURST);
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }

    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        // A little more than it takes, so that whoever waits so long finds it.
        Err(Duration::from_secs_f64((1.0 - self.left) / RATE) + Duration::from_millis(1))
    }
}

impl Allowances {
    /// Takes one; else how long to wait for the next.
    pub(super) fn take(&mut self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let Some(address) = address.map(network) else { return self.others.take(now) };
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, allowance| {
                allowance.refill(now);
                allowance.left < BURST
            });
            if self.addresses.len() >= ADDRESSES {
                return self.others.take(now);
            }
        }
        self.addresses.entry(address).or_default().take(now)
    }
}

/// What one sender can hardly change: of IPv6 the network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_at_once_and_then_one_a_second() {
        let (mut allowances, now) = (Allowances::default(), Instant::now());
        let taken = (0..20).filter(|_| allowances.take(None, now).is_ok()).count();
        assert_eq!(taken, 10);
        assert!(allowances.take(None, now + Duration::from_millis(900)).is_err());
        assert!(allowances.take(None, now + Duration::from_millis(1000)).is_ok());
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| allowances.take(None, later).is_ok()).count(), 10);
    }

    #[test]
    fn an_address_does_not_use_up_what_others_have() {
        let (mut allowances, now) = (Allowances::default(), Instant::now());
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        while allowances.take(Some(stranger), now).is_ok() {}
        assert!(allowances.take(Some("192.0.2.2".parse().unwrap()), now).is_ok());
        let neighbours = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<IpAddr>().unwrap());
        while allowances.take(Some(neighbours[0]), now).is_ok() {}
        assert!(allowances.take(Some(neighbours[1]), now).is_err(), "one network is one sender");
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let (mut allowances, now) = (Allowances::default(), Instant::now());
        let address = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        for number in 0..5000 {
            // Some share what is left for others, and are refused once that is used up.
            let _let_in = allowances.take(address(number), now);
        }
        assert!(allowances.addresses.len() <= ADDRESSES);
        assert!(allowances.take(address(9999), now).is_err());
        assert!(
            allowances.take(address(9999), now + Duration::from_secs(2)).is_ok(),
            "the idle are forgotten"
        );
    }

    proptest! {
        /// In no window more than the burst and what the time allows; and who waits as long as asked is let in.
        #[test]
        fn the_limit_holds_in_every_window(gaps in proptest::collection::vec(0_u64..3000, 1..200)) {
            let (mut allowance, mut now) = (Allowance::default(), Instant::now());
            let mut taken = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                match allowance.take(now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= Duration::from_millis(1001));
                        let mut patient = allowance;
                        prop_assert!(patient.take(now + wait).is_ok());
                    }
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (more, last) in taken[index..].iter().enumerate() {
                    let window = (*last - *first).as_secs_f64();
                    prop_assert!((more + 1) as f64 <= BURST + window * RATE + 1e-6);
                }
            }
        }
    }
}
