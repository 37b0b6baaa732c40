//! Stores in memory: the rules of real ones, earlier states to be restored to, and what liars say instead.

use std::time::Duration;

use super::*;

/// A principal that nobody ever gave a permission, but in lies.
pub(super) const NOBODY: &str = "/CN=nobody";

pub(super) struct SimStore {
    pub(super) held: Held,
    pub(super) up: bool,
    pub(super) liar: bool,
    pub(super) snapshots: Vec<Held>,
    /// When it was last restored from an earlier state.
    pub(super) rolled: Option<Duration>,
}

pub(super) fn copy_held(held: &Held) -> Held {
    let sharing = |held: &StoredSharing| StoredSharing {
        sharing: held.sharing.clone(),
        state: held.state,
        share: held.share.as_ref().map(Share::copy),
    };
    let entry = |entry: &StoredEntry| StoredEntry {
        constants: entry.constants.clone(),
        state: entry.state,
        restored: entry.restored,
        record: entry.record.clone(),
        placed_by: entry.placed_by.clone(),
        created: entry.created,
        changed: entry.changed,
        sharings: entry.sharings.iter().map(sharing).collect(),
    };
    Held {
        entry: held.entry.as_ref().map(entry),
        tombstones: held.tombstones.clone(),
        stop_marks: held.stop_marks.clone(),
    }
}

pub(super) fn copy_create(create: &Create) -> Create {
    Create {
        key_id: create.key_id.clone(),
        registration_id: create.registration_id,
        cipher: create.cipher.clone(),
        key_bits: create.key_bits,
        iv: create.iv.clone(),
        sharing: create.sharing.clone(),
        share: create.share.copy(),
        permissions: create.permissions.clone(),
    }
}

/// As the store's rules take it; none where it is not about an entry.
pub(super) fn for_store(message: Message) -> Option<store::Message> {
    Some(match message {
        Message::About => return None,
        Message::Create(create) => store::Message::Create(*create),
        Message::Confirm(confirm) => store::Message::Confirm(confirm),
        Message::Stop(stop) => store::Message::Stop(stop),
        Message::Undo(undo) => store::Message::Undo(undo),
        Message::Remove(remove) => store::Message::Remove(remove),
        Message::Read(read) => store::Message::Read(read),
        Message::Describe(describe) => store::Message::Describe(describe),
        Message::Change(change) => store::Message::Change(*change),
        Message::Put(put) => store::Message::Put(*put),
        Message::Drop(drop) => store::Message::Drop(drop),
    })
}

/// A message that arrives twice.
pub(super) fn copy(message: &Message) -> Message {
    match message {
        Message::Create(create) => Message::Create(Box::new(copy_create(create))),
        other => other.again().unwrap(),
    }
}

pub(super) fn said(reply: Reply) -> Said {
    fn of<T>(result: ItemResult<T>, said: impl FnOnce(T) -> Said) -> Said {
        match result {
            ItemResult::Done(answer) => said(answer),
            ItemResult::Problem { problem } => Said::Problem(Box::new(problem)),
        }
    }
    match reply {
        Reply::Changed(outcome) => of(outcome.result, |answer| Said::Changed(Box::new(answer))),
        Reply::Read(outcome) => of(outcome.result, Said::Read),
        Reply::Describe(outcome) => of(outcome.result, |answer| Said::Describe(Box::new(answer))),
        Reply::Permissions(_) => unreachable!("no history asks for permissions"),
    }
}

impl World {
    pub(super) fn store_says(&mut self, place: Place, who: &str, message: Message) -> Said {
        let context = context_of(who, place, self.now.as_secs());
        let Some(message) = for_store(message) else {
            return Said::About(Box::new(About {
                store: Self::id(place),
                protocols: vec![VERSION],
                version: String::new(),
                restored: false,
                limits: Limits {
                    items: 100,
                    body_bytes: 1 << 20,
                    key_id_bytes: 400,
                    sharings: 4,
                    acl_entries: 100,
                },
            }));
        };
        let honest = said(store::apply(&mut self.stores[place].held, &context, message));
        match self.stores[place].liar {
            true => self.lie(place, honest),
            false => honest,
        }
    }

