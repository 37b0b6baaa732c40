//! What is refused, or flagged for a person, before anything is done (PS3.15, E.1.1, E.3.1 and E.3.2).

use crate::element::{Element, Tag, Value, ascii, find};
use crate::iod::Iod;
use crate::options::{Options, ProfileOption};
use crate::refusal::{Flag, Refusal};
use crate::syntax::{Pixels, Syntax};

const ENCAPSULATED: &str = "1.2.840.10008.5.1.4.1.1.104.";
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STRUCTURED: &str = "1.2.840.10008.5.1.4.1.1.88.";

/// Modalities whose pixels often have text burned in: ultrasound, photographs, endoscopes, captured screens, scanned
/// film.
const RISKY: &[&str] = &["ES", "GM", "HC", "IVUS", "OT", "SC", "SM_SCREEN", "US", "XC"];
/// The same by SOP class, for objects that do not tell their modality.
const RISKY_IODS: &[&str] = &["enhanced-us", "op", "us", "us-multi", "vl"];
/// What devices call a picture of their screen in the image type.
const SCREENS: &[&str] = &[
    "LABEL",
    "SCREEN SAVE",
    "SCREENSAVE",
    "SCREENSHOT",
    "SCREEN",
    "DOSE_INFO",
    "DOSE INFO",
    "PROT",
    "REPORT",
];
/// Body parts whose pictures show no face.
const FACELESS: &[&str] = &[
    "ABDOMEN", "ANKLE", "ARM", "BREAST", "CHEST", "ELBOW", "FEMUR", "FOOT", "HAND", "HEART", "HIP", "KIDNEY", "KNEE",
    "LEG", "LIVER", "LSPINE", "PELVIS", "PROSTATE", "SHOULDER", "SSPINE", "THIGH", "THORAX", "TSPINE", "WRIST",
];
const TOMOGRAPHIC: &[&str] = &["CT", "MR", "PT", "XC", "OP"];

/// Objects that are never written.
pub(crate) fn refused(elements: &[Element], sop_class: &str, options: &Options) -> Result<(), Refusal> {
    let has = |tag| find(elements, tag).is_some();
    if sop_class.starts_with(ENCAPSULATED) || has(Tag(0x0042, 0x0011)) {
        return Err(Refusal::EncapsulatedDocument);
    }
    let structured = sop_class.starts_with(STRUCTURED) || has(Tag(0x0040, 0xa730));
    if structured && !options.has(ProfileOption::CleanStructuredContent) {
        return Err(Refusal::StructuredContent);
    }
    Ok(())
}

/// What a person should look at, worst first.
pub(crate) fn flags(elements: &[Element], sop_class: &str, syntax: &Syntax, options: &Options) -> Vec<Flag> {
    let mut flags = Vec::new();
    let burned_in = ascii(elements, Tag(0x0028, 0x0301)).map(|said| said.to_ascii_uppercase());
    match burned_in.as_deref() {
        Some("NO") if !shows_label(elements) => {}
        Some(said) if said != "NO" => flags.push(Flag::BurnedIn),
        _ if options.has(ProfileOption::CleanPixelData) || is_risky(elements, sop_class) || shows_label(elements) => {
            flags.push(Flag::MaybeBurnedIn);
        }
        _ => {}
    }
    if has_embedded_overlay(elements) {
        flags.push(Flag::EmbeddedOverlay);
    }
    if syntax.pixels == Pixels::Video {
        flags.push(Flag::Video);
    }
    if options.has(ProfileOption::CleanRecognizableVisualFeatures) && may_show_face(elements) {
        flags.push(Flag::RecognizableFeatures);
    }
    flags
}

/// Whether the label of a specimen is in the picture (PS3.3, C.8.12.4). It was photographed with the slide, so an
/// object may say so and that nothing is burned in, both rightly.
fn shows_label(elements: &[Element]) -> bool {
    ascii(elements, Tag(0x0048, 0x0010)).is_some_and(|said| !said.eq_ignore_ascii_case("NO"))
}

fn is_risky(elements: &[Element], sop_class: &str) -> bool {
    let modality = ascii(elements, Tag(0x0008, 0x0060)).unwrap_or_default();
    let image_type = ascii(elements, Tag(0x0008, 0x0008)).unwrap_or_default();
    let captured = sop_class == SECONDARY_CAPTURE
        || sop_class
            .strip_prefix(SECONDARY_CAPTURE)
            .is_some_and(|rest| rest.starts_with('.'))
        || ascii(elements, Tag(0x0008, 0x0064)).is_some_and(|conversion| conversion != "SYN");
    RISKY.contains(&modality.to_ascii_uppercase().as_str())
        || Iod::of(sop_class).is_any(RISKY_IODS)
        || captured
        || image_type.split('\\').any(|value| SCREENS.contains(&value.trim()))
}

/// An overlay without data of its own is drawn into bits of the pixels (PS3.3, C.9.2 of before 2004): the group goes,
/// and the drawing would stay.
fn has_embedded_overlay(elements: &[Element]) -> bool {
    elements.iter().any(|element| {
        let Tag(group @ 0x6000..=0x60ff, 0x0010) = element.tag else {
            return false;
        };
        // what stands there in groups of odd numbers is the name of who reserved a block
        if element.tag.is_private() {
            return false;
        }
        let data = find(elements, Tag(group, 0x3000));
        !data.is_some_and(|data| match &data.value {
            Value::Bytes(bytes) => !bytes.is_empty(),
            _ => true,
        })
    })
}

fn may_show_face(elements: &[Element]) -> bool {
    if ascii(elements, Tag(0x0028, 0x0302)).as_deref() == Some("NO") {
        return false;
    }
    let modality = ascii(elements, Tag(0x0008, 0x0060)).unwrap_or_default();
    let part = ascii(elements, Tag(0x0018, 0x0015)).unwrap_or_default();
    TOMOGRAPHIC.contains(&modality.as_str()) && !FACELESS.contains(&part.to_ascii_uppercase().as_str())
}
