//! What must hold in every history, whatever happens: the invariants of `docs/src/protocol-walkthrough.md`.

use super::clients::Ended;
use super::*;

impl World {
    fn suspects(&self, since: Duration) -> usize {
        let suspect = |store: &&SimStore| store.liar || store.rolled.is_some_and(|rolled| rolled >= since);
        self.stores.iter().filter(suspect).count()
    }

    fn liars(&self) -> bool {
        self.stores.iter().any(|store| store.liar)
    }

    /// At least m stores that took a share of it are honest, up and never were restored. Where not all n confirmed it,
    /// those that did must not all be liars or restored either, or nobody knows that it was ever more than pending.
    fn sound(&self, registration: RegistrationId) -> bool {
        let Some(took) = self.took.get(&registration) else {
            return false;
        };
        let good = |place: &&Place| {
            let store = &self.stores[**place];
            !store.liar && store.up && store.rolled.is_none()
        };
        let known = self.whole.contains(&registration) || self.suspects(Duration::ZERO) < usize::from(self.m);
        let highest = self.highest_m.borrow().get(&registration).copied().unwrap_or_default();
        let m = usize::from(self.m.max(highest));
        known && took.iter().filter(good).count() >= m
    }

    pub(super) fn ended(&mut self, client: &Client, ended: Ended) {
        match ended {
            Ended::Registered(outcome) => {
                let drawn = client.drawn.borrow();
                let last = drawn.last().copied();
                let kept = matches!(outcome, Ok(_) | Err(RegisterError::Unfinished { .. }));
                let failed = drawn.iter().filter(|id| !kept || Some(**id) != last);
                self.failed.extend(failed);
                if let (Ok(registered), Some(last)) = (outcome, last) {
                    if registered.missing.is_empty() {
                        self.whole.insert(last);
                    }
                    self.registered.insert(last, self.now);
                }
            }
            Ended::Read(purpose, Ok(key)) => self.read(client, purpose, &key),
            Ended::Read(Purpose::Open(registration), Err(error)) => {
                let since = self.registered.get(&registration).is_some_and(|at| *at < client.began);
                let expected = client.reliable
                    && client.disturbed == self.disturbances
                    && since
                    && !self.removal_asked.contains(&registration)
                    && self.sound(registration);
                if expected {
                    self.violate(format!("a registered key does not open: {error}"));
                }
            }
            Ended::Reshared(Some(reshared)) => {
                let done = (reshared.generation, client.began);
                let last = self.reshared.entry(reshared.registration_id).or_insert(done);
                *last = (*last).max(done);
                self.count_old_shares();
            }
            Ended::Changed(Some(registration)) if client.who == ALICE => {
                let lets_bob = |store: &SimStore| {
                    let entry = store.held.entry.as_ref();
                    entry.is_some_and(|entry| lets(&entry.record, BOB))
                };
                // the changes of others may have come in between: what alice's came to is at the stores
                let honest = self.stores.iter().filter(|store| !store.liar);
                if !honest.into_iter().any(lets_bob) {
                    let times = (client.began, self.now);
                    self.revoked.entry((registration, BOB)).or_insert(times);
                }
            }
            Ended::Status(status) => self.judge(&status),
            Ended::Removed(Some(registration)) if client.who == ALICE => {
                let times = (client.began, self.now);
                self.removed.entry(registration).or_insert(times);
            }
            _ => {}
        }
    }

    fn read(&mut self, client: &Client, purpose: Purpose, key: &FetchedKey) {
        let registration = key.constants.registration_id;
        let right = self
            .keys
            .borrow()
            .get(&registration)
            .is_some_and(|right| right == key.key.expose());
        if !right {
            self.violate("a wrong key was accepted");
        }
        if let Purpose::Open(wanted) = purpose
            && wanted != registration
        {
            self.violate("a file was opened under another registration");
        }
        for fault in &key.faults {
            let place: usize = fault.store.parse().unwrap();
            if fault.reason == "gave a wrong share" && !self.stores[place].liar {
                self.violate("an honest store was named a liar");
            }
        }
        if let Some((began, ended)) = self.removed.get(&registration).copied()
            && ended < client.began
            && self.suspects(began) < usize::from(self.m)
        {
            self.violate("a removed key was read");
        }
        let reader = client.who;
        if reader == EVE {
            self.violate("a key was read by somebody without a right to it");
        }
        if let Some((began, ended)) = self.revoked.get(&(registration, reader)).copied()
            && ended < client.began
            && !self.granted.contains(reader)
            && self.suspects(began) < usize::from(self.m).min(self.n.div_ceil(2))
        {
            self.violate("a key was read by somebody whose permission was taken back");
        }
        if purpose == Purpose::Seal {
            self.sealed.entry(registration).or_insert(self.now);
            if self.failed.contains(&registration) && !self.liars() {
                self.violate("sealed under a registration that failed");
            }
        }
    }

