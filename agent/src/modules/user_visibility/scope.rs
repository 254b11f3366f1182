//! What is visible: subtrees, minus subtrees, under filters.

use super::config::Settings;
use crate::directory::dn;
use crate::directory::filter::Filter;
use crate::directory::personality::Personality;

/// The scope of a collection.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Subtrees as written.
    pub(super) bases: Vec<String>,
    /// One subtree that holds them all: where changes are looked for, so that a move out of a base is seen.
    pub(super) root: String,
    bases_normal: Vec<Vec<u8>>,
    excluded_normal: Vec<Vec<u8>>,
    pub(super) users: Filter,
    pub(super) groups: Option<Filter>,
    pub(super) units: Filter,
}

impl Scope {
    /// Settings over the directory's base.
    pub(super) fn new(settings: &Settings, personality: &Personality, base: &str) -> Self {
        let mut bases =
            if settings.bases.is_empty() { vec![base.to_owned()] } else { settings.bases.clone() };
        // A base within another would be read twice.
        let all = bases.clone();
        bases.retain(|one| {
            let within = |other: &String| dn::normal(other) != dn::normal(one) && dn::is_within(one, other);
            !all.iter().any(within)
        });
        bases.dedup_by_key(|one| dn::normal(one));
        let both = |own: &str, further: &Option<String>| {
            let own = Personality::filter(own);
            match further {
                Some(text) => Filter::all([own, Personality::filter(text)]),
                None => own,
            }
        };
        let root = if bases.len() == 1 { bases[0].clone() } else { base.to_owned() };
        Self {
            bases_normal: bases.iter().map(|base| dn::normal(base)).collect(),
            excluded_normal: settings.excluded_bases.iter().map(|base| dn::normal(base)).collect(),
            bases,
            root,
            users: both(&personality.user_filter, &settings.user_filter),
            groups: settings.groups.then(|| both(&personality.group_filter, &settings.group_filter)),
            units: Personality::filter(&personality.ou_filter),
        }
    }

    /// Whether a name is in a base and in no excluded one.
    pub(super) fn holds(&self, name: &str) -> bool {
        if self.excluded_normal.is_empty() && self.bases_normal == [Vec::<u8>::new()] {
            return true;
        }
        let name = dn::normal(name);
        let within = |bases: &[Vec<u8>]| bases.iter().any(|base| dn::is_within_normal(&name, base));
        within(&self.bases_normal) && !within(&self.excluded_normal)
    }

    /// Whether every result of a search below a base is in scope, so that names need not be looked at.
    pub(super) fn excludes_nothing(&self) -> bool {
        self.excluded_normal.is_empty()
    }

    /// Everything that may be visible.
    pub(super) fn any_kind(&self) -> Filter {
        let mut kinds = vec![self.users.clone(), self.units.clone()];
        kinds.extend(self.groups.clone());
        Filter::any(kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(bases: &[&str], excluded: &[&str]) -> Scope {
        let settings = Settings {
            bases: bases.iter().map(|&base| base.to_owned()).collect(),
            excluded_bases: excluded.iter().map(|&base| base.to_owned()).collect(),
            ..Settings::default()
        };
        Scope::new(&settings, &Personality::named("active_directory").unwrap(), "DC=acme,DC=example")
    }

    #[test]
    fn excluded_subtrees_are_not_held() {
        let scope = scope(&["OU=Berlin,DC=acme,DC=example"], &["ou=service, ou=berlin,dc=acme,dc=example"]);
        assert!(scope.holds("CN=a,OU=Sales,OU=Berlin,DC=acme,DC=example"));
        assert!(!scope.holds("CN=a,OU=Service,OU=Berlin,DC=acme,DC=example"));
        assert!(!scope.holds("CN=a,OU=Paris,DC=acme,DC=example"));
    }

    #[test]
    fn a_base_within_another_is_read_once() {
        let scope = scope(&["OU=Sales,OU=Berlin,DC=acme,DC=example", "OU=Berlin,DC=acme,DC=example"], &[]);
        assert_eq!(scope.bases, ["OU=Berlin,DC=acme,DC=example"]);
        assert_eq!(scope.root, "OU=Berlin,DC=acme,DC=example");
    }

    #[test]
    fn without_bases_everything_is_read() {
        let scope = scope(&[], &[]);
        assert_eq!(scope.bases, ["DC=acme,DC=example"]);
        assert!(scope.holds("DC=acme,DC=example"));
    }
}
