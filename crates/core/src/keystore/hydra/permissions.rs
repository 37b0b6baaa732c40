//! The verbs about permissions: who may do what with a key, and changing that (`docs/src/permissions.md`).

use super::{Hydra, LocalError};
use crate::ids::ChangeId;
use crate::key_id::KeyId;
use crate::keystore::agreement::{ChangeError, ChangeOptions, PermissionsChanged, PermissionsReport};
use crate::keystore::fanout;
use crate::keystore::quorum::ChangePermissions;
use crate::permissions::PermissionRecord;

impl Hydra {
    /// The permission records of `key_id`, store by store, and whether they agree.
    ///
    /// # Errors
    /// As for [`Hydra::status`].
    pub async fn permissions(&self, key_id: &KeyId) -> Result<PermissionsReport, LocalError> {
        self.status(key_id).await.map(PermissionsReport::of)
    }

    /// Changes the permissions of `key_id` into what `edit` makes of those that hold, at all stores.
    ///
    /// # Errors
    /// What [`ChangeError`] tells apart. The same change once more finishes one that was done in part.
    pub async fn change_permissions(
        &self,
        key_id: &KeyId,
        edit: impl Fn(&PermissionRecord) -> PermissionRecord,
        options: ChangeOptions,
    ) -> Result<PermissionsChanged, ChangeError> {
        let ids = || Ok::<_, LocalError>([ChangeId::random()?, ChangeId::random()?]);
        let (total, m) = (self.config.timeouts.total, self.config.threshold);
        let mut machine = ChangePermissions::new(self.names(), total, key_id.clone(), edit, m, options, ids()?);
        let outcome = fanout::run(&mut machine, self).await;
        self.learn(machine.stores());
        outcome
    }
}
