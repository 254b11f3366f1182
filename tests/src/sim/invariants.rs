//! What must hold: in every tick, at the end of every action, and once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use causeway_mock_cloud::store::StoreError;

use super::net::CLOUD;
use super::plan::LAST_ORDERS;
use super::world::{CANARY, TENANT, World, lock};

/// Connection attempts of one agent in any second, channel and uploads together. Back-off begins with a draw from 0 to
/// 1 s, so a few may fall close together; a loop would make hundreds.
const DIALS_PER_SECOND_MAX: usize = 8;

/// Simulated milliseconds an action may stay open after its deadline while the cloud runs: the grace for the agent's own
/// report, and what a slow disk adds.
const OVERDUE_MAX_MS: i64 = 10_000;

/// Reports waiting in one agent: orders of a run, each with its pending reports.
const OUTBOX_MAX: u64 = 400;

/// Connections at the cloud per agent: the channel, uploads, and dead ones nobody has noticed yet.
const CONNECTIONS_PER_AGENT_MAX: usize = 40;

/// Watches a run.
pub(super) struct Judge {
    has_clone: bool,
    /// When somebody last set the cloud's clock.
    cloud_clock_set_ms: Option<u64>,
    /// Actions that have ended, and how.
    ended: BTreeMap<String, String>,
    statuses: BTreeMap<String, String>,
}

/// An action's row.
struct Row {
    id: String,
    status: String,
    deadline_ms: i64,
    ends: i64,
}

impl Judge {
    pub(super) fn new(has_clone: bool) -> Self {
        Self { has_clone, cloud_clock_set_ms: None, ended: BTreeMap::new(), statuses: BTreeMap::new() }
    }

    /// From now on a lease may end by the cloud's clock before its holder knows.
    pub(super) fn cloud_clock_was_set(&mut self, now_ms: u64) {
        self.cloud_clock_set_ms = Some(now_ms);
    }

    pub(super) fn every_tick(&mut self, world: &World, now_ms: u64, cloud_down: bool) {
        self.holders(world);
        Self::dials(world, now_ms);
        Self::queues(world);
        let (dirty, started_at_ms) = {
            let mut cloud = lock(&world.cloud.state);
            (std::mem::take(&mut cloud.dirty), cloud.started_at_ms)
        };
        // Deadlines pass without any write; a look twice a second finds them.
        if dirty || now_ms % 500 < 20 {
            // Deadlines that a set clock jumped over need the time the cloud takes for any other.
            let set_at_ms = self.cloud_clock_set_ms.map_or(0, |at_ms| at_ms + OVERDUE_MAX_MS.unsigned_abs());
            let settled = !cloud_down && now_ms > started_at_ms + 5_000 && now_ms > set_at_ms;
            if let Err(error) = self.actions(world, now_ms, settled) {
                world.violated(format!("the cloud's actions cannot be read: {error}"));
            }
        }
    }

    /// No two holders of one lease act under a fence that counts; and as long as nobody meddles with the cloud's clock
    /// or copies machines, no two believe that they hold it.
    fn holders(&self, world: &World) {
        let system = lock(&world.system);
        if system.holders.len() < 2 {
            return;
        }
        let live: Vec<(usize, u64)> = system
            .holders
            .iter()
            .filter(|holder| !holder.process.is_dead() && !holder.guard.is_lost())
            .map(|holder| (holder.seat, holder.guard.fence()))
            .collect();
        drop(system);
        let fences: BTreeSet<u64> = live.iter().map(|(_, fence)| *fence).collect();
        if fences.len() < live.len() {
            world.violated(format!("two hold one lease under one fence: {live:?}"));
        }
        if live.len() > 1 && self.cloud_clock_set_ms.is_none() && !self.has_clone {
            world.violated(format!("two hold one lease at once: {live:?}"));
        }
    }

    fn dials(world: &World, now_ms: u64) {
        for n in 0..world.seats.len() {
            let mut seat = world.seat(n);
            while seat.dials.front().is_some_and(|at| at + 1_000 < now_ms) {
                seat.dials.pop_front();
            }
            if seat.dials.len() > DIALS_PER_SECOND_MAX {
                let count = seat.dials.len();
                drop(seat);
                world.violated(format!("{} connects {count} times in a second", world.seats[n].host));
            }
        }
    }

