//! Real servers and third-party clients for the tests.
//!
//! As root on Debian everything missing is installed and started. Elsewhere `xtask` says exactly what to install; then
//! what needs it is a counted skip, or a failure with `CAUSEWAY_REQUIRE_PEERS=1`.

mod engine;
pub(crate) mod images;
pub(crate) mod packages;
mod python;
mod serve;

use std::time::Instant;

use anyhow::Context;
use clap::Subcommand;

pub(crate) use serve::Served;

use crate::process;
use crate::session::Session;

#[derive(Subcommand, Clone, Copy)]
pub(crate) enum Command {
    /// Install what is missing and keep the servers up until `stop`
    Start,
    /// Remove the servers, and stop the container engine if it was started here
    Stop,
    /// Tell what is there
    Status,
}

/// One thing that peers need.
struct Part {
    name: &'static str,
    provide: fn(&Session) -> anyhow::Result<()>,
}

/// In the order in which one needs the other.
const PARTS: &[Part] = &[
    Part { name: "packages", provide: |session| packages::install(session, packages::For::Tests) },
    Part { name: "container engine", provide: engine::start },
    Part { name: "images", provide: |session| images::build_all(session) },
    Part { name: "python clients", provide: python::install },
];

pub(crate) fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start => {
            for part in PARTS {
                provide(session, part)?;
            }
            serve::start_detached(session)
        }
        Command::Stop => {
            serve::stop_detached(session)?;
            engine::stop(session)
        }
        Command::Status => status(session),
    }
}

/// The step of `cargo xtask test`: everything there, and one server of each kind up for all tests to share.
pub(crate) fn for_tests(session: &mut Session) -> anyhow::Result<()> {
    for part in PARTS {
        if let Err(error) = provide(session, part) {
            if session.peers_required() {
                return Err(error);
            }
            session.skip(part.name, &format!("{error:#}"));
        }
    }
    match Served::start(session) {
        Ok(served) => session.served = served,
        Err(error) if session.peers_required() => return Err(error),
        Err(error) => session.skip("shared servers", &format!("{error:#}")),
    }
    Ok(())
}

fn provide(session: &Session, part: &Part) -> anyhow::Result<()> {
    let started = Instant::now();
    (part.provide)(session).with_context(|| format!("provide {}", part.name))?;
    println!("   {}: ready in {:.1} s", part.name, started.elapsed().as_secs_f64());
    Ok(())
}

fn status(session: &Session) -> anyhow::Result<()> {
    let missing = packages::missing(session, packages::For::Tests);
    println!(
        "packages: {}",
        if missing.is_empty() { "all there".to_owned() } else { format!("missing {}", missing.join(" ")) }
    );
    let answers = engine::answers(session);
    println!("container engine: {}", if answers { "answers" } else { "does not answer" });
    if answers {
        for image in images::table(session)? {
            let built = images::exists(session, &image.tag);
            println!("image {}: {}", image.name, if built { image.tag.as_str() } else { "not built" });
        }
    }
    println!("python clients: {}", if python::ready(session)? { "installed" } else { "not installed" });
    let addresses = session.peers_dir()?.join("addresses.json");
    println!(
        "servers: {}",
        if addresses.exists() { "up, see target/peers/addresses.json" } else { "not up" }
    );
    Ok(())
}

/// Whether this process may install packages and start services.
fn is_root(session: &Session) -> bool {
    process::quiet(session.command("id").arg("-u")).is_ok_and(|text| text.trim() == "0")
}
