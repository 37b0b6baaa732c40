//! A test for each cell of the table of messages, and for what strangers are told.

use super::*;
use crate::ids::ChangeId;
use crate::keystore::wire::ShareData;
use crate::permissions::AclEntry;
use crate::secret::SecretBytes;

const ALICE: &str = "/CN=alice";
const BOB: &str = "/CN=bob";
const EVE: &str = "/CN=eve";
const R1: RegistrationId = RegistrationId([1; 16]);
const R2: RegistrationId = RegistrationId([2; 16]);
const KEY_ID: &str = "/myvo/key";

fn who(dn: &str, may_create: bool) -> Context {
    Context {
        caller: Caller {
            dn: dn.into(),
            fqans: Vec::new(),
            administrator: false,
        },
        may_create,
        recovery: false,
        at_limit: false,
        acl_limit: 3,
        store: "b".parse().unwrap(),
        now: 1_000,
    }
}

fn alice() -> Context {
    who(ALICE, true)
}

fn key_id() -> KeyId {
    KeyId::new(KEY_ID).unwrap()
}

fn sharing(generation: u32, check: u8) -> Sharing {
    Sharing {
        generation,
        m: 2,
        n: 3,
        stores: ["a", "b", "c"].map(|id| id.parse().unwrap()).to_vec(),
        check: Some(CheckValue([check; 32])),
    }
}

fn share(fill: u8) -> Share {
    Share {
        scheme: Scheme::Gf256,
        index: 2,
        m: 2,
        n: 3,
        data: ShareData(SecretBytes::new(vec![fill; 64])),
    }
}

fn record() -> PermissionRecord {
    PermissionRecord::new(ALICE, None, ChangeId([7; 16]))
}

fn record_with(principal: &str, permissions: &str) -> PermissionRecord {
    let mut record = record();
    record.acl = vec![AclEntry {
        principal: principal.into(),
        permissions: permissions.parse().unwrap(),
    }];
    record
}

fn creation(registration_id: RegistrationId) -> Create {
    Create {
        key_id: key_id(),
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
        sharing: sharing(1, 9),
        share: share(1),
        permissions: record(),
    }
}

fn putting(registration_id: RegistrationId, sharing: Sharing, state: State) -> Put {
    Put {
        key_id: key_id(),
        registration_id,
        cipher: CIPHER_EDS1.into(),
        key_bits: 256,
        iv: String::new(),
        sharing,
        share: share(1),
        state,
        permissions: record(),
    }
}

fn of(registration_id: RegistrationId) -> OfRegistration {
    OfRegistration {
        key_id: key_id(),
        registration_id,
    }
}

fn confirming(registration_id: RegistrationId, sharing: Sharing, force: bool) -> Confirm {
    Confirm {
        key_id: key_id(),
        registration_id,
        sharing,
        force,
    }
}

fn undoing(registration_id: RegistrationId, sharing: Option<Sharing>) -> Undo {
    Undo {
        key_id: key_id(),
        registration_id,
        sharing,
    }
}

fn dropping(below: Sharing) -> DropBelow {
    DropBelow {
        key_id: key_id(),
        registration_id: R1,
        below,
    }
}

/// The status, or the kind of problem, in one text.
fn said<T: serde::Serialize>(outcome: &Outcome<T>) -> String {
    let json = serde_json::to_value(&outcome.result).unwrap();
    let text = json.get("status").or_else(|| json["problem"].get("type"));
    text.unwrap().as_str().unwrap().replace("urn:hydra-eds:problem:", "!")
}

fn pending() -> Held {
    let mut held = Held::default();
    assert_eq!(said(&create(&mut held, &alice(), creation(R1))), "ok");
    held
}

fn stopped() -> Held {
    let mut held = pending();
    assert_eq!(said(&stop(&mut held, &alice(), &of(R1))), "ok");
    held
}

fn confirmed() -> Held {
    let mut held = pending();
    let outcome = confirm(&mut held, &alice(), &confirming(R1, sharing(1, 9), false));
    assert_eq!(said(&outcome), "ok");
    held
}

/// As `confirmed`, and the ACL grants `permissions` to bob.
fn granting(permissions: &str) -> Held {
    let mut held = confirmed();
    held.entry.as_mut().unwrap().record = record_with(BOB, permissions);
    held
}

