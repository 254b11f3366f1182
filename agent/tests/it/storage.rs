//! The state file: what is committed survives anything, what is damaged is kept aside, what is foreign is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use causeway_agent::chain::Chain;
use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::storage::redb::{FILE_NAME, OpenError, Opened, RedbStorage, SCHEMA_VERSION};
use causeway_agent::storage::{Batch, Scoped, Storage, StorageError, Table};

use crate::support;

const MACHINE: &str = "this-machine";

fn open(dir: &Path) -> Opened {
    RedbStorage::open(dir, MACHINE).unwrap()
}

fn refused(dir: &Path, machine: &str) -> OpenError {
    match RedbStorage::open(dir, machine) {
        Err(error) => error,
        Ok(_) => panic!("opened"),
    }
}

async fn close(opened: Opened) {
    drop(opened.storage);
    tokio::task::spawn_blocking(move || opened.thread.join()).await.unwrap().unwrap();
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Objects, key, value);
    batch
}

/// The same body for both storages.
async fn behaves(storage: Arc<dyn Storage>) {
    let own: Arc<dyn Storage> = Arc::new(Scoped::new(storage.clone(), "a"));
    let other: Arc<dyn Storage> = Arc::new(Scoped::new(storage, "b"));
    let mut batch = Batch::new();
    for n in 0..10u8 {
        batch.put(Table::Objects, [b'x', n], vec![n]);
    }
    batch.put(Table::Objects, [b'y'], b"y".to_vec()).put(Table::Objects, [0xff, 0xff], b"end".to_vec());
    own.commit(batch).await.unwrap();
    other.commit(put("x", "other")).await.unwrap();

    let first = own.scan(Table::Objects, b"x".to_vec(), None, 4).await.unwrap();
    let keys = |pairs: &[(Vec<u8>, Vec<u8>)]| pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&first), [[b'x', 0], [b'x', 1], [b'x', 2], [b'x', 3]]);
    let rest = own.scan(Table::Objects, b"x".to_vec(), Some(vec![b'x', 3]), 100).await.unwrap();
    assert_eq!((rest.len(), rest[0].0.clone()), (6, vec![b'x', 4]));
    let none = own.scan(Table::Objects, b"x".to_vec(), Some(vec![b'z']), 100).await.unwrap();
    assert!(none.is_empty());
    let end = own.scan(Table::Objects, vec![0xff], None, 100).await.unwrap();
    assert_eq!(keys(&end), [[0xff, 0xff]]);

    let many = own.get_many(Table::Objects, vec![b"y".to_vec(), b"none".to_vec()]).await.unwrap();
    assert_eq!(many, [Some(b"y".to_vec()), None]);
    let mut batch = Batch::new();
    batch.delete_prefix(Table::Objects, b"x".to_vec()).put(Table::Objects, [b'x', 99], vec![]);
    batch.delete(Table::Objects, b"y".to_vec()).delete(Table::Objects, b"absent".to_vec());
    own.commit(batch).await.unwrap();
    let left = own.scan(Table::Objects, Vec::new(), None, 100).await.unwrap();
    assert_eq!(keys(&left), [vec![b'x', 99], vec![0xff, 0xff]]);
    assert_eq!(other.get(Table::Objects, b"x".to_vec()).await.unwrap(), Some(b"other".to_vec()));
}

#[tokio::test]
async fn both_storages_behave_alike() {
    behaves(Arc::new(MemoryStorage::new())).await;
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    behaves(Arc::new(opened.storage.clone())).await;
    close(opened).await;
}

#[tokio::test]
async fn what_is_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let many = (0..300).map(|n| {
        let storage = opened.storage.clone();
        async move { storage.commit(put(&format!("k{n}"), "v")).await }
    });
    for result in futures_util::future::join_all(many).await {
        result.unwrap();
    }
    close(opened).await;
    let opened = open(dir.path());
    assert!(opened.set_aside.is_none());
    assert_eq!(opened.storage.scan(Table::Objects, Vec::new(), None, 1_000).await.unwrap().len(), 300);
    close(opened).await;
}

#[tokio::test]
async fn a_damaged_file_is_kept_aside_and_work_goes_on() {
    for damage in [&b"not a database at all"[..], &[0; 8192][..]] {
        let dir = tempfile::tempdir().unwrap();
        for round in 1..=2 {
            fs::write(dir.path().join(FILE_NAME), damage).unwrap();
            let opened = open(dir.path());
            let kept = opened.set_aside.clone().expect("the damage is noticed");
            assert!(kept.to_string_lossy().ends_with(&format!("state.redb.corrupt-{round}")), "{kept:?}");
            assert_eq!(fs::read(kept).unwrap(), damage);
            opened.storage.commit(put("k", "v")).await.unwrap();
            close(opened).await;
        }
    }
}

#[tokio::test]
async fn a_truncated_or_empty_file_is_kept_aside_and_work_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.storage.commit(put("k", "v")).await.unwrap();
    close(opened).await;
    let path = dir.path().join(FILE_NAME);
    let sound = fs::read(&path).unwrap();
    for (round, length) in [0, 1, 9, 320, 4_096, sound.len() / 2, sound.len() - 1].into_iter().enumerate() {
        fs::write(&path, &sound[..length]).unwrap();
        let opened = open(dir.path());
        let kept = opened.set_aside.clone().unwrap_or_else(|| panic!("{length} bytes pass for a state file"));
        assert!(kept.to_string_lossy().ends_with(&format!("state.redb.corrupt-{}", round + 1)), "{kept:?}");
        assert_eq!(fs::metadata(&kept).unwrap().len(), length as u64);
        assert_eq!(opened.storage.get(Table::Objects, b"k".to_vec()).await.unwrap(), None, "{length} bytes");
        opened.storage.commit(put("k", "new")).await.unwrap();
        close(opened).await;
    }
}

