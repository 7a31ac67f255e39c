//! Builds the storage that a configuration describes.

use std::sync::Arc;

use super::{Environment, Local, Result, Storage, StorageBackend, StorageConfig};
#[cfg(any(doc, not(feature = "s3"), not(feature = "gcs")))]
use super::{Error, ErrorKind};

impl StorageConfig {
    /// Returns the storage itself, completed from [`Environment::current`], which is read now. Of
    /// files, those that settings name are read (`~/.aws/config`, a CA bundle); nothing is made or
    /// asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting is missing or cannot work, or this build lacks the
    /// backend's feature.
    pub fn build(&self) -> Result<Arc<dyn Storage>> {
        self.build_with(&Environment::current())
    }

    /// Returns the storage itself, as [`StorageConfig::build`] does, completed from `environment`.
    ///
    /// # Errors
    /// As for [`StorageConfig::build`].
    pub fn build_with(&self, environment: &Environment) -> Result<Arc<dyn Storage>> {
        match self.backend {
            StorageBackend::Local => {
                let path = self.local_path(environment)?;
                let modes = self.local_modes(environment)?;
                Ok(Arc::new(Local::with_modes(path, modes)))
            }
            #[cfg(feature = "s3")]
            StorageBackend::S3 => Ok(Arc::new(super::S3::with_environment(self, environment)?)),
            #[cfg(not(feature = "s3"))]
            StorageBackend::S3 => Err(Error::new(
                ErrorKind::Config,
                "this build has no S3 support: it was built without the feature s3",
            )),
            #[cfg(feature = "gcs")]
            StorageBackend::Gcs => Ok(Arc::new(super::Gcs::with_environment(self, environment)?)),
            #[cfg(not(feature = "gcs"))]
            StorageBackend::Gcs => Err(Error::new(
                ErrorKind::Config,
                "this build has no Google Cloud Storage support: it was built without the feature \
                 gcs",
            )),
        }
    }
}