fn removed() -> Held {
    let mut held = confirmed();
    assert_eq!(said(&remove(&mut held, &alice(), &of(R1))), "ok");
    held
}

fn state(held: &Held) -> State {
    held.entry.as_ref().unwrap().state
}

fn orders(held: &Held) -> Vec<(u32, State)> {
    let sharings = held.entry.as_ref().unwrap().sharings.iter();
    sharings
        .map(|stored| (stored.sharing.generation, stored.state))
        .collect()
}

#[test]
fn create_needs_a_rule_and_tells_nothing_else_without_one() {
    for mut held in [Held::default(), confirmed(), removed()] {
        let outcome = create(&mut held, &who(EVE, false), creation(R2));
        assert_eq!((said(&outcome).as_str(), outcome.denied), ("!not-allowed", true));
        assert!(outcome.effects.is_empty());
    }
}

#[test]
fn create_makes_a_pending_entry_of_the_caller_and_again_is_ok() {
    let mut held = Held::default();
    let outcome = create(&mut held, &alice(), creation(R1));
    assert_eq!(
        outcome.effects,
        [Effect::NewEntry, Effect::Sharing(sharing(1, 9).order())]
    );
    assert_eq!(
        (state(&held), held.entry.as_ref().unwrap().created),
        (State::Pending, 1_000)
    );
    let again = create(&mut held, &alice(), creation(R1));
    assert_eq!((said(&again).as_str(), again.effects.len()), ("ok", 0));
}

#[test]
fn create_where_something_is() {
    let mut held = pending();
    let outcome = create(&mut held, &who(ALICE, true), creation(R2));
    let ItemResult::Done(answer) = outcome.result else {
        panic!()
    };
    assert_eq!((answer.status, answer.registration_id), (Status::Exists, Some(R1)));
    assert_eq!((answer.state, answer.pending_seconds), (Some(State::Pending), Some(0)));

    // Another owner, another share: not the same registration, and bob may not list it.
    let mut by_bob = creation(R1);
    by_bob.permissions.owner = BOB.into();
    let ItemResult::Done(answer) = create(&mut held, &who(BOB, true), by_bob).result else {
        panic!()
    };
    assert_eq!(answer, Changed::new(Status::Exists));
    let mut other_share = creation(R1);
    other_share.share = share(2);
    assert_eq!(said(&create(&mut held, &alice(), other_share)), "exists");

    assert_eq!(said(&create(&mut removed(), &alice(), creation(R1))), "removed");
    assert_eq!(said(&create(&mut removed(), &alice(), creation(R2))), "ok");
    let mut marked = Held::default();
    stop(&mut marked, &alice(), &of(R1));
    assert_eq!(said(&create(&mut marked, &alice(), creation(R1))), "stopped");
    assert_eq!(said(&create(&mut marked, &alice(), creation(R2))), "ok");
    let full = Context {
        at_limit: true,
        ..alice()
    };
    assert_eq!(said(&create(&mut Held::default(), &full, creation(R1))), "!limit");
}

#[test]
fn create_refuses_what_breaks_the_rules() {
    type Spoil = fn(&mut Create);
    let cases: &[(&str, Spoil)] = &[
        ("segment", |c| c.key_id = KeyId::imported("/a//b").unwrap()),
        ("owner", |c| c.permissions.owner = BOB.into()),
        ("version 1", |c| c.permissions.version = 2),
        ("cipher", |c| c.cipher = "EDS-1".into()),
        ("256 key bits", |c| c.key_bits = 128),
        ("no iv", |c| c.iv = "00".into()),
        ("8 to 4096", |c| (c.cipher, c.key_bits) = ("x".into(), 12)),
        ("64 bytes", |c| (c.cipher, c.iv) = ("x".into(), "0A".into())),
        ("as long", |c| c.share.data = ShareData(SecretBytes::new(vec![0; 63]))),
        ("1 <= m <= n", |c| c.sharing.m = 0),
        ("n stores", |c| c.sharing.n = 4),
        ("twice", |c| c.sharing.stores[2] = "b".parse().unwrap()),
        ("those of the sharing", |c| c.share.m = 1),
        ("place", |c| c.share.index = 1),
        ("place", |c| c.share.index = 0),
        ("place", |c| c.share.index = 200),
        ("check value", |c| c.sharing.check = None),
        ("check value", |c| c.sharing.generation = 0),
        ("control characters", |c| c.permissions.group = "a\nb".into()),
        ("control characters", |c| c.permissions.group = String::new()),
        ("at most 3", |c| {
            c.permissions.acl = vec![record_with("x", "g").acl.remove(0); 4];
        }),
    ];
    for (words, spoil) in cases {
        let mut message = creation(R1);
        spoil(&mut message);
        let outcome = create(&mut Held::default(), &alice(), message);
        let ItemResult::Problem { problem } = outcome.result else {
            panic!("{words}")
        };
        assert!(problem.detail.as_ref().unwrap().contains(words), "{words}: {problem:?}");
    }
}

