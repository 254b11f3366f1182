//! The same promises against a real OpenLDAP, started by hand on loopback: deltas by syncrepl equal a fresh snapshot,
//! with a session log (delete phase) and without one (present phase).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_protocol::Secret;
use causeway_protocol::record::Kind;
use serde_json::json;

use super::run::Task;
use super::*;
use crate::modules::testing::{MemoryCloud, context, difference};
use crate::secrets::SecretStore;
use crate::storage::memory::MemoryStorage;

const SLAPD: &str = "/usr/sbin/slapd";
const BASE: &str = "dc=acme,dc=example";
const PASSWORD: &str = "peer-secret";

/// A slapd of Debian's package; killed when dropped.
struct Slapd {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Slapd {
    /// `None` where it is not installed; that is a failure where peers are required.
    fn start(users: usize, overlay: &str) -> Option<Self> {
        if !Path::new(SLAPD).exists() {
            assert!(
                std::env::var_os("CAUSEWAY_REQUIRE_PEERS").is_none(),
                "slapd is required (package slapd)"
            );
            eprintln!("SKIPPED: slapd is not installed (package slapd)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let config = dir.path().join("slapd.conf");
        std::fs::write(&config, configuration(&data, overlay)).unwrap();
        let ldif = dir.path().join("data.ldif");
        std::fs::write(&ldif, company(users)).unwrap();
        let loaded =
            Command::new("/usr/sbin/slapadd").arg("-q").args(paths(&config, &ldif)).status().unwrap();
        assert!(loaded.success());
        // The port is free a moment ago; slapd takes no socket of ours.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("ldap://127.0.0.1:{port}");
        let process = Command::new(SLAPD)
            .arg("-f")
            .arg(&config)
            .args(["-h", &url, "-d", "0"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "slapd does not listen on {url}");
            std::thread::yield_now();
        }
        Some(Self { process, url, _dir: dir })
    }

    fn modify(&self, ldif: &str) {
        let mut process = Command::new("/usr/bin/ldapmodify")
            .args(["-x", "-H", &self.url, "-D", &format!("cn=admin,{BASE}"), "-w", PASSWORD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(ldif.as_bytes()).unwrap();
        assert!(process.wait().unwrap().success(), "{ldif}");
    }

    fn module(&self) -> UserVisibility {
        let directory = json!({
            "servers": [self.url],
            "start_tls": false,
            "allow_plain": true,
            "bind_dn": format!("cn=admin,{BASE}"),
        });
        let settings = ModuleSettings {
            desired: json!({"guard": {"deletions_max": 1_000_000}}),
            directories: BTreeMap::from([("default".to_owned(), directory)]),
            secrets: SecretStore::new([("directory.default".to_owned(), Secret::new(PASSWORD))]),
            ..ModuleSettings::default()
        };
        UserVisibility::new(&settings).unwrap()
    }
}

fn paths(config: &Path, ldif: &Path) -> Vec<PathBuf> {
    vec!["-f".into(), config.into(), "-l".into(), ldif.into()]
}

fn configuration(data: &Path, overlay: &str) -> String {
    let data = data.display();
    format!(
        "include /etc/ldap/schema/core.schema\n\
         include /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\n\
         modulepath /usr/lib/ldap\n\
         moduleload back_mdb\n\
         moduleload syncprov\n\
         database mdb\n\
         maxsize 1073741824\n\
         suffix \"{BASE}\"\n\
         rootdn \"cn=admin,{BASE}\"\n\
         rootpw {PASSWORD}\n\
         directory {data}\n\
         index objectClass,entryUUID,entryCSN,uid,mail eq\n\
         {overlay}\n"
    )
}

fn company(users: usize) -> String {
    let mut ldif = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: acme\no: Acme\n\n\
         dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n\
         dn: ou=groups,{BASE}\nobjectClass: organizationalUnit\nou: groups\n\n"
    );
    for n in 0..users {
        ldif.push_str(&format!(
            "dn: uid=user{n},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: user{n}\ncn: User {n}\nsn: {n}\n\
             givenName: User\ndisplayName: User Number {n}\nmail: user{n}@acme.example\n\
             userPassword: secret{n}\n\n"
        ));
    }
    for (name, every) in [("everyone", 1), ("tenth", 10)] {
        ldif.push_str(&format!("dn: cn={name},ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: {name}\n"));
        for n in (0..users).step_by(every) {
            ldif.push_str(&format!("member: uid=user{n},ou=people,{BASE}\n"));
        }
        ldif.push('\n');
    }
    ldif
}

struct Collection {
    module: UserVisibility,
    cloud: MemoryCloud,
    cx: ModuleContext,
}

impl Collection {
    fn new(slapd: &Slapd) -> Self {
        let cloud = MemoryCloud::default();
        let cx = context(Arc::new(MemoryStorage::new()), Arc::new(cloud.clone()));
        Self { module: slapd.module(), cloud, cx }
    }

    async fn sync(&self) -> Value {
        let lease = self.cx.cloud.lease("user_visibility/default").await.unwrap();
        self.module.runner.run(&self.cx, &lease, &Task::default()).await.unwrap()
    }
}

async fn changes_arrive(overlay: &str, strategy: &str) {
    let Some(slapd) = Slapd::start(300, overlay) else { return };
    let ours = Collection::new(&slapd);
    let first = ours.sync().await;
    assert_eq!(
        (first["mode"].as_str(), first["strategy"].as_str()),
        (Some("snapshot"), Some(strategy)),
        "{first}"
    );
    assert_eq!(ours.cloud.count(Kind::User), 300);
    assert_eq!(ours.cloud.count(Kind::Member), 330);
    let steps = [
        format!("dn: uid=user3,ou=people,{BASE}\nchangetype: modify\nreplace: givenName\ngivenName: Zoë\n"),
        format!(
            "dn: uid=new,ou=people,{BASE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: new\ncn: New\nsn: New\n\n\
             dn: cn=tenth,ou=groups,{BASE}\nchangetype: modify\nadd: member\nmember: uid=new,ou=people,{BASE}\n-\n\
             delete: member\nmember: uid=user20,ou=people,{BASE}\n"
        ),
        format!(
            "dn: uid=user7,ou=people,{BASE}\nchangetype: delete\n\ndn: uid=user8,ou=people,{BASE}\nchangetype: delete\n"
        ),
        format!("dn: cn=tenth,ou=groups,{BASE}\nchangetype: modrdn\nnewrdn: cn=some\ndeleteoldrdn: 1\n"),
        format!("dn: cn=everyone,ou=groups,{BASE}\nchangetype: delete\n"),
        format!("dn: ou=people,{BASE}\nchangetype: modrdn\nnewrdn: ou=staff\ndeleteoldrdn: 1\n"),
    ];
    for step in steps {
        slapd.modify(&step);
        let result = ours.sync().await;
        if strategy != "scan" {
            assert_eq!(result["mode"], "delta", "{step}: {result}");
        }
        let fresh = Collection::new(&slapd);
        fresh.sync().await;
        let differences = difference(&ours.cloud.objects(), &fresh.cloud.objects());
        assert!(differences.is_empty(), "{step}: {differences:#?}");
    }
    let uploads = ours.cloud.uploads().len();
    ours.sync().await;
    assert_eq!(ours.cloud.uploads().len(), uploads, "nothing has changed");
}

#[tokio::test]
async fn openldap_with_a_session_log() {
    changes_arrive("overlay syncprov\nsyncprov-sessionlog 1000", "syncrepl").await;
}

#[tokio::test]
async fn openldap_without_a_session_log() {
    changes_arrive("overlay syncprov", "syncrepl").await;
}

#[tokio::test]
async fn openldap_without_history() {
    changes_arrive("", "scan").await;
}
