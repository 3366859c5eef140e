//! The query of a QIDO-RS request → what to match, what to return and what to warn of.
//!
//! Attributes are named by keyword or tag, case as written; an empty value and `*` match everything.
//! Every attribute of PS3.6 that has text or numbers can be matched; one that cannot is refused, not ignored: an
//! ignored filter would show other patients.
//! A parameter that is no attribute is ignored with a warning.
//!
//! Source: PS3.18 sections 8.3.4 and 10.6.1; PS3.4 section C.2.2.2.

use super::attribute;
use crate::{
    db::qido::{Filter, Other, Range, Wanted},
    domain::uid::Uid,
    http::error::HttpError,
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// The most results of one answer; a client pages through the rest with `offset`.
pub const MAX_RESULTS: i64 = 5000;

/// The text of PS3.18 section 8.3.4.2 for a server that does not match fuzzily.
const NOT_FUZZY: &str =
    "The fuzzymatching parameter is not supported. Only literal matching has been performed.";

const AS_WRITTEN: &str =
    "The TimezoneOffsetFromUTC parameter is not supported. Dates and times are matched as they are stored.";

const UNKNOWN_PARAMETER: &str =
    "A parameter of the query is neither an attribute nor known here; it was ignored.";

/// Our viewer's parameter: show the series that were resampled for display, too.
const INCLUDE_DERIVED: &str = "includederived";

/// A parsed query.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// What to match, without the UIDs of the path.
    pub filter: Filter,
    /// Whether every attribute of the level is returned.
    pub include_all: bool,
    /// Further attributes to return.
    pub include: Vec<Tag>,
    /// The limit that the client gave.
    pub limit: Option<i64>,
    /// Texts for the Warning header.
    pub warnings: Vec<String>,
    /// The `accept` parameter.
    pub accept: Option<String>,
}