#[test]
fn imported_keys_have_generation_zero_and_no_check_value() {
    let mut message = creation(R1);
    (message.cipher, message.key_bits, message.iv) = ("aes-128-cbc".into(), 128, "00".repeat(16));
    (message.sharing.generation, message.sharing.check) = (0, None);
    message.share.scheme = Scheme::Gf65521;
    message.share.data = ShareData(SecretBytes::new(vec![5; 16]));
    assert_eq!(said(&create(&mut Held::default(), &alice(), message)), "ok");
}

#[test]
fn confirm_in_every_state() {
    let first = || sharing(1, 9);
    for force in [false, true] {
        let mut held = pending();
        assert_eq!(
            said(&confirm(&mut held, &alice(), &confirming(R1, first(), force))),
            "ok"
        );
        assert_eq!(
            (state(&held), orders(&held)),
            (State::Confirmed, vec![(1, State::Confirmed)])
        );
        let again = confirm(&mut held, &alice(), &confirming(R1, first(), force));
        assert_eq!((said(&again).as_str(), again.effects.len()), ("ok", 0));
    }
    let mut held = stopped();
    assert_eq!(
        said(&confirm(&mut held, &alice(), &confirming(R1, first(), false))),
        "stopped"
    );
    assert_eq!(
        said(&confirm(&mut held, &alice(), &confirming(R1, first(), true))),
        "ok"
    );
    assert_eq!(state(&held), State::Confirmed);
    assert_eq!(
        said(&confirm(&mut held, &alice(), &confirming(R1, sharing(1, 8), false))),
        "unknown"
    );
    assert_eq!(
        said(&confirm(&mut held, &alice(), &confirming(R2, first(), false))),
        "unknown"
    );
    assert_eq!(
        said(&confirm(&mut Held::default(), &alice(), &confirming(R1, first(), true))),
        "unknown"
    );
    assert_eq!(
        said(&confirm(&mut removed(), &alice(), &confirming(R1, first(), true))),
        "removed"
    );
}

#[test]
fn confirm_refuses_what_is_below_the_highest_confirmed() {
    let mut held = confirmed();
    put(&mut held, &alice(), putting(R1, sharing(3, 1), State::Pending));
    held.entry.as_mut().unwrap().sharings[1].state = State::Confirmed;
    held.entry.as_mut().unwrap().sharings.push(StoredSharing {
        sharing: sharing(2, 1),
        state: State::Pending,
        share: None,
    });
    assert_eq!(
        said(&confirm(&mut held, &alice(), &confirming(R1, sharing(2, 1), true))),
        "older"
    );
}

#[test]
fn stop_in_every_state() {
    let mut held = stopped();
    assert_eq!(
        (state(&held), orders(&held)),
        (State::Stopped, vec![(1, State::Pending)])
    );
    assert_eq!(said(&stop(&mut held, &alice(), &of(R1))), "ok");
    assert_eq!(said(&stop(&mut confirmed(), &alice(), &of(R1))), "confirmed");
    let mut nothing = Held::default();
    assert_eq!(stop(&mut nothing, &alice(), &of(R1)).effects, [Effect::StopMark(R1)]);
    assert!(stop(&mut nothing, &alice(), &of(R1)).effects.is_empty());
    let mut other = confirmed();
    assert_eq!(stop(&mut other, &alice(), &of(R2)).effects, [Effect::StopMark(R2)]);
    assert_eq!(state(&other), State::Confirmed);
    assert!(stop(&mut removed(), &alice(), &of(R1)).effects.is_empty());
}

