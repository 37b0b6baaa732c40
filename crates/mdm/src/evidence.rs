//! What is known of a patient's images beside what the catalogue says, and what may go by it
//! (`docs/src/commands/mdm-images.md`). Whoever has `w` on a name can write any key id and any replica: neither is
//! believed for removing something. A key goes where recall's registry has the image under it, where it is called after
//! the image, or where it opened a copy of it. No I/O here.

use std::collections::{BTreeMap, BTreeSet};

use mdm_catalog::LogicalName;
use mdm_catalog::wire::{Entry, Value};

use crate::copies::Found;

/// The attributes after which registrations call keys.
const CALLED_AFTER: [&str; 4] = [
    "instance_uid",
    "series_uid",
    "original_instance_uid",
    "original_series_uid",
];

/// One image.
pub(crate) struct Image {
    /// As the catalogue has it.
    pub(crate) entry: Entry,
    /// The keys that recall's registry has it under.
    pub(crate) registered: BTreeSet<String>,
    /// What is where its copies are said to be, by URL.
    pub(crate) found: Vec<(String, Found)>,
}

impl Image {
    /// The copies that are sealed under a key, by URL.
    fn sealed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found.iter().filter_map(|(url, found)| match found {
            Found::Sealed(key_id) => Some((url.as_str(), key_id.as_str())),
            _ => None,
        })
    }

    fn keys(&self) -> BTreeSet<&str> {
        let named = self.entry.key_id.iter().chain(&self.registered).map(String::as_str);
        named.chain(self.sealed().map(|(_, key_id)| key_id)).collect()
    }

    fn has(&self, key_id: &str) -> bool {
        self.registered.contains(key_id) || is_called_after(key_id, &self.entry)
    }
}

/// Whether a key is called after an image or its series. No other key has such an identifier in its name.
fn is_called_after(key_id: &str, entry: &Entry) -> bool {
    CALLED_AFTER.iter().any(|name| match entry.attributes.get(*name) {
        Some(Value::Text(uid)) => is_uid(uid) && has_whole(key_id, uid),
        _ => false,
    })
}

/// Below a root that is somebody's, so that it can only be meant.
fn is_uid(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.split('.').filter(|one| !one.is_empty()).count() > 2
}

/// Whether an identifier is in a name, and is not the part of a longer one.
fn has_whole(name: &str, uid: &str) -> bool {
    name.match_indices(uid).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let mut behind = name[at + uid.len()..].chars();
        let goes_on = match behind.next() {
            Some('.') => behind.next().is_some_and(|next| next.is_ascii_digit()),
            Some(next) => next.is_ascii_digit(),
            None => false,
        };
        !goes_on && !before.is_some_and(|before| before.is_ascii_digit() || before == '.')
    })
}

/// What was found out of a key that neither registry nor name confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It opened a copy, which is the image.
    Opens,
    /// It opened what was said to be a copy, which is something else.
    OpensOther,
    /// It was removed before.
    Gone,
    /// Nothing, and why.
    Unknown(String),
}

/// A key about which something is to be found out.
pub(crate) struct Open<'a> {
    /// The key.
    pub(crate) key_id: &'a str,
    /// What is sealed under it, and the image that it is said to be a copy of.
    pub(crate) copies: Vec<(&'a str, &'a Entry)>,
}

/// The keys that neither registry nor name confirm. `never` are those that no image has.
pub(crate) fn open<'a>(images: &'a [Image], never: &BTreeSet<String>) -> Vec<Open<'a>> {
    let keys: BTreeSet<&str> = images.iter().flat_map(Image::keys).collect();
    let of_image = |image: &'a Image| image.keys().into_iter().filter(|key_id| image.has(key_id));
    let sure: BTreeSet<&str> = images.iter().flat_map(of_image).collect();
    let copies = |key_id: &str| {
        let of_image = |image: &'a Image| {
            let sealed = image.sealed().filter(move |(_, under)| *under == key_id);
            sealed.map(|(url, _)| (url, &image.entry)).collect::<Vec<_>>()
        };
        images.iter().flat_map(of_image).collect()
    };
    let unsure = keys
        .into_iter()
        .filter(|key_id| never.contains(*key_id) || !sure.contains(key_id));
    unsure
        .map(|key_id| Open {
            key_id,
            copies: copies(key_id),
        })
        .collect()
}