    fn lie(&mut self, place: Place, honest: Said) -> Said {
        let mode = self.random.below(9);
        match honest {
            Said::Changed(mut changed) => {
                changed.status = Status::Ok;
                Said::Changed(changed)
            }
            Said::Read(mut answer) => {
                let registration = answer.entry.as_ref().map(|entry| entry.constants.registration_id);
                match (mode, &mut answer.entry) {
                    (_, Some(entry)) if self.liars_agree => {
                        let m = self.m;
                        entry
                            .sharings
                            .iter_mut()
                            .for_each(|held| spoil_together(held, m, place));
                    }
                    (0, Some(entry)) => entry.sharings.iter_mut().for_each(spoil),
                    (1, entry) => *entry = Some(self.evil(place, registration, 1)),
                    (2, entry) => *entry = Some(self.evil(place, None, self.m)),
                    (3, entry) => *entry = None,
                    (4, _) => answer.removed.extend(registration),
                    (5, Some(entry)) => confirm_all(&mut entry.state, &mut entry.sharings),
                    (6, Some(entry)) => exaggerate(&mut entry.sharings),
                    _ => {}
                }
                Said::Read(answer)
            }
            Said::Describe(mut answer) => {
                if let (4 | 5, Some(entry)) = (mode, &answer.entry) {
                    answer.tombstones.push(Tombstone {
                        registration_id: entry.constants.registration_id,
                        by: NOBODY.into(),
                        at: "2026-01-01T00:00:00Z".into(),
                    });
                }
                let version = self.random.below(60) as u64;
                match (mode, &mut answer.entry) {
                    (0..=2, Some(entry)) => confirm_all(&mut entry.state, &mut entry.sharings),
                    (3, entry) => *entry = None,
                    (6, Some(entry)) => exaggerate(&mut entry.sharings),
                    (7, Some(entry)) => {
                        let record = &mut entry.permissions;
                        record.version = (record.version + version).saturating_sub(1).max(1);
                        record.change_id = ChangeId([0xee; 16]);
                        record.acl.push(line(NOBODY));
                    }
                    _ => {}
                }
                Said::Describe(answer)
            }
            other => other,
        }
    }

    /// An entry of a key that the liar knows, in a sharing of its own making.
    fn evil(&mut self, place: Place, registration: Option<RegistrationId>, m: u8) -> Entry {
        let constants = constants(registration.unwrap_or(RegistrationId([0xee; 16])));
        let split = sharing::split_by_r(&key_id(), &constants, 1, m, &self.ids(), &EVIL, &[0xee; 32]);
        let share = split.shares.into_iter().nth(place);
        Entry {
            constants,
            state: State::Confirmed,
            sharings: vec![HeldSharing {
                sharing: split.sharing,
                state: State::Confirmed,
                share,
            }],
        }
    }
}

fn confirm_all(entry: &mut State, sharings: &mut [HeldSharing]) {
    *entry = State::Confirmed;
    sharings.iter_mut().for_each(|held| held.state = State::Confirmed);
}

/// A generation that leaves no room above it.
fn exaggerate(sharings: &mut [HeldSharing]) {
    sharings.iter_mut().for_each(|held| held.sharing.generation = u32::MAX);
}

pub(super) fn spoil(held: &mut HeldSharing) {
    if let Some(share) = &mut held.share {
        let mut bytes = share.data.0.expose().to_vec();
        bytes[0] ^= 0x55;
        share.data = ShareData(SecretBytes::new(bytes));
    }
}

/// Wrong shares whose errors cancel at 0, and from three on at the first store too: together with honest ones they join
/// the right key on a polynomial that is not the true one.
fn spoil_together(held: &mut HeldSharing, m: u8, place: Place) {
    let x = u8::try_from(place + 1).unwrap();
    let error = match m {
        0..=2 => times(0x55, x),
        _ => times(0x55, times(x, x ^ 1)),
    };
    if let Some(share) = &mut held.share {
        let mut bytes = share.data.0.expose().to_vec();
        bytes[0] ^= error;
        share.data = ShareData(SecretBytes::new(bytes));
    }
}

/// A product in GF(2^8) with the polynomial 0x11b.
fn times(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    product
}
