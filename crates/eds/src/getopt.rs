//! Options as GNU getopt reads them for the original's commands: single letters, which may stand together and follow
//! operands; `--` ends them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// The options in order, with their values.
    pub(crate) options: Vec<(u8, Option<OsString>)>,
    /// Everything else.
    pub(crate) operands: Vec<OsString>,
}

/// Why it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// An option that there is not.
    Unknown,
    /// An option without its value.
    NoValue,
}

/// Reads `arguments`; `known` has the letters of options, those with a value followed by a colon. Reading ends at a
/// letter of `ends`, as the original does its work right there.
pub(crate) fn read(arguments: &[OsString], known: &str, ends: &str) -> Result<Read, Wrong> {
    let mut read = Read::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            read.operands.extend(rest.cloned());
            break;
        }
        let [b'-', letters @ ..] = bytes else {
            read.operands.push(argument.clone());
            continue;
        };
        if letters.is_empty() {
            read.operands.push(argument.clone());
        }
        let mut at = 0;
        while let Some(letter) = letters.get(at) {
            at += 1;
            let place = known.bytes().position(|byte| byte == *letter && byte != b':');
            let place = place.ok_or(Wrong::Unknown)?;
            let takes_value = known.as_bytes().get(place + 1) == Some(&b':');
            let attached = letters.get(at..).filter(|attached| takes_value && !attached.is_empty());
            let value = match attached {
                Some(attached) => Some(OsStr::from_bytes(attached).to_owned()),
                None if takes_value => Some(rest.next().ok_or(Wrong::NoValue)?.clone()),
                None => None,
            };
            read.options.push((*letter, value));
            if ends.bytes().any(|end| end == *letter) {
                return Ok(read);
            }
            if takes_value {
                break;
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &str) -> Result<String, Wrong> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let read = read(&words, "hqm:b:", "h")?;
        let options = read.options.iter().map(|(letter, value)| {
            let value = value
                .as_ref()
                .map_or_else(String::new, |value| value.to_string_lossy().into_owned());
            format!("{}={value}", char::from(*letter))
        });
        let operands = read
            .operands
            .iter()
            .map(|operand| operand.to_string_lossy().into_owned());
        Ok(options.chain(operands).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_stand_together_apart_and_behind_operands() {
        assert_eq!(
            told("ID -qm a:g -ma:g -b 3 - -- -q").as_deref(),
            Ok("q= m=a:g m=a:g b=3 ID - -q")
        );
        assert_eq!(told("-qhx").as_deref(), Ok("q= h="));
        assert_eq!(told("-x"), Err(Wrong::Unknown));
        assert_eq!(told("--help"), Err(Wrong::Unknown));
        assert_eq!(told("-q:"), Err(Wrong::Unknown));
        assert_eq!(told("ID -m"), Err(Wrong::NoValue));
    }
}