#[test]
fn undo_of_the_whole_in_every_state() {
    for mut held in [pending(), stopped()] {
        assert_eq!(
            undo(&mut held, &alice(), &undoing(R1, None)).effects,
            [Effect::EntryGone(R1)]
        );
        assert!(held.entry.is_none() && held.tombstones.is_empty());
        assert_eq!(said(&undo(&mut held, &alice(), &undoing(R1, None))), "unknown");
    }
    let mut held = confirmed();
    assert_eq!(said(&undo(&mut held, &alice(), &undoing(R1, None))), "confirmed");
    assert_eq!(said(&undo(&mut held, &alice(), &undoing(R2, None))), "unknown");
    assert!(held.entry.is_some());
}

#[test]
fn undo_of_one_sharing_takes_only_a_pending_one_of_a_confirmed_entry() {
    let mut held = confirmed();
    put(&mut held, &alice(), putting(R1, sharing(2, 1), State::Pending));
    assert_eq!(
        said(&undo(&mut held, &alice(), &undoing(R1, Some(sharing(1, 9))))),
        "confirmed"
    );
    let outcome = undo(&mut held, &alice(), &undoing(R1, Some(sharing(2, 1))));
    assert_eq!(outcome.effects[0], Effect::SharingGone(sharing(2, 1).order()));
    assert_eq!(orders(&held), [(1, State::Confirmed)]);
    assert_eq!(
        said(&undo(&mut held, &alice(), &undoing(R1, Some(sharing(2, 1))))),
        "ok"
    );
    let mut held = pending();
    assert_eq!(
        said(&undo(&mut held, &alice(), &undoing(R1, Some(sharing(1, 9))))),
        "unknown"
    );
    assert_eq!(orders(&held).len(), 1);
}

#[test]
fn remove_leaves_a_tombstone_also_where_nothing_was() {
    let mut held = removed();
    assert_eq!((held.entry.is_none(), held.tombstones.len()), (true, 1));
    assert_eq!(held.tombstones[0].record, Some(record()));
    let again = remove(&mut held, &alice(), &of(R1));
    assert_eq!((said(&again).as_str(), again.effects.len()), ("ok", 0));

    let mut nothing = Held::default();
    assert_eq!(remove(&mut nothing, &alice(), &of(R1)).effects, [Effect::Tombstone(R1)]);
    let mut other = confirmed();
    let outcome = remove(&mut other, &alice(), &of(R2));
    assert_eq!(
        (said(&outcome).as_str(), outcome.effects),
        ("other", vec![Effect::Tombstone(R2)])
    );
    assert!(other.entry.is_some());
    for state in [pending(), stopped()] {
        let mut held = state;
        assert_eq!(said(&remove(&mut held, &alice(), &of(R1))), "ok");
    }
}

#[test]
fn remove_is_repeated_by_its_remover_without_a_creation_rule() {
    let mut held = granting("d");
    assert_eq!(said(&remove(&mut held, &who(BOB, false), &of(R1))), "ok");
    assert_eq!(said(&remove(&mut held, &who(BOB, false), &of(R1))), "ok");
    assert_eq!(said(&remove(&mut held, &who(EVE, false), &of(R1))), "!not-found");
}

#[test]
fn read_gives_every_sharing_and_the_removed() {
    let mut held = confirmed();
    put(&mut held, &alice(), putting(R1, sharing(2, 1), State::Pending));
    remove(&mut held, &alice(), &of(R2));
    let ItemResult::Done(answer) = read(&held, &alice()).result else {
        panic!()
    };
    let entry = answer.entry.unwrap();
    assert_eq!(entry.sharings.len(), 2);
    assert!(
        entry
            .sharings
            .iter()
            .all(|held| held.share.as_ref().unwrap().same_as(&share(1)))
    );
    assert_eq!(answer.removed, [R2]);
    held.entry.as_mut().unwrap().sharings[0].share = None;
    let ItemResult::Done(answer) = read(&held, &alice()).result else {
        panic!()
    };
    assert!(answer.entry.unwrap().sharings[0].share.is_none());
}

