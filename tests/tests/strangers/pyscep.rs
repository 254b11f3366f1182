//! PyScep: SCEP and NDES as a client of its own sees them.

use std::time::Duration;

use anyhow::{Context, Result};
use causeway_mock_ca::{Config, MockCa};
use causeway_mock_kit::cli::RunningMock as _;
use causeway_tests::{program, python};

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn pyscep_against_an_authority_of_its_own() -> Result<()> {
    enrol("rfc8894", "ca").await
}

#[tokio::test]
async fn pyscep_against_ndes() -> Result<()> {
    enrol("ndes", "ra").await
}

async fn enrol(personality: &str, mode: &str) -> Result<()> {
    let mock = MockCa::start(Config::of(personality)).await?;
    let (user, password) = mock.service_account();
    let challenge = mock.world().challenges.config().fixed.clone().context("a static challenge")?;
    let arguments = [mock.url("scep"), mock.url("ndes_admin"), mock.url("admin"), &user, mode];
    let environment = [("CAUSEWAY_PASSWORD", password.as_str()), ("CAUSEWAY_CHALLENGE", challenge.as_str())];
    if let Some(run) = python::run("pyscep_enrol.py", &arguments, &environment, WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}

/// The enrolment the README opens with, both blocks as they stand there. `cargo` is a program that takes the printed words
/// only and prints the ready line of a mock that runs already: building it once more would take minutes.
#[tokio::test]
async fn the_enrolment_of_the_readme() -> Result<()> {
    let Some(interpreter) = python::interpreter() else { return Ok(()) };
    let readme = include_str!("../../../mock-ca/README.md");
    let (_, rest) = readme.split_once("```sh\n").context("the README starts the mock")?;
    let (start, rest) = rest.split_once("```\n```python\n").context("the enrolment follows at once")?;
    let (session, _) = rest.split_once("```").context("the enrolment ends")?;
    let mock = MockCa::start(Config::default()).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("line.json"), serde_json::to_string(&mock.ready())?)?;
    let cargo = "cargo() { [ \"$*\" = 'run --release --bin mock-ca' ] && cat line.json; }";
    std::fs::write(folder.path().join("start.sh"), format!("{cargo}\n{start}\nwait\n"))?;
    std::fs::write(folder.path().join("enrol.py"), session)?;
    let run = async |program: &std::path::Path, file: &str| {
        let mut command = tokio::process::Command::new(program);
        command.arg(file).current_dir(folder.path());
        anyhow::Ok(program::run(&mut command, "", WITHIN).await?.expect_success().stdout)
    };
    run("sh".as_ref(), "start.sh").await?;
    let printed = run(&interpreter, "enrol.py").await?;
    anyhow::ensure!(printed.contains("phone-1"), "it prints the subject:\n{printed}");
    anyhow::ensure!(mock.authority().await.issued_count() == 1, "one certificate was issued");
    Ok(())
}
