//! Repairs: what stores lost or have from an old backup comes back, and nothing gets worse.

use super::*;

/// A record that lets these read too, of this version.
fn letting(who: &[&str], version: u64) -> PermissionRecord {
    let line = |principal: &&str| AclEntry {
        principal: (*principal).to_owned(),
        permissions: "g".parse().unwrap(),
    };
    PermissionRecord {
        acl: who.iter().map(line).collect(),
        version,
        change_id: ChangeId([u8::try_from(version).unwrap(); 16]),
        ..record()
    }
}

fn lets(record: &PermissionRecord, who: &str) -> bool {
    record.acl.iter().any(|line| line.principal == who)
}

impl Ground {
    fn entry(&self, place: Place) -> &StoredEntry {
        self.held[place].entry.as_ref().unwrap()
    }

    fn entry_mut(&mut self, place: Place) -> &mut StoredEntry {
        self.held[place].entry.as_mut().unwrap()
    }

    /// A change of permissions that reaches these stores.
    fn change(&mut self, places: &[Place], to: &PermissionRecord) {
        for place in places {
            let held = &self.entry(*place).record;
            let change = Change {
                key_id: key_id(),
                registration_id: FIRST,
                if_version: held.version,
                if_change_id: held.change_id,
                permissions: to.clone(),
            };
            self.tell(*place, ToStore::Change(change));
        }
    }

    /// What `hydra-keystore restore` makes of an earlier state.
    fn restore(&mut self, place: Place, to: Held) {
        self.held[place] = to;
        if let Some(entry) = &mut self.held[place].entry {
            entry.restored = true;
        }
    }

    /// Every store holds exactly the highest sharing, confirmed, with the share that its polynomial has there.
    fn is_whole(&self) -> bool {
        let entries = self.held.iter().map(|held| held.entry.as_ref());
        let states = |entry: &StoredEntry| {
            let confirmed = |held: &StoredSharing| held.state == State::Confirmed && held.share.is_some();
            entry.state == State::Confirmed && !entry.restored && entry.sharings.iter().all(confirmed)
        };
        entries.into_iter().all(|entry| entry.is_some_and(states))
    }

    fn share(&self, place: Place) -> &Share {
        self.entry(place).sharings[0].share.as_ref().unwrap()
    }
}

fn loses_changes(_: &mut Ground, _: Place, message: &Message) -> Fate {
    match message {
        Message::Change(_) => Fate::Lost,
        _ => Fate::Arrives,
    }
}

// --- what each rule is there for ----------------------------------------------------------------------------------------

/// Two of five stores lie together: with one honest share theirs join the right key, on a polynomial of their own. Of
/// the other honest stores one lost its share, and one is down.
pub(super) fn prove_shares(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    let right = ground.share(1).copy();
    ground.held[1] = Held::default();
    ground.up[2] = false;
    // Errors of x = 4 and x = 5 cancel at 0 and at 1 if they are the same.
    ground.lie = |_, place, mut said| {
        if let (3 | 4, Said::Read(ReadAnswer { entry: Some(entry), .. })) = (place, &mut said) {
            entry.sharings.iter_mut().for_each(spoil);
        }
        said
    };
    let _ = ground.repair(false, arrives);
    let given = ground.held[1].entry.as_ref();
    let given = given.and_then(|entry| entry.sharings[0].share.as_ref());
    breach(
        given.is_some_and(|given| !given.same_as(&right)),
        "a repair made an honest store's share wrong",
    )
}

/// Somebody who may write shares gave every store a sharing of another key.
pub(super) fn one_key(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    let split = sharing::split_by_r(&key_id(), &constants(FIRST), 2, 2, &ground.ids(), &EVIL, &[9; 32]);
    for (place, share) in split.shares.into_iter().enumerate() {
        let confirmed = Put {
            state: State::Confirmed,
            ..put(FIRST, split.sharing.clone(), share)
        };
        ground.tell(place, ToStore::Put(confirmed));
    }
    let _ = ground.repair(false, arrives);
    let first = |place| {
        ground
            .entry(place)
            .sharings
            .iter()
            .any(|held| held.sharing.generation == 1)
    };
    breach(
        !(0..3).all(first),
        "a repair dropped the key that files were sealed with",
    )
}

/// A reshare that died when two of three stores had confirmed; the third cannot be given its share now.
pub(super) fn drop_after_all(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.reshare(&[0, 1]);
    for place in [0, 1] {
        let sharing = ground.entry(place).sharings[1].sharing.clone();
        let (key_id, registration_id) = (key_id(), FIRST);
        ground.tell(
            place,
            ToStore::Confirm(Confirm {
                key_id,
                registration_id,
                sharing,
                force: false,
            }),
        );
    }
    let fate = |_: &mut Ground, place, message: &Message| match message {
        Message::Put(_) if place == 2 => Fate::Lost,
        _ => Fate::Arrives,
    };
    let _ = ground.repair(false, fate);
    ground.up[0] = false;
    breach(!ground.opens(FIRST), "a registered key does not open")
}

