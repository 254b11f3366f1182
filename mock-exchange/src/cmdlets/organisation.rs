//! Cmdlets about the organisation itself: configuration, servers, budgets, roles.

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::ErrorRecord;

use super::identity::configuration_dn;
use super::object::{Builder, Types};
use super::{Answer, Call, Caller, Output, Via};

static CONFIG: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.OrganizationConfig",
    "Deserialized.System.Object",
    "System.Object",
];
static SERVER: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.Management.ExchangeServer",
    "Deserialized.System.Object",
    "System.Object",
];
static THROTTLING: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ThrottlingPolicy",
    "Deserialized.System.Object",
    "System.Object",
];
static ASSIGNMENT: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ExchangeRoleAssignmentPresentation",
    "Deserialized.System.Object",
    "System.Object",
];
static ROLE: Types = &[
    "Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.ExchangeRole",
    "Deserialized.System.Object",
    "System.Object",
];
static COMMAND: Types = &[
    "Deserialized.System.Management.Automation.CmdletInfo",
    "Deserialized.System.Management.Automation.CommandInfo",
    "Deserialized.System.Object",
    "System.Object",
];

fn objects(objects: impl IntoIterator<Item = Object>) -> Answer {
    Answer { outputs: objects.into_iter().map(Output::Object).collect(), source: None }
}

pub(super) fn get_config(call: Call) -> Result<Answer, ErrorRecord> {
    let facts = call.organisation.facts();
    let object = call.read(|reader| {
        let mut object = Builder::new(CONFIG, facts.name.clone())
            .bool("IsDehydrated", false)
            .text(
                "AdminDisplayVersion",
                if facts.profile.online { facts.profile.admin_version } else { "0.20 (15.0.0.0)" },
            )
            .text("Name", &*facts.name)
            .text("OrgName", &*facts.name)
            .text("Identity", &*facts.name)
            .text("DistinguishedName", configuration_dn(&call.organisation))
            .guid("Guid", &facts.guid)
            .text("OrganizationId", if facts.profile.online { facts.tenant.clone() } else { String::new() })
            .bool("IsMixedMode", false);
        if facts.profile.online {
            object = object.text("ExternalDirectoryOrganizationId", &*facts.tenant).bool("EwsEnabled", true);
        }
        object.text("OriginatingServer", reader.controller_name()).bool("IsValid", true).done()
    });
    Ok(objects([object]))
}

pub(super) fn get_servers(call: Call) -> Result<Answer, ErrorRecord> {
    let facts = call.organisation.facts();
    let wanted =
        call.bound.filled("Identity").map(|name| name.split('.').next().unwrap_or_default().to_owned());
    let servers: Vec<&String> = call
        .organisation
        .servers()
        .iter()
        .filter(|server| wanted.as_deref().is_none_or(|name| server.eq_ignore_ascii_case(name)))
        .collect();
    if let (Some(name), true) = (&wanted, servers.is_empty()) {
        return Err(call.task.not_found(name));
    }
    Ok(objects(servers.into_iter().map(|server| {
        Builder::new(SERVER, server.to_ascii_uppercase())
            .text("Name", server.to_ascii_uppercase())
            .text("Fqdn", format!("{server}.{}", facts.domain))
            .text("AdminDisplayVersion", facts.profile.admin_version)
            .text("Edition", "Enterprise")
            .text("ServerRole", "Mailbox, ClientAccess")
            .text("Site", format!("{}/Configuration/Sites/Default-First-Site-Name", facts.domain))
            .text("Domain", &*facts.domain)
            .text("Identity", server.to_ascii_uppercase())
            .text(
                "DistinguishedName",
                format!(
                    "CN={},CN=Servers,{}",
                    server.to_ascii_uppercase(),
                    configuration_dn(&call.organisation)
                ),
            )
            .bool("IsClientAccessServer", true)
            .bool("IsMailboxServer", true)
            .bool("IsValid", true)
            .done()
    })))
}

