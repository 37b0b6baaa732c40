//! Reshares: every store gets a share of a new sharing, and only then the old ones go.

use super::*;
use crate::keystore::outcome::ReshareError;
use crate::keystore::quorum::Retire;

type Resharing = Result<Reshared, ReshareError>;

fn split_again(new: &NewSharing<'_>) -> Result<Split, LocalError> {
    let r = [100 + u8::try_from(new.generation).unwrap(); 32];
    let (m, generation) = (new.m, new.generation);
    Ok(sharing::split_by_r(
        &key_id(),
        new.constants,
        generation,
        m,
        new.stores,
        new.key.expose(),
        &r,
    ))
}

fn leaving(store: &str) -> ReshareOptions {
    ReshareOptions {
        leave: vec![store.to_owned()],
        ..ReshareOptions::default()
    }
}

impl Ground {
    fn reshare_with(
        &mut self,
        options: ReshareOptions,
        fate: impl FnMut(&mut Self, Place, &Message) -> Fate,
    ) -> Option<Resharing> {
        let mut machine =
            Reshare::new(self.names(), TOTAL, key_id(), self.m, options, split_again).without(self.rule());
        self.run(&mut machine, fate)
    }

    fn retire(&mut self, place: Place) -> Result<RegistrationId, ReshareError> {
        let mut machine = Retire::new(self.names(), TOTAL, key_id(), self.m, place);
        self.run(&mut machine, arrives).unwrap()
    }

    /// Generations of the sharings that a store holds.
    fn generations(&self, place: Place) -> Vec<u32> {
        let entry = self.held[place].entry.as_ref();
        let sharings = entry.into_iter().flat_map(|entry| &entry.sharings);
        sharings.map(|held| held.sharing.generation).collect()
    }
}

/// One of three stores does not take its new share; one of the others is down later.
pub(super) fn reshare_all(mut ground: Ground) -> Option<&'static str> {
    ground.registered(FIRST);
    let fate = |_: &mut Ground, place, message: &Message| match message {
        Message::Put(_) if place == 2 => Fate::Lost,
        _ => Fate::Arrives,
    };
    let refused = ground.reshare_with(ReshareOptions::default(), fate).unwrap();
    assert!(refused.is_err());
    breach(
        (0..3).any(|place| ground.generations(place) != [1]),
        "a reshare that failed left something behind",
    )
}

#[test]
fn a_reshare_gives_every_store_a_new_share_and_leaves_no_old_one() {
    let mut ground = Ground::new(4, 2, None);
    ground.registered(FIRST);
    let old: Vec<Share> = (0..4)
        .map(|place| {
            ground.held[place].entry.as_ref().unwrap().sharings[0]
                .share
                .as_ref()
                .unwrap()
                .copy()
        })
        .collect();
    let options = ReshareOptions {
        threshold: Some(3),
        ..ReshareOptions::default()
    };
    let reshared = ground.reshare_with(options, arrives).unwrap().unwrap();
    assert_eq!((reshared.generation, reshared.m, reshared.was_verified), (2, 3, true));
    assert_eq!(reshared.stores, ["0", "1", "2", "3"]);
    assert!(reshared.left.is_empty());
    for (place, old) in old.iter().enumerate() {
        assert_eq!(ground.generations(place), [2]);
        let new = ground.held[place].entry.as_ref().unwrap().sharings[0]
            .share
            .as_ref()
            .unwrap();
        assert!(!new.same_as(old));
    }
    ground.up[0] = false;
    assert!(ground.opens(FIRST));
    ground.up[1] = false;
    assert!(!ground.opens(FIRST), "two shares join where three are needed");
}

