//! Data sets in the JSON of DICOMweb (PS3.18, annex F), written as those that come over associations: explicit VR
//! little endian, texts in UTF-8. Bulk data is left out: what is asked for here is what stands before the pixels.

use serde_json::{Map, Value};

use crate::dataset::{DataError, Tag};

/// How many levels of sequences are followed.
const DEEPEST: usize = 64;
const CHARACTER_SET: Tag = Tag(0x0008, 0x0005);

/// The data set of one instance, without its file meta information.
///
/// # Errors
/// Where it is no data set.
pub fn data_set(instance: &Value) -> Result<Vec<u8>, DataError> {
    let object = instance.as_object().ok_or(DataError::Structure(Tag(0, 0)))?;
    let mut out = Vec::new();
    elements(object, 0, &mut out)?;
    Ok(out)
}

/// The first text of an attribute.
pub fn text(instance: &Value, tag: Tag) -> Option<String> {
    let value = instance.get(name(tag))?.get("Value")?.get(0)?;
    Some(value.as_str()?.trim_matches(['\0', ' ']).to_owned())
}

fn name(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.0, tag.1)
}

fn tag_of(name: &str) -> Option<Tag> {
    if name.len() != 8 || !name.is_ascii() {
        return None;
    }
    let half = |text: &str| u16::from_str_radix(text, 16).ok();
    Some(Tag(half(&name[..4])?, half(&name[4..])?))
}

fn elements(object: &Map<String, Value>, depth: usize, out: &mut Vec<u8>) -> Result<(), DataError> {
    if depth > DEEPEST {
        return Err(DataError::Structure(Tag(0, 0)));
    }
    let mut all = Vec::with_capacity(object.len());
    for (name, value) in object {
        let tag = tag_of(name).ok_or(DataError::Structure(Tag(0, 0)))?;
        all.push((tag, value));
    }
    all.sort_by_key(|(tag, _)| *tag);
    let mut has_character_set = depth > 0;
    for (tag, value) in all {
        // the file meta information is no part of it
        if tag.0 <= 2 {
            continue;
        }
        if !has_character_set && tag >= CHARACTER_SET {
            put(out, CHARACTER_SET, b"CS", b"ISO_IR 192")?;
            has_character_set = true;
        }
        if tag != CHARACTER_SET {
            element(tag, value, depth, out)?;
        }
    }
    Ok(())
}

fn element(tag: Tag, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), DataError> {
    let wrong = || DataError::Structure(tag);
    let vr = value.get("vr").and_then(Value::as_str).ok_or_else(wrong)?;
    let vr: [u8; 2] = vr.as_bytes().try_into().map_err(|_| wrong())?;
    let empty = Vec::new();
    let values = match value.get("Value") {
        None => &empty,
        Some(values) => values.as_array().ok_or_else(wrong)?,
    };
    let numbers = |width: usize| -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::with_capacity(values.len() * width);
        for value in values {
            let number = integer(value).ok_or_else(wrong)?;
            bytes.extend_from_slice(&number.to_le_bytes()[..width]);
        }
        Ok(bytes)
    };
    let bytes = match &vr {
        b"SQ" => sequence(tag, values, depth)?,
        b"US" | b"SS" => numbers(2)?,
        b"UL" | b"SL" => numbers(4)?,
        b"UV" | b"SV" => numbers(8)?,
        b"FL" => floats(values, |number| (number as f32).to_le_bytes().to_vec()),
        b"FD" => floats(values, |number| number.to_le_bytes().to_vec()),
        b"AT" => {
            let tags = values.iter().filter_map(|value| tag_of(value.as_str()?));
            tags.flat_map(|tag| [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat())
                .collect()
        }
        // what is inline here is bulk data elsewhere
        b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"UN" => return Ok(()),
        _ => texts(values).into_bytes(),
    };
    put(out, tag, &vr, &bytes)
}

fn integer(value: &Value) -> Option<i64> {
    // numbers may be texts, which JavaScript does not round (PS3.18, F.2.3)
    let text = || value.as_str()?.trim().parse().ok();
    value
        .as_i64()
        .or_else(|| value.as_u64().map(u64::cast_signed))
        .or_else(text)
}

fn floats(values: &[Value], bytes: impl Fn(f64) -> Vec<u8>) -> Vec<u8> {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    values.iter().filter_map(number).flat_map(bytes).collect()
}

