//! Plays a seed: hosts, the agenda of faults and their ends, the ticks, and the judgement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::storage::{Batch, Table};
use futures_util::FutureExt as _;

use super::invariants::Judge;
use super::modules;
use super::net::CLOUD;
use super::papers::{AGENTS_MAX, papers};
use super::plan::{Change, Fault, Plan, Step, last_orders};
use super::stats::Stats;
use super::world::{Died, DiskFaults, Order, Process, Seat, SeatState, World, lock};
use super::{agent_host, cloud_host};

/// Hosts of agents; the last seat is the clone's.
const HOSTS: [&str; AGENTS_MAX + 1] = ["agent-0", "agent-1", "agent-2", "agent-3", "clone"];

/// Simulated time after the mending within which everything must have come to rest. A dead link is noticed after 60 s,
/// an upload over it after another 60 s, and back-off may have grown to 64 s by then.
const REST_WITHIN: Duration = Duration::from_secs(400);

/// The same where a clone took part: the agent that was told of it waits 5 to 15 minutes.
const REST_WITHIN_AFTER_CLONE: Duration = Duration::from_secs(1_800);

/// How often a run that only waits is looked at as a whole, in simulated milliseconds.
const LOOK_EVERY_MS: u64 = 500;

/// An order the cloud did not answer is given again after this long, as a user of the API would.
const ORDER_AGAIN_MS: u64 = 3_000;

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What should not have happened; empty for a clean run.
    pub violations: Vec<String>,
    /// What it went through.
    pub stats: Stats,
    /// Milliseconds of the run and what happened, when asked for.
    pub log: Vec<(u64, String)>,
    /// Tells two runs apart, log kept or not.
    pub log_hash: u64,
}

/// Plays a seed on this thread.
pub fn run(seed: u64, keep_log: bool) -> Outcome {
    catch_panics();
    let plan = Plan::draw(seed);
    let epoch_ms = papers().epoch_ms;
    let disk = cloud_host::disk(epoch_ms).expect("SQLite makes a database in memory");
    let mut seats: Vec<Seat> = (0..plan.agents).map(|n| seat(HOSTS[n], n)).collect();
    if let Some(of) = plan.clone_of() {
        seats.push(seat(HOSTS[AGENTS_MAX], of));
    }
    let world = Arc::new(World::new(seed, keep_log, epoch_ms, seats, disk));
    modules::enter(Some(world.clone()));
    PANICS.with_borrow_mut(Vec::clear);
    PLAYING.set(true);
    let played = catch_unwind(AssertUnwindSafe(|| Player::new(&world, plan).play()));
    PLAYING.set(false);
    modules::enter(None);
    if played.is_err() {
        world.violated("the simulation itself panicked");
    }
    for panic in PANICS.with_borrow_mut(std::mem::take) {
        world.violated(format!("panic: {panic}"));
    }
    let (log, log_hash, events) = world.take_log();
    let mut stats = std::mem::take(&mut *lock(&world.stats));
    stats.events = events;
    let violations = std::mem::take(&mut *lock(&world.violations));
    Outcome { seed, violations, stats, log, log_hash }
}

thread_local! {
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A task's panic would go unseen: nobody waits for most tasks.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if PLAYING.get() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

fn seat(host: &'static str, identity: usize) -> Seat {
    let state = SeatState {
        process: Arc::new(Process::default()),
        disk: MemoryStorage::new(),
        faults: DiskFaults::default(),
        running: None,
        dials: Default::default(),
        was_online: false,
    };
    // Eight bytes per agent and run: clocks are copied everywhere and need something that stays.
    let skew_ms = Box::leak(Box::new(AtomicI64::new(0)));
    Seat { host, identity, state: Mutex::new(state), skew_ms }
}

/// What is to be done at a time.
#[derive(Clone, Debug)]
enum Task {
    Step(Step),
    Repair { seat: usize },
    Release { seat: usize },
    StartAgent { seat: usize, disk: Option<Kept> },
    StartCloud,
    FastDisk { seat: usize },
    FastCloudDisk,
    RoomOnDisk { seat: usize },
    StopClone,
    KeepDisk { seat: usize },
    OrderAgain,
}

/// A copy of a disk, in a form that can be printed and copied.
#[derive(Clone)]
struct Kept(MemoryStorage);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

struct Player<'a> {
    world: &'a Arc<World>,
    sim: turmoil::Sim<'static>,
    plan: Plan,
    agenda: BTreeMap<(u64, u64), Task>,
    added: u64,
    /// Seats whose link is tampered with.
    link_busy: Vec<bool>,
    down: Vec<bool>,
    cloud_down: bool,
    clone_runs: bool,
    kept: Vec<Option<Kept>>,
    /// Orders not yet answered.
    open: BTreeMap<usize, Order>,
    judge: Judge,
    now_ms: u64,
}