/// One store claims a record that nobody made.
pub(super) fn permission_majority(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.lie = |_, place, mut said| {
        if let (0, Said::Describe(answer)) = (place, &mut said) {
            answer.entry.as_mut().unwrap().permissions = letting(&[BOB], 9);
        }
        said
    };
    let _ = ground.repair(false, arrives);
    breach(
        (1..3).any(|place| lets(&ground.entry(place).record, BOB)),
        "a repair gave somebody a permission that nobody had given",
    )
}

/// A revocation that died when one store had it.
pub(super) fn permission_later(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.change(&[0, 1, 2], &letting(&[BOB], 2));
    ground.change(&[0], &letting(&[], 3));
    let _ = ground.repair(false, arrives);
    breach(lets(&ground.entry(0).record, BOB), "a repair undid a revocation")
}

/// A store restored to before a revocation, which does not take the change now.
pub(super) fn restored_permissions(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    ground.change(&[0, 1, 2], &letting(&[BOB], 2));
    let before = copy_held(&ground.held[0]);
    ground.change(&[0, 1, 2], &letting(&[], 3));
    ground.restore(0, before);
    let _ = ground.repair(false, loses_changes);
    let entry = ground.entry(0);
    breach(
        !entry.restored && lets(&entry.record, BOB),
        "a restored store hands out shares by permissions that were revoked",
    )
}

// --- what a repair does -------------------------------------------------------------------------------------------------

#[test]
fn a_store_that_lost_everything_gets_its_share_and_the_permissions_back() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.change(&[0, 1, 2], &letting(&[BOB], 2));
    let right = ground.share(1).copy();
    ground.held[1] = Held::default();
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.whole && report.faults.is_empty(), "{report:?}");
    assert_eq!(
        report.done,
        [("1".to_owned(), "gave it the share that it lacked".to_owned())]
    );
    assert!(ground.is_whole() && ground.share(1).same_as(&right));
    assert!(lets(&ground.entry(1).record, BOB));
    assert!(ground.repair(false, arrives).unwrap().done.is_empty());
}

#[test]
fn a_damaged_or_lost_share_is_replaced() {
    for damage in [
        (|held: &mut StoredSharing| held.share = None) as fn(&mut StoredSharing),
        |held| {
            let share = held.share.as_mut().unwrap();
            let mut bytes = share.data.0.expose().to_vec();
            bytes[3] ^= 1;
            share.data = ShareData(SecretBytes::new(bytes));
        },
    ] {
        let mut ground = Ground::new(3, 2, None);
        ground.registered(FIRST);
        let right = ground.share(2).copy();
        damage(&mut ground.entry_mut(2).sharings[0]);
        let report = ground.repair(false, arrives).unwrap();
        assert!(report.whole, "{report:?}");
        assert!(ground.share(2).same_as(&right));
    }
}

#[test]
fn a_dry_run_tells_all_and_sends_nothing() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.held[1] = Held::default();
    ground.entry_mut(2).sharings[0].share = None;
    ground.entry_mut(2).record = letting(&[BOB], 1);
    // two are left to read: one share is not enough
    let options = || RepairOptions {
        dry_run: true,
        ..RepairOptions::default()
    };
    let sends = |_: &mut Ground, _: Place, message: &Message| {
        assert!(
            matches!(message, Message::Read(_) | Message::Describe(_)),
            "{message:?}"
        );
        Fate::Arrives
    };
    let report = ground.repair_with(options(), sends).unwrap();
    assert!(!report.whole && report.lost == Some(Vec::new()), "{report:?}");

    let mut ground = Ground::new(5, 2, None);
    ground.registered(FIRST);
    ground.held[1] = Held::default();
    ground.entry_mut(2).sharings[0].share = None;
    ground.entry_mut(2).record.change_id = ChangeId([7; 16]);
    ground.entry_mut(2).record.acl = letting(&[BOB], 1).acl;
    let report = ground.repair_with(options(), sends).unwrap();
    let words: Vec<String> = report
        .done
        .iter()
        .map(|(store, what)| format!("{store} {what}"))
        .collect();
    assert_eq!(
        words,
        [
            "2 would bring its permissions up to date",
            "1 would give it the share that it lacks",
            "2 would replace its damaged share",
        ]
    );
    assert!(!report.whole && !report.free);
    assert!(ground.held[1].entry.is_none() && lets(&ground.entry(2).record, BOB));
    assert!(ground.repair(false, arrives).unwrap().whole);
    assert!(ground.repair_with(options(), sends).unwrap().whole);
}

#[test]
fn a_restored_store_is_opened_with_the_sharing_and_the_permissions_of_now() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.change(&[0, 1, 2], &letting(&[BOB], 2));
    let before = copy_held(&ground.held[0]);
    ground.reshare(&[0, 1, 2]);
    ground.change(&[0, 1, 2], &letting(&[], 3));
    ground.restore(0, before);
    assert!(ground.opens(FIRST));
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.whole && ground.is_whole(), "{report:?}");
    let entry = ground.entry(0);
    assert_eq!(entry.sharings.len(), 1);
    assert_eq!(entry.sharings[0].sharing.generation, 2);
    assert!(!lets(&entry.record, BOB));
}

