//! `junit.xml`: one test case a scenario, for whatever CI reads it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::RunReport;

pub(super) fn render(run: &RunReport) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut suite = TestSuite::new("scenarios");
    for scenario in &run.scenarios {
        let mut status = TestCaseStatus::success();
        if let Some(failure) = scenario.failure() {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failure);
            status.set_description(format!("play it again: {}", scenario.replay));
        }
        let mut case = TestCase::new(scenario.id.clone(), status);
        case.set_classname("causeway.scenarios").set_time(scenario.elapsed());
        suite.add_test_case(case);
    }
    let mut report = Report::new("causeway");
    report.add_test_suite(suite);
    Ok(report.to_string()?.into_bytes())
}
