//! Values of every payload, hard ones first.

use std::collections::BTreeMap;

use causeway_protocol::action::{Action, ErrorReport, Report, Status};
use causeway_protocol::channel::payload::{
    Applied, Certificate, CertificateRequest, Configure, Health, Hello, Lease, LeaseGrant, LeaseOp, Notice,
    Progress, Reply, UploadGrant, UploadRequest, Welcome,
};
use causeway_protocol::health::{ModuleHealth, ModuleState, Severity};
use causeway_protocol::upload::Mode;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

/// Text as directories hold it: markup, both ends of what XML allows, characters XML has no way to write, and any other.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "<",
        "]]>",
        "&amp;",
        "\"",
        "'",
        "\\",
        "\0",
        "\u{1}",
        "\t",
        "\r\n",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{1ffff}",
        "\u{feff}",
        "\u{202e}",
        "שלום",
        "𝄞",
        "e\u{301}",
        " ",
    ]);
    let piece =
        prop_oneof![hard.prop_map(str::to_owned), any::<char>().prop_map(String::from), "[a-z0-9.-]{1,12}"];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Whole numbers, texts, lists and tables. Fractions are left out: no type of ours has any.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A result that is there: JSON's null means that there is none.
fn result() -> impl Strategy<Value = Option<Value>> {
    option::of(json().prop_filter("null is no result", |value| !value.is_null()))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]
}

fn numbers() -> impl Strategy<Value = BTreeMap<String, u64>> {
    btree_map(text(), number(), 0..4)
}

pub(crate) fn error_report() -> impl Strategy<Value = ErrorReport> {
    (text(), text(), text()).prop_map(|(code, detail, remedy)| ErrorReport { code, detail, remedy })
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    (text(), text(), text(), json(), json(), number(), any::<u32>(), option::of(number())).prop_map(
        |(id, module, action, target, params, ttl_ms, attempt, fence)| Action {
            id,
            module,
            action,
            target,
            params,
            ttl_ms,
            attempt,
            fence,
        },
    )
}

pub(crate) fn report() -> impl Strategy<Value = Report> {
    let status = prop::sample::select(vec![Status::Pending, Status::Success, Status::Failure]);
    (text(), status, result(), option::of(error_report()), option::of(number()), option::of(number()))
        .prop_map(|(id, status, result, error, next_check_ms, fence)| Report {
            id,
            status,
            result,
            error,
            next_check_ms,
            fence,
        })
}

pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![json().prop_map(Reply::Answer), error_report().prop_map(Reply::Error)]
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let names = (text(), text(), text(), text());
    (names, any::<i64>(), vec(text(), 0..4), numbers(), any::<u32>(), number()).prop_map(
        |((version, os, host, boot_id), started_ms, modules, revisions, capacity, outbox)| Hello {
            version,
            os,
            host,
            boot_id,
            started_ms,
            modules,
            revisions,
            capacity,
            outbox,
        },
    )
}

pub(crate) fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<i64>(), number(), any::<u32>(), text()).prop_map(
        |(time_ms, session_epoch, health_every_secs, tenant)| Welcome {
            time_ms,
            session_epoch,
            health_every_secs,
            tenant,
        },
    )
}

fn module_health() -> impl Strategy<Value = ModuleHealth> {
    let state = prop::sample::select(vec![
        ModuleState::Idle,
        ModuleState::Ok,
        ModuleState::Degraded,
        ModuleState::Failed,
    ]);
    (text(), state, text(), number(), any::<u32>(), btree_map(text(), any::<i64>(), 0..4)).prop_map(
        |(module, state, detail, revision, restarts, figures)| ModuleHealth {
            module,
            state,
            detail,
            revision,
            restarts,
            figures,
        },
    )
}

pub(crate) fn health() -> impl Strategy<Value = Health> {
    (vec(module_health(), 0..3), number(), any::<u32>(), number()).prop_map(
        |(modules, outbox, requests_in_work, rss_bytes)| Health {
            modules,
            outbox,
            requests_in_work,
            rss_bytes,
        },
    )
}

pub(crate) fn progress() -> impl Strategy<Value = Progress> {
    (text(), text(), number(), option::of(number()), any::<bool>(), numbers()).prop_map(
        |(resource, phase, done, total, finished, counts)| Progress {
            resource,
            phase,
            done,
            total,
            finished,
            counts,
        },
    )
}

pub(crate) fn notice() -> impl Strategy<Value = Notice> {
    let severity = prop::sample::select(vec![Severity::Info, Severity::Warning, Severity::Critical]);
    (text(), severity, text(), text(), text(), any::<bool>()).prop_map(
        |(code, severity, subject, detail, remedy, resolved)| Notice {
            code,
            severity,
            subject,
            detail,
            remedy,
            resolved,
        },
    )
}

pub(crate) fn configure() -> impl Strategy<Value = Configure> {
    (text(), number(), any::<bool>(), json()).prop_map(|(module, revision, enabled, settings)| Configure {
        module,
        revision,
        enabled,
        settings,
    })
}

pub(crate) fn applied() -> impl Strategy<Value = Applied> {
    (text(), number(), number(), option::of(error_report()))
        .prop_map(|(module, revision, running, error)| Applied { module, revision, running, error })
}

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    let op = prop::sample::select(vec![LeaseOp::Acquire, LeaseOp::Renew, LeaseOp::Release]);
    (text(), op, option::of(number())).prop_map(|(resource, op, fence)| Lease { resource, op, fence })
}

pub(crate) fn lease_grant() -> impl Strategy<Value = LeaseGrant> {
    (text(), any::<bool>(), number(), number(), option::of(text()), number()).prop_map(
        |(resource, granted, fence, ttl_ms, holder, retry_after_ms)| LeaseGrant {
            resource,
            granted,
            fence,
            ttl_ms,
            holder,
            retry_after_ms,
        },
    )
}

pub(crate) fn upload_request() -> impl Strategy<Value = UploadRequest> {
    let mode = prop::sample::select(vec![Mode::Snapshot, Mode::Delta]);
    (text(), mode, option::of(number()), number(), any::<bool>()).prop_map(
        |(source, mode, base_epoch, fence, allow_mass_delete)| UploadRequest {
            source,
            mode,
            base_epoch,
            fence,
            allow_mass_delete,
        },
    )
}

pub(crate) fn upload_grant() -> impl Strategy<Value = UploadGrant> {
    (text(), number(), any::<u32>()).prop_map(|(upload, epoch, credits)| UploadGrant {
        upload,
        epoch,
        credits,
    })
}

pub(crate) fn certificate_request() -> impl Strategy<Value = CertificateRequest> {
    (text(), text()).prop_map(|(csr_pem, host)| CertificateRequest { csr_pem, host })
}

pub(crate) fn certificate() -> impl Strategy<Value = Certificate> {
    (text(), text(), text(), text()).prop_map(|(chain_pem, instance, tenant, jid)| Certificate {
        chain_pem,
        instance,
        tenant,
        jid,
    })
}