#[test]
fn a_restored_store_does_not_bring_back_what_was_removed_or_followed() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    let before = copy_held(&ground.held[0]);
    ground.remove(Some(FIRST), arrives).unwrap();
    ground.registered(SECOND);
    ground.restore(0, before);
    // In one go: the old registration is removed, and the place is free for the new one.
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.whole && ground.is_whole(), "{report:?}");
    assert!(ground.opens(SECOND) && !ground.opens(FIRST));
}

#[test]
fn what_is_lost_is_told_with_the_stores_that_could_bring_it_back() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.held[1] = Held::default();
    ground.up[2] = false;
    let report = ground.repair(false, arrives).unwrap();
    assert_eq!(report.lost, Some(vec!["2".to_owned()]), "{report:?}");
    assert!(report.done.is_empty() && ground.held[0].entry.is_some());
    ground.up[2] = true;
    assert!(ground.repair(false, arrives).unwrap().whole);
}

#[test]
fn no_majority_creates_nothing() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.change(&[0], &letting(&[BOB], 2));
    ground.held[2] = Held::default();
    let report = ground.repair(false, arrives).unwrap();
    assert!(!report.whole && report.done.is_empty(), "{report:?}");
    assert_eq!(report.faults.len(), 3, "{report:?}");
    ground.change(&[1], &letting(&[BOB], 2));
    assert!(ground.repair(false, arrives).unwrap().whole);
    assert!((0..3).all(|place| lets(&ground.entry(place).record, BOB)));
}

#[test]
fn which_of_two_records_counts_is_for_the_caller_to_say() {
    for (counts, bob) in [("0", true), ("1", false)] {
        let mut ground = Ground::new(3, 2, None);
        ground.registered(FIRST);
        ground.change(&[0], &letting(&[BOB], 2));
        let report = ground.repair(false, arrives).unwrap();
        assert!(!report.whole && report.done.is_empty());
        assert!(
            report.faults[0]
                .reason
                .starts_with("has permissions of version 2 where most have 1")
        );
        let over = RepairOptions {
            over: Some(counts.to_owned()),
            ..RepairOptions::default()
        };
        assert!(ground.repair_with(over, arrives).unwrap().whole);
        assert!((0..3).all(|place| lets(&ground.entry(place).record, BOB) == bob));
    }
}

#[test]
fn a_reshare_that_some_store_confirmed_is_finished_and_the_old_shares_dropped() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.reshare(&[0, 1]);
    let sharing = ground.entry(0).sharings[1].sharing.clone();
    let (key_id, registration_id) = (key_id(), FIRST);
    let confirm = Confirm {
        key_id,
        registration_id,
        sharing,
        force: false,
    };
    ground.tell(0, ToStore::Confirm(confirm));
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.whole && ground.is_whole(), "{report:?}");
    let generations = |place| -> Vec<u32> {
        let sharings = ground.entry(place).sharings.iter();
        sharings.map(|held| held.sharing.generation).collect()
    };
    assert!((0..3).all(|place| generations(place) == [2]));
}

/// A key of the original, whose shares are of another field and prove nothing.
pub(super) fn imported(ground: &mut Ground, missing: Option<Place>) -> [u8; 32] {
    let key = [0x42; 32];
    let n = ground.held.len();
    let parts = crate::shamir::glite::split_bytes(&key, u32::try_from(n).unwrap(), ground.m.into()).unwrap();
    let sharing = Sharing {
        generation: 0,
        m: ground.m,
        n: u8::try_from(n).unwrap(),
        stores: ground.ids(),
        check: None,
    };
    for (place, data) in parts
        .into_iter()
        .enumerate()
        .filter(|(place, _)| Some(*place) != missing)
    {
        let share = Share {
            scheme: Scheme::Gf65521,
            index: u8::try_from(place + 1).unwrap(),
            m: sharing.m,
            n: sharing.n,
            data: ShareData(data),
        };
        let confirmed = Put {
            state: State::Confirmed,
            ..put(FIRST, sharing.clone(), share)
        };
        let said = ground.tell(place, ToStore::Put(confirmed));
        assert!(matches!(said, Said::Changed(changed) if changed.status == Status::Ok));
    }
    key
}

#[test]
fn an_imported_key_is_repaired_only_from_shares_that_prove_each_other_and_stays_unverified() {
    let mut ground = Ground::new(3, 2, None);
    imported(&mut ground, Some(2));
    let report = ground.repair(false, arrives).unwrap();
    assert!(
        report.unverified && !report.whole && report.done.is_empty(),
        "{report:?}"
    );
    assert!(report.faults[0].reason.ends_with("reshare the key"), "{report:?}");

    let mut ground = Ground::new(5, 2, None);
    let key = imported(&mut ground, Some(4));
    let report = ground.repair(false, arrives).unwrap();
    assert!(report.unverified && report.whole, "{report:?}");
    ground.up = vec![false, false, false, true, true];
    let read = ground.read(Purpose::Open(FIRST), arrives).unwrap();
    assert!(!read.verified && read.key.expose() == key);
}