fn texts(values: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        // names in up to three writings
        Value::Object(name) => {
            let part = |kind: &str| name.get(kind).and_then(Value::as_str).unwrap_or_default();
            let parts = ["Alphabetic", "Ideographic", "Phonetic"].map(part);
            parts.join("=").trim_end_matches('=').to_owned()
        }
        _ => String::new(),
    };
    values.iter().map(text).collect::<Vec<_>>().join("\\")
}

fn sequence(tag: Tag, values: &[Value], depth: usize) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::new();
    for value in values {
        let mut inside = Vec::new();
        match value {
            Value::Null => {}
            Value::Object(object) => elements(object, depth + 1, &mut inside)?,
            _ => return Err(DataError::Structure(tag)),
        }
        out.extend([0xfe, 0xff, 0x00, 0xe0]);
        out.extend(length(tag, inside.len())?);
        out.extend(inside);
    }
    Ok(out)
}

fn length(tag: Tag, bytes: usize) -> Result<[u8; 4], DataError> {
    let number = u32::try_from(bytes).ok().filter(|number| *number < u32::MAX);
    Ok(number.ok_or(DataError::Structure(tag))?.to_le_bytes())
}

fn put(out: &mut Vec<u8>, tag: Tag, vr: &[u8; 2], value: &[u8]) -> Result<(), DataError> {
    let odd = value.len() % 2;
    let bytes = value.len() + odd;
    out.extend(tag.0.to_le_bytes());
    out.extend(tag.1.to_le_bytes());
    out.extend(vr);
    match vr {
        b"SQ" | b"UC" | b"UR" | b"UT" | b"SV" | b"UV" => {
            out.extend([0, 0]);
            out.extend(length(tag, bytes)?);
        }
        _ => {
            let bytes = u16::try_from(bytes).map_err(|_| DataError::Structure(tag))?;
            out.extend(bytes.to_le_bytes());
        }
    }
    out.extend(value);
    let padding = if vr == b"UI" { 0 } else { b' ' };
    out.extend(std::iter::repeat_n(padding, odd));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::read_identity;
    use crate::uid::Uid;

    #[test]
    fn metadata_becomes_a_data_set_in_order() {
        let instance = json!({
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Müller^A", "Phonetic": "myla" }] },
            "00080016": { "vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"] },
            "00080018": { "vr": "UI", "Value": ["2.25.17"] },
            "00081140": { "vr": "SQ", "Value": [{ "00081155": { "vr": "UI", "Value": ["2.25.5"] } }, null] },
            "0020000D": { "vr": "UI", "Value": ["2.25.1"] },
            "0020000E": { "vr": "UI", "Value": ["2.25.2"] },
            "00280010": { "vr": "US", "Value": [512] },
            "00189087": { "vr": "FD", "Value": ["1000"] },
            "7FE00010": { "vr": "OW", "BulkDataURI": "https://pacs/x" }
        });
        let bytes = data_set(&instance).unwrap();
        let explicit = Uid::new("1.2.840.10008.1.2.1").unwrap();
        let (identity, _) = read_identity(bytes.as_slice(), &explicit).unwrap();
        assert_eq!(identity.instance.as_str(), "2.25.17");
        assert_eq!(identity.series.as_str(), "2.25.2");
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(has(b"ISO_IR 192") && has("Müller^A==myla".as_bytes()));
        assert!(has(&1000_f64.to_le_bytes()) && has(b"US\x02\0\0\x02") && !has(b"pacs"));
        assert_eq!(text(&instance, Tag(8, 0x18)).as_deref(), Some("2.25.17"));
    }

    #[test]
    fn what_is_no_data_set_is_refused() {
        let long = "x".repeat(70_000);
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({ "00081140": { "vr": "SQ", "Value": [deep] } });
        }
        for wrong in [
            json!([]),
            json!({ "0008": { "vr": "UI" } }),
            json!({ "0008001ö": { "vr": "UI" } }),
            json!({ "00080018": {} }),
            json!({ "00080018": { "vr": "UIX" } }),
            json!({ "00280010": { "vr": "US", "Value": ["x"] } }),
            json!({ "00081140": { "vr": "SQ", "Value": ["x"] } }),
            json!({ "00080070": { "vr": "LO", "Value": [long] } }),
            deep,
        ] {
            assert!(data_set(&wrong).is_err());
        }
    }
}