/// What may go, and what is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Keys that go.
    pub(crate) keys: BTreeSet<String>,
    /// Copies that go.
    pub(crate) copies: BTreeSet<String>,
    /// Names that go, by their number.
    pub(crate) names: Vec<usize>,
    /// Keys that are left, each with the name that says it.
    pub(crate) doubtful: BTreeMap<String, LogicalName>,
    /// Names that are left, and why.
    pub(crate) kept: BTreeMap<LogicalName, String>,
    /// Files that are left, and why.
    pub(crate) left: BTreeMap<String, String>,
    /// Names that go, and of whose keys there is no more to find out than that they are gone.
    pub(crate) unproven: BTreeMap<LogicalName, String>,
}

/// Something is sealed under a key, and it cannot be told whether it is a patient's image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Untold {
    /// Where it is.
    pub(crate) url: String,
    /// The key.
    pub(crate) key_id: String,
    /// Why it cannot be told.
    pub(crate) why: String,
    /// The name that it is said to be a copy of.
    pub(crate) path: LogicalName,
}

/// Judges by what was found out of the keys of [`open`].
pub(crate) fn judge(images: &[Image], proofs: &BTreeMap<String, Proof>) -> Result<Judgement, Untold> {
    let mut judgement = Judgement::default();
    for (number, image) in images.iter().enumerate() {
        judgement.add(number, image, proofs)?;
    }
    Ok(judgement)
}

impl Judgement {
    fn add(&mut self, number: usize, image: &Image, proofs: &BTreeMap<String, Proof>) -> Result<(), Untold> {
        let path = &image.entry.path;
        let is_sure = |key_id: &str| matches!(proofs.get(key_id), None | Some(Proof::Opens));
        let is_gone = |key_id: &str| proofs.get(key_id) == Some(&Proof::Gone);
        let mut is_unread = false;
        for (url, found) in &image.found {
            let why = match found {
                Found::Nothing => continue,
                Found::Unread(why) => {
                    is_unread = true;
                    format!("it could not be looked at: {why}")
                }
                Found::Other => "it is no file that is sealed under a registered key".to_owned(),
                Found::Sealed(key_id) => match proofs.get(key_id) {
                    None | Some(Proof::Opens | Proof::Gone) => {
                        self.copies.insert(url.clone());
                        continue;
                    }
                    Some(Proof::OpensOther) => format!("it is sealed under `{key_id}`, and is another image"),
                    Some(Proof::Unknown(why)) => {
                        return Err(Untold {
                            url: url.clone(),
                            key_id: key_id.clone(),
                            why: why.clone(),
                            path: path.clone(),
                        });
                    }
                },
            };
            self.left.insert(url.clone(), why);
        }
        let keys = image.keys();
        for key_id in keys.iter().copied() {
            if is_sure(key_id) {
                self.keys.insert(key_id.to_owned());
            } else if !is_gone(key_id) && image.entry.key_id.as_deref() == Some(key_id) {
                self.doubtful.insert(key_id.to_owned(), path.clone());
            }
        }
        let opens = |key_id: &str| image.has(key_id) || image.sealed().any(|(_, under)| under == key_id);
        let is_proven = keys.iter().any(|key_id| is_sure(key_id) && opens(key_id));
        if is_unread {
            let why = "a copy of it could not be looked at".to_owned();
            self.kept.insert(path.clone(), why);
        } else if is_proven || keys.is_empty() {
            self.names.push(number);
        } else if keys.iter().all(|key_id| is_gone(key_id)) {
            let gone: Vec<&str> = keys.into_iter().collect();
            self.unproven.insert(path.clone(), gone.join("`, `"));
            self.names.push(number);
        } else {
            let why = "nothing but the catalogue says which key it has".to_owned();
            self.kept.insert(path.clone(), why);
        }
        Ok(())
    }