#[test]
fn a_restored_entry_answers_read_so_only_to_whom_it_may_concern_until_confirmed() {
    let mut held = confirmed();
    held.entry.as_mut().unwrap().restored = true;
    assert_eq!(said(&read(&held, &alice())), "!restored");
    assert_eq!(said(&read(&held, &who(EVE, false))), "!not-found");
    assert_eq!(said(&describe(&held, &alice())), "ok");
    let outcome = confirm(&mut held, &alice(), &confirming(R1, sharing(1, 9), false));
    assert_eq!(outcome.effects.len(), 2);
    assert_eq!(said(&read(&held, &alice())), "ok");
}

#[test]
fn describe_tells_all_but_the_shares() {
    let mut held = stopped();
    stop(&mut held, &alice(), &of(R2));
    let later = Context { now: 1_900, ..alice() };
    let ItemResult::Done(answer) = describe(&held, &later).result else {
        panic!()
    };
    let entry = answer.entry.unwrap();
    assert_eq!(
        (entry.pending_seconds, entry.created.as_str()),
        (Some(900), "1970-01-01T00:16:40Z")
    );
    assert!(entry.sharings[0].share.is_none());
    assert_eq!(answer.stop_marks, [R2]);
    let ItemResult::Done(answer) = describe(&removed(), &alice()).result else {
        panic!()
    };
    assert_eq!(
        (answer.entry.is_none(), answer.tombstones[0].by.as_str()),
        (true, ALICE)
    );
}

#[test]
fn put_on_a_free_key_id_brings_entry_and_record() {
    for wanted in [State::Pending, State::Confirmed] {
        let mut held = Held::default();
        stop(&mut held, &alice(), &of(R1));
        let mut message = putting(R1, sharing(2, 1), wanted);
        message.permissions.owner = BOB.into();
        message.permissions.version = 5;
        let outcome = put(&mut held, &alice(), message);
        assert_eq!(outcome.effects.last(), Some(&Effect::StopMarkGone(R1)));
        let entry = held.entry.unwrap();
        assert_eq!(
            (entry.state, entry.record.owner.as_str(), entry.placed_by.as_str()),
            (wanted, BOB, ALICE)
        );
    }
    let message = || putting(R1, sharing(2, 1), State::Confirmed);
    assert_eq!(
        said(&put(&mut Held::default(), &who(EVE, false), message())),
        "!not-found"
    );
    let full = Context {
        at_limit: true,
        ..alice()
    };
    assert_eq!(said(&put(&mut Held::default(), &full, message())), "!limit");
    let stopped = putting(R1, sharing(2, 1), State::Stopped);
    assert_eq!(said(&put(&mut Held::default(), &alice(), stopped)), "!invalid");
}

#[test]
fn put_into_an_entry() {
    let message = |generation, check, state| putting(R1, sharing(generation, check), state);
    let mut held = stopped();
    assert_eq!(said(&put(&mut held, &alice(), message(1, 9, State::Confirmed))), "ok");
    assert_eq!(
        (state(&held), orders(&held)),
        (State::Confirmed, vec![(1, State::Confirmed)])
    );
    // Another pending one gives way, a confirmed one stays.
    put(&mut held, &alice(), message(2, 1, State::Pending));
    put(&mut held, &alice(), message(2, 2, State::Pending));
    assert_eq!(orders(&held), [(1, State::Confirmed), (2, State::Pending)]);
    assert_eq!(held.entry.as_ref().unwrap().sharings[1].sharing, sharing(2, 2));
    assert_eq!(said(&put(&mut held, &alice(), message(2, 2, State::Confirmed))), "ok");
    assert_eq!(
        said(&put(&mut held, &alice(), message(1, 9, State::Confirmed))),
        "older"
    );
    assert_eq!(said(&put(&mut held, &alice(), message(3, 1, State::Confirmed))), "ok");
    assert_eq!(said(&put(&mut held, &alice(), message(4, 1, State::Confirmed))), "ok");
    assert_eq!(said(&put(&mut held, &alice(), message(5, 1, State::Confirmed))), "full");
    let other = putting(R2, sharing(5, 1), State::Confirmed);
    assert_eq!(said(&put(&mut held, &alice(), other)), "exists");
    assert_eq!(
        said(&put(&mut removed(), &alice(), message(1, 9, State::Confirmed))),
        "removed"
    );
}