    pub(super) fn last_look(&mut self) {
        let standing = self
            .registered
            .keys()
            .filter(|id| !self.removal_asked.contains(id))
            .count();
        if standing > 1 && !self.liars() && self.stores.iter().all(|store| store.rolled.is_none()) {
            self.violate("two registrations of one key id were answered");
        }
        let promised: BTreeSet<RegistrationId> = self.registered.keys().chain(self.sealed.keys()).copied().collect();
        for registration in promised {
            self.registered.entry(registration).or_insert(Duration::ZERO);
            self.start_read(ALICE, Purpose::Open(registration), true);
            self.settle();
        }
        let removed: Vec<RegistrationId> = self.removed.keys().copied().collect();
        for registration in removed {
            self.start_read(ALICE, Purpose::Open(registration), true);
            self.settle();
        }
        self.start_read(ALICE, Purpose::Seal, true);
        self.settle();
        self.start_read(EVE, Purpose::Seal, true);
        self.settle();
        self.count_old_shares();
        self.look_at_permissions();
        self.start_status();
        self.settle();
    }

    /// After a reshare fewer old shares are left than join, but at stores that came back from before.
    fn count_old_shares(&mut self) {
        let mut left = false;
        for (registration, (generation, began)) in &self.reshared {
            let mut counts: BTreeMap<(u32, Option<crate::ids::CheckValue>), (u8, u8)> = BTreeMap::new();
            let honest = |store: &&SimStore| !store.liar && store.rolled.is_none_or(|rolled| rolled < *began);
            let entries = self
                .stores
                .iter()
                .filter(honest)
                .filter_map(|store| store.held.entry.as_ref());
            let of_it = entries.filter(|entry| entry.constants.registration_id == *registration);
            for held in of_it.flat_map(|entry| &entry.sharings) {
                if held.sharing.generation < *generation {
                    counts.entry(held.sharing.order()).or_insert((0, held.sharing.m)).0 += 1;
                }
            }
            left |= counts.values().any(|(count, m)| count >= m);
        }
        if left {
            self.violate("old shares join after a reshare");
        }
    }

    /// Nobody has a permission that nobody gave; and what was taken back everywhere stays so.
    fn look_at_permissions(&mut self) {
        let mut found = Vec::new();
        for store in self.stores.iter().filter(|store| !store.liar) {
            let Some(entry) = &store.held.entry else { continue };
            if lets(&entry.record, NOBODY) {
                found.push("a permission that nobody gave");
            }
            let revoked = self.revoked.get(&(entry.constants.registration_id, BOB));
            if let Some((began, _)) = revoked
                && !self.granted.contains(BOB)
                && self.suspects(*began) <= (self.n - 1) / 2
                && store.rolled.is_none_or(|rolled| rolled < *began)
                && lets(&entry.record, BOB)
            {
                found.push("a permission that was taken back is there again");
            }
        }
        for what in found {
            self.violate(what);
        }
    }

    /// In calm weather, after repairs, with nobody lying and nothing rolled back, the status is what was promised.
    fn judge(&mut self, status: &KeyStatus) {
        let undisturbed = !self.liars() && self.stores.iter().all(|store| store.rolled.is_none());
        let whole = self.whole.iter().any(|of| !self.removal_asked.contains(of));
        let nothing = self.registered.is_empty() && self.sealed.is_empty();
        let right = match status.verdict {
            Verdict::Registered => true,
            _ if whole => false,
            Verdict::Unfinished | Verdict::Degraded => !nothing,
            _ => true,
        };
        if undisturbed && !right {
            self.violate(format!("the status of a key is {:?}", status.verdict));
        }
    }
}

fn lets(record: &PermissionRecord, who: &str) -> bool {
    record.acl.iter().any(|line| line.principal == who)
}
