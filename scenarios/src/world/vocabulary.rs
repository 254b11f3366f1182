//! How each kind of directory spells what the runner must look for and write.

/// One directory's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocabulary {
    /// Where everything is, if not below the directory's base.
    pub(super) base: Option<&'static str>,
    /// Every person's account, service accounts included.
    pub(super) user_filter: &'static str,
    /// Every group.
    pub(super) group_filter: &'static str,
    /// The attribute with the login name.
    pub(super) login: &'static str,
    /// The attribute with the members' DNs.
    pub(super) member: &'static str,
    /// Object classes of a new person.
    pub(super) person_classes: &'static [&'static str],
    /// The attribute that names a person's entry.
    pub(super) person_rdn: &'static str,
}

/// The words of a personality, by its name in mock-ldap's settings.
pub(super) fn of(personality: &str) -> Vocabulary {
    let inet = Vocabulary {
        base: None,
        user_filter: "(objectClass=inetOrgPerson)",
        group_filter: "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames))",
        login: "uid",
        member: "member",
        person_classes: &["top", "person", "organizationalPerson", "inetOrgPerson"],
        person_rdn: "uid",
    };
    match personality {
        "active_directory" => Vocabulary {
            user_filter: "(&(objectCategory=person)(objectClass=user))",
            group_filter: "(objectCategory=group)",
            login: "sAMAccountName",
            person_classes: &["top", "person", "organizationalPerson", "user"],
            person_rdn: "cn",
            ..inet
        },
        "edirectory" => Vocabulary {
            group_filter: "(|(objectClass=groupOfNames)(objectClass=Group))",
            login: "cn",
            person_rdn: "cn",
            ..inet
        },
        // Groups have no suffix there.
        "domino" => Vocabulary {
            base: Some(""),
            user_filter: "(|(objectClass=dominoPerson)(objectClass=inetOrgPerson))",
            group_filter: "(objectClass=dominoGroup)",
            person_classes: &["top", "person", "organizationalPerson", "inetOrgPerson", "dominoPerson"],
            person_rdn: "cn",
            ..inet
        },
        _ => inet,
    }
}
