//! Thumbnails: sealed by whoever made them, so nothing but bytes here.

use hydra_core::permissions::Permission;

use super::refusal::{invalid, not_found};
use super::{Refusal, Work, names, needs};
use crate::database::row;
use crate::wire::MAX_THUMBNAIL_BYTES;

impl Work<'_> {
    pub(super) fn put_thumbnail(&self, path: &str, bytes: &[u8]) -> Result<(), Refusal> {
        names::check_address(path)?;
        let (entry, rights) = self.visible(path)?;
        needs(
            rights.anonymous,
            Permission::WriteShares,
            "a thumbnail needs `s` on the anonymous half",
        )?;
        if bytes.len() > MAX_THUMBNAIL_BYTES {
            return Err(invalid(format!("a thumbnail has at most {MAX_THUMBNAIL_BYTES} bytes")));
        }
        if bytes.is_empty() {
            self.sql
                .execute("DELETE FROM thumbnails WHERE entry = ?1", &[entry.id.into()])?;
            return Ok(());
        }
        let text = "INSERT INTO thumbnails(entry, bytes) VALUES (?1, ?2) ON CONFLICT (entry) DO UPDATE SET bytes = ?2";
        self.sql.execute(text, &[entry.id.into(), bytes.to_vec().into()])?;
        Ok(())
    }

    pub(super) fn thumbnail(&self, path: &str) -> Result<Vec<u8>, Refusal> {
        names::check_address(path)?;
        let (entry, rights) = self.visible(path)?;
        let found = row(
            self.sql,
            "SELECT bytes FROM thumbnails WHERE entry = ?1",
            &[entry.id.into()],
        )?;
        // Who may not see it is told the same as where there is none.
        let bytes = found.map(|mut row| row.optional_blob(0)).transpose()?.flatten();
        bytes.filter(|_| rights.reads_anonymous()).ok_or_else(not_found)
    }
}
