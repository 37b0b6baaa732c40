//! The preamble and group 0002 (PS3.10, section 7.1): read for what the data set is, and written anew.

use crate::element::{Coding, Element, Tag, Vr, ascii};
use crate::read::{Budget, Parser, Source};
use crate::refusal::Refusal;

const PREAMBLE: usize = 128;
const MARK: &[u8; 4] = b"DICM";
const SOP_CLASS: Tag = Tag(0x0002, 0x0002);
const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const DICOMDIR: &str = "1.2.840.10008.1.3.10";

/// Who wrote the file (PS3.7, D.3.3.2): a UID of ours, and a name of at most 16 characters.
const IMPLEMENTATION: &str = "2.25.246815327770641263217385040711437203921";
const IMPLEMENTATION_NAME: &str = "HYDRA_DEID_1";

/// Reads preamble and group 0002; answers the transfer syntax's UID.
pub(crate) fn read(source: &mut Source<'_>, budget: &mut Budget) -> Result<String, Refusal> {
    let mut start = [0; PREAMBLE + MARK.len()];
    if source.fill(&mut start)? < start.len() || !start.ends_with(MARK) {
        return Err(Refusal::NotDicom {
            what: "no `DICM` after 128 bytes",
        });
    }
    let elements = group(source, budget)?;
    if ascii(&elements, SOP_CLASS).is_some_and(|class| class == DICOMDIR) {
        return Err(Refusal::Dicomdir);
    }
    ascii(&elements, TRANSFER_SYNTAX).ok_or(Refusal::NotDicom {
        what: "no transfer syntax",
    })
}

/// The elements of group 0002, which are in explicit little endian whatever the data set is in. Their declared length
/// is not believed.
fn group(source: &mut Source<'_>, budget: &mut Budget) -> Result<Vec<Element>, Refusal> {
    let mut elements = Vec::new();
    loop {
        let mut tag = [0; 2];
        let count = source.fill(&mut tag)?;
        source.give_back(&tag[..count]);
        if count < 2 || tag != [2, 0] {
            return Ok(elements);
        }
        let mut parser = Parser::new(source, Coding::EXPLICIT, budget);
        let Some(head) = parser.head()? else {
            return Ok(elements);
        };
        elements.push(parser.meta_element(head)?);
    }
}

/// A new preamble and group 0002.
pub(crate) fn write(sop_class: &str, sop: &str, transfer_syntax: &str) -> Vec<u8> {
    let elements = [
        Element::new(Tag(2, 1), Vr::OB, [0, 1]),
        Element::new(SOP_CLASS, Vr::UI, sop_class),
        Element::new(Tag(2, 3), Vr::UI, sop),
        Element::new(TRANSFER_SYNTAX, Vr::UI, transfer_syntax),
        Element::new(Tag(2, 0x12), Vr::UI, IMPLEMENTATION),
        Element::new(Tag(2, 0x13), Vr::SH, IMPLEMENTATION_NAME),
    ];
    let mut group = Vec::new();
    elements
        .iter()
        .for_each(|element| element.write(&mut group, Coding::EXPLICIT));
    let length = u32::try_from(group.len()).unwrap_or(0);
    let mut out = vec![0; PREAMBLE];
    out.extend_from_slice(MARK);
    Element::new(Tag(2, 0), Vr::UL, length.to_le_bytes()).write(&mut out, Coding::EXPLICIT);
    out.append(&mut group);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Limits;

    #[test]
    fn what_is_written_reads_back() {
        let file = write("1.2.840.10008.5.1.4.1.1.2", "2.25.1", "1.2.840.10008.1.2.1");
        let mut rest = file.as_slice();
        let mut source = Source::new(&mut rest, 0);
        let syntax = read(&mut source, &mut Budget::new(Limits::default())).unwrap();
        assert_eq!(syntax, "1.2.840.10008.1.2.1");
        assert!(rest.is_empty());
        // the length of the group is what follows it
        let length = u32::from_le_bytes(file[140..144].try_into().unwrap());
        assert_eq!(length as usize, file.len() - 144);
    }
}
