//! Writes one CT slice of an invented patient: a file as DICOM PS3.10 has it, explicit VR little endian.
//!
//! Not a DICOM library: it knows the elements that a valid CT image needs (PS3.3, A.3) and draws a phantom for pixels.

/// Rows and columns of the slice, as most scanners make them.
const SIZE: u16 = 512;
/// Stored values are Hounsfield units plus this, so that air needs no sign.
const OFFSET: i32 = 1024;

/// Whose image it is said to be; nobody's.
pub struct Patient {
    /// Family name, caret, given name.
    pub name: &'static str,
    /// The hospital's number for the patient.
    pub id: &'static str,
    /// Year, month, day without separators.
    pub born: &'static str,
    /// Where the image is said to be from.
    pub institution: &'static str,
}

/// The patient of the demo.
pub const INVENTED: Patient = Patient {
    name: "Feldmann^Rosalind",
    id: "KH-0047-1961",
    born: "19610228",
    institution: "St. Nowhere's Hospital",
};

/// A study of two series with two slices and one. Its identifier is `2.25.` and the number, and those of series and
/// images begin with the number, too.
pub fn ct_study(patient: &Patient, number: u128) -> Vec<Vec<u8>> {
    let slice = |(series, image)| ct_slice(patient, [number, number * 100 + series, number * 1000 + image, 9]);
    [(11, 101), (11, 102), (12, 103)].map(slice).to_vec()
}

/// The bytes of one slice. The numbers make its unique identifiers (study, series, image, frame of reference).
pub fn ct_slice(patient: &Patient, numbers: [u128; 4]) -> Vec<u8> {
    const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
    const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
    // A UUID as a decimal number under 2.25 is a unique identifier without a registration (PS3.5, B.2).
    let [study, series, image, frame] = numbers.map(|number| format!("2.25.{number}"));

    let mut meta = Elements::default();
    meta.long(0x0002, 0x0001, b"OB", &[0, 1]);
    meta.text(0x0002, 0x0002, b"UI", CT_IMAGE);
    meta.text(0x0002, 0x0003, b"UI", &image);
    meta.text(0x0002, 0x0010, b"UI", EXPLICIT_LITTLE_ENDIAN);
    meta.text(0x0002, 0x0012, b"UI", "2.25.302948012374650123987465019283746501");
    meta.text(0x0002, 0x0013, b"SH", "HYDRA-EDS-DEMO");

    let mut data = Elements::default();
    data.text(0x0008, 0x0005, b"CS", "ISO_IR 100");
    data.text(0x0008, 0x0008, b"CS", r"ORIGINAL\PRIMARY\AXIAL");
    data.text(0x0008, 0x0016, b"UI", CT_IMAGE);
    data.text(0x0008, 0x0018, b"UI", &image);
    data.text(0x0008, 0x0020, b"DA", "20260301");
    data.text(0x0008, 0x0023, b"DA", "20260301");
    data.text(0x0008, 0x0030, b"TM", "101500");
    data.text(0x0008, 0x0033, b"TM", "101742");
    data.text(0x0008, 0x0050, b"SH", "A-2026-0311");
    data.text(0x0008, 0x0060, b"CS", "CT");
    data.text(0x0008, 0x0070, b"LO", "Nobody");
    data.text(0x0008, 0x0080, b"LO", patient.institution);
    data.text(0x0008, 0x0090, b"PN", "Ohnesorg^Theo");
    data.text(0x0008, 0x1030, b"LO", "Thorax");
    data.text(0x0010, 0x0010, b"PN", patient.name);
    data.text(0x0010, 0x0020, b"LO", patient.id);
    data.text(0x0010, 0x0030, b"DA", patient.born);
    data.text(0x0010, 0x0040, b"CS", "F");
    // A part of the body that is no pair, else the side would have to be told.
    data.text(0x0018, 0x0015, b"CS", "CHEST");
    data.text(0x0018, 0x0050, b"DS", "1.5");
    data.text(0x0018, 0x0060, b"DS", "120");
    data.text(0x0018, 0x5100, b"CS", "HFS");
    data.text(0x0020, 0x000d, b"UI", &study);
    data.text(0x0020, 0x000e, b"UI", &series);
    data.text(0x0020, 0x0010, b"SH", "1");
    data.text(0x0020, 0x0011, b"IS", "1");
    data.text(0x0020, 0x0012, b"IS", "1");
    data.text(0x0020, 0x0013, b"IS", "47");
    data.text(0x0020, 0x0032, b"DS", r"-175.0\-175.0\-62.5");
    data.text(0x0020, 0x0037, b"DS", r"1\0\0\0\1\0");
    data.text(0x0020, 0x0052, b"UI", &frame);
    data.text(0x0020, 0x1040, b"LO", "");
    data.number(0x0028, 0x0002, 1);
    data.text(0x0028, 0x0004, b"CS", "MONOCHROME2");
    data.number(0x0028, 0x0010, SIZE);
    data.number(0x0028, 0x0011, SIZE);
    data.text(0x0028, 0x0030, b"DS", r"0.68359375\0.68359375");
    data.number(0x0028, 0x0100, 16);
    data.number(0x0028, 0x0101, 12);
    data.number(0x0028, 0x0102, 11);
    data.number(0x0028, 0x0103, 0);
    data.text(0x0028, 0x1050, b"DS", "40");
    data.text(0x0028, 0x1051, b"DS", "400");
    data.text(0x0028, 0x1052, b"DS", "-1024");
    data.text(0x0028, 0x1053, b"DS", "1");
    data.text(0x0028, 0x1054, b"LO", "HU");
    data.long(0x7fe0, 0x0010, b"OW", &phantom());

    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    let mut length = Elements::default();
    let meta_length = u32::try_from(meta.bytes.len()).unwrap_or(u32::MAX);
    length.short(0x0002, 0x0000, b"UL", &meta_length.to_le_bytes());
    file.extend(length.bytes);
    file.extend(meta.bytes);
    file.extend(data.bytes);
    file
}

