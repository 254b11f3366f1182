//! Random writes, then a delta: the cloud must look as if it had been filled afresh.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::*;

#[derive(Clone, Debug)]
enum Write {
    Change { user: usize, to: u8 },
    Add { unit: usize, number: u16 },
    Delete { user: usize },
    DeleteGroup { group: usize },
    Rename { user: usize, to: u8 },
    Move { user: usize, unit: usize },
    RenameUnit { unit: usize, to: u8 },
    Join { group: usize, user: usize },
    Nest { group: usize, inner: usize },
    Leave { edge: usize },
    MoveUnit { unit: usize, to: usize },
    Primary { edge: usize },
    Sync,
}

fn write() -> impl Strategy<Value = Write> {
    let n = || 0..500_usize;
    prop_oneof![
        3 => (n(), any::<u8>()).prop_map(|(user, to)| Write::Change { user, to }),
        2 => (n(), any::<u16>()).prop_map(|(unit, number)| Write::Add { unit, number }),
        2 => n().prop_map(|user| Write::Delete { user }),
        1 => n().prop_map(|group| Write::DeleteGroup { group }),
        2 => (n(), any::<u8>()).prop_map(|(user, to)| Write::Rename { user, to }),
        2 => (n(), n()).prop_map(|(user, unit)| Write::Move { user, unit }),
        1 => (n(), any::<u8>()).prop_map(|(unit, to)| Write::RenameUnit { unit, to }),
        4 => (n(), n()).prop_map(|(group, user)| Write::Join { group, user }),
        2 => (n(), n()).prop_map(|(group, inner)| Write::Nest { group, inner }),
        3 => n().prop_map(|edge| Write::Leave { edge }),
        1 => (n(), n()).prop_map(|(unit, to)| Write::MoveUnit { unit, to }),
        1 => n().prop_map(|edge| Write::Primary { edge }),
        2 => Just(Write::Sync),
    ]
}

fn pick(list: &[String], n: usize) -> Option<&String> {
    list.get(n.checked_rem(list.len())?)
}

impl Bench {
    /// Whether the directory accepted it; `None` when there was nothing to write.
    async fn apply(&self, write: &Write) -> Option<bool> {
        let current = self.fresh().await;
        let dns = |kind: Kind| self.dns_in(&current, kind);
        let (users, groups, units) = (dns(Kind::User), dns(Kind::Group), dns(Kind::Ou));
        let rdn = |dn: &str| dn.split_once('=').map_or("CN", |(name, _)| name).to_owned();
        let done = match write {
            Write::Change { user, to } => pick(&users, *user)
                .map(|dn| self.modify(dn, ModOp::Replace, "givenName", &format!("Given {to}"))),
            Write::Add { unit, number } => {
                pick(&units, *unit).map(|unit| self.add_user(unit, &format!("new{number}")))
            }
            Write::Delete { user } => pick(&users, *user).map(|dn| self.delete(dn)),
            Write::DeleteGroup { group } => pick(&groups, *group).map(|dn| self.delete(dn)),
            Write::Rename { user, to } => {
                pick(&users, *user).map(|dn| self.rename(dn, &format!("{}=renamed {to}", rdn(dn)), None))
            }
            Write::Move { user, unit } => pick(&users, *user).zip(pick(&units, *unit)).map(|(dn, unit)| {
                let parent = crate::directory::dn::parent(dn).unwrap_or_default().len();
                let first = &dn[..dn.len() - parent - 1];
                self.rename(dn, first.trim_end_matches(','), Some(unit))
            }),
            Write::RenameUnit { unit, to } => {
                pick(&units, *unit).map(|dn| self.rename(dn, &format!("{}=unit {to}", rdn(dn)), None))
            }
            Write::Join { group, user } => pick(&groups, *group)
                .zip(pick(&users, *user))
                .map(|(group, user)| self.modify(group, ModOp::Add, "member", user)),
            Write::Nest { group, inner } => pick(&groups, *group)
                .zip(pick(&groups, *inner))
                .map(|(group, inner)| self.modify(group, ModOp::Add, "member", inner)),
            Write::Leave { edge } => self
                .edge(&current, *edge)
                .map(|(group, user)| self.modify(&group, ModOp::Delete, "member", &user)),
            Write::MoveUnit { unit, to } => pick(&units, *unit).zip(pick(&units, *to)).map(|(dn, to)| {
                let parent = crate::directory::dn::parent(dn).unwrap_or_default().len();
                self.rename(dn, dn[..dn.len() - parent].trim_end_matches(','), Some(to))
            }),
            Write::Primary { edge } => self.edge(&current, *edge).map(|(group, user)| {
                let directory = self.world.ldap.directory();
                let replica = &directory.servers()[0];
                let sid = replica.find(group.as_bytes()).map(|id| replica.values(id, "objectSid"));
                let rid = sid.and_then(|sids| crate::directory::guid::sid_rid(sids.first()?));
                rid.is_some_and(|rid| self.modify(&user, ModOp::Replace, "primaryGroupID", &rid.to_string()))
            }),
            Write::Sync => {
                self.sync().await;
                None
            }
        };
        // What the directory refuses (a name taken, nobody to remove) is no change.
        done
    }
}

impl Bench {
    /// Names of a group and one of its members.
    fn edge(&self, cloud: &MemoryCloud, n: usize) -> Option<(String, String)> {
        let objects = cloud.objects();
        let edges: Vec<_> = objects.keys().filter(|key| key.0 == Kind::Member).collect();
        let (_, group, member) = edges.get(n.checked_rem(edges.len())?)?;
        let dn = |kind: Kind, key: &str| {
            let value = objects.get(&(kind, key.to_owned(), None))?;
            let value: Value = serde_json::from_str(value).unwrap();
            Some(value["dn"].as_str()?.to_owned())
        };
        Some((dn(Kind::Group, group)?, dn(Kind::User, member.as_deref()?)?))
    }
}

fn delta_equals_snapshot(personality: &str, strategy: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Cases { cases: 12, max_shrink_iters: 60, ..Cases::default() });
    let writes = proptest::collection::vec(write(), 1..25);
    let (tried, accepted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    runner
        .run(&writes, |writes| {
            runtime.block_on(async {
                let mut config = Config::of(personality);
                config.common.users = 30;
                let bench = Bench::with(config, json!({"strategy": strategy})).await;
                bench.sync().await;
                for write in &writes {
                    let done = bench.apply(write).await;
                    tried.fetch_add(usize::from(done.is_some()), Ordering::Relaxed);
                    accepted.fetch_add(usize::from(done == Some(true)), Ordering::Relaxed);
                }
                bench.sync().await;
                let fresh = bench.fresh().await;
                let differences = difference(&bench.world.cloud.objects(), &fresh.objects());
                prop_assert!(differences.is_empty(), "{differences:#?}");
                Ok(())
            })
        })
        .unwrap();
    let (tried, accepted) = (tried.into_inner(), accepted.into_inner());
    assert!(accepted * 2 > tried, "{accepted} of {tried} writes took effect: too few to prove anything");
}

#[test]
fn dirsync() {
    delta_equals_snapshot("active_directory", "dirsync");
}

#[test]
fn usn() {
    delta_equals_snapshot("active_directory", "usn");
}

#[test]
fn syncrepl() {
    delta_equals_snapshot("openldap", "syncrepl");
}

#[test]
fn changelog() {
    delta_equals_snapshot("ds389", "changelog");
}

#[test]
fn syncrepl_of_ds389() {
    delta_equals_snapshot("ds389", "syncrepl");
}

#[test]
fn scan() {
    delta_equals_snapshot("edirectory", "scan");
}
