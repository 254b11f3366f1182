//! Binding, limits and stopping.

use std::net::{IpAddr, Ipv4Addr};

use causeway_mock_kit::listen::{self, BindError};
use causeway_mock_kit::{Clock, KitContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::faults::Sender;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_taken_port_is_reported_with_the_flag_that_mends_it() {
    let first = listen::bind("mock-ldap", "ldap", HERE, 0).await.unwrap();
    let port = first.local_addr().unwrap().port();
    let error = listen::bind("mock-ldap", "ldap", HERE, port).await.unwrap_err();
    assert!(matches!(error, BindError::PortInUse { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "mock-ldap cannot listen on 127.0.0.1:{port} for ldap: the port is in use; \
             choose another with --port ldap=N, or any free one with --port ldap=0"
        )
    );
}

#[tokio::test]
async fn a_foreign_address_is_reported_with_the_flag_that_mends_it() {
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let error = listen::bind("mock-ldap", "ldap", [192, 0, 2, 1].into(), 0).await.unwrap_err();
    assert!(error.to_string().ends_with("choose one it has with --listen HOST"), "{error}");
}

#[tokio::test]
async fn more_connections_than_the_limit_wait_for_their_turn() {
    let cx = KitContext::new("mock-small", Clock::automatic());
    let listener = listen::bind("mock-small", "small", HERE, 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    listen::serve_with_limit(listener, "small", cx.clone(), 1, |mut stream, _| async move {
        let _ = stream.write_u8(1).await;
        let _ = stream.read_u8().await;
    });
    let mut first = TcpStream::connect(address).await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), 1);
    let mut second = TcpStream::connect(address).await.unwrap();
    second.writable().await.unwrap();
    assert_eq!(cx.faults.connections("small"), 1);
    let mut nothing = [0];
    assert_eq!(second.try_read(&mut nothing).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    first.write_u8(0).await.unwrap();
    assert_eq!(second.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn stopping_ends_the_front_end_and_frees_its_port() {
    let sender = Sender::start().await;
    let mut stream = sender.connect().await;
    sender.cx.stop.cancel();
    sender.task.await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert!(TcpStream::connect(sender.address).await.is_err());
    listen::bind("mock-sender", "sender", HERE, sender.address.port()).await.expect("the port is free again");
}