#[test]
fn put_never_takes_a_confirmed_share_away() {
    let mut held = confirmed();
    let mut message = putting(R1, sharing(1, 9), State::Pending);
    message.share = share(66);
    assert_eq!(said(&put(&mut held, &alice(), message)), "ok");
    let stored = &held.entry.as_ref().unwrap().sharings[0];
    assert!(stored.state == State::Confirmed && stored.share.as_ref().unwrap().same_as(&share(1)));
    // A damaged one is replaced, and stays confirmed.
    held.entry.as_mut().unwrap().sharings[0].share = None;
    put(&mut held, &alice(), putting(R1, sharing(1, 9), State::Pending));
    let stored = &held.entry.as_ref().unwrap().sharings[0];
    assert!(stored.state == State::Confirmed && stored.share.is_some());
}

#[test]
fn put_keeps_the_pending_sharing_of_an_entry_that_is_not_confirmed_here() {
    let mut held = pending();
    put(&mut held, &alice(), putting(R1, sharing(2, 1), State::Pending));
    assert_eq!(orders(&held), [(1, State::Pending), (2, State::Pending)]);
}

#[test]
fn put_refuses_other_constants_and_a_check_value_used_twice() {
    let mut held = confirmed();
    let mut message = putting(R1, sharing(2, 1), State::Confirmed);
    message.cipher = "aes-256-cbc".into();
    assert_eq!(said(&put(&mut held, &alice(), message)), "!invalid");
    let mut message = putting(R1, sharing(1, 9), State::Confirmed);
    (message.sharing.m, message.share.m) = (3, 3);
    assert_eq!(said(&put(&mut held, &alice(), message)), "!invalid");
}

#[test]
fn drop_needs_the_sharing_above_to_be_confirmed_here() {
    let mut held = confirmed();
    put(&mut held, &alice(), putting(R1, sharing(2, 1), State::Pending));
    assert_eq!(
        said(&drop_below(&mut held, &alice(), &dropping(sharing(2, 1)))),
        "unknown"
    );
    confirm(&mut held, &alice(), &confirming(R1, sharing(2, 1), false));
    let outcome = drop_below(&mut held, &alice(), &dropping(sharing(2, 1)));
    assert_eq!(outcome.effects[0], Effect::SharingGone(sharing(1, 9).order()));
    assert_eq!(orders(&held), [(2, State::Confirmed)]);
    assert!(
        drop_below(&mut held, &alice(), &dropping(sharing(2, 1)))
            .effects
            .is_empty()
    );
    assert_eq!(
        said(&drop_below(&mut held, &alice(), &dropping(sharing(3, 1)))),
        "unknown"
    );
    assert_eq!(
        said(&drop_below(&mut Held::default(), &alice(), &dropping(sharing(2, 1)))),
        "unknown"
    );
}

#[test]
fn change_needs_the_record_that_it_names() {
    let mut next = record_with(BOB, "g");
    (next.version, next.change_id) = (2, ChangeId([8; 16]));
    let message = |if_version, permissions: &PermissionRecord| Change {
        key_id: key_id(),
        registration_id: R1,
        if_version,
        if_change_id: ChangeId([7; 16]),
        permissions: permissions.clone(),
    };
    let mut held = confirmed();
    let ItemResult::Done(answer) = change(&mut held, &alice(), message(3, &next)).result else {
        panic!()
    };
    assert_eq!((answer.status, answer.permissions), (Status::Conflict, Some(record())));
    assert_eq!(change(&mut held, &alice(), message(1, &next)).effects, [Effect::Entry]);
    let again = change(&mut held, &alice(), message(1, &next));
    assert_eq!((said(&again).as_str(), again.effects.len()), ("ok", 0));
    let other_content = PermissionRecord {
        acl: Vec::new(),
        ..next
    };
    assert_eq!(
        said(&change(&mut held, &alice(), message(1, &other_content))),
        "!invalid"
    );
    assert_eq!(
        said(&change(&mut held, &who(BOB, true), message(1, &other_content))),
        "!not-found"
    );
}

/// Changes the record of a confirmed entry into `to`, and what is said to that.
fn changing(context: &Context, from: &PermissionRecord, to: PermissionRecord) -> String {
    let mut held = confirmed();
    held.entry.as_mut().unwrap().record = from.clone();
    let message = Change {
        key_id: key_id(),
        registration_id: R1,
        if_version: from.version,
        if_change_id: from.change_id,
        permissions: PermissionRecord {
            version: from.version + 1,
            change_id: ChangeId([8; 16]),
            ..to
        },
    };
    said(&change(&mut held, context, message))
}