    /// Whether something is left that was not shown to be unreadable.
    pub(crate) fn leaves_something(&self) -> bool {
        !(self.doubtful.is_empty() && self.kept.is_empty() && self.left.is_empty() && self.unproven.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: &str = "2.25.17";
    const OWN: &str = "/eds/2.25.1/2.25.17";

    fn image(path: &str, key_id: Option<&str>, found: &[(&str, Found)]) -> Image {
        let record = r#"{"owner":"/CN=a","group":"g","user":"pdrwl-gs","group_permissions":"--------",
            "other":"--------","acl":[],"version":1,"change_id":"00000000000000000000000000000000"}"#;
        let mut entry: Entry = serde_json::from_str(&format!(
            r#"{{"path":"{path}","guid":"guid:1","created_at":"2026-01-01T00:00:00Z","version":1,"kind":"file",
            "modified_at":"2026-01-02T00:00:00Z","records":{{"name":{record},"anonymous":{record}}},
            "attributes":{{"series_uid":"{SERIES}"}}}}"#
        ))
        .unwrap();
        entry.key_id = key_id.map(str::to_owned);
        Image {
            entry,
            registered: BTreeSet::new(),
            found: found
                .iter()
                .map(|(url, found)| ((*url).to_owned(), found.clone()))
                .collect(),
        }
    }

    fn sealed(key_id: &str) -> Found {
        Found::Sealed(key_id.to_owned())
    }

    fn proofs(of: &[(&str, Proof)]) -> BTreeMap<String, Proof> {
        of.iter()
            .map(|(key_id, proof)| ((*key_id).to_owned(), proof.clone()))
            .collect()
    }

    fn asked(images: &[Image]) -> Vec<(&str, usize)> {
        let open = open(images, &BTreeSet::new());
        open.into_iter().map(|one| (one.key_id, one.copies.len())).collect()
    }

    fn keys(judgement: &Judgement) -> Vec<&str> {
        judgement.keys.iter().map(String::as_str).collect()
    }

    #[test]
    fn keys_are_called_after_images_by_whole_identifiers() {
        for (name, is) in [
            (OWN, true),
            ("/eds/2.25.17.dcm.eds", true),
            ("/eds/2.25.17-new", true),
            ("/eds/2.25.171", false),
            ("/eds/2.25.17.1", false),
            ("/eds/12.25.17", false),
            ("/eds/1.2.25.17", false),
            ("/alice/thesis", false),
        ] {
            assert_eq!(has_whole(name, SERIES), is, "{name}");
        }
        assert!(is_uid("2.25.1") && !is_uid("thesis") && !is_uid("2") && !is_uid("..."));
    }

    #[test]
    fn a_key_that_is_called_after_the_image_goes_with_copies_and_name() {
        let images = [image(
            "/v/a",
            Some(OWN),
            &[("u", sealed(OWN)), ("gone", Found::Nothing)],
        )];
        assert!(asked(&images).is_empty());
        let judged = judge(&images, &BTreeMap::new()).unwrap();
        assert_eq!((keys(&judged), judged.names.clone()), (vec![OWN], vec![0]));
        assert_eq!(judged.copies.len(), 1);
        assert!(!judged.leaves_something());
    }

    #[test]
    fn a_copy_under_another_key_has_that_key_go_too_once_it_opened_the_image() {
        let images = [image("/v/a", Some(OWN), &[("u", sealed("/eds/new"))])];
        assert_eq!(asked(&images), [("/eds/new", 1)]);
        let judged = judge(&images, &proofs(&[("/eds/new", Proof::Opens)])).unwrap();
        assert_eq!(keys(&judged), [OWN, "/eds/new"]);
        assert!(!judged.leaves_something());
        let why = Proof::Unknown("not allowed".to_owned());
        let untold = judge(&images, &proofs(&[("/eds/new", why)])).unwrap_err();
        assert_eq!((untold.url.as_str(), untold.key_id.as_str()), ("u", "/eds/new"));
    }

    #[test]
    fn a_key_or_file_that_only_the_catalogue_names_stays() {
        // the key of a thesis on the name of an image, whose copy is under its own
        let images = [image(
            "/v/a",
            Some("/a/thesis"),
            &[("u", sealed(OWN)), ("x", Found::Other)],
        )];
        assert_eq!(asked(&images), [("/a/thesis", 0)]);
        let unknown = Proof::Unknown("no copy".to_owned());
        let judged = judge(&images, &proofs(&[("/a/thesis", unknown.clone())])).unwrap();
        assert_eq!((keys(&judged), judged.names.clone()), (vec![OWN], vec![0]));
        assert!(judged.doubtful.contains_key("/a/thesis") && judged.left.contains_key("x"));
        assert!(judged.leaves_something() && !judged.copies.contains("x"));
        // and the thesis itself as a copy
        let images = [image("/v/a", Some("/a/thesis"), &[("u", sealed("/a/thesis"))])];
        let judged = judge(&images, &proofs(&[("/a/thesis", Proof::OpensOther)])).unwrap();
        assert!(judged.keys.is_empty() && judged.names.is_empty() && judged.copies.is_empty());
        assert!(judged.kept.len() == 1 && judged.left.len() == 1);
        // no copy at all: its own key is not known
        let images = [image("/v/a", Some("/a/thesis"), &[])];
        let judged = judge(&images, &proofs(&[("/a/thesis", unknown)])).unwrap();
        assert!(judged.keys.is_empty() && judged.names.is_empty() && judged.kept.len() == 1);
    }

    #[test]
    fn registered_keys_go_whatever_the_catalogue_says_and_some_never_do() {
        let mut images = [image("/v/a", Some("/a/thesis"), &[])];
        images[0].registered.insert("/other/template".to_owned());
        assert_eq!(asked(&images), [("/a/thesis", 0)]);
        let unknown = Proof::Unknown("no copy".to_owned());
        let judged = judge(&images, &proofs(&[("/a/thesis", unknown)])).unwrap();
        assert_eq!(
            (keys(&judged), judged.names.clone()),
            (vec!["/other/template"], vec![0])
        );
        let never = BTreeSet::from(["/other/template".to_owned()]);
        assert_eq!(open(&images, &never).len(), 2);
    }

    #[test]
    fn what_could_not_be_looked_at_keeps_its_name_and_loses_its_key() {
        let images = [image(
            "/v/a",
            Some(OWN),
            &[("u", Found::Unread("no answer".to_owned()))],
        )];
        let judged = judge(&images, &BTreeMap::new()).unwrap();
        assert!(judged.names.is_empty() && judged.kept.len() == 1 && judged.copies.is_empty());
        assert_eq!(keys(&judged), [OWN]);
        assert!(judged.leaves_something());
    }

    #[test]
    fn what_a_run_before_left_goes_once_its_key_is_gone_and_is_told() {
        let images = [image("/v/a", Some("/eds/new"), &[("u", sealed("/eds/new"))])];
        let judged = judge(&images, &proofs(&[("/eds/new", Proof::Gone)])).unwrap();
        assert!(judged.keys.is_empty() && judged.names == [0] && judged.copies.len() == 1);
        assert!(judged.unproven.len() == 1 && judged.leaves_something());
        // nothing was ever sealed
        let judged = judge(&[image("/v/a", None, &[])], &BTreeMap::new()).unwrap();
        assert!(judged.names == [0] && !judged.leaves_something());
    }
}
