//! Which presentation contexts to propose, and what to accept: decisions, without I/O.
//!
//! An acceptor picks one transfer syntax for each context. So that a PACS can send every instance as it is stored, each
//! pair of SOP class and transfer syntax gets a context of its own, as far as the 128 of an association go (PS3.8,
//! 9.3.2.2: odd numbers in one byte); where there are too many classes, the rarer syntaxes share one.

use crate::dataset::syntax;
use crate::pdu::{Answered, Proposed, Role};
use crate::storage_classes::STORAGE_CLASSES;
use crate::uid::Uid;

/// The most contexts that one association can have.
pub const MOST: usize = 128;

/// SOP classes of services.
#[allow(missing_docs, reason = "the names are those of PS3.4")]
pub mod service {
    pub const VERIFICATION: &str = "1.2.840.10008.1.1";
    pub const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
    pub const MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
    pub const GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
}

/// Transfer syntaxes that instances may be stored in, the likely ones first. Deflated data sets are missing: their
/// identity could not be looked at as they come in, and whoever has them can send them inflated. So is what only refers
/// to pixels elsewhere (JPIP), and live video.
pub const SYNTAXES: &[&str] = &[
    syntax::EXPLICIT_LITTLE,
    syntax::IMPLICIT_LITTLE,
    // JPEG baseline, extended, lossless
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.57",
    // JPEG-LS
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    // JPEG 2000
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    // RLE
    "1.2.840.10008.1.2.5",
    syntax::EXPLICIT_BIG,
    // high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    // video: H.264, MPEG-2, H.265
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.101",
    "1.2.840.10008.1.2.4.104",
    "1.2.840.10008.1.2.4.105",
    "1.2.840.10008.1.2.4.106",
    "1.2.840.10008.1.2.4.107",
    "1.2.840.10008.1.2.4.108",
    "1.2.840.10008.1.2.4.100.1",
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106.1",
    // multi-component JPEG 2000, encapsulated uncompressed
    "1.2.840.10008.1.2.4.92",
    "1.2.840.10008.1.2.4.93",
    "1.2.840.10008.1.2.1.98",
    // retired JPEG processes, which archives are full of all the same
    "1.2.840.10008.1.2.4.52",
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.54",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.56",
    "1.2.840.10008.1.2.4.58",
    "1.2.840.10008.1.2.4.59",
    "1.2.840.10008.1.2.4.60",
    "1.2.840.10008.1.2.4.61",
    "1.2.840.10008.1.2.4.62",
    "1.2.840.10008.1.2.4.63",
    "1.2.840.10008.1.2.4.64",
    "1.2.840.10008.1.2.4.65",
    "1.2.840.10008.1.2.4.66",
];

/// An identifier that stands in this source.
pub(crate) fn known(text: &str) -> Uid {
    // every constant is checked by a test
    Uid::new(text).unwrap_or_else(|_| unreachable!("`{text}` is an identifier"))
}

/// What one association proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The contexts.
    pub contexts: Vec<Proposed>,
    /// The roles that are asked for.
    pub roles: Vec<Role>,
}

impl Proposal {
    /// To be a user of `service`, whose identifiers are in the default transfer syntax.
    pub fn of_service(service: &str) -> Self {
        let context = Proposed {
            id: 1,
            abstract_syntax: known(service),
            transfer_syntaxes: vec![known(syntax::IMPLICIT_LITTLE)],
        };
        Self {
            contexts: vec![context],
            roles: Vec::new(),
        }
    }

    /// To retrieve by C-GET: the service, and instances of `classes` coming back over the same association, in which
    /// we are the provider of storage (PS3.4, C.5.3). Without classes those that are likely.
    pub fn of_retrieval(classes: &[Uid]) -> Self {
        let mut proposal = Self::of_service(service::GET);
        let mut classes: Vec<Uid> = if classes.is_empty() {
            likely_classes()
        } else {
            classes.to_vec()
        };
        classes.sort();
        classes.dedup();
        classes.truncate(MOST - 1);
        proposal.add_classes(&classes, &SYNTAXES.iter().map(|text| known(text)).collect::<Vec<_>>());
        proposal.roles = classes
            .into_iter()
            .map(|class| Role {
                class,
                user: false,
                provider: true,
            })
            .collect();
        proposal
    }

