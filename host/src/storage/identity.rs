//! Identity of a storage: tells if two storages are one, or if one lies within the other.

use std::path::{Component, Path, PathBuf};

/// Identity of a storage: a namespace, such as a server, and a path in it. Comparing two
/// identities needs no request to a server.
///
/// ```
/// use persist_host::storage::{IdentityRelation, Local, Storage as _};
///
/// let agents = Local::new("/var/lib/agents").identity();
/// let backup = Local::new("/var/lib/agents/backup").identity();
/// assert_eq!(agents.relation_to(&backup), IdentityRelation::Contains);
/// assert_eq!(backup.relation_to(&agents), IdentityRelation::Inside);
/// ```
#[derive(Clone, Debug)]
pub struct StorageIdentity {
    /// None for a storage of which nothing is known.
    namespace: Option<String>,
    path: PathBuf,
}

/// Relation of one storage to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityRelation {
    /// Both are the same storage.
    Same,
    /// The first one lies within the other: its objects are among those of the other.
    Inside,
    /// The first one contains the other.
    Contains,
    /// They share no object, as far as this is known.
    Different,
}

impl StorageIdentity {
    /// Returns the identity of a storage of which nothing is known. It is different from every
    /// other one, and from itself.
    pub fn unknown() -> Self {
        Self {
            namespace: None,
            path: PathBuf::new(),
        }
    }

    /// Returns the identity of the objects below `path` in `namespace`. The namespace names all
    /// that the same path means the same in: a server, a machine, a map in memory.
    pub fn new(namespace: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            namespace: Some(namespace.into()),
            path: path.into(),
        }
    }

    /// Returns the identity of a file or directory of this machine. Links are resolved, as far as
    /// the path exists now.
    pub fn local(path: &Path) -> Self {
        Self::new("local", resolve(path))
    }

    /// Returns the identity of the objects below a prefix of a bucket. Without an endpoint, or at
    /// one of Amazon's own, the region tells the partition of AWS: names of buckets are unique in
    /// each.
    #[cfg(any(feature = "bucket", test))]
    pub(super) fn bucket(endpoint: Option<&str>, region: &str, bucket: &str, prefix: &str) -> Self {
        let server = endpoint.and_then(super::Endpoint::parse);
        let namespace = match (endpoint, server) {
            (_, Some(server)) if server.is_google() => "Google".into(),
            (Some(_), Some(server)) if !server.is_amazon() => {
                // A proxy may tell servers apart by the path.
                let path = endpoint.and_then(|url| url.splitn(4, '/').nth(3));
                format!("{server}/{}", path.unwrap_or_default())
            }
            (Some(url), None) => url.into(),
            _ if region.starts_with("cn-") => "Amazon in China".into(),
            _ if region.starts_with("us-gov-") => "Amazon GovCloud".into(),
            _ => "Amazon".into(),
        };
        Self::new(namespace, Path::new(bucket).join(prefix))
    }

    /// Compares two storages. Two directories that do not exist yet are compared by their paths.
    pub fn relation_to(&self, other: &Self) -> IdentityRelation {
        if self.namespace.is_none() || self.namespace != other.namespace {
            return IdentityRelation::Different;
        }
        let is_below = self.path.starts_with(&other.path);
        let is_above = other.path.starts_with(&self.path);
        match (is_below, is_above) {
            (true, true) => IdentityRelation::Same,
            (true, false) => IdentityRelation::Inside,
            (false, true) => IdentityRelation::Contains,
            (false, false) => IdentityRelation::Different,
        }
    }
}