#[test]
fn only_the_owner_gives_an_entry_away() {
    let from = record_with(BOB, "pl");
    let bobs = PermissionRecord {
        owner: BOB.into(),
        ..from.clone()
    };
    let groups = PermissionRecord {
        group: "/other".into(),
        ..from.clone()
    };
    let bits = PermissionRecord {
        other: "g".parse().unwrap(),
        ..from.clone()
    };
    for to in [&bobs, &groups] {
        assert_eq!(changing(&alice(), &from, to.clone()), "ok");
        assert_eq!(changing(&who(BOB, false), &from, to.clone()), "!invalid");
    }
    assert_eq!(changing(&who(BOB, false), &from, bits), "ok");
    // an owner who may not change permissions may not do this either
    let powerless = PermissionRecord {
        user: "lgs".parse().unwrap(),
        ..record()
    };
    assert_eq!(changing(&alice(), &powerless, bobs), "!not-found");
}

#[test]
fn an_administrator_takes_away_and_gives_nobody_what_leads_to_the_key() {
    let administrator = |recovery| Context {
        caller: Caller {
            administrator: true,
            ..who(EVE, false).caller
        },
        recovery,
        ..who(EVE, false)
    };
    let from = record_with(BOB, "lg");
    for letters in ["p", "g", "s"] {
        let to = record_with(EVE, letters);
        assert_eq!(
            changing(&administrator(false), &from, to.clone()),
            "!invalid",
            "{letters}"
        );
        assert_eq!(changing(&administrator(true), &from, to), "ok", "{letters}");
    }
    let mine = PermissionRecord {
        owner: EVE.into(),
        ..from.clone()
    };
    assert_eq!(changing(&administrator(false), &from, mine.clone()), "!invalid");
    // an entry may be given to somebody who can remove it and nothing else
    let orphan = PermissionRecord {
        user: "dl".parse().unwrap(),
        ..mine
    };
    assert_eq!(changing(&administrator(false), &from, orphan), "ok");
    assert_eq!(changing(&administrator(false), &from, record()), "ok");
    // who holds `p` by the record is no administrator in this
    let own = record_with(EVE, "p");
    assert_eq!(changing(&administrator(false), &own, record_with(EVE, "pg")), "ok");
}

#[test]
fn a_change_asked_again_is_known_also_by_whoever_gave_the_right_to_it_away() {
    let to = PermissionRecord {
        user: "l".parse().unwrap(),
        version: 2,
        change_id: ChangeId([8; 16]),
        ..record()
    };
    let message = || Change {
        key_id: key_id(),
        registration_id: R1,
        if_version: 1,
        if_change_id: ChangeId([7; 16]),
        permissions: to.clone(),
    };
    let mut held = confirmed();
    assert_eq!(said(&change(&mut held, &alice(), message())), "ok");
    assert_eq!(said(&change(&mut held, &alice(), message())), "ok");
    // but nothing more
    let more = Change {
        if_version: 2,
        if_change_id: ChangeId([8; 16]),
        permissions: PermissionRecord { version: 3, ..record() },
        ..message()
    };
    assert_eq!(said(&change(&mut held, &alice(), more)), "!not-found");
}

/// What each operation says to `context`, as JSON, on an entry that is there and where there is none.
fn all_answers(make: fn() -> Held, context: &Context) -> Vec<String> {
    let item = OfKeyId { key_id: key_id() };
    let messages = [
        Message::Confirm(confirming(R1, sharing(1, 9), true)),
        Message::Stop(of(R1)),
        Message::Undo(undoing(R1, None)),
        Message::Undo(undoing(R1, Some(sharing(1, 9)))),
        Message::Remove(of(R1)),
        Message::Read(item.clone()),
        Message::Describe(item.clone()),
        Message::Put(putting(R1, sharing(2, 1), State::Confirmed)),
        Message::Drop(dropping(sharing(1, 9))),
        Message::Permissions(item),
        Message::Change(Change {
            key_id: key_id(),
            registration_id: R1,
            if_version: 1,
            if_change_id: ChangeId([7; 16]),
            permissions: record(),
        }),
        Message::Create(creation(R2)),
    ];
    let answer = |message| {
        let mut held = make();
        let reply = apply(&mut held, context, message);
        match reply {
            Reply::Changed(outcome) => serde_json::to_string(&outcome.result),
            Reply::Read(outcome) => serde_json::to_string(&outcome.result),
            Reply::Describe(outcome) => serde_json::to_string(&outcome.result),
            Reply::Permissions(outcome) => serde_json::to_string(&outcome.result),
        }
        .unwrap()
    };
    messages.into_iter().map(answer).collect()
}

