//! The agent's two modules against directories: one set of test bodies, and for each body one test per arm. Arms are
//! mock-ldap's personalities in this process and the real servers in containers, so a difference between a mock and
//! what it stands for is a failing test or a line in `docs/differences.md`.
//!
//! Names are `<area>::<body>::<arm>`; `cargo test -p causeway-tests --test directories samba` runs one arm.

mod agent;
mod arm;
mod changes;
mod picture;
mod sign_in;
mod snapshot;
mod transport;
mod two_controllers;

/// Makes a test of each body for each arm: `body(arm)`, with the arm already holding a subtree of its own.
macro_rules! on_every_arm {
    ($($body:ident),+ $(,)?) => { $(
        mod $body {
            use crate::arm::Arm;

            #[tokio::test]
            async fn mock_active_directory() -> anyhow::Result<()> {
                match Arm::mock("active_directory").await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }

            #[tokio::test]
            async fn mock_openldap() -> anyhow::Result<()> {
                match Arm::mock("openldap").await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }

            #[tokio::test]
            async fn mock_ds389() -> anyhow::Result<()> {
                match Arm::mock("ds389").await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }

            #[tokio::test]
            async fn openldap() -> anyhow::Result<()> {
                match Arm::openldap().await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }

            #[tokio::test]
            async fn ds389() -> anyhow::Result<()> {
                match Arm::ds389().await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }

            #[tokio::test]
            async fn samba() -> anyhow::Result<()> {
                match Arm::samba().await? { Some(arm) => super::$body(arm).await, None => Ok(()) }
            }
        }
    )+ };
}
pub(crate) use on_every_arm;