/// Returns a path without links and without `..`. Segments that do not exist hold no link.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let existing = absolute.ancestors().find_map(|dir| {
        let rest = absolute.strip_prefix(dir).ok()?;
        Some((std::fs::canonicalize(dir).ok()?, rest))
    });
    let Some((mut resolved, rest)) = existing else {
        return absolute;
    };
    for part in rest.components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            part => resolved.push(part),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::super::{Local, Memory, Storage};
    use super::IdentityRelation::{Contains, Different, Inside, Same};
    use super::*;

    fn relation(a: &dyn Storage, b: &dyn Storage) -> IdentityRelation {
        let forward = a.identity().relation_to(&b.identity());
        let backward = b.identity().relation_to(&a.identity());
        let mirrored = match forward {
            Inside => Contains,
            Contains => Inside,
            other => other,
        };
        assert_eq!(backward, mirrored);
        forward
    }

    #[test]
    fn directories_are_compared_without_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| Local::new(dir.path().join(path));
        std::fs::create_dir_all(dir.path().join("a/b")).expect("made");
        std::os::unix::fs::symlink("a", dir.path().join("link")).expect("made");
        for (a, b, expected) in [
            ("a", "a", Same),
            ("a", "a/", Same),
            ("a", "link", Same),
            ("a/b", "link/b", Same),
            ("a/new", "link/new", Same),
            ("new/x", "new/x", Same),
            ("a", "a/b/../../a", Same),
            ("new", "new/x/..", Same),
            ("a/b", "a", Inside),
            ("link/b", "a", Inside),
            ("a", "link/new/x", Contains),
            ("a", "ab", Different),
            ("a", "new", Different),
            ("new", "new2", Different),
        ] {
            assert_eq!(relation(&at(a), &at(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_clone_of_a_memory_is_the_same_storage() {
        let memory = Memory::new();
        assert_eq!(relation(&memory, &memory.clone()), Same);
        assert_eq!(relation(&memory, &Memory::new()), Different);
        assert_eq!(relation(&memory, &Local::new("/")), Different);
    }

    #[test]
    fn buckets_are_compared_by_server_name_and_segments_of_the_prefix() {
        let at = |endpoint, region, bucket, prefix| {
            StorageIdentity::bucket(endpoint, region, bucket, prefix)
        };
        let own = at(None, "us-east-1", "bucket", "a/");
        let nas = at(Some("http://nas:9000"), "us-east-1", "bucket", "a/");
        for (one, other, expected) in [
            (&own, at(None, "eu-west-1", "bucket", "a/"), Same),
            (&own, at(None, "us-east-1", "bucket", "a/b/"), Contains),
            (&own, at(None, "us-east-1", "bucket", ""), Inside),
            (&own, at(None, "us-east-1", "bucket", "ab/"), Different),
            (&own, at(None, "us-east-1", "bucket2", "a/"), Different),
            (&own, at(None, "cn-north-1", "bucket", "a/"), Different),
            (
                &own,
                at(
                    Some("https://s3.eu-west-1.amazonaws.com"),
                    "eu-west-1",
                    "bucket",
                    "a/",
                ),
                Same,
            ),
            (&own, nas.clone(), Different),
            (
                &nas,
                at(Some("http://NAS:9000/"), "x", "bucket", "a/"),
                Same,
            ),
            (
                &nas,
                at(Some("http://nas:9000/b"), "x", "bucket", "a/"),
                Different,
            ),
            (
                &nas,
                at(Some("http://nas:9001"), "x", "bucket", "a/"),
                Different,
            ),
        ] {
            assert_eq!(one.relation_to(&other), expected, "{one:?} {other:?}");
        }
        let google = at(Some("https://storage.googleapis.com"), "", "bucket", "");
        let regional = "https://storage.europe-west3.rep.googleapis.com";
        let below = at(Some(regional), "auto", "bucket", "a/");
        assert_eq!(google.relation_to(&below), Contains);
        assert_eq!(google.relation_to(&own), Different);
    }

    #[cfg(feature = "s3")]
    #[test]
    fn the_prefix_of_an_s3_storage_is_part_of_its_identity() {
        let at = |prefix: Option<&str>| {
            let mut config = super::super::StorageConfig::s3_with_bucket("bucket".into());
            config.s3_prefix = prefix.map(Into::into);
            config.s3_endpoint = Some("http://127.0.0.1:9000".into());
            config.s3_credentials = Some(super::super::S3Credentials::new("ID", "KEY"));
            config.build().expect("a storage")
        };
        assert_eq!(relation(&*at(Some("a")), &*at(Some("a/"))), Same);
        assert_eq!(relation(&*at(Some("a/b")), &*at(Some("a"))), Inside);
        assert_eq!(relation(&*at(None), &*at(Some("a"))), Contains);
        assert_eq!(relation(&*at(Some("a")), &*at(Some("b"))), Different);
    }

    #[cfg(feature = "gcs")]
    #[test]
    fn the_prefix_of_a_gcs_storage_is_part_of_its_identity() {
        let at = |prefix: &str| {
            let mut config = super::super::StorageConfig::gcs_with_bucket("bucket".into());
            config.gcs_prefix = Some(prefix.into());
            config.gcs_endpoint = Some("http://127.0.0.1:4443".into());
            config.build().expect("a storage")
        };
        assert_eq!(relation(&*at("a"), &*at("a/")), Same);
        assert_eq!(relation(&*at("a/b"), &*at("a")), Inside);
        assert_eq!(relation(&*at(""), &*at("a")), Contains);
        assert_eq!(relation(&*at("a"), &*at("b")), Different);
    }

    #[test]
    fn an_unknown_storage_is_different_from_every_other() {
        let unknown = StorageIdentity::unknown();
        assert_eq!(unknown.relation_to(&unknown), Different);
        assert_eq!(unknown.relation_to(&Memory::new().identity()), Different);
    }
}