impl Search {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    /// Says which parameter cannot be used and what it should be.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, HttpError> {
        let mut search = Self::default();
        for (name, value) in pairs {
            match name.to_ascii_lowercase().as_str() {
                "limit" => search.limit = Some(count(name, value)?),
                "offset" => search.filter.offset = count(name, value)?,
                "fuzzymatching" => {
                    if flag(name, value)? {
                        search.warnings.push(NOT_FUZZY.to_owned());
                    }
                }
                "includefield" => search.include_fields(value)?,
                "accept" => search.accept = Some(value.clone()),
                INCLUDE_DERIVED => search.filter.include_derived = flag(name, value)?,
                _ => match attribute::path_of(name).as_deref() {
                    Some([tag]) => search.match_attribute(*tag, value)?,
                    Some(path) => search.match_other(path, value)?,
                    None => search.warnings.push(UNKNOWN_PARAMETER.to_owned()),
                },
            }
        }
        search.filter.moments = true;
        search.warnings.dedup();
        Ok(search)
    }

    /// How many rows to ask for: one more than are sent, to know whether there are more.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.limit.unwrap_or(MAX_RESULTS).min(MAX_RESULTS) + 1
    }

    fn include_fields(&mut self, value: &str) -> Result<(), HttpError> {
        for field in value.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            if field.eq_ignore_ascii_case("all") {
                self.include_all = true;
            } else if let Some(tag) = attribute::tag_of(field) {
                self.include.push(tag);
            } else {
                let text = "includefield takes attribute keywords, tags of 8 hexadecimal digits, or `all`";
                return Err(HttpError::BadRequest(text.to_owned()));
            }
        }
        Ok(())
    }

    fn match_attribute(&mut self, tag: Tag, value: &str) -> Result<(), HttpError> {
        let filter = &mut self.filter;
        let value = value.trim();
        if value.is_empty() || value == "*" {
            return Ok(());
        }
        let text = || Some(value.to_owned());
        match tag {
            tags::STUDY_INSTANCE_UID => filter.study_instance_uid = Some(uids(tag, value)?),
            tags::SERIES_INSTANCE_UID => filter.series_instance_uid = Some(uids(tag, value)?),
            tags::SOP_INSTANCE_UID => filter.sop_instance_uid = Some(uids(tag, value)?),
            tags::SOP_CLASS_UID => filter.sop_class_uid = Some(uids(tag, value)?),
            tags::PATIENT_NAME => {
                // The index holds the alphabetic group; the others are looked for in the dataset.
                let (alphabetic, others) = value.split_once('=').unwrap_or((value, ""));
                let is_alphabetic = !alphabetic.chars().any(is_ideographic);
                filter.patient_name =
                    Some(alphabetic.to_owned()).filter(|name| is_alphabetic && !name.is_empty());
                let unsorted = (!is_alphabetic).then_some(alphabetic);
                for group in unsorted.into_iter().chain(others.split('=')) {
                    self.match_other(&[tag], group)?;
                }
            }
            tags::PATIENT_ID => filter.patient_id = text(),
            tags::ACCESSION_NUMBER => filter.accession_number = text(),
            tags::STUDY_ID => filter.study_id = text(),
            tags::STUDY_DESCRIPTION => filter.study_description = text(),
            tags::REFERRING_PHYSICIAN_NAME => filter.referring_physician_name = text(),
            tags::MODALITIES_IN_STUDY => filter.modalities_in_study = text(),
            tags::STUDY_DATE => filter.study_date = range(tag, value, 8)?,
            tags::STUDY_TIME => filter.study_time = range(tag, value, 13)?,
            tags::MODALITY => filter.modality = text(),
            tags::SERIES_NUMBER => filter.series_number = Some(integer(tag, value)?),
            tags::SERIES_DESCRIPTION => filter.series_description = text(),
            tags::INSTANCE_NUMBER => filter.instance_number = Some(integer(tag, value)?),
            tags::PERFORMED_PROCEDURE_STEP_START_DATE => {
                filter.performed_procedure_step_start_date = range(tag, value, 8)?;
            }
            tags::PATIENT_BIRTH_DATE => filter.patient_birth_date = range(tag, value, 8)?,
            tags::PATIENT_SEX => filter.patient_sex = text(),
            // These say what is true of this server and of no stored dataset.
            tags::INSTANCE_AVAILABILITY | tags::SPECIFIC_CHARACTER_SET => {}
            tags::TIMEZONE_OFFSET_FROM_UTC => self.warnings.push(AS_WRITTEN.to_owned()),
            _ => self.match_other(&[tag], value)?,
        }
        Ok(())
    }

    /// An attribute that no column holds, by its VR (PS3.4 section C.2.2.2).
    fn match_other(&mut self, path: &[Tag], value: &str) -> Result<(), HttpError> {
        let Some((&tag, sequences)) = path.split_last() else {
            return Ok(());
        };
        let value = value.trim();
        if value.is_empty() || value == "*" {
            return Ok(());
        }
        let refused = |why: &str| {
            let key = attribute::key(tag);
            Err(HttpError::BadRequest(format!("attribute {key} {why}")))
        };
        if let Some(outer) = sequences.iter().find(|tag| attribute::vr_of(**tag) != "SQ") {
            let key = attribute::key(*outer);
            return refused(&format!("is named within {key}, which is no sequence"));
        }
        if is_made_here(tag) {
            return refused("is made by this server and cannot be matched");
        }
        let wanted = match attribute::vr_of(tag) {
            "UI" => Wanted::OneOf(uids(tag, value)?.into_iter().map(String::from).collect()),
            "DA" => Wanted::Range(range(tag, value, 8)?),
            "DT" => Wanted::Range(date_time_range(tag, value)?),
            "TM" => Wanted::Range(range(tag, value, 13)?),
            "PN" => Wanted::PersonName(value.to_owned()),
            "SQ" => return refused("is a sequence; match an attribute within it, as SEQUENCE.ATTRIBUTE"),
            "OB" | "OD" | "OF" | "OL" | "OV" | "OW" | "UN" => {
                return refused("is binary or not in the dictionary of PS3.6, and cannot be matched");
            }
            "DS" | "IS" | "FD" | "FL" | "SL" | "SS" | "SV" | "UL" | "US" | "UV" => match value.parse() {
                Ok(number) => Wanted::Number(number),
                Err(_) => return refused("is matched by a number"),
            },
            _ => Wanted::Text(value.to_owned()),
        };
        self.filter.others.push(Other {
            path: path.to_vec(),
            wanted,
        });
        Ok(())
    }
}