impl<'a> Player<'a> {
    fn new(world: &'a Arc<World>, plan: Plan) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .tick_duration(plan.tick)
            .simulation_duration(Duration::from_secs(7_200))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(plan.latency_max)
            .tcp_capacity(256)
            .rng_seed(world.derived("network", 0))
            .enable_random_order();
        let mut sim = builder.build();
        let shared = world.clone();
        sim.host(CLOUD, move || cloud_host::live(shared.clone()));
        for (seat, host) in HOSTS.into_iter().enumerate().take(plan.agents) {
            let shared = world.clone();
            sim.host(host, move || agent_host::live(shared.clone(), seat));
        }
        let seats = world.seats.len();
        let mut player = Self {
            world,
            sim,
            agenda: BTreeMap::new(),
            added: 0,
            link_busy: vec![false; seats],
            down: vec![false; seats],
            cloud_down: false,
            clone_runs: false,
            kept: vec![None; seats],
            open: BTreeMap::new(),
            judge: Judge::new(plan.has_clone),
            now_ms: 0,
            plan,
        };
        for (at, step) in std::mem::take(&mut player.plan.steps) {
            if let Step::Fault(Fault::OldDisk { seat, age_ms, .. }) = &step {
                player.at(at.saturating_sub(*age_ms), Task::KeepDisk { seat: *seat });
            }
            player.at(at, Task::Step(step));
        }
        player
    }

    fn at(&mut self, at_ms: u64, task: Task) {
        self.added += 1;
        self.agenda.insert((at_ms, self.added), task);
    }

    fn after(&mut self, ms: u64, task: Task) {
        self.at(self.now_ms + ms, task);
    }

    fn play(mut self) {
        while self.now_ms < self.plan.heal_at_ms && self.tick() {}
        self.heal();
        let rest_within = if self.plan.has_clone { REST_WITHIN_AFTER_CLONE } else { REST_WITHIN };
        let give_up = self.now_ms + u64::try_from(rest_within.as_millis()).unwrap_or(u64::MAX);
        let mut next_look = 0;
        let mut last = String::new();
        loop {
            if !lock(&self.world.violations).is_empty() {
                break;
            }
            if self.now_ms >= next_look {
                next_look = self.now_ms + LOOK_EVERY_MS;
                match self.judge.restless(self.world, self.plan.agents, !self.open.is_empty()) {
                    None => break,
                    Some(why) => last = why,
                }
            }
            if self.now_ms >= give_up {
                self.world.violated(format!("no rest {} s after the mending: {last}", rest_within.as_secs()));
                break;
            }
            if !self.tick() {
                break;
            }
        }
        self.judge.last_look(self.world);
        lock(&self.world.stats).simulated_ms = self.now_ms;
        self.end();
    }

    /// Nothing of the run may stay: processes hold the world, and the world holds processes.
    fn end(&mut self) {
        for seat in 0..self.world.seats.len() {
            self.world.seat(seat).process.die();
            self.world.seat(seat).running = None;
        }
        lock(&self.world.cloud.state).cloud = None;
        lock(&self.world.system).holders.clear();
    }

