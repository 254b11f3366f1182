//! The areas of the doctor. One line here and one file beside it make an area.

use futures_util::future::BoxFuture;

use super::bench::Bench;
use super::{cloud, directories, identity, installation, modules, network, running};
use crate::checks::{Check, CheckResult, declare_checks};

/// Checks that belong together and are tried one after the other, beside the other areas.
pub(in crate::cli) struct Area {
    /// For `check NAME`.
    pub name: &'static str,
    /// Heading of its results.
    pub title: &'static str,
    /// Whether `check MODULE` runs it too.
    pub with_one_module: bool,
    /// The tables of its checks.
    pub tables: &'static [&'static [&'static Check]],
    /// Tries them. Bounded by [`crate::limits::CHECK_AREA_WITHIN`] as a whole; each wait inside has its own limit.
    pub run: for<'a> fn(&'a Bench) -> BoxFuture<'a, Vec<CheckResult>>,
}

impl Area {
    /// Its checks.
    pub(in crate::cli) fn checks(&self) -> impl Iterator<Item = &'static Check> + use<> {
        self.tables.iter().flat_map(|table| table.iter().copied())
    }
}

declare_checks! {
    IN_TIME = "check.in_time":
        "whether the checks of an area end within their time",
        "run the area alone with causeway-agent check AREA, and look at the server or disk it waits for";
}

/// Every area, in the order of the report.
pub(in crate::cli) static AREAS: &[Area] = &[
    Area {
        name: installation::NAME,
        title: "Installation",
        with_one_module: false,
        tables: &[installation::CHECKS, CHECKS],
        run: |bench| Box::pin(installation::run(bench)),
    },
    Area {
        name: "identity",
        title: "Identity",
        with_one_module: false,
        tables: &[identity::CHECKS],
        run: |bench| Box::pin(identity::run(bench)),
    },
    Area {
        name: "agent",
        title: "Running agent",
        with_one_module: false,
        tables: &[running::CHECKS],
        run: |bench| Box::pin(running::run(bench)),
    },
    Area {
        name: "network",
        title: "Network and proxy",
        with_one_module: false,
        tables: &[network::CHECKS],
        run: |bench| Box::pin(network::run(bench)),
    },
    Area {
        name: "cloud",
        title: "Management cloud",
        with_one_module: false,
        tables: &[cloud::CHECKS],
        run: |bench| Box::pin(cloud::run(bench)),
    },
    Area {
        name: "directory",
        title: "Directories",
        with_one_module: true,
        tables: &[directories::CHECKS, crate::directory::doctor::CHECKS],
        run: |bench| Box::pin(directories::run(bench)),
    },
    Area {
        name: "modules",
        title: "Modules",
        with_one_module: true,
        tables: &[
            modules::CHECKS,
            crate::exchange::doctor::CHECKS,
            crate::modules::user_auth::check::CHECKS,
            crate::modules::user_visibility::check::CHECKS,
            crate::modules::exchange::check::CHECKS,
            crate::modules::certificates::check::CHECKS,
        ],
        run: |bench| Box::pin(modules::run(bench)),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    fn document() -> String {
        let all = AREAS.iter().flat_map(Area::checks).count();
        let mut text = format!(
            "# Checks\n\n\
             `causeway-agent check` tries these {all} things; `check AREA` or `check MODULE` tries a part, `--json` prints what a\n\
             program wants to read. A name never changes. The exit code is 1 when something fails, else 0. This page is made\n\
             from the tables in the code; run `CAUSEWAY_UPDATE_DOCS=1 cargo test -p causeway-agent page_of_checks` after\n\
             changing them.\n"
        );
        for area in AREAS {
            let _ = write!(
                text,
                "\n## {} (`{}`)\n\n| check | looks at | if it is not well |\n|---|---|---|\n",
                area.title, area.name
            );
            for check in area.checks() {
                let _ = writeln!(text, "| `{}` | {} | {} |", check.name, check.looks_at, check.remedy);
            }
        }
        text
    }

    #[test]
    fn the_page_of_checks_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
        let document = document();
        if std::env::var_os("CAUSEWAY_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &document).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == document,
            "docs/checks.md is out of date; set CAUSEWAY_UPDATE_DOCS=1 and run this test"
        );
    }

    #[test]
    fn every_check_has_a_name_of_its_own_and_a_remedy() {
        let mut names = BTreeSet::new();
        for check in AREAS.iter().flat_map(Area::checks) {
            assert!(names.insert(check.name), "{} twice", check.name);
            assert!(
                check.name.split_once('.').is_some_and(|(area, what)| !area.is_empty() && !what.is_empty())
            );
            assert!(!check.looks_at.is_empty() && !check.remedy.is_empty(), "{}", check.name);
        }
        assert!(names.len() >= 30, "{}", names.len());
    }
}
