//! pacparser: the agent's corpus of PAC functions and scripts, asked of an engine that is not ours (Mozilla's functions in
//! SpiderMonkey). What it answers otherwise is written in the corpus with the reason, and counted here.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_tests::python;
use serde::Deserialize;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/src/dial/proxy/pac/corpus.toml");

/// Cases the stranger answers otherwise. This number may only fall.
const DIFFERENCES: usize = 4;

const WITHIN: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Corpus {
    call: Vec<Call>,
    script: Vec<Script>,
}

#[derive(Deserialize)]
struct Call {
    expr: String,
    gives: String,
    ours_alone: Option<String>,
    stranger: Option<Otherwise>,
}

#[derive(Deserialize)]
struct Otherwise {
    gives: String,
    why: String,
}

#[derive(Deserialize)]
struct Script {
    name: String,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    url: String,
    gives: String,
}

#[derive(Deserialize)]
struct Got {
    what: String,
    got: String,
}

#[tokio::test]
async fn the_corpus_gives_the_same() -> Result<()> {
    let Some(run) = python::run("pacparser_corpus.py", &["corpus", CORPUS], &[], WITHIN).await? else {
        return Ok(());
    };
    ensure!(run.status.success(), "{}", run.stderr);
    let corpus: Corpus = toml::from_str(&std::fs::read_to_string(CORPUS)?)?;
    let mut expected = BTreeMap::new();
    let mut differences = 0;
    for call in corpus.call.into_iter().filter(|call| call.ours_alone.is_none()) {
        let gives = match call.stranger {
            Some(otherwise) => {
                ensure!(
                    otherwise.gives != call.gives && !otherwise.why.is_empty(),
                    "{} is no difference",
                    call.expr
                );
                differences += 1;
                otherwise.gives
            }
            None => call.gives,
        };
        expected.insert(call.expr, gives);
    }
    for script in corpus.script {
        for Answer { url, gives } in script.answers {
            expected.insert(format!("{}: {url}", script.name), gives);
        }
    }
    ensure!(differences == DIFFERENCES, "{differences} differences in the corpus, not {DIFFERENCES}");
    let mut wrong = Vec::new();
    for line in run.stdout.lines() {
        let Got { what, got } = serde_json::from_str(line).context("a line of the script")?;
        let gives = expected.remove(&what).with_context(|| format!("{what} is not in the corpus"))?;
        if got != gives {
            wrong.push(format!("{what}: pacparser gives {got:?}, the corpus {gives:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(expected.is_empty(), "not asked: {:?}", expected.keys());
    Ok(())
}
