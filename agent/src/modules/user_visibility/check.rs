//! The doctor of user_visibility: the rights that deltas need and one harmless read. The directory itself is checked
//! before.

use super::error::SyncError;
use super::run::Runner;
use super::source::Source;
use super::{changelog, dirsync, syncrepl, usn};
use crate::chain::Chain;
use crate::checks::{Check, declare_checks};
use crate::directory::message::SearchRequest;
use crate::directory::personality::Strategy;
use crate::directory::{Net, doctor};
use crate::modules::{CheckResult, ModuleContext};

declare_checks! {
    SOURCE = "user_visibility.source":
        "whether a server can be read for a collection",
        "see the checks of the directory";
    BASES = "user_visibility.bases":
        "whether every subtree of the scope is readable",
        "correct bases, or give the service account read rights";
    CHANGES = "user_visibility.changes":
        "how changes are learnt of, and which rights a better way lacks",
        "give the service account Replicating Directory Changes on the domain (Active Directory)";
}

pub(super) async fn run(runner: &Runner, cx: &ModuleContext) -> Vec<CheckResult> {
    let net = Net::from(cx);
    let mut results = Vec::new();
    let candidates = match runner.directory.candidates(&net).await {
        Ok(candidates) => candidates,
        Err(error) => {
            results.push(doctor::failed(&SOURCE, &error));
            return results;
        }
    };
    let Some(server) = candidates.first() else { return results };
    let source = match Source::open(&net, &runner.directory, server, &runner.settings).await {
        Ok(source) => source,
        Err(error) => {
            results.push(failed(&SOURCE, &error));
            return results;
        }
    };
    for base in &source.scope.bases {
        results.push(read_base(&source, base).await);
    }
    results.push(history(&source, runner.settings.strategy).await);
    results
}

async fn read_base(source: &Source, base: &str) -> CheckResult {
    let read = async {
        let mut lent = source.connection().await?;
        Ok::<_, SyncError>(lent.read(&SearchRequest::read(base, &["1.1"])).await?)
    };
    match read.await {
        Ok(Some(_)) => CheckResult::ok(&BASES, "readable").of(base),
        Ok(None) => {
            CheckResult::fail(&BASES, "there is no such object, or the service account may not see it", "")
                .of(base)
        }
        Err(error) => failed(&BASES, &error).of(base),
    }
}

/// Tries the best way to learn of changes, and says what is lost without it.
async fn history(source: &Source, wanted: Option<Strategy>) -> CheckResult {
    let best = source.strategy(wanted);
    let mut refused = Vec::new();
    for strategy in source.strategies(wanted) {
        let started = match strategy {
            Strategy::Dirsync => dirsync::start(source).await.map(|_| ()),
            Strategy::Usn => usn::start(source).await.map(|_| ()),
            Strategy::Syncrepl => syncrepl::start(source).await.map(|_| ()),
            Strategy::Changelog => changelog::start(source).await.map(|_| ()),
            Strategy::Scan => Ok(()),
        };
        match started {
            Ok(()) if strategy == best && best != Strategy::Scan => {
                return CheckResult::ok(&CHANGES, format!("by {}", strategy.as_str()));
            }
            Ok(()) => {
                let deletions = match strategy {
                    Strategy::Usn => usn::deleted_objects_visible(source).await.unwrap_or(false),
                    _ => true,
                };
                let mut detail = format!("by {}", strategy.as_str());
                if !deletions {
                    detail.push_str(", and by comparing all ids, because deleted objects may not be listed");
                }
                if !refused.is_empty() {
                    detail = format!("{detail} ({})", refused.join("; "));
                }
                return CheckResult::warn(&CHANGES, detail, remedy(best));
            }
            Err(error) => refused.push(format!("{}: {}", strategy.as_str(), Chain(&error))),
        }
    }
    CheckResult::warn(&CHANGES, refused.join("; "), remedy(best))
}

fn remedy(best: Strategy) -> &'static str {
    match best {
        Strategy::Dirsync => "give the service account Replicating Directory Changes on the domain",
        Strategy::Usn => "give the service account List Contents on CN=Deleted Objects (dsacls)",
        Strategy::Syncrepl => {
            "load the syncprov overlay (389-ds: the Content Synchronization plug-in) and let the service account use it"
        }
        Strategy::Changelog => "let the service account read cn=changelog",
        Strategy::Scan => {
            "nothing: this server offers no history, so everything is read and compared each time"
        }
    }
}

fn failed(check: &'static Check, error: &SyncError) -> CheckResult {
    CheckResult::fail(check, Chain(error).to_string(), error.remedy())
}
