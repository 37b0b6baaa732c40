//! The schema of collections of images: what is known of an image without looking at it, in two halves
//! (`docs/src/catalogue-images.md`).

use crate::wire::{AttributeDefinition, Part, Type};

type Row = (&'static str, Type, bool, Option<&'static str>);

const ANONYMOUS: &[Row] = &[
    ("modality", Type::String, true, Some("Modality")),
    ("body_part", Type::String, true, Some("BodyPartExamined")),
    ("manufacturer", Type::String, true, Some("Manufacturer")),
    ("model", Type::String, true, Some("ManufacturerModelName")),
    ("rows", Type::Integer, true, Some("Rows")),
    ("columns", Type::Integer, true, Some("Columns")),
    ("frames", Type::Integer, false, Some("NumberOfFrames")),
    ("slice_thickness", Type::Float, true, Some("SliceThickness")),
    ("field_strength", Type::Float, true, Some("MagneticFieldStrength")),
    ("patient_sex", Type::String, true, Some("PatientSex")),
    ("age_group", Type::String, true, None),
    ("study_year", Type::Integer, true, None),
    ("study_uid", Type::String, true, Some("StudyInstanceUID")),
    ("series_uid", Type::String, true, Some("SeriesInstanceUID")),
    ("instance_uid", Type::String, true, Some("SOPInstanceUID")),
    ("sop_class", Type::String, true, Some("SOPClassUID")),
    ("transfer_syntax", Type::String, false, Some("TransferSyntaxUID")),
    ("anatomic_region", Type::Code, true, Some("AnatomicRegionSequence")),
    ("procedure_code", Type::Code, true, Some("ProcedureCodeSequence")),
];

const IDENTIFYING: &[Row] = &[
    ("patient_name", Type::String, true, Some("PatientName")),
    ("patient_id", Type::String, true, Some("PatientID")),
    ("birth_date", Type::Date, true, Some("PatientBirthDate")),
    ("accession_number", Type::String, true, Some("AccessionNumber")),
    ("original_study_uid", Type::String, true, None),
    ("original_series_uid", Type::String, true, None),
    ("original_instance_uid", Type::String, true, None),
    ("study_date", Type::Date, true, Some("StudyDate")),
    ("institution", Type::String, true, Some("InstitutionName")),
    (
        "referring_physician",
        Type::String,
        true,
        Some("ReferringPhysicianName"),
    ),
];

/// The attributes of an image.
pub fn schema() -> Vec<AttributeDefinition> {
    let definition = |half| {
        move |(name, kind, indexed, dicom): &Row| AttributeDefinition {
            name: (*name).to_owned(),
            kind: *kind,
            half,
            indexed: *indexed,
            dicom: dicom.map(str::to_owned),
        }
    };
    let anonymous = ANONYMOUS.iter().map(definition(Part::Anonymous));
    anonymous
        .chain(IDENTIFYING.iter().map(definition(Part::Identifying)))
        .collect()
}

/// The half that an attribute of [`schema`] is of.
pub fn half(name: &str) -> Option<Part> {
    let of = |rows: &[Row]| rows.iter().any(|(known, ..)| *known == name);
    if of(ANONYMOUS) {
        return Some(Part::Anonymous);
    }
    of(IDENTIFYING).then_some(Part::Identifying)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_told_apart_and_of_one_half() {
        let schema = schema();
        let names: HashSet<_> = schema.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), schema.len());
        assert!(schema.iter().all(|one| half(&one.name) == Some(one.half)));
        let dicom: HashSet<_> = schema.iter().filter_map(|one| one.dicom.as_deref()).collect();
        assert_eq!(dicom.len(), schema.iter().filter(|one| one.dicom.is_some()).count());
        assert_eq!(half("nothing"), None);
    }
}
