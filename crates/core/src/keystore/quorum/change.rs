//! Changing permissions: which record holds where stores disagree, and bringing a new one to all of them
//! (`docs/src/protocol-walkthrough.md`).

use crate::permissions::PermissionRecord;

/// Which permission record of one registration holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base<'r> {
    /// More than half of the stores say this, and none says something else in a later version.
    Settled(&'r PermissionRecord),
    /// More than half say one thing, but a store says another in a later version: a change that died half-way, which may
    /// be a revocation. Nobody may overwrite it unasked.
    Overtaken {
        /// What more than half say.
        majority: &'r PermissionRecord,
        /// The latest of the others.
        latest: &'r PermissionRecord,
    },
    /// No more than half of the stores say the same.
    Split,
}

/// Which of the records `held` by those of `n` stores that answered is the one that counts.
///
/// Records that say the same count together, whatever their version: a grant that was undone at one store has a later
/// version there and says what all say. Of those, the one that most stores hold is answered, of as many the earliest, so
/// that no single store makes versions grow.
pub fn base<'r>(n: usize, held: impl IntoIterator<Item = &'r PermissionRecord>) -> Base<'r> {
    let held: Vec<&PermissionRecord> = held.into_iter().collect();
    let votes = |record: &PermissionRecord| held.iter().filter(|other| other.says_the_same_as(record)).count();
    let Some(one) = held.iter().copied().find(|record| votes(record) * 2 > n) else {
        return Base::Split;
    };
    let (ours, others): (Vec<&PermissionRecord>, Vec<&PermissionRecord>) =
        held.iter().partition(|record| record.says_the_same_as(one));
    let holders = |record: &PermissionRecord| ours.iter().filter(|other| other.same_as(record)).count();
    let earliest_of_most = |record: &&PermissionRecord| (holders(record), std::cmp::Reverse(record.version));
    let majority = ours.iter().copied().max_by_key(earliest_of_most).unwrap_or(one);
    match others.into_iter().max_by_key(|record| record.version) {
        Some(latest) if latest.version > majority.version => Base::Overtaken { majority, latest },
        _ => Base::Settled(majority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChangeId;

    /// A record of this version and change id that gives everybody these letters.
    fn record(version: u64, id: u8, other: &str) -> PermissionRecord {
        PermissionRecord {
            version,
            change_id: ChangeId([id; 16]),
            other: other.parse().unwrap(),
            ..PermissionRecord::new("/CN=alice", None, ChangeId([id; 16]))
        }
    }

    #[test]
    fn more_than_half_of_all_stores_decide_not_of_those_that_answered() {
        let (old, new) = (record(1, 1, ""), record(2, 2, "g"));
        let two = [new.clone(), new.clone()];
        assert_eq!(base(3, &two), Base::Settled(&new));
        assert_eq!(base(4, &two), Base::Split);
        assert_eq!(base(2, [&old, &new]), Base::Split);
        assert_eq!(base(1, [&old]), Base::Settled(&old));
        assert_eq!(base(3, []), Base::Split);
        // an old record at a minority is behind, and one of the same version lost
        assert_eq!(base(3, [&old, &new, &new]), Base::Settled(&new));
        assert_eq!(base(3, [&record(2, 3, "d"), &new, &new]), Base::Settled(&new));
    }

    #[test]
    fn a_later_record_at_a_minority_is_never_passed_over() {
        let (old, new) = (record(1, 1, "g"), record(2, 2, ""));
        let (majority, latest) = (&old, &new);
        assert_eq!(base(3, [&new, &old, &old]), Base::Overtaken { majority, latest });
        let later = record(7, 3, "l");
        let expected = Base::Overtaken {
            majority: &old,
            latest: &later,
        };
        assert_eq!(base(5, [&new, &later, &old, &old, &old]), expected);
    }

    #[test]
    fn records_that_say_the_same_are_of_one_mind() {
        // a grant that reached one store and was undone there
        let (old, undone) = (record(1, 1, ""), record(3, 3, ""));
        assert_eq!(base(3, [&undone, &old, &old]), Base::Settled(&old));
        assert_eq!(base(2, [&undone, &old]), Base::Settled(&old));
        // a liar cannot make versions grow, nor give its own content to a known change id
        assert_eq!(base(2, [&record(u64::MAX, 9, ""), &old]), Base::Settled(&old));
        assert_eq!(base(3, [&record(1, 1, "g"), &old, &old]), Base::Settled(&old));
        assert_eq!(base(2, [&record(1, 1, "g"), &old]), Base::Split);
    }
}
