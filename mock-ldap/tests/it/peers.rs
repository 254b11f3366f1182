//! The tools of Debian's `ldap-utils` as clients. A missing tool is a loud skip, and a failure when
//! CAUSEWAY_REQUIRE_PEERS=1.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::world::World;

/// Longest run of one tool; ldapsearch waits for ever after some errors.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn is_missing(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if !found {
        assert_ne!(
            std::env::var("CAUSEWAY_REQUIRE_PEERS").as_deref(),
            Ok("1"),
            "{tool} is required: install Debian's ldap-utils"
        );
        eprintln!("SKIPPED: {tool} is not installed (Debian package ldap-utils)");
    }
    !found
}

async fn run(world: &World, tool: &str, url: &str, args: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(tool);
    command
        .args(["-H", url])
        .args(args)
        .env("LDAPTLS_CACERT", world.mock.ca().pem_path())
        .env("LDAPTLS_REQCERT", "demand")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the tool starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.unwrap_or_default().as_bytes()).await.expect("write");
    drop(stdin);
    tokio::time::timeout(TOOL_TIMEOUT, child.wait_with_output())
        .await
        .expect("the tool ends")
        .expect("output")
}

/// Runs a tool as the service account.
async fn as_admin(world: &World, tool: &str, url: &str, args: &[&str], input: Option<&str>) -> (i32, String) {
    let login = world.mock.service_account();
    let mut all = vec!["-x", "-D", &login.dn, "-w", &login.password];
    all.extend(args);
    let output = run(world, tool, url, &all, input).await;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn entries(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("dn:")).count()
}

#[tokio::test]
async fn ldapsearch_reads_people_over_ldap_ldaps_and_start_tls() {
    if is_missing("ldapsearch") {
        return;
    }
    for personality in ["active_directory", "openldap", "389ds", "domino", "edirectory"] {
        let world = World::of(personality).await;
        let filter = "(|(sAMAccountName=asmith)(uid=asmith)(shortname=asmith))";
        for (front, tls) in [("ldap", false), ("ldap", true), ("ldaps", false)] {
            if personality == "edirectory" && front == "ldap" && !tls {
                continue;
            }
            let url = world.mock.url(front).to_owned();
            let mut args = vec!["-LLL", "-b", &world.base, filter, "mail"];
            if tls {
                args.insert(0, "-ZZ");
            }
            let (code, text) = as_admin(&world, "ldapsearch", &url, &args, None).await;
            assert_eq!(code, 0, "{personality} {front} {tls}: {text}");
            assert!(text.contains("mail: "), "{personality} {front}: {text}");
        }
    }
}

#[tokio::test]
async fn ldapsearch_pages() {
    if is_missing("ldapsearch") {
        return;
    }
    let mut config = causeway_mock_ldap::Config::default();
    config.common.users = 1300;
    let world = World::start(config).await;
    let args = ["-LLL", "-E", "pr=100/noprompt", "-b", &world.base, "(sAMAccountType=805306368)", "cn"];
    let (code, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, None).await;
    assert_eq!(code, 0, "{text}");
    assert!(entries(&text) >= 1300, "{}", entries(&text));
}

#[tokio::test]
async fn ldapsearch_sorts_and_looks_through_a_virtual_list() {
    if is_missing("ldapsearch") {
        return;
    }
    let world = World::ad().await;
    let filter = "(sAMAccountType=805306368)";
    let args = ["-LLL", "-E", "!sss=cn", "-b", &world.base, filter, "cn"];
    let (code, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, None).await;
    assert_eq!(code, 0, "{text}");
    let names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("cn: ")).map(str::to_lowercase).collect();
    let ascii: Vec<_> = names.iter().filter(|name| name.is_ascii()).collect();
    assert!(ascii.len() > 100 && ascii.is_sorted(), "{ascii:?}");
    let args = ["-E", "!sss=cn", "-E", "!vlv=0/9/11/0", "-b", &world.base, filter, "cn"];
    let (_, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, Some("q\n")).await;
    assert_eq!(entries(&text), 10, "{text}");
    assert!(text.contains("vlvResult: pos=11"), "{text}");
}