#[test]
fn a_stranger_cannot_tell_an_entry_from_none() {
    let eve = who(EVE, false);
    let nothing = all_answers(Held::default, &eve);
    for held in [pending, stopped, confirmed, removed] {
        assert_eq!(all_answers(held, &eve), nothing);
    }
    let marked: fn() -> Held = || Held {
        stop_marks: vec![R1],
        ..Held::default()
    };
    assert_eq!(all_answers(marked, &eve), nothing);
}

#[test]
fn a_stranger_changes_nothing() {
    for context in [who(EVE, false), who(EVE, true)] {
        for message in [
            Message::Confirm(confirming(R1, sharing(1, 9), true)),
            Message::Stop(of(R1)),
            Message::Undo(undoing(R1, None)),
            Message::Remove(of(R1)),
            Message::Put(putting(R1, sharing(2, 1), State::Confirmed)),
            Message::Drop(dropping(sharing(1, 9))),
        ] {
            let mut held = stopped();
            let words = format!("{message:?}");
            let Reply::Changed(outcome) = apply(&mut held, &context, message) else {
                panic!()
            };
            assert!(outcome.denied && outcome.effects.is_empty(), "{words}: {outcome:?}");
        }
    }
}

#[test]
fn each_operation_asks_for_its_own_letter() {
    let bob = who(BOB, false);
    // The owner's rights to confirm, stop and undo come with ownership; bob needs the letters.
    type Ask = fn(&mut Held, &Context) -> String;
    let cases: &[(&str, Ask)] = &[
        ("s", |held, bob| {
            said(&confirm(held, bob, &confirming(R1, sharing(1, 9), false)))
        }),
        ("d", |held, bob| said(&stop(held, bob, &of(R1)))),
        ("d", |held, bob| said(&undo(held, bob, &undoing(R1, None)))),
        ("s", |held, bob| {
            said(&undo(held, bob, &undoing(R1, Some(sharing(2, 1)))))
        }),
        ("d", |held, bob| said(&remove(held, bob, &of(R1)))),
        ("g", |held, bob| said(&read(held, bob))),
        ("l", |held, bob| said(&describe(held, bob))),
        ("s", |held, bob| {
            said(&put(held, bob, putting(R1, sharing(2, 1), State::Pending)))
        }),
        ("s", |held, bob| said(&drop_below(held, bob, &dropping(sharing(1, 9))))),
        ("l", |held, bob| said(&permissions(held, bob))),
    ];
    for (number, (letter, ask)) in cases.iter().enumerate() {
        for other in ["p", "d", "r", "w", "l", "x", "g", "s"] {
            let answer = ask(&mut granting(other), &bob);
            let denied = matches!(answer.as_str(), "!not-found" | "unknown");
            assert_eq!(denied, other != *letter, "case {number} with `{other}`: {answer}");
        }
    }
}

#[test]
fn tombstones_show_to_the_remover_to_former_holders_and_to_creators() {
    let mut held = granting("g");
    remove(&mut held, &alice(), &of(R1));
    assert_eq!(said(&read(&held, &who(BOB, false))), "ok");
    assert_eq!(said(&describe(&held, &who(BOB, false))), "!not-found");
    assert_eq!(said(&read(&held, &who(EVE, true))), "ok");
    assert_eq!(said(&read(&held, &who(EVE, false))), "!not-found");
    assert_eq!(said(&read(&held, &who(ALICE, false))), "ok");
    let mut late = held;
    assert_eq!(
        said(&put(
            &mut late,
            &who(BOB, false),
            putting(R1, sharing(1, 9), State::Confirmed)
        )),
        "removed"
    );
}
