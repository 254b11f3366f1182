//! Worlds the tests start, and how they sign in.

use causeway_mock_kit::world::PersonState;
use causeway_mock_ldap::{Config, MockLdap};

use crate::client::{Client, Search};

pub(crate) const SUBTREE: u8 = 2;
pub(crate) const ONE_LEVEL: u8 = 1;
pub(crate) const BASE: u8 = 0;

pub(crate) struct World {
    pub(crate) mock: MockLdap,
    pub(crate) base: String,
}

impl World {
    pub(crate) async fn start(config: Config) -> Self {
        let mock = MockLdap::start(config).await.expect("the mock starts");
        let mut client = Client::connect(mock.address("ldap")).await;
        let root = client.search(&Search::new("", BASE, "(objectClass=*)").attributes(&["*", "+"])).await;
        let root = root.entries.first().expect("a rootDSE");
        let base = root.first("defaultNamingContext").or_else(|| root.first("namingContexts"));
        let base = base.filter(|base| !base.is_empty()).unwrap_or_default();
        Self { mock, base }
    }

    /// Active Directory with one server and the usual people.
    pub(crate) async fn ad() -> Self {
        Self::start(Config::default()).await
    }

    pub(crate) async fn of(personality: &str) -> Self {
        Self::start(Config::of(personality)).await
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.mock.address("ldap")).await
    }

    pub(crate) async fn connect_tls(&self) -> Client {
        Client::connect_tls(self.mock.address("ldaps"), self.mock.ca().client_config()).await
    }

    /// A plain connection bound as the service account.
    pub(crate) async fn admin(&self) -> Client {
        self.admin_on("ldap").await
    }

    pub(crate) async fn admin_on(&self, front: &str) -> Client {
        let address = self.mock.address(front);
        let mut client = if self.mock.url(front).starts_with("ldaps") {
            Client::connect_tls(address, self.mock.ca().client_config()).await
        } else {
            Client::connect(address).await
        };
        let login = self.mock.service_account();
        let outcome = client.bind(&login.dn, &login.password).await;
        assert_eq!(outcome.code, 0, "bind of {}: {outcome:?}", login.dn);
        client
    }

    /// DN and password of somebody.
    pub(crate) async fn person(&self, login: &str) -> (String, String) {
        let password = self.mock.world().person(login).expect("a person of that login").password();
        (self.dn_of(login).await, password)
    }

    pub(crate) async fn in_state(&self, state: PersonState) -> (String, String) {
        let people = self.mock.world();
        let login = people.first_in_state(state).expect("somebody in that state").login.to_string();
        self.person(&login).await
    }

    pub(crate) async fn dn_of(&self, login: &str) -> String {
        let mut client = self.admin().await;
        let filter = format!("(|(sAMAccountName={login})(uid={login})(shortname={login}))");
        let found = client.search(&Search::new(&self.base, SUBTREE, &filter).attributes(&["1.1"])).await;
        assert_eq!(found.entries.len(), 1, "{filter}: {:?} {:?}", found.dns(), found.done);
        found.entries[0].dn.clone()
    }

    /// User principal name of a login.
    pub(crate) fn upn(&self, login: &str) -> String {
        self.mock.world().upn(login)
    }
}
