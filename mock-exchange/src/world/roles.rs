//! Role-based access: a role grants cmdlets, or only some parameters of one. What is not granted does not exist.

use crate::config::RoleConfig;

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    grants: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// A name, or `*`, or a name that ends in `*`.
    cmdlet: String,
    /// Empty: all.
    parameters: Vec<String>,
}

/// The roles an organisation has from the start, as far as phones go: who may see and change what.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("Organization Management", &["*"]),
    (
        "Recipient Management",
        &[
            "Get-*",
            "Set-CASMailbox",
            "Clear-MobileDevice",
            "Clear-ActiveSyncDevice",
            "Remove-MobileDevice",
            "Remove-ActiveSyncDevice",
        ],
    ),
    ("View-Only Organization Management", &["Get-*"]),
    (
        "Mail Recipients",
        &[
            "Get-Mailbox",
            "Get-Recipient",
            "Get-User",
            "Get-CASMailbox",
            "Set-CASMailbox",
            "Get-MobileDevice*",
            "Get-ActiveSyncDevice",
            "Get-ActiveSyncDeviceStatistics",
            "Clear-MobileDevice",
            "Clear-ActiveSyncDevice",
            "Remove-MobileDevice",
            "Remove-ActiveSyncDevice",
        ],
    ),
    (
        "Organization Client Access",
        &[
            "Get-ActiveSyncOrganizationSettings",
            "Set-ActiveSyncOrganizationSettings",
            "Get-ActiveSyncDeviceAccessRule",
            "New-ActiveSyncDeviceAccessRule",
            "Set-ActiveSyncDeviceAccessRule",
            "Remove-ActiveSyncDeviceAccessRule",
            "Get-ActiveSyncDeviceClass",
            "Get-ActiveSyncDeviceAutoblockThreshold",
            "Set-ActiveSyncDeviceAutoblockThreshold",
        ],
    ),
    (
        "Recipient Policies",
        &[
            "Get-MobileDeviceMailboxPolicy",
            "New-MobileDeviceMailboxPolicy",
            "Set-MobileDeviceMailboxPolicy",
            "Remove-MobileDeviceMailboxPolicy",
            "Get-ActiveSyncMailboxPolicy",
            "New-ActiveSyncMailboxPolicy",
            "Set-ActiveSyncMailboxPolicy",
            "Remove-ActiveSyncMailboxPolicy",
        ],
    ),
    (
        "View-Only Configuration",
        &[
            "Get-OrganizationConfig",
            "Get-ExchangeServer",
            "Get-ThrottlingPolicy",
            "Get-ManagementRoleAssignment",
        ],
    ),
    // What people may do for themselves; over remoting as good as nothing.
    (
        "MyBaseOptions",
        &["Get-MobileDeviceStatistics:Identity,Mailbox", "Get-ActiveSyncDeviceStatistics:Identity,Mailbox"],
    ),
];

impl Role {
    /// From the words of the configuration.
    pub fn new(name: &str, grants: &[impl AsRef<str>]) -> Self {
        let grants = grants
            .iter()
            .map(|grant| match grant.as_ref().split_once(':') {
                Some((cmdlet, parameters)) => Grant {
                    cmdlet: cmdlet.trim().to_owned(),
                    parameters: parameters.split(',').map(|name| name.trim().to_owned()).collect(),
                },
                None => Grant { cmdlet: grant.as_ref().trim().to_owned(), parameters: Vec::new() },
            })
            .collect();
        Self { name: name.to_owned(), grants }
    }

    /// Whether it grants a cmdlet, and a parameter of it.
    pub fn grants(&self, cmdlet: &str, parameter: Option<&str>) -> bool {
        self.grants.iter().filter(|grant| grant.names(cmdlet)).any(|grant| {
            grant.parameters.is_empty()
                || parameter
                    .is_none_or(|name| grant.parameters.iter().any(|known| known.eq_ignore_ascii_case(name)))
        })
    }
}

impl Grant {
    fn names(&self, cmdlet: &str) -> bool {
        match self.cmdlet.strip_suffix('*') {
            Some(head) => cmdlet.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head)),
            None => self.cmdlet.eq_ignore_ascii_case(cmdlet),
        }
    }
}

/// The roles that exist, those of the configuration after the built-in ones.
pub(super) fn roles(configured: &[RoleConfig]) -> Vec<Role> {
    let built_in = BUILT_IN.iter().map(|(name, grants)| Role::new(name, grants));
    built_in.chain(configured.iter().map(|role| Role::new(&role.name, &role.grants))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_grants_cmdlets_and_parameters() {
        let role = Role::new("helpdesk", &["Get-*", "Set-CASMailbox:Identity, ActiveSyncAllowedDeviceIDs"]);
        assert!(role.grants("get-mobiledevice", Some("Filter")));
        assert!(role.grants("Set-CASMailbox", None) && role.grants("Set-CASMailbox", Some("identity")));
        assert!(!role.grants("Set-CASMailbox", Some("ActiveSyncEnabled")));
        assert!(!role.grants("Clear-MobileDevice", None) && !role.grants("Ge", None));
    }
}
