//! The name of a reconstruction kernel → how sharp it is.
//!
//! Vendors agree on nothing here; a name that is not known is `Unknown`, which ranks between soft and bone.

/// How sharp a reconstruction kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kernel {
    /// For soft tissue.
    Soft,
    /// Not one that we know.
    Unknown,
    /// For bone or lung: sharp and noisy.
    Bone,
}

/// Reads how sharp a kernel is from its name, as the vendors name them.
///
/// GE: words; Siemens: a letter or two and a number that grows with sharpness; Philips: letters; Canon: FC and a number.
pub(super) fn kernel(name: Option<&str>) -> Kernel {
    let Some(name) = name.map(|name| name.trim().to_ascii_uppercase()) else {
        return Kernel::Unknown;
    };
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["BONE", "EDGE", "LUNG", "DETAIL", "SHARP", "ULTRA"]) {
        return Kernel::Bone;
    }
    if has(&["SOFT", "STAN", "STD", "STND", "BRAIN", "SMOOTH"]) {
        return Kernel::Soft;
    }
    let number: Option<u32> = name
        .trim_start_matches(|c: char| c.is_ascii_alphabetic())
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok());
    let letters: String = name.chars().take_while(char::is_ascii_alphabetic).collect();
    match (letters.as_str(), number) {
        ("FC", Some(30..=39 | 50..=59 | 80..=89)) => Kernel::Bone,
        ("FC", Some(_)) => Kernel::Soft,
        ("H" | "J" | "B" | "I" | "U" | "T" | "HR" | "HC" | "HV" | "BR" | "BF" | "BV" | "QR", Some(n)) => {
            if n >= 55 { Kernel::Bone } else { Kernel::Soft }
        }
        ("UA" | "UB" | "UC" | "A" | "B" | "C" | "SA" | "SB", None) => Kernel::Soft,
        ("D" | "E" | "L" | "YA" | "YB" | "YC" | "YD", None) => Kernel::Bone,
        _ => Kernel::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_read_as_the_vendors_name_them() {
        for soft in [
            "STD+", "SOFT", "STANDARD", "H31s", "J40s", "Hr38f", "B30f", "UB", "FC21", "FC26",
        ] {
            assert_eq!(kernel(Some(soft)), Kernel::Soft, "{soft}");
        }
        for bone in [
            "BONE", "BONEPLUS", "EDGE", "H60s", "Hr64h", "B70f", "D", "YB", "FC30", "FC81",
        ] {
            assert_eq!(kernel(Some(bone)), Kernel::Bone, "{bone}");
        }
        assert_eq!(kernel(Some("XRF")), Kernel::Unknown);
        assert_eq!(kernel(None), Kernel::Unknown);
    }
}
