//! The versions of Exchange the mock can be, as data.

/// A version of Exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    E2007,
    E2010,
    E2013,
    E2016,
    E2019,
    Online,
}

impl Version {
    pub const ALL: [Self; 6] =
        [Self::E2007, Self::E2010, Self::E2013, Self::E2016, Self::E2019, Self::Online];

    /// What the version is like.
    pub fn profile(self) -> &'static Profile {
        let at = Self::ALL.iter().position(|version| *version == self).expect("every version is in ALL");
        &PROFILES[at]
    }
}

/// What differs between versions besides which cmdlets exist (that is in the table of cmdlets).
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    pub version: Version,
    /// As given to `--personality`.
    pub name: &'static str,
    /// `AdminDisplayVersion` of its servers.
    pub admin_version: &'static str,
    /// `ExchangeVersion` of the objects phones are.
    pub object_version: &'static str,
    /// Highest ActiveSync protocol version, for example 161.
    pub active_sync_max: u16,
    /// Whether phones can be held for approval and access rules exist.
    pub quarantine: bool,
    /// Whether there is a remoting endpoint of its own (`Microsoft.Exchange`); otherwise only an ordinary PowerShell
    /// session into which the management snap-in is loaded.
    pub remoting: bool,
    /// Whether it is the service: no servers to see, and a REST front end.
    pub online: bool,
    /// Partnerships one mailbox may have. Exchange calls it EasMaxDevices; 10 in 2010 and 2007, 100 later.
    pub devices_per_mailbox_max: usize,
}

static PROFILES: [Profile; 6] = [
    Profile {
        version: Version::E2007,
        name: "exchange2007",
        admin_version: "Version 8.3 (Build 83.6)",
        object_version: "0.1 (8.0.535.0)",
        active_sync_max: 121,
        quarantine: false,
        remoting: false,
        online: false,
        devices_per_mailbox_max: 10,
    },
    Profile {
        version: Version::E2010,
        name: "exchange2010",
        admin_version: "Version 14.3 (Build 123.4)",
        object_version: "0.10 (14.0.100.0)",
        active_sync_max: 141,
        quarantine: true,
        remoting: true,
        online: false,
        devices_per_mailbox_max: 10,
    },
    Profile {
        version: Version::E2013,
        name: "exchange2013",
        admin_version: "Version 15.0 (Build 1497.2)",
        object_version: "0.10 (14.0.100.0)",
        active_sync_max: 141,
        quarantine: true,
        remoting: true,
        online: false,
        devices_per_mailbox_max: 100,
    },
    Profile {
        version: Version::E2016,
        name: "exchange2016",
        admin_version: "Version 15.1 (Build 2507.6)",
        object_version: "0.10 (14.0.100.0)",
        active_sync_max: 161,
        quarantine: true,
        remoting: true,
        online: false,
        devices_per_mailbox_max: 100,
    },
    Profile {
        version: Version::E2019,
        name: "exchange2019",
        admin_version: "Version 15.2 (Build 1544.4)",
        object_version: "0.10 (14.0.100.0)",
        active_sync_max: 161,
        quarantine: true,
        remoting: true,
        online: false,
        devices_per_mailbox_max: 100,
    },
    Profile {
        version: Version::Online,
        name: "online",
        admin_version: "Version 15.20 (Build 9031.5)",
        object_version: "0.10 (14.0.100.0)",
        active_sync_max: 161,
        quarantine: true,
        remoting: true,
        online: true,
        devices_per_mailbox_max: 100,
    },
];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Every name, for messages.
    pub fn names() -> String {
        PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
    }
}
