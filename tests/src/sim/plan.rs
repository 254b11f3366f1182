//! What happens in a run, drawn from its seed before it begins.

use std::time::Duration;

use causeway_agent::random::RandomSource;
use causeway_mock_cloud::store::NewAction;
use serde_json::json;

use super::modules::{AUTH, COLLECTOR, SYSTEM};
use super::papers::AGENTS_MAX;
use super::world::Order;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Order(Order),
    /// Objects of the simulated directory appear, change and go.
    Change {
        keys: Vec<(u64, Change)>,
    },
    Fault(Fault),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Write,
    Delete,
}

/// A hardship, and how long it lasts.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// What is sent between an agent and the cloud is lost, and the connections with it.
    Partition {
        seat: usize,
        ms: u64,
    },
    /// Only one direction is lost.
    PartitionOneWay {
        seat: usize,
        outward: bool,
        ms: u64,
    },
    /// What is sent waits.
    Delay {
        seat: usize,
        ms: u64,
    },
    /// The agent's process is killed; its system closes the connections.
    KillAgent {
        seat: usize,
        down_ms: u64,
    },
    /// The agent's machine loses power: nobody is told.
    PowerCut {
        seat: usize,
        down_ms: u64,
    },
    /// The agent dies at a storage await.
    AgentDiesAt {
        seat: usize,
        awaits: u32,
    },
    KillCloud {
        down_ms: u64,
    },
    CloudDiesAt {
        awaits: u32,
    },
    /// Someone sets the agent's clock.
    SetAgentClock {
        seat: usize,
        by_ms: i64,
    },
    /// Someone sets the cloud's clock forward.
    SetCloudClock {
        by_ms: u64,
    },
    SlowAgentDisk {
        seat: usize,
        most_ms: u64,
        ms: u64,
    },
    SlowCloudDisk {
        most_ms: u64,
        ms: u64,
    },
    FullAgentDisk {
        seat: usize,
        ms: u64,
    },
    /// A copy of the agent's machine, made after enrolment, is switched on.
    Clone {
        of: usize,
        ms: u64,
    },
    /// The agent is killed and comes back with the disk it had a while ago.
    OldDisk {
        seat: usize,
        age_ms: u64,
        down_ms: u64,
    },
}

impl Fault {
    /// For the table of what struck.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::PartitionOneWay { .. } => "partition, one way",
            Self::Delay { .. } => "delay",
            Self::KillAgent { .. } => "agent killed",
            Self::PowerCut { .. } => "agent loses power",
            Self::AgentDiesAt { .. } => "agent armed to die at a storage await",
            Self::KillCloud { .. } => "cloud killed",
            Self::CloudDiesAt { .. } => "cloud armed to die at a storage await",
            Self::SetAgentClock { .. } => "agent's clock set",
            Self::SetCloudClock { .. } => "cloud's clock set",
            Self::SlowAgentDisk { .. } => "slow agent disk",
            Self::SlowCloudDisk { .. } => "slow cloud disk",
            Self::FullAgentDisk { .. } => "full agent disk",
            Self::Clone { .. } => "cloned agent",
            Self::OldDisk { .. } => "agent with an old disk",
        }
    }
}

/// A whole run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) agents: usize,
    /// The network's tick.
    pub(super) tick: Duration,
    pub(super) latency_max: Duration,
    /// When everything is mended.
    pub(super) heal_at_ms: u64,
    /// By time.
    pub(super) steps: Vec<(u64, Step)>,
    pub(super) has_clone: bool,
}

/// Draws numbers.
struct Draw(RandomSource);

impl Draw {
    /// Uniform over `from..to`.
    fn range(&self, from: u64, to: u64) -> u64 {
        from + self.0.next_u64() % (to - from)
    }

    fn index(&self, count: usize) -> usize {
        usize::try_from(self.range(0, count as u64)).expect("smaller than a usize")
    }

    fn one_in(&self, n: u64) -> bool {
        self.range(0, n) == 0
    }
}

impl Plan {
    /// The agent whose machine is copied, if one is.
    pub(super) fn clone_of(&self) -> Option<usize> {
        self.steps.iter().find_map(|(_, step)| match step {
            Step::Fault(Fault::Clone { of, .. }) => Some(*of),
            _ => None,
        })
    }