    fn queues(world: &World) {
        for n in 0..world.seats.len() {
            let online = {
                let seat = world.seat(n);
                let Some(running) = &seat.running else { continue };
                let online = *running.channel().online().borrow();
                (online != seat.was_online).then_some(online)
            };
            if let Some(online) = online {
                world.seat(n).was_online = online;
                world.note(world.seats[n].host, if online { "is online" } else { "is offline" });
                if online {
                    lock(&world.stats).did("sessions");
                }
            }
        }
        let cloud = lock(&world.cloud.state).cloud.clone();
        if let Some(cloud) = cloud {
            let connections = cloud.sessions.connections();
            if connections > CONNECTIONS_PER_AGENT_MAX * world.seats.len() {
                world.violated(format!("the cloud has {connections} connections"));
            }
            if cloud.events.dropped() > 0 {
                world.violated("the cloud's queue of events overflowed");
            }
        }
    }

    /// At most one terminal status per action, and one by the deadline.
    fn actions(&mut self, world: &World, now_ms: u64, settled: bool) -> Result<(), StoreError> {
        let rows = rows(world)?;
        let skew_ms = world.cloud.skew_ms.load(Ordering::Relaxed);
        let cloud_ms = world.epoch_ms + i64::try_from(now_ms).unwrap_or(i64::MAX) + skew_ms;
        for row in rows {
            if self.statuses.get(&row.id) != Some(&row.status) {
                world.note(CLOUD, format_args!("action {} is {}", row.id, row.status));
                self.statuses.insert(row.id.clone(), row.status.clone());
            }
            if row.ends > 1 {
                world.violated(format!("action {} has {} terminal lines", row.id, row.ends));
            }
            match self.ended.get(&row.id) {
                Some(was) if *was != row.status => {
                    world.violated(format!("action {} ended as {was} and is now {}", row.id, row.status));
                }
                None if row.status != "pending" => {
                    lock(&world.stats).did(if row.status == "success" {
                        "actions done"
                    } else {
                        "actions failed"
                    });
                    self.ended.insert(row.id, row.status);
                }
                None if settled && row.deadline_ms + OVERDUE_MAX_MS < cloud_ms => {
                    let late_ms = cloud_ms - row.deadline_ms;
                    world.violated(format!("action {} is open {late_ms} ms after its deadline", row.id));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Why the run has not come to rest yet; `None` when it has.
    pub(super) fn restless(&self, world: &World, agents: usize, orders_open: bool) -> Option<String> {
        if orders_open {
            return Some("orders are not answered".to_owned());
        }
        for n in 0..agents {
            let (running, host) = (world.seat(n).running.clone(), world.seats[n].host);
            let Some(running) = running else { return Some(format!("{host} does not run")) };
            if !*running.channel().online().borrow() {
                return Some(format!("{host} is offline: {:?}", *running.channel().state().borrow()));
            }
            let waiting = running.outbox_waiting();
            if waiting > OUTBOX_MAX {
                world.violated(format!("{host} has {waiting} reports waiting"));
            }
            if waiting > 0 {
                return Some(format!("{host} has {waiting} reports waiting"));
            }
        }
        match rows(world) {
            Ok(rows) => {
                if let Some(row) = rows.iter().find(|row| row.status == "pending") {
                    return Some(format!("action {} is pending", row.id));
                }
            }
            Err(error) => return Some(format!("the cloud's actions cannot be read: {error}")),
        }
        let objects = lock(&world.system).objects.clone();
        match copy(world) {
            Ok(copy) if copy == objects => None,
            Ok(copy) => {
                let wrong = objects
                    .keys()
                    .chain(copy.keys())
                    .filter(|key| objects.get(*key) != copy.get(*key))
                    .collect::<BTreeSet<_>>();
                Some(format!("the cloud's copy differs from the directory at {wrong:?}"))
            }
            Err(error) => Some(format!("the cloud's copy cannot be read: {error}")),
        }
    }

    /// What is looked at once, at the end.
    pub(super) fn last_look(&mut self, world: &World) {
        let system = lock(&world.system);
        let (applied, begun, tried) = (system.applied.clone(), system.begun.clone(), system.tried.clone());
        let begins = system.begins.clone();
        drop(system);
        for (id, times) in &applied {
            // A copied machine works on what it is given like the original: nothing in the agent can know.
            let by_twins = self.has_clone && begun.get(id).is_some_and(|seats| seats.len() > 1);
            if *times > 1 && !by_twins {
                world.violated(format!("action {id} took effect {times} times"));
            }
        }
        for ((id, seat, life), times) in begins {
            if times > 1 && !self.has_clone {
                world.violated(format!(
                    "action {id} was begun {times} times by seat {seat} in its life {life}"
                ));
            }
        }
        for (id, seats) in &begun {
            if seats.len() > 1 && !self.has_clone {
                world.violated(format!(
                    "action {id}, which may not be repeated, was begun by seats {seats:?}"
                ));
            }
        }
        for (password, times) in tried {
            if times > 1 {
                world.violated(format!("password {password} was tried {times} times"));
            }
        }
        let last: Vec<String> =
            lock(&world.system).ids.range(LAST_ORDERS..).map(|(_, id)| id.clone()).collect();
        let looked = done(world).and_then(|done| {
            // What was given to a copy in its last moment stays open until the original is let back in, which is later.
            let excused = if self.has_clone { unknown(world)? } else { Vec::new() };
            for id in last.iter().filter(|id| !done.contains(id) && !excused.contains(id)) {
                world.violated(format!("action {id}, ordered after the mending, was not done"));
            }
            for id in done {
                if !applied.contains_key(&id) {
                    world.violated(format!("action {id} is a success without any effect"));
                }
            }
            fences(world)?;
            secrets(world)
        });
        if let Err(error) = looked {
            world.violated(format!("the cloud's disk cannot be read: {error}"));
        }
        for (n, seat) in world.seats.iter().enumerate() {
            for (table, _, value) in world.seat(n).disk.dump() {
                if contains(&value, CANARY.as_bytes()) {
                    world.violated(format!("{} keeps a password in table {}", seat.host, table.name()));
                }
            }
        }
    }
}

fn rows(world: &World) -> Result<Vec<Row>, StoreError> {
    world.cloud.disk.look(|db| {
        let mut query = db.prepare_cached(
            "SELECT id, status, deadline_ms, (SELECT count(*) FROM action_timeline t WHERE t.action = a.id \
             AND t.event IN ('success', 'failure')) FROM actions a ORDER BY seq",
        )?;
        let rows = query.query_map([], |row| {
            Ok(Row { id: row.get(0)?, status: row.get(1)?, deadline_ms: row.get(2)?, ends: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    })
}

/// Successful actions with an effect.
fn done(world: &World) -> Result<Vec<String>, StoreError> {
    orders_where(world, "status = 'success'")
}

/// Orders of which the cloud cannot say whether they were done.
fn unknown(world: &World) -> Result<Vec<String>, StoreError> {
    orders_where(world, "status = 'failure' AND error ->> 'code' = 'unknown_outcome'")
}

fn orders_where(world: &World, condition: &str) -> Result<Vec<String>, StoreError> {
    world.cloud.disk.look(|db| {
        let sql = format!("SELECT id FROM actions WHERE {condition} AND module = 'sim_system' ORDER BY seq");
        let mut query = db.prepare(&sql)?;
        let ids = query.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<Vec<_>, _>>()?)
    })
}

/// The directory as the cloud has it.
fn copy(world: &World) -> Result<BTreeMap<String, u64>, StoreError> {
    world.cloud.disk.look(|db| {
        let mut query = db.prepare_cached("SELECT key, login FROM users WHERE tenant = ?1")?;
        let rows = query.query_map([TENANT], |row| {
            let login: String = row.get(1)?;
            Ok((row.get(0)?, login.parse().unwrap_or(u64::MAX)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// What was committed later was committed under the same or a later fence.
fn fences(world: &World) -> Result<(), StoreError> {
    let fences = world.cloud.disk.look(|db| {
        let mut query = db.prepare("SELECT fence FROM uploads WHERE state = 'committed' ORDER BY epoch")?;
        let fences = query.query_map([], |row| row.get(0))?;
        Ok(fences.collect::<Result<Vec<i64>, _>>()?)
    })?;
    if !fences.is_sorted() {
        world.violated(format!("uploads were committed under fences {fences:?}"));
    }
    Ok(())
}

/// No password in any table of the cloud.
fn secrets(world: &World) -> Result<(), StoreError> {
    world.cloud.disk.look(|db| {
        let mut query = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let tables = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        for table in tables {
            let mut query = db.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = query.column_count();
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    let bytes = row.get_ref(column)?;
                    let bytes = bytes.as_bytes_or_null().ok().flatten().unwrap_or_default();
                    if contains(bytes, CANARY.as_bytes()) {
                        world.violated(format!("the cloud keeps a password in table {table}"));
                    }
                }
            }
        }
        Ok(())
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