/// The query of a search for workitems, or of a subscription to those that match.
#[derive(Debug, Clone, Default)]
pub struct WorkitemSearch {
    /// What to match.
    pub keys: Vec<Other>,
    /// At most so many.
    pub limit: i64,
    /// Skip so many.
    pub offset: i64,
    /// Whether a subscription keeps what it is subscribed to from being deleted.
    pub deletion_lock: bool,
    /// Texts for the Warning header.
    pub warnings: Vec<String>,
    /// The `accept` parameter.
    pub accept: Option<String>,
}

impl WorkitemSearch {
    /// Reads the parameters of a search.
    ///
    /// # Errors
    /// Says which parameter cannot be used and what it should be.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, HttpError> {
        let mut search = Self {
            limit: MAX_RESULTS,
            ..Self::default()
        };
        // Every attribute of a workitem is in one document, so that none has a column of its own.
        let mut matched = Search::default();
        for (name, value) in pairs {
            match name.to_ascii_lowercase().as_str() {
                "limit" => search.limit = count(name, value)?,
                "offset" => search.offset = count(name, value)?,
                "fuzzymatching" => {
                    if flag(name, value)? {
                        search.warnings.push(NOT_FUZZY.to_owned());
                    }
                }
                // Workitems are answered whole.
                "includefield" => matched.include_fields(value)?,
                "accept" => search.accept = Some(value.clone()),
                "deletionlock" => search.deletion_lock = flag(name, value)?,
                _ => match attribute::path_of(name).as_deref() {
                    Some([tags::TRANSACTION_UID]) => {
                        let text = "the Transaction UID of a workitem is known to its performer only and is not matched";
                        return Err(HttpError::BadRequest(text.to_owned()));
                    }
                    Some(path) => matched.match_other(path, value)?,
                    None => search.warnings.push(UNKNOWN_PARAMETER.to_owned()),
                },
            }
        }
        search.warnings.dedup();
        search.keys = matched.filter.others;
        Ok(search)
    }

    /// The same for a subscription, whose keys are in `filter` (PS3.18 section 11.10.1.2) or parameters of their own.
    ///
    /// # Errors
    /// Says which key cannot be used.
    pub fn parse_filter(pairs: &[(String, String)]) -> Result<Self, HttpError> {
        let mut spread = Vec::new();
        for (name, value) in pairs {
            if !name.eq_ignore_ascii_case("filter") {
                spread.push((name.clone(), value.clone()));
                continue;
            }
            for key in value.split(',').filter(|key| !key.trim().is_empty()) {
                match key.split_once('=') {
                    Some((name, value)) => spread.push((name.trim().to_owned(), value.trim().to_owned())),
                    // A comma within a value, as in a list of UIDs.
                    None => match spread.last_mut() {
                        Some((_, value)) => {
                            value.push(',');
                            value.push_str(key.trim());
                        }
                        None => {
                            let text = "filter takes ATTRIBUTE=VALUE pairs, joined by commas";
                            return Err(HttpError::BadRequest(text.to_owned()));
                        }
                    },
                }
            }
        }
        let search = Self::parse(&spread)?;
        // An ignored key would subscribe to more than was asked for.
        if search.warnings.iter().any(|text| text == UNKNOWN_PARAMETER) {
            return Err(HttpError::BadRequest(
                "a key of the filter is no attribute; name attributes by keyword or tag".to_owned(),
            ));
        }
        Ok(search)
    }
}

/// What an answer has and no stored dataset.
fn is_made_here(tag: Tag) -> bool {
    [
        tags::NUMBER_OF_STUDY_RELATED_SERIES,
        tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
        tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
        tags::RETRIEVE_URL,
    ]
    .contains(&tag)
}

/// Whether a character is none of the alphabetic group of a person's name: kana, hangul, han.
fn is_ideographic(c: char) -> bool {
    c >= '\u{2E80}'
}

fn count(name: &str, value: &str) -> Result<i64, HttpError> {
    value
        .parse()
        .ok()
        .filter(|&number| number >= 0)
        .ok_or_else(|| HttpError::BadRequest(format!("{name} must be a whole number from 0")))
}

fn flag(name: &str, value: &str) -> Result<bool, HttpError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(HttpError::BadRequest(format!("{name} must be `true` or `false`"))),
    }
}

fn integer(tag: Tag, value: &str) -> Result<i32, HttpError> {
    let fault = || {
        HttpError::BadRequest(format!(
            "attribute {} is matched by a whole number",
            attribute::key(tag)
        ))
    };
    value.parse().map_err(|_| fault())
}