    /// To send instances of one class as they are encoded.
    pub fn of_storage(class: &Uid, transfer_syntax: &Uid) -> Self {
        let mut proposal = Self {
            contexts: Vec::new(),
            roles: Vec::new(),
        };
        proposal.add_classes(std::slice::from_ref(class), std::slice::from_ref(transfer_syntax));
        proposal
    }

    fn add_classes(&mut self, classes: &[Uid], syntaxes: &[Uid]) {
        let each = ((MOST - self.contexts.len()) / classes.len().max(1)).clamp(1, syntaxes.len().max(1));
        for class in classes {
            let (own, shared) = syntaxes.split_at((each - 1).min(syntaxes.len()));
            let groups = own.iter().map(std::slice::from_ref).chain(std::iter::once(shared));
            for group in groups.filter(|group| !group.is_empty()) {
                let number = u8::try_from(self.contexts.len()).unwrap_or(u8::MAX);
                self.contexts.push(Proposed {
                    id: number.saturating_mul(2).saturating_add(1),
                    abstract_syntax: class.clone(),
                    transfer_syntaxes: group.to_vec(),
                });
            }
        }
    }
}

/// Classes for a PACS that does not tell which a series has, as many as there are contexts for: without what is on
/// trial or rare, and without protocols and templates, which belong to no study.
fn likely_classes() -> Vec<Uid> {
    const APART: [&str; 22] = [
        ".4.34.",
        ".4.38.",
        ".4.39.",
        ".4.43.",
        ".4.44.",
        ".4.45.",
        ".1.200.",
        ".1.201.",
        ".1.68.",
        ".1.78.",
        ".1.79.",
        ".1.80.",
        ".1.81.",
        ".1.82.",
        ".1.66.6.",
        ".1.88.74.",
        ".1.88.75.",
        ".1.88.77.",
        ".1.90.",
        ".1.91.",
        ".1.131.",
        ".1.104.",
    ];
    const OLD: [&str; 5] = ["Trial", "Standalone", "Detached", "(Retired)", "Stored Print"];
    let likely = |(uid, name): &&(&str, &str)| {
        let text = format!("{uid}.");
        // radiotherapy of the second generation, which is hardly anywhere
        let is_second_rt = text.split_once(".481.").is_some_and(|(_, rest)| rest.len() > 2);
        !is_second_rt && !OLD.iter().any(|word| name.contains(word)) && !APART.iter().any(|part| text.contains(part))
    };
    let classes = STORAGE_CLASSES.iter().filter(likely);
    classes.map(|(uid, _)| known(uid)).collect()
}

/// Whether a SOP class is one of storage. Those that came after this list, and private ones, are told by where the
/// standard puts them.
pub fn is_storage(class: &Uid) -> bool {
    let text = class.as_str();
    text.starts_with("1.2.840.10008.5.1.4.1.1.")
        || STORAGE_CLASSES.iter().any(|(uid, _)| *uid == text)
        || !text.starts_with("1.2.840.10008.")
}