/// Elements one after the other, in the order in which they are added: by tag, as the standard wants them.
#[derive(Default)]
struct Elements {
    bytes: Vec<u8>,
}

impl Elements {
    fn tag(&mut self, group: u16, element: u16, representation: &[u8; 2]) {
        self.bytes.extend(group.to_le_bytes());
        self.bytes.extend(element.to_le_bytes());
        self.bytes.extend(representation);
    }

    fn text(&mut self, group: u16, element: u16, representation: &[u8; 2], value: &str) {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(if representation == b"UI" { 0 } else { b' ' });
        }
        self.short(group, element, representation, &value);
    }

    fn number(&mut self, group: u16, element: u16, value: u16) {
        self.short(group, element, b"US", &value.to_le_bytes());
    }

    fn short(&mut self, group: u16, element: u16, representation: &[u8; 2], value: &[u8]) {
        self.tag(group, element, representation);
        self.bytes
            .extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.bytes.extend(value);
    }

    /// Bytes and words have two bytes of nothing and a length of four.
    fn long(&mut self, group: u16, element: u16, representation: &[u8; 2], value: &[u8]) {
        self.tag(group, element, representation);
        self.bytes.extend([0, 0]);
        self.bytes
            .extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend(value);
    }
}

/// A chest as a child would draw it: body, two lungs, heart, spine, and a nodule that somebody should look at.
fn phantom() -> Vec<u8> {
    // Centre, half axes (in pixels), Hounsfield units; later ones lie over earlier ones.
    const ORGANS: &[([f32; 2], [f32; 2], i32)] = &[
        ([256.0, 262.0], [214.0, 150.0], -90),
        ([256.0, 262.0], [200.0, 136.0], 45),
        ([160.0, 252.0], [78.0, 104.0], -820),
        ([352.0, 252.0], [78.0, 104.0], -820),
        ([278.0, 232.0], [62.0, 54.0], 60),
        ([256.0, 358.0], [26.0, 22.0], 420),
        ([256.0, 358.0], [12.0, 10.0], 30),
        ([132.0, 214.0], [7.0, 6.0], 35),
    ];
    let mut noise: u32 = 0x2545_f491;
    let mut pixels = Vec::with_capacity(usize::from(SIZE) * usize::from(SIZE) * 2);
    for y in 0..SIZE {
        for x in 0..SIZE {
            let inside = |centre: &[f32; 2], half: &[f32; 2]| {
                let across = (f32::from(x) - centre[0]) / half[0];
                let down = (f32::from(y) - centre[1]) / half[1];
                across * across + down * down <= 1.0
            };
            let organ = ORGANS.iter().rev().find(|(centre, half, _)| inside(centre, half));
            let units = organ.map_or(-1000, |organ| organ.2);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = i32::try_from(noise >> 27).unwrap_or(0) - 16;
            let stored = u16::try_from((units + grain + OFFSET).clamp(0, 4095)).unwrap_or(0);
            pixels.extend(stored.to_le_bytes());
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over the elements as a reader does: tag, representation, length, value.
    fn walk(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let group = u16::from_le_bytes([bytes[0], bytes[1]]);
            let element = u16::from_le_bytes([bytes[2], bytes[3]]);
            let (length, start) = if matches!(&bytes[4..6], b"OB" | b"OW") {
                (
                    u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize,
                    12,
                )
            } else {
                (usize::from(u16::from_le_bytes([bytes[6], bytes[7]])), 8)
            };
            found.push((
                u32::from(group) << 16 | u32::from(element),
                bytes[start..start + length].to_vec(),
            ));
            bytes = &bytes[start + length..];
        }
        found
    }

    #[test]
    fn the_slice_reads_back_element_by_element_in_order() {
        let file = ct_slice(&INVENTED, [1, 2, 3, u128::MAX]);
        assert_eq!(&file[128..132], b"DICM");
        let elements = walk(&file[132..]);
        assert!(elements.windows(2).all(|pair| pair[0].0 < pair[1].0), "tags ascend");
        assert!(
            elements.iter().all(|(_, value)| value.len() % 2 == 0),
            "values have even lengths"
        );
        let value = |tag: u32| {
            elements
                .iter()
                .find(|(t, _)| *t == tag)
                .map(|(_, value)| value.clone())
                .unwrap()
        };
        let meta: usize = elements
            .iter()
            .filter(|(tag, _)| tag >> 16 == 2)
            .map(|(_, value)| value.len() + 8)
            .sum();
        // The group's length counts what follows it; its own element is 12 bytes, and the OB one has 4 bytes more.
        assert_eq!(value(0x0002_0000), u32::try_from(meta - 12 + 4).unwrap().to_le_bytes());
        assert_eq!(value(0x0010_0010), b"Feldmann^Rosalind ");
        assert_eq!(value(0x7fe0_0010).len(), 512 * 512 * 2);
        assert!(
            String::from_utf8(value(0x0020_0052))
                .unwrap()
                .trim_end_matches('\0')
                .len()
                <= 64
        );
    }
}
