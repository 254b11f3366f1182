//! Networks of one's own for processes: a namespace that has the container of squid as its only neighbour, and where a
//! test wants it a way straight to this machine.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A network namespace; gone with its cables on drop.
pub(crate) struct Network {
    name: String,
    subnet: [u8; 3],
}

impl Network {
    /// Lays a cable between a new namespace and the network of process `neighbour`. `number` is different for every
    /// network of one run.
    pub(crate) fn build(number: u8, neighbour: u32) -> Result<Self> {
        // Several runs on one machine must not meet: neither by the names of cables nor by addresses.
        let run = std::process::id();
        let subnet = [10, 180 + u8::try_from(run % 64)?, number];
        let network = Self { name: format!("cw{number}-{run}"), subnet };
        let (ours, theirs) = (format!("cw{number}a{run}"), format!("cw{number}b{run}"));
        ip(&["netns", "add", &network.name])?;
        ip(&["-n", &network.name, "link", "set", "lo", "up"])?;
        ip(&["link", "add", &ours, "netns", &network.name, "type", "veth", "peer", "name", &theirs])?;
        let moved = ip(&["link", "set", &theirs, "netns", &neighbour.to_string()]);
        moved.with_context(|| format!("lay a cable to the network of process {neighbour}"))?;
        network.address(&ours, network.own())?;
        let neighbour = neighbour.to_string();
        let inside = ["-t", neighbour.as_str(), "-n", "ip"];
        let address = format!("{}/30", network.neighbour());
        run_program("nsenter", &[&inside[..], &["address", "add", &address, "dev", &theirs]].concat())?;
        run_program("nsenter", &[&inside[..], &["link", "set", &theirs, "up"]].concat())?;
        Ok(network)
    }

    /// A second cable, to this machine itself, that leads to one address only.
    pub(crate) fn lead_to(&self, this_machine: Ipv4Addr) -> Result<()> {
        let number = self.subnet[2];
        let run = std::process::id();
        let (ours, theirs) = (format!("cw{number}c{run}"), format!("cw{number}d{run}"));
        ip(&["link", "add", &ours, "netns", &self.name, "type", "veth", "peer", "name", &theirs])?;
        self.address(&ours, self.at(6))?;
        let near = self.at(5);
        ip(&["address", "add", &format!("{near}/30"), "dev", &theirs])?;
        ip(&["link", "set", &theirs, "up"])?;
        ip(&["-n", &self.name, "route", "add", &format!("{this_machine}/32"), "via", &near.to_string()])
            .map(drop)
    }

    /// The routes, one a line.
    pub(crate) fn routes(&self) -> Result<String> {
        ip(&["-n", &self.name, "route", "show"])
    }

    /// What a program is started with to be in here.
    pub(crate) fn entry(&self) -> [&str; 3] {
        ["netns", "exec", &self.name]
    }

    /// The agent's address.
    pub(crate) fn own(&self) -> Ipv4Addr {
        self.at(2)
    }

    /// The container's address.
    pub(crate) fn neighbour(&self) -> Ipv4Addr {
        self.at(1)
    }

    fn at(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, host)
    }

    fn address(&self, cable: &str, address: Ipv4Addr) -> Result<()> {
        ip(&["-n", &self.name, "address", "add", &format!("{address}/30"), "dev", cable])?;
        ip(&["-n", &self.name, "link", "set", cable, "up"]).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cables go with it. A failure leaves an empty namespace of a name that does not come again.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    run_program("ip", arguments)
}

fn run_program(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