    /// The plan of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let draw = Draw(RandomSource::seeded(seed));
        let agents = 2 + draw.index(AGENTS_MAX - 1);
        let tick = Duration::from_millis([10, 20, 20, 40][draw.index(4)]);
        let heal_at_ms = draw.range(12_000, 30_000);
        let at = || draw.range(500, heal_at_ms - 500);
        let mut steps = Vec::new();
        for n in 0..draw.index(12) + 4 {
            steps.push((at(), Step::Order(action(&draw, n))));
        }
        for n in 0..draw.index(5) + 1 {
            steps.push((at(), Step::Order(Order::Authenticate { n })));
        }
        if draw.one_in(3) {
            let module = [SYSTEM, COLLECTOR, AUTH][draw.index(3)];
            steps.push((at(), Step::Order(Order::Config { module, version: draw.range(1, 9) })));
        }
        for _ in 0..draw.index(8) + 2 {
            let change = |_| (draw.range(0, 40), if draw.one_in(4) { Change::Delete } else { Change::Write });
            let keys = (0..=draw.index(6)).map(change).collect();
            steps.push((at(), Step::Change { keys }));
        }
        let mut has_clone = false;
        for _ in 0..draw.index(7) + 2 {
            let fault = fault(&draw, agents, has_clone);
            has_clone |= matches!(fault, Fault::Clone { .. });
            steps.push((at(), Step::Fault(fault)));
        }
        steps.sort_by_key(|(at, _)| *at);
        let latency_max = Duration::from_millis([5, 20, 60, 200][draw.index(4)]);
        Self { agents, tick, latency_max, heal_at_ms, steps, has_clone }
    }
}

/// The first number of the orders given after the mending; those must succeed.
pub(super) const LAST_ORDERS: usize = 1_000;

/// What is ordered after the mending.
pub(super) fn last_orders() -> Vec<Order> {
    let order = |n| Order::Action {
        n: LAST_ORDERS + n,
        new: NewAction {
            module: SYSTEM.to_owned(),
            action: "set".to_owned(),
            target: json!({ "number": LAST_ORDERS + n }),
            params: json!({ "before_ms": 100, "after_ms": 100 }),
            idempotency_key: Some(format!("last-{n}")),
            ttl_ms: 350_000,
            actor: "api".to_owned(),
            reason: String::new(),
        },
    };
    (0..AGENTS_MAX).map(order).collect()
}

fn action(draw: &Draw, n: usize) -> Order {
    let (module, verb, params) = match draw.index(4) {
        0 => (COLLECTOR, "sync_now", json!({})),
        1 => (SYSTEM, "order", json!({ "takes_ms": draw.range(0, 6_000) })),
        _ => (SYSTEM, "set", json!({ "before_ms": draw.range(0, 2_000), "after_ms": draw.range(0, 2_000) })),
    };
    let ttl_ms = if draw.one_in(4) { draw.range(1_000, 5_000) } else { draw.range(5_000, 90_000) };
    let new = NewAction {
        module: module.to_owned(),
        action: verb.to_owned(),
        target: json!({ "number": n }),
        params,
        idempotency_key: Some(format!("order-{n}")),
        ttl_ms,
        actor: "api".to_owned(),
        reason: String::new(),
    };
    Order::Action { n, new }
}

fn fault(draw: &Draw, agents: usize, has_clone: bool) -> Fault {
    let seat = draw.index(agents);
    let ms = draw.range(200, 14_000);
    let down_ms = draw.range(100, 9_000);
    match draw.index(22) {
        0 | 1 => Fault::Partition { seat, ms },
        2 => Fault::PartitionOneWay { seat, outward: draw.one_in(2), ms },
        3 | 4 => Fault::Delay { seat, ms },
        5 => Fault::KillAgent { seat, down_ms },
        6 => Fault::PowerCut { seat, down_ms },
        7..=10 => Fault::AgentDiesAt { seat, awaits: u32::try_from(draw.range(0, 60)).unwrap_or(0) },
        11 => Fault::KillCloud { down_ms },
        12..=14 => Fault::CloudDiesAt { awaits: u32::try_from(draw.range(0, 150)).unwrap_or(0) },
        15 => {
            let by_ms = i64::try_from(draw.range(0, 1_200_000)).unwrap_or(0) - 600_000;
            Fault::SetAgentClock { seat, by_ms }
        }
        16 => Fault::SetCloudClock { by_ms: draw.range(100, 40_000) },
        17 => Fault::SlowAgentDisk { seat, most_ms: draw.range(1, 900), ms },
        18 => Fault::SlowCloudDisk { most_ms: draw.range(1, 300), ms },
        19 => Fault::FullAgentDisk { seat, ms },
        20 if !has_clone && draw.one_in(2) => Fault::Clone { of: seat, ms },
        21 => Fault::OldDisk { seat, age_ms: draw.range(100, 6_000), down_ms },
        _ => Fault::KillAgent { seat, down_ms },
    }
}
