//! Options of the `lcg-*` commands: short and long ones, anywhere among the operands. No I/O.

use std::collections::BTreeMap;

/// An option: its letter, its long name, and whether it has a value.
pub(super) type Known = (Option<char>, &'static str, bool);

/// What every command takes. Most of it was about services that are asked no longer: it is read and has no effect.
pub(super) const COMMON: &[Known] = &[
    (Some('h'), "help", false),
    (Some('V'), "version", false),
    (Some('v'), "verbose", false),
    (Some('b'), "nobdii", false),
    (Some('D'), "defaultsetype", true),
    (Some('T'), "setype", true),
    (Some('t'), "timeout", true),
    (None, "vo", true),
    (None, "connect-timeout", true),
    (None, "sendreceive-timeout", true),
    (None, "bdii-timeout", true),
    (None, "srm-timeout", true),
    (Some('n'), "nbstreams", true),
    (Some('i'), "insecure", false),
];

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    options: BTreeMap<&'static str, String>,
    /// Everything else.
    pub(super) operands: Vec<String>,
}

impl Line {
    /// Whether an option is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// The value of an option; the last one, where it is there twice.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Reads `words`, which know the options of `own` beside the common ones.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub(super) fn read(words: &[String], own: &[Known]) -> Result<Self, String> {
        let known = |is: &dyn Fn(&Known) -> bool| own.iter().chain(COMMON).find(|one| is(one)).copied();
        let mut line = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let mut value = |name: &str| {
                rest.next()
                    .cloned()
                    .ok_or_else(|| format!("option {name} has no value"))
            };
            if word == "--" {
                line.operands.extend(rest.cloned());
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, attached) = long
                    .split_once('=')
                    .map_or((long, None), |(name, value)| (name, Some(value)));
                let found = known(&|one| one.1 == name).ok_or_else(|| format!("there is no option --{name}"))?;
                let given = match (found.2, attached) {
                    (true, Some(attached)) => attached.to_owned(),
                    (true, None) => value(word)?,
                    (false, None) => String::new(),
                    (false, Some(_)) => return Err(format!("option --{name} takes no value")),
                };
                line.options.insert(found.1, given);
            } else if word.starts_with('-') && word.len() > 1 {
                for (at, letter) in word.char_indices().skip(1) {
                    let found = known(&|one| one.0 == Some(letter));
                    let found = found.ok_or_else(|| format!("there is no option -{letter}"))?;
                    if !found.2 {
                        line.options.insert(found.1, String::new());
                        continue;
                    }
                    let attached = &word[at + letter.len_utf8()..];
                    let given = if attached.is_empty() {
                        value(word)?
                    } else {
                        attached.to_owned()
                    };
                    line.options.insert(found.1, given);
                    break;
                }
            } else {
                line.operands.push(word.clone());
            }
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Line, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        Line::read(&words, &[(Some('d'), "dest", true), (Some('a'), "all", false)])
    }

    #[test]
    fn options_stand_anywhere_in_every_form() {
        let line = read("x -vb --vo myvo -dse --timeout=5 -t 6 y -- -a").unwrap();
        assert_eq!(line.operands, ["x", "y", "-a"]);
        assert!(line.has("verbose") && line.has("nobdii") && !line.has("all"));
        let values = ["vo", "dest", "timeout"].map(|name| line.value(name).unwrap().to_owned());
        assert_eq!(values, ["myvo", "se", "6"]);
        assert_eq!(read("-ad se").unwrap().value("dest"), Some("se"));
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for wrong in ["-q", "--quiet", "x -d", "--vo", "--verbose=1", "-vz"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
