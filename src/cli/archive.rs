//! Where the archive is, and how much it may take.

use super::database::DatabaseArgs;
use ictus::{archive::Archive, receive::Quota};

/// Bytes that stay free on the disk when nobody says otherwise: what Postgres needs to go on.
const FREE_BYTES: &str = "1G";

/// The flags of a server that takes instances in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct QuotaArgs {
    /// Cache mode: bytes (or 500G, 2T) that the archive may take; what is delivered and routine is evicted, the least recently needed first.
    #[arg(long, env = "ICTUS_ARCHIVE_QUOTA", value_name = "BYTES", value_parser = bytes)]
    archive_quota: Option<u64>,
    /// Bytes that stay free on the disk: with fewer nothing new is taken in.
    #[arg(long, env = "ICTUS_ARCHIVE_FREE", default_value = FREE_BYTES, value_name = "BYTES", value_parser = bytes)]
    archive_free: u64,
}

impl QuotaArgs {
    /// What they say.
    pub(crate) fn quota(&self) -> Quota {
        Quota {
            bytes: self.archive_quota,
            free_bytes: self.archive_free,
        }
    }
}

/// The archive that a command uses.
pub(crate) fn open(args: &DatabaseArgs) -> anyhow::Result<Archive> {
    let folder = args.data.join("archive");
    Ok(match &args.archive {
        Some(url) => {
            let text = |value: std::ffi::OsString| value.into_string().ok();
            let variables = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
            Archive::open_bucket(url, &folder, variables)?
        }
        None => Archive::open(&folder)?,
    })
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of bytes; expected 500000000, or 500G");
    let powers = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let (digits, bits) = powers
        .into_iter()
        .find_map(|(letter, bits)| Some((text.strip_suffix(letter)?, bits)))
        .unwrap_or((text, 0));
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << bits).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bytes_with_and_without_a_letter() {
        assert_eq!(bytes("1500"), Ok(1500));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        assert_eq!(bytes("1T"), Ok(1 << 40));
        for wrong in ["", "G", "-1", "2GG", "1.5G", "99999999T"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
