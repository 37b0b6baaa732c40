//! Clients: the machines, and a client that changes permissions as the rules say.

use super::*;

/// How a client ended.
pub(super) enum Ended {
    Registered(Result<Registered, RegisterError>),
    Read(Purpose, Result<FetchedKey, FetchError>),
    Removed(Option<RegistrationId>),
    Repaired,
    Reshared(Option<Reshared>),
    /// A change of permissions that all stores took.
    Changed(Option<RegistrationId>),
    Status(KeyStatus),
}

impl Ended {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Registered(outcome) => format!("{outcome:?}"),
            Self::Read(purpose, outcome) => {
                let outcome = outcome.as_ref().map(|key| key.constants.registration_id);
                format!("{purpose:?}: {outcome:?}")
            }
            Self::Removed(registration) => format!("removed {registration:?}"),
            Self::Repaired => "repaired".into(),
            Self::Reshared(reshared) => format!("reshared {reshared:?}"),
            Self::Changed(registration) => format!("changed permissions of {registration:?}"),
            Self::Status(status) => format!("{:?}", status.verdict),
        }
    }
}

pub(super) type Sends = Vec<(RequestNo, Place, Message)>;

pub(super) trait Run {
    fn start(&mut self, to: &mut Sends) -> Option<Ended>;
    fn handle(&mut self, now: Duration, event: Event, to: &mut Sends) -> Option<Ended>;
    fn wake_at(&self) -> Option<Duration>;
}

/// A machine, and what its outcome is called.
pub(super) struct Product<M, F>(pub(super) M, pub(super) F);

fn sends(actions: Vec<Action>, to: &mut Sends) {
    for action in actions {
        if let Action::Send(request, place, message) = action {
            to.push((request, place, message));
        }
    }
}

impl<M: Machine, F: Fn(M::Outcome) -> Ended> Run for Product<M, F> {
    fn start(&mut self, to: &mut Sends) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.start(&mut actions);
        sends(actions, to);
        outcome.map(&self.1)
    }

    fn handle(&mut self, now: Duration, event: Event, to: &mut Sends) -> Option<Ended> {
        let mut actions = Vec::new();
        let outcome = self.0.handle(now, event, &mut actions);
        sends(actions, to);
        outcome.map(&self.1)
    }

    fn wake_at(&self) -> Option<Duration> {
        self.0.wake_at()
    }
}

/// Changes permissions: the record of most stores is edited, and put in place of what each of them holds.
pub(super) struct Regrant {
    pub(super) n: usize,
    pub(super) edit: fn(&mut PermissionRecord),
    pub(super) change_id: ChangeId,
    pub(super) registration: Option<RegistrationId>,
    pub(super) next: RequestNo,
    pub(super) waiting: BTreeMap<RequestNo, Place>,
    pub(super) records: BTreeMap<Place, (RegistrationId, PermissionRecord)>,
    pub(super) good: usize,
}

impl Regrant {
    fn send(&mut self, place: Place, message: Message, to: &mut Sends) {
        self.next += 1;
        self.waiting.insert(self.next, place);
        to.push((self.next, place, message));
    }

    fn change(&mut self, to: &mut Sends) -> Option<Ended> {
        let records = self.records.values().map(|(_, record)| record);
        let base = match base(self.n, records) {
            Base::Settled(base) => base.clone(),
            _ => return Some(Ended::Changed(None)),
        };
        let registrations: BTreeSet<RegistrationId> = self.records.values().map(|(of, _)| *of).collect();
        let [registration] = registrations.into_iter().collect::<Vec<_>>()[..] else {
            return Some(Ended::Changed(None));
        };
        let mut permissions = base;
        permissions.version += 1;
        permissions.change_id = self.change_id;
        (self.edit)(&mut permissions);
        self.registration = Some(registration);
        for (place, (_, held)) in std::mem::take(&mut self.records) {
            let change = Change {
                key_id: key_id(),
                registration_id: registration,
                if_version: held.version,
                if_change_id: held.change_id,
                permissions: permissions.clone(),
            };
            self.send(place, Message::Change(Box::new(change)), to);
        }
        None
    }
}

impl Run for Regrant {
    fn start(&mut self, to: &mut Sends) -> Option<Ended> {
        for place in 0..self.n {
            self.send(place, Message::Describe(OfKeyId { key_id: key_id() }), to);
        }
        None
    }

    fn handle(&mut self, _: Duration, event: Event, to: &mut Sends) -> Option<Ended> {
        let Event::Heard(request, result) = event else {
            return None;
        };
        let place = self.waiting.remove(&request)?;
        match result.map(|heard| heard.said) {
            Ok(Said::Describe(answer)) => {
                let entry = answer
                    .entry
                    .map(|entry| (entry.constants.registration_id, entry.permissions));
                self.records.extend(entry.map(|entry| (place, entry)));
            }
            Ok(Said::Changed(changed)) if changed.status == Status::Ok => self.good += 1,
            _ => {}
        }
        match (self.waiting.is_empty(), self.registration) {
            (false, _) => None,
            (true, None) => self.change(to),
            (true, done) => Some(Ended::Changed(done.filter(|_| self.good == self.n))),
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        None
    }
}