#[tokio::test]
async fn ldapsearch_follows_dirsync() {
    if is_missing("ldapsearch") {
        return;
    }
    let world = World::ad().await;
    let args = ["-o", "ldif-wrap=no", "-E", "!dirSync=0/0", "-b", &world.base, "(objectClass=user)", "name"];
    let (code, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, None).await;
    assert_eq!(code, 0, "{text}");
    assert!(entries(&text) >= 250, "{}", entries(&text));
    let cookie = text.lines().find_map(|line| line.strip_prefix("# cookie:: ")).expect("a cookie");
    let (dn, _) = world.person("asmith").await;
    let change = format!("dn: {dn}\nchangetype: modify\nreplace: title\ntitle: Chief\n");
    let (code, text) = as_admin(&world, "ldapmodify", world.mock.url("ldap"), &[], Some(&change)).await;
    assert_eq!(code, 0, "{text}");
    let control = format!("!dirSync=0/0/{cookie}");
    let args =
        ["-LLL", "-o", "ldif-wrap=no", "-E", &control, "-b", &world.base, "(objectClass=user)", "title"];
    let (code, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, None).await;
    assert_eq!((code, entries(&text)), (0, 1), "{text}");
    assert!(text.contains("title: Chief"), "{text}");
}

#[tokio::test]
async fn ldapsearch_synchronizes() {
    if is_missing("ldapsearch") {
        return;
    }
    let world = World::of("openldap").await;
    let args = ["-E", "sync=ro", "-b", &world.base, "(objectClass=inetOrgPerson)", "uid"];
    let (code, text) = as_admin(&world, "ldapsearch", world.mock.url("ldap"), &args, None).await;
    assert_eq!(code, 0, "{text}");
    assert!(entries(&text) >= 250, "{}", entries(&text));
    assert!(
        text.contains("SyncState control") && text.contains("SyncDone control"),
        "{}",
        &text[text.len() - 400..]
    );
}

#[tokio::test]
async fn ldapmodify_adds_changes_renames_and_deletes() {
    if is_missing("ldapmodify") {
        return;
    }
    let world = World::of("openldap").await;
    let parent = world.dn_of("asmith").await;
    let parent = parent.split_once(',').expect("a parent").1;
    let ldif = format!(
        "dn: uid=nnew,{parent}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: nnew\ncn: Nora New\nsn: New\n\n\
         dn: uid=nnew,{parent}\nchangetype: modify\nadd: title\ntitle: Chief\n-\nreplace: sn\nsn: Newer\n\n\
         dn: uid=nnew,{parent}\nchangetype: modrdn\nnewrdn: uid=nora\ndeleteoldrdn: 1\n\n\
         dn: uid=nora,{parent}\nchangetype: delete\n"
    );
    let url = world.mock.url("ldaps").to_owned();
    let (code, text) = as_admin(&world, "ldapmodify", &url, &[], Some(&ldif)).await;
    assert_eq!(code, 0, "{text}");
    let journal = world.mock.journal();
    for operation in ["add", "modify", "modify_dn", "delete"] {
        assert_eq!(
            journal.count(|entry| entry.operation == operation && entry.outcome == "success"),
            1,
            "{operation}"
        );
    }
    let (code, text) = as_admin(&world, "ldapwhoami", &url, &[], None).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("dn:"), "{text}");
}

#[tokio::test]
async fn the_wrong_authority_is_noticed_by_the_client() {
    if is_missing("ldapsearch") {
        return;
    }
    let world = World::ad().await;
    let other = World::ad().await;
    let output =
        run(&other, "ldapsearch", world.mock.url("ldaps"), &["-x", "-b", "", "-s", "base"], None).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Can't contact LDAP server"), "{output:?}");
}