/// One UID or a list of them, joined by commas (PS3.18) or backslashes (PS3.4).
fn uids(tag: Tag, value: &str) -> Result<Vec<Uid>, HttpError> {
    value
        .split([',', '\\'])
        .map(|uid| {
            let fault = |why| HttpError::BadRequest(format!("attribute {}: {why}", attribute::key(tag)));
            Uid::parse(uid.trim()).map_err(fault)
        })
        .collect()
}

/// A date or time, or a range of them with a hyphen.
fn range(tag: Tag, value: &str, longest: usize) -> Result<Range, HttpError> {
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    let end = |text: &str| {
        // Old clients write 2024.01.31 and 12:30:00; a dot stands for a fraction only behind a full time.
        let text: String = text.trim().chars().filter(|&c| c != ':').collect();
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = text.len() <= longest
            && match text.split_once('.') {
                Some((whole, fraction)) => {
                    longest > 8 && whole.len() == 6 && digits(whole) && digits(fraction)
                }
                None => digits(&text) && (longest != 8 || matches!(text.len(), 0 | 4 | 6 | 8)),
            };
        let wanted = if longest == 8 { "YYYYMMDD" } else { "HHMMSS" };
        let fault = || {
            format!(
                "attribute {} is matched by {wanted} or a range of it: FROM-TO",
                attribute::key(tag)
            )
        };
        if fits {
            Ok(Some(text).filter(|text| !text.is_empty()))
        } else {
            Err(HttpError::BadRequest(fault()))
        }
    };
    Ok(Range {
        from: end(from)?,
        to: end(to)?,
    })
}