/// Answers proposed contexts as a provider of storage and verification: of each the first transfer syntax that we
/// know, because requestors put that of the instance first.
pub fn accept(proposed: &[Proposed]) -> Vec<Answered> {
    let answer = |context: &Proposed| {
        let class = &context.abstract_syntax;
        let refuse = |result| Answered {
            id: context.id,
            result,
            transfer_syntax: None,
        };
        if class.as_str() != service::VERIFICATION && !is_storage(class) {
            return refuse(3);
        }
        let known = context
            .transfer_syntaxes
            .iter()
            .find(|uid| SYNTAXES.contains(&uid.as_str()));
        known.map_or(refuse(4), |uid| Answered {
            id: context.id,
            result: 0,
            transfer_syntax: Some(uid.clone()),
        })
    };
    proposed.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    #[test]
    fn every_constant_is_an_identifier() {
        for text in SYNTAXES.iter().chain(STORAGE_CLASSES.iter().map(|(uid, _)| uid)) {
            assert_eq!(known(text).as_str(), *text);
        }
        let syntaxes: BTreeSet<_> = SYNTAXES.iter().collect();
        assert_eq!(syntaxes.len(), SYNTAXES.len());
    }

    fn numbers(proposal: &Proposal) -> BTreeSet<u8> {
        proposal.contexts.iter().map(|context| context.id).collect()
    }

    #[test]
    fn a_series_of_one_class_can_come_in_every_syntax() {
        let proposal = Proposal::of_retrieval(&[known(CT)]);
        assert_eq!(proposal.contexts.len(), 1 + SYNTAXES.len());
        assert!(
            proposal
                .contexts
                .iter()
                .all(|context| context.transfer_syntaxes.len() == 1)
        );
        assert_eq!(numbers(&proposal).len(), proposal.contexts.len());
        assert!(proposal.contexts.iter().all(|context| context.id % 2 == 1));
        assert_eq!(proposal.roles.len(), 1);
        assert!(proposal.roles[0].provider && !proposal.roles[0].user);
    }

    #[test]
    fn however_many_classes_there_are_all_syntaxes_are_proposed_within_the_limit() {
        for count in [2, 3, 10, 63, 64, 126, 127] {
            let classes: Vec<Uid> = STORAGE_CLASSES.iter().take(count).map(|(uid, _)| known(uid)).collect();
            let proposal = Proposal::of_retrieval(&classes);
            assert!(proposal.contexts.len() <= MOST, "{count}: {}", proposal.contexts.len());
            assert_eq!(numbers(&proposal).len(), proposal.contexts.len());
            for class in &classes {
                let own = proposal
                    .contexts
                    .iter()
                    .filter(|context| context.abstract_syntax == *class);
                let syntaxes: usize = own.map(|context| context.transfer_syntaxes.len()).sum();
                assert_eq!(syntaxes, SYNTAXES.len(), "{count}: {class}");
            }
        }
    }

    #[test]
    fn without_known_classes_the_likely_ones_are_proposed() {
        let proposal = Proposal::of_retrieval(&[]);
        assert!(proposal.contexts.len() <= MOST && proposal.contexts.len() > likely_classes().len());
        assert!(
            (100..MOST).contains(&likely_classes().len()),
            "{}",
            likely_classes().len()
        );
        for class in [
            CT,
            "1.2.840.10008.5.1.4.1.1.4",
            "1.2.840.10008.5.1.4.1.1.481.3",
            "1.2.840.10008.5.1.4.1.1.128",
        ] {
            assert!(proposal.roles.iter().any(|role| role.class == known(class)), "{class}");
        }
    }

    #[test]
    fn a_receiver_takes_storage_in_the_first_syntax_that_it_knows() {
        let proposed = |id, class: &str, syntaxes: &[&str]| Proposed {
            id,
            abstract_syntax: known(class),
            transfer_syntaxes: syntaxes.iter().map(|text| known(text)).collect(),
        };
        let answers = accept(&[
            proposed(
                1,
                CT,
                &[syntax::DEFLATED, "1.2.840.10008.1.2.4.90", syntax::IMPLICIT_LITTLE],
            ),
            proposed(3, CT, &[syntax::DEFLATED]),
            proposed(5, service::FIND, &[syntax::IMPLICIT_LITTLE]),
            proposed(7, service::VERIFICATION, &[syntax::IMPLICIT_LITTLE]),
            proposed(9, "1.3.12.2.1107.5.9.1", &[syntax::EXPLICIT_LITTLE]),
        ]);
        let results: Vec<u8> = answers.iter().map(|answer| answer.result).collect();
        assert_eq!(results, [0, 4, 3, 0, 0]);
        assert_eq!(answers[0].transfer_syntax, Some(known("1.2.840.10008.1.2.4.90")));
    }
}
