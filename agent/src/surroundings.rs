//! What happens around a link that the link itself notices late: the machine slept, its clock was set, its network
//! changed. Looked at every few seconds, because no way to be told works everywhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::channel::{Channel, Nudge};
use crate::clock::Clock;
use crate::dial::Dial;
use crate::limits::{CLOCK_JUMP_MIN, SURROUNDINGS_LOOK_EVERY};

/// Tells where this machine goes out to, and by which address of its own; `None` without a network.
pub(crate) type WayOut = Arc<dyn Fn() -> (SocketAddr, Option<IpAddr>) + Send + Sync>;

/// Watches.
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) way_out: WayOut,
    pub(crate) channel: Channel,
    /// Has learnt things about ways out that hold on one network only.
    pub(crate) dial: Arc<dyn Dial>,
    /// Counts the times at which leases stopped being worth anything.
    pub(crate) jumps: watch::Sender<u64>,
}

impl Surroundings {
    /// Watches for as long as the agent runs.
    pub(crate) async fn run(self) {
        let mut look = Look::new(self.clock.now(), self.clock.now_ms(), (self.way_out)());
        loop {
            self.clock.sleep(SURROUNDINGS_LOOK_EVERY).await;
            let change = look.again(self.clock.now(), self.clock.now_ms(), (self.way_out)());
            let Some(change) = change else { continue };
            if let Change::Jump(_) = change {
                self.jumps.send_modify(|jumps| *jumps += 1);
            }
            self.dial.network_changed();
            self.channel.nudge(change.into());
        }
    }
}

/// What has changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// Time did not pass as it should.
    Jump(Duration),
    /// We go out by another address now.
    Moved { from: IpAddr, to: IpAddr },
    /// There is a network again, the one from before.
    Back,
}

impl From<Change> for Nudge {
    fn from(change: Change) -> Self {
        match change {
            Change::Jump(by) => Self::Redial(format!(
                "this machine slept, or its clock was set ({} s are missing or too many)",
                by.as_secs()
            )),
            Change::Moved { from, to } => {
                Self::Redial(format!("the network changed: we go out by {to} now, not by {from}"))
            }
            Change::Back => Self::Retry,
        }
    }
}

/// The last look.
struct Look {
    at: Instant,
    wall_ms: i64,
    /// Other places may be reached by other addresses of ours, so only looks at the same one are compared.
    toward: SocketAddr,
    address: Option<IpAddr>,
    /// The address before there was none.
    last_address: Option<IpAddr>,
}

impl Look {
    fn new(at: Instant, wall_ms: i64, (toward, address): (SocketAddr, Option<IpAddr>)) -> Self {
        Self { at, wall_ms, toward, address, last_address: address }
    }

    fn again(
        &mut self,
        at: Instant,
        wall_ms: i64,
        (toward, address): (SocketAddr, Option<IpAddr>),
    ) -> Option<Change> {
        let passed = at - self.at;
        let wall = Duration::from_millis(u64::try_from(wall_ms - self.wall_ms).unwrap_or(0));
        let backwards = Duration::from_millis(u64::try_from(self.wall_ms - wall_ms).unwrap_or(0));
        // The monotonic clock stands still while a machine sleeps on Linux and goes on on Windows; there the look
        // itself is late.
        let off = (wall.abs_diff(passed) + backwards).max(passed.saturating_sub(SURROUNDINGS_LOOK_EVERY));
        let had = std::mem::replace(&mut self.address, address);
        let is_elsewhere = std::mem::replace(&mut self.toward, toward) != toward;
        let known = if is_elsewhere { address } else { self.last_address };
        self.last_address = address.or(known);
        (self.at, self.wall_ms) = (at, wall_ms);
        if off >= CLOCK_JUMP_MIN {
            return Some(Change::Jump(off));
        }
        match (known, had, address) {
            (Some(from), _, Some(to)) if from != to => Some(Change::Moved { from, to }),
            (_, None, Some(_)) => Some(Change::Back),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = SURROUNDINGS_LOOK_EVERY;
    const CLOUD: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), 443);

    struct World {
        look: Look,
        at: Instant,
        wall_ms: i64,
    }

    impl World {
        fn new(address: Option<&str>) -> Self {
            let (at, wall_ms) = (Instant::now(), 1_800_000_000_000);
            Self { look: Look::new(at, wall_ms, (CLOUD, address.map(ip))), at, wall_ms }
        }

        fn pass(&mut self, monotonic: Duration, wall_ms: i64, address: Option<&str>) -> Option<Change> {
            self.at += monotonic;
            self.wall_ms += wall_ms;
            self.look.again(self.at, self.wall_ms, (CLOUD, address.map(ip)))
        }

        fn step(&mut self, address: Option<&str>) -> Option<Change> {
            self.pass(STEP, millis(STEP), address)
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn millis(span: Duration) -> i64 {
        i64::try_from(span.as_millis()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_and_a_set_clock_are_seen_in_every_form() {
        let home = Some("192.0.2.7");
        let mut world = World::new(home);
        assert_eq!(world.step(home), None);
        // A busy machine looks late; that is no sleep.
        let late = STEP + CLOCK_JUMP_MIN / 2;
        assert_eq!(world.pass(late, millis(late), home), None);
        let hour = Duration::from_secs(3_600);
        let jump = |change: Option<Change>| matches!(change, Some(Change::Jump(by)) if by >= hour - STEP);
        assert!(jump(world.pass(STEP, millis(hour), home)), "slept on Linux");
        assert!(jump(world.pass(hour + STEP, millis(hour + STEP), home)), "slept on Windows");
        assert!(jump(world.pass(STEP, -millis(hour), home)), "set back, or a snapshot was restored");
        assert_eq!(world.step(home), None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_network_is_told_from_the_same_one_again() {
        let mut world = World::new(Some("192.0.2.7"));
        assert_eq!(world.step(None), None, "without a network there is nothing to dial by");
        assert_eq!(world.step(None), None);
        assert_eq!(world.step(Some("192.0.2.7")), Some(Change::Back));
        let moved = Change::Moved { from: ip("192.0.2.7"), to: ip("198.51.100.9") };
        assert_eq!(world.step(Some("198.51.100.9")), Some(moved));
        assert_eq!(world.step(None), None);
        let moved = Change::Moved { from: ip("198.51.100.9"), to: ip("2001:db8::1") };
        assert_eq!(world.step(Some("2001:db8::1")), Some(moved));
        assert_eq!(world.step(Some("2001:db8::1")), None);
        assert_eq!(World::new(None).step(Some("192.0.2.7")), Some(Change::Back));
    }

    #[tokio::test(start_paused = true)]
    async fn another_place_reached_by_another_address_is_no_other_network() {
        let mut world = World::new(Some("192.0.2.7"));
        let beside = SocketAddr::new(ip("127.0.0.1"), 443);
        let mut look = |toward, address| {
            world.at += STEP;
            world.wall_ms += millis(STEP);
            world.look.again(world.at, world.wall_ms, (toward, Some(ip(address))))
        };
        assert_eq!(look(beside, "127.0.0.1"), None, "the cloud has been reached, and it is on this machine");
        assert_eq!(look(CLOUD, "192.0.2.7"), None);
        let moved = Change::Moved { from: ip("192.0.2.7"), to: ip("192.0.2.8") };
        assert_eq!(look(CLOUD, "192.0.2.8"), Some(moved));
    }
}