/// A date with a time, or a range of them with a hyphen; compared as written, without regard to the offset from UTC.
fn date_time_range(tag: Tag, value: &str) -> Result<Range, HttpError> {
    let is_moment = |text: &str| {
        let whole = text.split('.').next().unwrap_or_default();
        (4..=14).contains(&whole.len())
            && text.len() <= 21
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    // The offset of a moment looks like the end of a range: it has four digits, and a sign that is no range's.
    let moment = |text: &str| -> Option<Option<String>> {
        let text = text.trim();
        let (bare, offset) = match text.find(['+', '-']) {
            Some(at) if text.len() - at == 5 => text.split_at(at),
            _ => (text, ""),
        };
        let is_offset = offset.bytes().skip(1).all(|byte| byte.is_ascii_digit());
        match bare {
            "" => Some(None),
            _ => (is_moment(bare) && is_offset).then(|| Some(bare.to_owned())),
        }
    };
    let whole = moment(value).flatten().map(|one| (Some(one.clone()), Some(one)));
    let ends = whole.or_else(|| {
        value
            .match_indices('-')
            .find_map(|(at, _)| Some((moment(&value[..at])?, moment(&value[at + 1..])?)))
    });
    let (from, to) = ends.ok_or_else(|| {
        HttpError::BadRequest(format!(
            "attribute {} is matched by YYYYMMDDHHMMSS or a range of it: FROM-TO",
            attribute::key(tag)
        ))
    })?;
    Ok(Range { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_moments_and_ranges_of_them() {
        let range = |value: &str| {
            date_time_range(tags::SCHEDULED_PROCEDURE_STEP_START_DATE_TIME, value)
                .map(|range| (range.from.unwrap_or_default(), range.to.unwrap_or_default()))
        };
        for (value, from, to) in [
            ("20261128", "20261128", "20261128"),
            ("20261128101500.5+0100", "20261128101500.5", "20261128101500.5"),
            ("20261128101500-0500", "20261128101500", "20261128101500"),
            ("20261128-20261129", "20261128", "20261129"),
            (
                "20261128101500-0500-20261129101500-0500",
                "20261128101500",
                "20261129101500",
            ),
            ("-20261129", "", "20261129"),
            ("20261128-", "20261128", ""),
        ] {
            assert_eq!(range(value).unwrap(), (from.to_owned(), to.to_owned()), "{value}");
        }
        for wrong in ["yesterday", "2026-11-28T10:00", "20261128-x"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_the_filter_of_a_subscription_in_either_way() {
        let keys = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            WorkitemSearch::parse_filter(&pairs).map(|search| search.keys.len())
        };
        assert_eq!(
            keys(&[("filter", "WorklistLabel=CT,ProcedureStepState=SCHEDULED")]).unwrap(),
            2
        );
        assert_eq!(keys(&[("00741202", "CT"), ("deletionlock", "true")]).unwrap(), 1);
        assert_eq!(keys(&[("filter", "SOPInstanceUID=1.2,1.3")]).unwrap(), 1);
        for wrong in ["Nonsense=1", "CT", "TransactionUID=1.2"] {
            assert!(keys(&[("filter", wrong)]).is_err(), "{wrong}");
        }
    }

    fn parse(query: &[(&str, &str)]) -> Result<Search, HttpError> {
        let pairs: Vec<_> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Search::parse(&pairs)
    }

    #[test]
    fn understands_what_a_viewer_sends() {
        let search = parse(&[
            ("limit", "101"),
            ("offset", "0"),
            ("fuzzymatching", "false"),
            ("includefield", "00081030,00080060,00080090,00100030"),
            ("StudyInstanceUID", "1.2,1.3"),
            ("00100020", "A*"),
        ])
        .unwrap();
        assert_eq!(search.rows(), 102);
        assert_eq!(search.include.len(), 4);
        assert_eq!(search.filter.study_instance_uid.unwrap().len(), 2);
        assert_eq!(search.filter.patient_id.as_deref(), Some("A*"));
        assert!(search.warnings.is_empty());
    }

    #[test]
    fn looks_for_each_group_of_a_name_where_it_is() {
        let groups = |name| {
            let filter = parse(&[("PatientName", name)]).unwrap().filter;
            (filter.patient_name, filter.others.len())
        };
        assert_eq!(
            groups("Yamada^Tarou=山田^太郎"),
            (Some("Yamada^Tarou".to_owned()), 1)
        );
        assert_eq!(groups("=山田*=やまだ*"), (None, 2));
        assert_eq!(groups("山田*"), (None, 1));
        assert_eq!(groups("Müller*"), (Some("Müller*".to_owned()), 0));
    }

    #[test]
    fn reads_dates_times_and_ranges() {
        let range = |value| parse(&[("StudyDate", value)]).map(|search| search.filter.study_date);
        let both = range("20240101-20241231").unwrap();
        assert_eq!(
            (both.from.as_deref(), both.to.as_deref()),
            (Some("20240101"), Some("20241231"))
        );
        let open = range("-20241231").unwrap();
        assert_eq!(
            (open.from.as_deref(), open.to.as_deref()),
            (None, Some("20241231"))
        );
        let one = range("20240131").unwrap();
        assert_eq!(
            (one.from.as_deref(), one.to.as_deref()),
            (Some("20240131"), Some("20240131"))
        );
        for bad in ["2024-01-31", "yesterday", "202401311", "2024013"] {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert!(parse(&[("StudyTime", "12:30-133000.5")]).is_ok());
    }

    #[test]
    fn warns_of_fuzzy_matching_and_unknown_parameters() {
        let search = parse(&[("fuzzymatching", "true"), ("PatientName", "doe"), ("_", "1")]).unwrap();
        assert_eq!(search.warnings.len(), 2);
        assert_eq!(search.warnings[0], NOT_FUZZY);
    }

    #[test]
    fn refuses_filters_that_it_would_have_to_ignore() {
        for query in [
            ("PatientBirthDate", "1970-01-01"),
            ("RequestAttributesSequence", "1"),
            ("PatientID.StudyID", "1"),
            ("PixelData", "1"),
            ("NumberOfStudyRelatedSeries", "1"),
            ("StudyInstanceUID", "../1"),
            ("limit", "-1"),
            ("offset", "x"),
            ("SeriesNumber", "one"),
            ("includefield", "no such thing"),
            ("fuzzymatching", "maybe"),
        ] {
            assert!(parse(&[query]).is_err(), "{query:?}");
        }
        assert!(
            parse(&[("PatientBirthDate", "1970-01-01")])
                .unwrap_err()
                .to_string()
                .contains("00100030")
        );
    }

    #[test]
    fn matches_everything_with_an_empty_value() {
        let search = parse(&[("PatientName", ""), ("PatientID", "*")]).unwrap();
        assert_eq!(
            (search.filter.patient_name, search.filter.patient_id),
            (None, None)
        );
    }
}
