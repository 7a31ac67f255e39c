//! Hosts in network namespaces of their own, which can be cut off: a real partition, in which no
//! packet arrives and no connection is told. Needs root, and `ip` of iproute2.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::spawn;

/// A network of hosts. All end with it.
pub(crate) struct Network {
    /// Names of the bridge and of the namespaces begin with it.
    name: String,
    /// The first three numbers of all addresses.
    net: String,
    hosts: usize,
}

impl Network {
    /// Makes a network; none where this process may not. `test` tells tests of a process apart.
    pub(crate) fn new(test: u32, hosts: usize) -> Option<Self> {
        let id = std::process::id();
        let network = Self {
            name: format!("pt{id}x{test}"),
            net: format!("10.{}.{}", 100 + 8 * (id / 250 % 16) + test, 1 + id % 250),
            hosts,
        };
        let bridge = network.name.as_str();
        if !try_ip(&["link", "add", bridge, "type", "bridge"]) {
            return None;
        }
        for address in [network.proxy(), network.storage_host()] {
            let address = format!("{address}/24");
            ip(&["address", "add", &address, "dev", bridge]);
        }
        ip(&["link", "set", bridge, "up"]);
        for host in 0..hosts {
            let (space, port) = (network.namespace(host), network.port(host));
            let address = format!("{}/24", network.address(host));
            ip(&["netns", "add", &space]);
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &space];
            ip(&[&["link", "add", &port][..], &pair].concat());
            ip(&["link", "set", &port, "master", bridge, "up"]);
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
        }
        Some(network)
    }

    /// The address of this process for proxies.
    pub(crate) fn proxy(&self) -> String {
        format!("{}.1", self.net)
    }

    /// The address of the storage, as hosts reach it.
    fn storage_host(&self) -> String {
        format!("{}.2", self.net)
    }

    /// The address and port of the storage, as hosts reach it.
    pub(crate) fn storage(&self) -> String {
        format!("{}:8333", self.storage_host())
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: usize) -> String {
        format!("{}.{}", self.net, 11 + host)
    }

    /// Returns the command as a process of a host.
    pub(crate) fn command(&self, host: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace(host)]);
        inside.arg(command.get_program()).args(command.get_args());
        let path = std::env::var_os("PATH").unwrap_or_default();
        inside.env_clear().env("PATH", path);
        let variables = command.get_envs();
        inside.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Pulls the plug of a host.
    pub(crate) fn cut_off(&self, host: usize) {
        ip(&["link", "set", &self.port(host), "down"]);
    }

    /// Undoes [`Network::cut_off`].
    pub(crate) fn reconnect(&self, host: usize) {
        ip(&["link", "set", &self.port(host), "up"]);
    }

    /// Cuts a host off from the storage, and from nothing else: its packets go to no machine.
    pub(crate) fn cut_off_from_storage(&self, host: usize) {
        let hardware = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"];
        let (space, storage) = (self.namespace(host), self.storage_host());
        let entry = [
            "-n",
            &space,
            "neighbour",
            "replace",
            &storage,
            "dev",
            "eth0",
        ];
        ip(&[&entry[..], &hardware].concat());
    }

    /// Undoes [`Network::cut_off_from_storage`].
    pub(crate) fn reconnect_to_storage(&self, host: usize) {
        let (space, storage) = (self.namespace(host), self.storage_host());
        ip(&["-n", &space, "neighbour", "del", &storage, "dev", "eth0"]);
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    fn port(&self, host: usize) -> String {
        format!("{}p{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            try_ip(&["link", "del", &self.port(host)]);
            try_ip(&["netns", "del", &self.namespace(host)]);
        }
        try_ip(&["link", "del", &self.name]);
    }
}

fn try_ip(args: &[&str]) -> bool {
    let mut ip = Command::new("ip");
    let status = ip.args(args).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn ip(args: &[&str]) {
    assert!(try_ip(args), "ip {} failed", args.join(" "));
}

/// Passes connections on to a server that listens on another address of this machine.
pub(crate) struct Forward {
    address: String,
    is_over: Arc<AtomicBool>,
}

impl Forward {
    /// Listens on an address, and passes what comes on to the server of a URL.
    pub(crate) fn start(address: &str, url: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a free address");
        let server = url.replace("http://", "");
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(&server) else {
                    continue;
                };
                let ends = (client.try_clone(), server.try_clone());
                if let (Ok(to_client), Ok(to_server)) = ends {
                    spawn(move || copy(client, to_server));
                    spawn(move || copy(server, to_client));
                }
            }
        });
        Self {
            address: address.to_owned(),
            is_over,
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