#[test]
fn a_reshare_that_dies_or_is_refused_anywhere_loses_nothing_and_can_be_run_again() {
    // Every message in turn is the last that the client sends, then every one in turn is lost.
    for dies in [true, false] {
        for last in 0.. {
            let mut ground = Ground::new(3, 2, None);
            ground.registered(FIRST);
            let mut sent = 0;
            let fate = |_: &mut Ground, _: Place, _: &Message| {
                sent += 1;
                match (sent - 1 == last, dies) {
                    (true, true) => Fate::ClientDies,
                    (true, false) => Fate::Lost,
                    _ => Fate::Arrives,
                }
            };
            let _ = ground.reshare_with(ReshareOptions::default(), fate);
            let reached = sent > last;
            for down in 0..3 {
                ground.up = (0..3).map(|place| place != down).collect();
                assert!(ground.opens(FIRST), "message {last}, store {down} down");
            }
            ground.up = vec![true; 3];
            let report = ground.repair(false, arrives).unwrap();
            assert!(report.whole, "message {last}: {report:?}");
            let again = ground.reshare_with(ReshareOptions::default(), arrives).unwrap();
            let generation = again.unwrap().generation;
            assert!((0..3).all(|place| ground.generations(place) == [generation]));
            assert!(ground.opens(FIRST));
            if !reached {
                assert!(last > 10);
                break;
            }
        }
    }
}

#[test]
fn a_store_joins_by_a_reshare_and_another_leaves() {
    let mut ground = Ground::new(4, 2, None);
    // the fourth store is new
    let ids: Vec<StoreId> = (0..3).map(World::id).collect();
    let split = sharing::split_by_r(&key_id(), &constants(FIRST), 1, 2, &ids, &key_of(FIRST), &[7; 32]);
    for (place, create) in dealt(FIRST, split).creates.into_iter().enumerate() {
        ground.tell(place, ToStore::Create(create));
        ground.confirm_first(place);
    }
    assert!(ground.repair(false, arrives).unwrap().whole);
    let reshared = ground.reshare_with(leaving("0"), arrives).unwrap().unwrap();
    assert_eq!(reshared.stores, ["1", "2", "3"]);
    assert_eq!(reshared.left, ["0"]);
    assert_eq!(ground.generations(0), [1]);
    assert!((1..4).all(|place| ground.generations(place) == [2]));
    // It can be deleted there, but nowhere else.
    assert!(matches!(ground.retire(1), Err(ReshareError::NotReady { .. })));
    assert_eq!(ground.retire(0).unwrap(), FIRST);
    assert!(ground.generations(0).is_empty());
    ground.up[1] = false;
    assert!(ground.opens(FIRST));
}

#[test]
fn a_newcomer_that_refuses_leaves_nothing_behind() {
    let mut ground = Ground::new(3, 2, None);
    ground.registered(FIRST);
    ground.held.push(Held::default());
    ground.up.push(true);
    let fate = |_: &mut Ground, place, message: &Message| match message {
        Message::Put(_) if place == 0 => Fate::Lost,
        _ => Fate::Arrives,
    };
    let refused = ground.reshare_with(ReshareOptions::default(), fate).unwrap();
    assert!(
        matches!(refused, Err(ReshareError::Refused { denied: false, .. })),
        "{refused:?}"
    );
    assert!(ground.held[3].entry.is_none());
    assert!((0..3).all(|place| ground.generations(place) == [1]));
}

#[test]
fn a_reshare_waits_for_every_store_and_for_a_repair() {
    let mut ground = Ground::new(3, 2, None);
    assert!(ground.register(FIRST, false, dies_at_confirm(2)).is_none());
    let pending = ground.reshare_with(ReshareOptions::default(), arrives).unwrap();
    assert!(matches!(pending, Err(ReshareError::NotReady { .. })), "{pending:?}");
    assert!(ground.repair(false, arrives).unwrap().whole);
    ground.up[1] = false;
    let down = ground.reshare_with(ReshareOptions::default(), arrives).unwrap();
    assert!(matches!(down, Err(ReshareError::NotReady { .. })), "{down:?}");
    ground.up[1] = true;
    let low = ReshareOptions {
        threshold: Some(1),
        ..ReshareOptions::default()
    };
    assert!(matches!(
        ground.reshare_with(low, arrives).unwrap(),
        Err(ReshareError::Local(_))
    ));
    assert!((0..3).all(|place| ground.generations(place) == [1]));
}
