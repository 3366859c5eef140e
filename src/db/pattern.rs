//! Texts with the wildcards of DICOM (PS3.4 section C.2.2.2.4) as conditions of a statement.

use sqlx::{Postgres, QueryBuilder};

/// Text that must be equal, or like a pattern where it has wildcards.
pub(super) fn put_text(statement: &mut QueryBuilder<Postgres>, column: &str, wanted: Option<&String>) {
    let Some(text) = wanted else {
        return;
    };
    if let Some((begin, _)) = text.split_once(['*', '?']) {
        statement
            .push(format_args!(" AND {column} LIKE "))
            .push_bind(like_pattern(text));
        // What an index can tell of a pattern that the plan does not know yet.
        if let Some(end) = after(begin) {
            statement
                .push(format_args!(" AND {column} ~>=~ "))
                .push_bind(begin.to_owned())
                .push(format_args!(" AND {column} ~<~ "))
                .push_bind(end);
        }
    } else {
        statement
            .push(format_args!(" AND {column} = "))
            .push_bind(text.clone());
    }
}

/// The same without regard to case; the column is in small letters already.
pub(super) fn put_small(statement: &mut QueryBuilder<Postgres>, column: &str, wanted: Option<&String>) {
    put_text(statement, column, wanted.map(|text| text.to_lowercase()).as_ref());
}

/// The first text that sorts after everything that begins so; `None` when nothing does, or everything begins so.
fn after(begin: &str) -> Option<String> {
    let mut rest: Vec<char> = begin.chars().collect();
    while let Some(last) = rest.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            rest.push(next);
            return Some(rest.into_iter().collect());
        }
    }
    None
}

/// DICOM wildcards → SQL's, with SQL's own escaped.
pub(crate) fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', c]),
            _ => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::{after, like_pattern};

    #[test]
    fn finds_what_sorts_after_all_that_begins_so() {
        assert_eq!(after("doe").as_deref(), Some("dof"));
        assert_eq!(after("d\u{D7FF}").as_deref(), Some("d\u{E000}"));
        assert_eq!(after("d\u{10FFFF}").as_deref(), Some("e"));
        assert_eq!(after(""), None);
    }

    #[test]
    fn turns_dicom_wildcards_into_sql_and_escapes_what_sql_would_take_for_one() {
        assert_eq!(like_pattern("Do*^J?"), "Do%^J_");
        assert_eq!(like_pattern("50%_\\"), "50\\%\\_\\\\");
    }
}