#[tokio::test]
async fn flipped_bits_never_crash_and_never_pass_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let mut batch = Batch::new();
    for n in 0..2_000u32 {
        batch.put(Table::Objects, n.to_be_bytes(), vec![7; 64]);
    }
    opened.storage.commit(batch).await.unwrap();
    close(opened).await;
    let path = dir.path().join(FILE_NAME);
    let sound = fs::read(&path).unwrap();
    let mut noticed = 0;
    for place in (64..sound.len()).step_by(sound.len() / 40) {
        let mut bad = sound.clone();
        bad[place] ^= 0x55;
        fs::write(&path, &bad).unwrap();
        let opened = open(dir.path());
        let rows = opened.storage.scan(Table::Objects, Vec::new(), None, 5_000).await.unwrap();
        match &opened.set_aside {
            Some(_) => {
                assert!(rows.is_empty());
                noticed += 1;
            }
            // The flip hit a page that holds nothing.
            None => {
                assert!(rows.len() == 2_000 && rows.iter().all(|(_, value)| *value == [7; 64]), "at {place}")
            }
        }
        close(opened).await;
    }
    assert!(noticed > 0, "no flip was noticed");
}

#[tokio::test]
async fn a_file_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let error = refused(dir.path(), MACHINE);
    assert!(error.to_string().contains("in use by another agent"), "{error}");
    close(opened).await;
}

#[tokio::test]
async fn files_of_newer_agents_and_other_machines_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.storage.commit(put("k", "v")).await.unwrap();
    close(opened).await;
    assert!(matches!(refused(dir.path(), "another-machine"), OpenError::OtherMachine { .. }));

    let opened = open(dir.path());
    let mut batch = Batch::new();
    batch.put(Table::Meta, "schema_version", (SCHEMA_VERSION + 1).to_be_bytes());
    opened.storage.commit(batch).await.unwrap();
    close(opened).await;
    let error = refused(dir.path(), MACHINE);
    assert!(matches!(error, OpenError::Newer { found, .. } if found == SCHEMA_VERSION + 1), "{error}");
    assert!(dir.path().join(FILE_NAME).exists());
}

#[tokio::test]
async fn the_file_of_another_enrolment_is_kept_aside_and_one_without_a_name_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let as_owner = |owner: &str| RedbStorage::open_for(dir.path(), MACHINE, owner).unwrap();
    let has =
        async |opened: &Opened| opened.storage.get(Table::Objects, b"k".to_vec()).await.unwrap().is_some();
    let opened = open(dir.path());
    opened.storage.commit(put("k", "v")).await.unwrap();
    close(opened).await;
    for _ in 0..2 {
        let opened = as_owner("acme/1");
        assert!(has(&opened).await && opened.former.is_none(), "a file from before owners were written");
        close(opened).await;
    }
    for round in 1..=2 {
        let opened = as_owner(&format!("beta/{round}"));
        let kept = opened.former.clone().expect("it is another enrolment's");
        assert!(kept.to_string_lossy().ends_with(&format!("state.redb.former-{round}")), "{kept:?}");
        assert!(kept.exists() && opened.set_aside.is_none() && !has(&opened).await);
        opened.storage.commit(put("k", "v")).await.unwrap();
        close(opened).await;
    }
    let opened = open(dir.path());
    assert!(has(&opened).await, "the doctor and the bundle only look");
    close(opened).await;
}

#[tokio::test]
async fn an_agent_that_enrolled_anew_runs_nothing_of_its_former_life() {
    let dir = tempfile::tempdir().unwrap();
    let machine = causeway_agent::identity::machine();
    let former = RedbStorage::open_for(dir.path(), &machine, "acme/former").unwrap();
    let own = Scoped::new(Arc::new(former.storage.clone()), "agent");
    let config = serde_json::json!({"module": "probe", "revision": 1, "enabled": true, "settings": {}});
    let mut batch = Batch::new();
    batch.put(Table::Config, "probe", config.to_string());
    own.commit(batch).await.unwrap();
    drop(own);
    close(former).await;
    let desired = dir.path().join("desired.json");
    fs::write(&desired, serde_json::json!({ "probe": config }).to_string()).unwrap();

    let (connect, _lobby) = support::cloud::MemoryConnect::new();
    let probe = support::module::Probe::new();
    let mut config = support::config(dir.path(), "");
    config.factories = vec![probe.factory()];
    config.connect = Some(Arc::new(connect));
    let agent = causeway_agent::Agent::start(config).await.unwrap();
    assert_eq!(agent.status().modules, Vec::new());
    assert!(!desired.exists(), "the doctor would try what the former cloud wanted");
    agent.stop().await;
}

/// A tiny file system of its own; `None` when this process may not mount one.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_fails_the_write_and_keeps_the_rest() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!(
            "SKIPPED a_full_disk_fails_the_write_and_keeps_the_rest: mounting a tmpfs is not permitted here"
        );
        return;
    };
    let dir = disk.0.path();
    let opened = open(dir);
    opened.storage.commit(put("before", "v")).await.unwrap();
    let mut error = None;
    for n in 0..20 {
        let mut batch = Batch::new();
        batch.put(Table::Objects, format!("big{n}"), vec![n; 1 << 20]);
        if let Err(failed) = opened.storage.commit(batch).await {
            error = Some(failed);
            break;
        }
    }
    let error = error.expect("6 MB do not hold 20");
    assert!(matches!(error, StorageError::Write { .. }), "{}", Chain(&error));
    close(opened).await;

    let opened = open(dir);
    assert_eq!(opened.storage.get(Table::Objects, b"before".to_vec()).await.unwrap(), Some(b"v".to_vec()));
    close(opened).await;
}