pub(super) fn get_throttling(call: Call) -> Result<Answer, ErrorRecord> {
    let policy = call.organisation.throttling();
    let name = "GlobalThrottlingPolicy";
    if let Some(identity) =
        call.bound.filled("Identity").filter(|identity| !identity.eq_ignore_ascii_case(name))
    {
        return Err(call.task.not_found(&identity));
    }
    let number = |number: u64| Value::String(number.to_string());
    let period = |number: u64| {
        if number == 0 { Value::String("Unlimited".to_owned()) } else { Value::String(number.to_string()) }
    };
    Ok(objects([Builder::new(THROTTLING, name.to_owned())
        .text("ThrottlingPolicyScope", "Global")
        .bool("IsServiceAccount", false)
        .value("PowerShellMaxConcurrency", number(policy.max_concurrency.into()))
        .value("PowerShellMaxRunspaces", period(policy.max_runspaces.into()))
        .value("PowerShellMaxRunspacesTimePeriod", period(policy.runspaces_period_secs))
        .value("PowerShellMaxBurst", Value::String(policy.max_burst_ms.to_string()))
        .value("PowerShellRechargeRate", Value::String(policy.recharge_ms_per_hour.to_string()))
        .value("PowerShellCutoffBalance", Value::String(policy.cutoff_ms.to_string()))
        .value("PowerShellMaxCmdlets", number(policy.max_cmdlets.into()))
        .value("PowerShellMaxCmdletsTimePeriod", number(policy.cmdlets_period_secs))
        .value("ExchangeMaxCmdlets", number(policy.max_cmdlets.into()))
        .value("PowerShellMaxDestructiveCmdlets", number(policy.max_destructive_cmdlets.into()))
        .value("PowerShellMaxDestructiveCmdletsTimePeriod", number(policy.destructive_period_secs))
        .text("Name", name)
        .text("Identity", name)
        .bool("IsValid", true)
        .done()]))
}

/// Which account has which role.
pub(super) fn get_assignments(call: Call) -> Result<Answer, ErrorRecord> {
    let wanted = |name: &str| call.bound.filled(name);
    let (assignee, role) = (wanted("RoleAssignee"), wanted("Role"));
    let assignments = call.read(|reader| {
        reader
            .administrators()
            .into_iter()
            .flat_map(|(login, roles)| roles.into_iter().map(move |role| (login.clone(), role)))
            .collect::<Vec<_>>()
    });
    let short = |name: &str| {
        name.rsplit('\\').next().unwrap_or_default().split('@').next().unwrap_or_default().to_owned()
    };
    let fits = |(login, name): &(String, String)| {
        assignee.as_deref().is_none_or(|wanted| short(wanted).eq_ignore_ascii_case(login))
            && role.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    Ok(objects(assignments.into_iter().filter(fits).map(|(login, role)| {
        let name = format!("{role}-{login}");
        Builder::new(ASSIGNMENT, name.clone())
            .text("Role", role)
            .text("RoleAssignee", &*login)
            .text("RoleAssigneeName", &*login)
            .text("RoleAssigneeType", "User")
            .text("AssignmentMethod", "Direct")
            .bool("Enabled", true)
            .text("EffectiveUserName", login)
            .text("Name", &*name)
            .text("Identity", name)
            .bool("IsValid", true)
            .done()
    })))
}

/// The roles that exist, or those that grant a cmdlet.
pub(super) fn get_roles(call: Call) -> Result<Answer, ErrorRecord> {
    let (identity, cmdlet) = (call.bound.filled("Identity"), call.bound.filled("Cmdlet"));
    let parameters = call.bound.value("CmdletParameters").map(super::binding::texts).unwrap_or_default();
    let names = call.organisation.role_names(|role| {
        identity.as_deref().is_none_or(|name| role.name.eq_ignore_ascii_case(name))
            && cmdlet.as_deref().is_none_or(|cmdlet| {
                role.grants(cmdlet, None)
                    && parameters.iter().all(|parameter| role.grants(cmdlet, Some(parameter)))
            })
    });
    if let (Some(name), true) = (&identity, names.is_empty()) {
        return Err(call.task.not_found(name));
    }
    Ok(objects(names.into_iter().map(|name| {
        Builder::new(ROLE, name.clone())
            .text("RoleType", name.replace([' ', '-'], ""))
            .text("Name", &*name)
            .text("Identity", name)
            .bool("IsRootRole", true)
            .bool("IsValid", true)
            .done()
    })))
}

/// What the session offers its caller. Names may have `*` in them; one that then fits nothing is no error.
pub(super) fn get_command(call: Call) -> Result<Answer, ErrorRecord> {
    let wanted = call.bound.value("Name").map(super::binding::texts).unwrap_or_default();
    let caller = Caller { account: call.account.clone(), via: Via::Remoting };
    let visible = super::visible(&call.organisation, &caller);
    let named =
        |name: &&&str| wanted.is_empty() || wanted.iter().any(|wanted| super::filter::like(wanted, name));
    let mut outputs: Vec<Output> = visible
        .iter()
        .filter(named)
        .map(|name| {
            Output::Object(
                Builder::new(COMMAND, (*name).to_owned())
                    .text("Name", *name)
                    .text("CommandType", "Function")
                    .text("Visibility", "Public")
                    .done(),
            )
        })
        .collect();
    let missing = wanted.iter().filter(|wanted| {
        !wanted.contains('*') && !visible.iter().any(|name| name.eq_ignore_ascii_case(wanted))
    });
    outputs.extend(missing.map(|name| Output::Error(super::errors::no_command(name))));
    Ok(Answer { outputs, source: None })
}