    /// One tick of the network. False when the run cannot go on.
    fn tick(&mut self) -> bool {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now_ms {
                break;
            }
            let task = entry.remove();
            self.perform(task);
        }
        self.world.tick_ms.store(self.now_ms, Ordering::Relaxed);
        if let Err(error) = self.sim.step() {
            self.world.violated(format!("a host's program ended: {error}"));
            return false;
        }
        self.now_ms = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.world.tick_ms.store(self.now_ms, Ordering::Relaxed);
        for died in std::mem::take(&mut *lock(&self.world.died)) {
            let down_ms = 100 + self.world.derived("down", self.now_ms) % 5_000;
            match died {
                Died::Agent(seat) => {
                    lock(&self.world.stats).fault("agent died at a storage await");
                    self.crash_agent(seat);
                    self.after(down_ms, Task::StartAgent { seat, disk: None });
                }
                Died::Cloud => {
                    lock(&self.world.stats).fault("cloud died at a storage await");
                    self.crash_cloud();
                    self.after(down_ms, Task::StartCloud);
                }
            }
        }
        self.collect_answers();
        self.judge.every_tick(self.world, self.now_ms, self.cloud_down);
        lock(&self.world.violations).is_empty()
    }

    fn collect_answers(&mut self) {
        if !self.open.is_empty() {
            let system = lock(&self.world.system);
            self.open.retain(|n, _| !system.ids.contains_key(n));
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Step(Step::Order(order)) => self.order(order),
            Task::Step(Step::Change { keys }) => self.change(&keys),
            Task::Step(Step::Fault(fault)) => self.strike(&fault),
            Task::Repair { seat } => self.repair(seat),
            Task::Release { seat } => self.release(seat),
            Task::StartAgent { seat, disk } => self.start_agent(seat, disk),
            Task::StartCloud => self.start_cloud(),
            Task::FastDisk { seat } => self.world.seat(seat).faults.slow_ms = 0,
            Task::FastCloudDisk => lock(&self.world.cloud.state).faults.slow_ms = 0,
            Task::RoomOnDisk { seat } => self.world.seat(seat).disk.set_full(false),
            Task::StopClone => self.stop_clone(),
            Task::KeepDisk { seat } => {
                self.kept[seat] = Some(Kept(copy(&self.world.seat(seat).disk, |_| true)))
            }
            Task::OrderAgain => {
                let open: Vec<Order> = self.open.values().cloned().collect();
                let again = !open.is_empty();
                lock(&self.world.cloud.orders).extend(open);
                self.world.cloud.ordered.notify_one();
                if again {
                    self.after(ORDER_AGAIN_MS, Task::OrderAgain);
                }
            }
        }
    }

    fn order(&mut self, order: Order) {
        self.world.note("api", format_args!("{order:?}"));
        let kind = match &order {
            Order::Action { .. } => "actions",
            Order::Authenticate { .. } => "password checks",
            Order::Config { .. } => "config changes",
        };
        lock(&self.world.stats).did(kind);
        if let Order::Action { n, .. } = &order {
            if self.open.is_empty() {
                self.after(ORDER_AGAIN_MS, Task::OrderAgain);
            }
            self.open.insert(*n, order.clone());
        }
        lock(&self.world.cloud.orders).push_back(order);
        self.world.cloud.ordered.notify_one();
    }

    fn change(&self, keys: &[(u64, Change)]) {
        let mut system = lock(&self.world.system);
        for (key, change) in keys {
            let key = format!("u{key:02}");
            match change {
                Change::Write => {
                    let version = self.world.derived(&key, self.now_ms) % 1_000_000;
                    system.objects.insert(key, version);
                }
                Change::Delete => {
                    system.objects.remove(&key);
                }
            }
        }
        drop(system);
        lock(&self.world.stats).did("directory changes");
        self.world.note("directory", format_args!("changes {keys:?}"));
    }

    fn strike(&mut self, fault: &Fault) {
        self.world.note("fault", format_args!("{fault:?}"));
        if self.try_strike(fault) {
            lock(&self.world.stats).fault(fault.kind());
        } else {
            self.world.note("fault", "comes to nothing");
        }
    }

    /// False when something else already troubles the same place.
    fn try_strike(&mut self, fault: &Fault) -> bool {
        match *fault {
            Fault::Partition { seat, ms } => self.tamper(seat, ms, |sim, host| sim.partition(host, CLOUD)),
            Fault::PartitionOneWay { seat, outward, ms } => self.tamper(seat, ms, |sim, host| {
                if outward { sim.partition_oneway(host, CLOUD) } else { sim.partition_oneway(CLOUD, host) }
            }),
            Fault::Delay { seat, ms } => {
                if std::mem::replace(&mut self.link_busy[seat], true) {
                    return false;
                }
                self.sim.hold(HOSTS[seat], CLOUD);
                self.after(ms, Task::Release { seat });
                true
            }
            Fault::KillAgent { seat, down_ms } => self.kill_agent(seat, down_ms, None),
            Fault::PowerCut { seat, down_ms } => {
                if self.link_busy[seat] || self.down[seat] {
                    return false;
                }
                self.tamper(seat, down_ms, |sim, host| sim.partition(host, CLOUD));
                self.kill_agent(seat, down_ms, None)
            }
            Fault::OldDisk { seat, down_ms, .. } => {
                let disk = self.kept[seat].take();
                disk.is_some() && self.kill_agent(seat, down_ms, disk)
            }
            Fault::AgentDiesAt { seat, awaits } => {
                self.world.seat(seat).faults.armed = Some(awaits);
                true
            }
            Fault::KillCloud { down_ms } => {
                if self.cloud_down {
                    return false;
                }
                self.crash_cloud();
                self.after(down_ms, Task::StartCloud);
                true
            }
            Fault::CloudDiesAt { awaits } => {
                lock(&self.world.cloud.state).faults.armed = Some(awaits);
                true
            }
            Fault::SetAgentClock { seat, by_ms } => {
                self.world.seats[seat].skew_ms.fetch_add(by_ms, Ordering::Relaxed);
                true
            }
            Fault::SetCloudClock { by_ms } => self.set_cloud_clock(by_ms),
            Fault::SlowAgentDisk { seat, most_ms, ms } => {
                self.world.seat(seat).faults.slow_ms = most_ms;
                self.after(ms, Task::FastDisk { seat });
                true
            }
            Fault::SlowCloudDisk { most_ms, ms } => {
                lock(&self.world.cloud.state).faults.slow_ms = most_ms;
                self.after(ms, Task::FastCloudDisk);
                true
            }
            Fault::FullAgentDisk { seat, ms } => {
                self.world.seat(seat).disk.set_full(true);
                self.after(ms, Task::RoomOnDisk { seat });
                true
            }
            Fault::Clone { of, ms } => self.start_clone(of, ms),
        }
    }

    fn tamper(
        &mut self,
        seat: usize,
        ms: u64,
        tamper: impl FnOnce(&turmoil::Sim<'static>, &'static str),
    ) -> bool {
        if std::mem::replace(&mut self.link_busy[seat], true) {
            return false;
        }
        tamper(&self.sim, self.world.seats[seat].host);
        self.after(ms, Task::Repair { seat });
        true
    }

    fn repair(&mut self, seat: usize) {
        self.world.note("fault", format_args!("link of {} is repaired", HOSTS[seat]));
        self.sim.repair(HOSTS[seat], CLOUD);
        self.link_busy[seat] = false;
    }

    fn release(&mut self, seat: usize) {
        self.world.note("fault", format_args!("link of {} is released", HOSTS[seat]));
        self.sim.release(HOSTS[seat], CLOUD);
        self.link_busy[seat] = false;
    }

    fn kill_agent(&mut self, seat: usize, down_ms: u64, disk: Option<Kept>) -> bool {
        if self.down[seat] {
            return false;
        }
        self.crash_agent(seat);
        self.after(down_ms, Task::StartAgent { seat, disk });
        true
    }

    fn crash_agent(&mut self, seat: usize) {
        let running = {
            let mut state = self.world.seat(seat);
            state.process.die();
            state.faults.armed = None;
            state.disk = state.disk.crash();
            state.was_online = false;
            state.running.take()
        };
        drop(running);
        lock(&self.world.system).holders.retain(|holder| holder.seat != seat);
        self.sim.crash(self.world.seats[seat].host);
        self.down[seat] = true;
        self.world.note(self.world.seats[seat].host, "is down");
    }

    fn start_agent(&mut self, seat: usize, disk: Option<Kept>) {
        if !self.down[seat] {
            return;
        }
        if let Some(Kept(disk)) = disk {
            self.world.seat(seat).disk = disk;
        }
        self.down[seat] = false;
        self.sim.bounce(self.world.seats[seat].host);
    }

    fn crash_cloud(&mut self) {
        let cloud = {
            let mut state = lock(&self.world.cloud.state);
            state.process.die();
            state.faults.armed = None;
            state.cloud.take()
        };
        drop(cloud);
        self.sim.crash(CLOUD);
        self.cloud_down = true;
        self.world.note(CLOUD, "is down");
    }

    fn start_cloud(&mut self) {
        if self.cloud_down {
            self.cloud_down = false;
            self.sim.bounce(CLOUD);
        }
    }

    fn set_cloud_clock(&mut self, by_ms: u64) -> bool {
        self.judge.cloud_clock_was_set(self.now_ms);
        let forward = i64::try_from(by_ms).unwrap_or(0);
        self.world.cloud.skew_ms.fetch_add(forward, Ordering::Relaxed);
        let cloud = lock(&self.world.cloud.state).cloud.clone();
        if let Some(cloud) = cloud {
            cloud.kit.clock.advance(Duration::from_millis(by_ms));
        }
        true
    }

    fn start_clone(&mut self, of: usize, ms: u64) -> bool {
        let Some(seat) = self.world.seats.len().checked_sub(1).filter(|seat| *seat >= self.plan.agents)
        else {
            return false;
        };
        if self.clone_runs {
            return false;
        }
        // A machine copied after enrolment: it has the config, and never worked.
        let disk = copy(&self.world.seat(of).disk, |table| table == Table::Config);
        self.world.seat(seat).disk = disk;
        let shared = self.world.clone();
        self.sim.host(HOSTS[AGENTS_MAX], move || agent_host::live(shared.clone(), seat));
        self.clone_runs = true;
        self.after(ms, Task::StopClone);
        true
    }

    fn stop_clone(&mut self) {
        if self.clone_runs {
            let seat = self.world.seats.len() - 1;
            if !self.down[seat] {
                self.crash_agent(seat);
            }
        }
    }

    /// Ends every hardship.
    fn heal(&mut self) {
        self.world.note("fault", "everything is mended");
        self.agenda.retain(|_, task| matches!(task, Task::OrderAgain));
        for (seat, host) in HOSTS.into_iter().enumerate().take(self.plan.agents) {
            if std::mem::replace(&mut self.link_busy[seat], false) {
                self.sim.release(host, CLOUD);
                self.sim.repair(host, CLOUD);
            }
            {
                let mut state = self.world.seat(seat);
                state.faults = DiskFaults::default();
                state.disk.set_full(false);
            }
            self.start_agent(seat, None);
        }
        self.stop_clone();
        lock(&self.world.cloud.state).faults = DiskFaults::default();
        self.start_cloud();
        // What is mended must work again, for every agent: the orders go round.
        self.change(&[(0, Change::Write), (41, Change::Write)]);
        for order in last_orders() {
            self.order(order);
        }
    }
}

/// A disk with the same content, as far as wanted.
fn copy(disk: &MemoryStorage, wanted: impl Fn(Table) -> bool) -> MemoryStorage {
    use causeway_agent::storage::Storage as _;
    let mut batch = Batch::new();
    for (table, key, value) in disk.dump() {
        if wanted(table) {
            batch.put(table, key, value);
        }
    }
    let copy = MemoryStorage::new();
    copy.commit(batch).now_or_never().expect("memory does not wait").expect("memory has room");
    copy
}
