//! Instances and messages → files in a folder, each whole or not there.
//!
//! A file is written under a name that nobody looks for, brought to the disk and then renamed; the folder too is brought to
//! the disk before a delivery counts.
//! The folder is not made: where a share is not mounted, nothing may land below it.
//! A name holds no patient data: it is made of the kind of result and a UID.

use super::{
    archive_failure,
    message::{self, Said},
    profile::Files,
    webhook,
};
use crate::db::{
    letter::Letter,
    outbox::{Attempt, Outgoing},
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Writes what is left of a delivery.
pub(super) async fn send(folder: &Path, files: &Files, instances: &[Outgoing]) -> Attempt {
    let mut attempt = Attempt::default();
    for instance in instances {
        let file = match files.read(&instance.archive_key).await {
            Ok(file) => file,
            Err(error) => {
                let (why, is_final) = archive_failure(&error);
                attempt.error = Some(why);
                attempt.is_final = is_final;
                return attempt;
            }
        };
        let name = format!("{}_{}.dcm", instance.role, instance.sop_instance_uid);
        match write(folder, name, file.to_vec()).await {
            Ok(()) => attempt.delivered.push(instance.instance_id),
            Err(why) => {
                attempt.error = Some(why);
                return attempt;
            }
        }
    }
    attempt
}

/// Writes a message as the webhook words it.
pub(super) async fn tell(folder: &Path, letter: Letter) -> Attempt {
    let said = match Said::of(letter) {
        Ok(said) => said,
        Err(why) => return message::failed(why, true),
    };
    let name = format!("{}_{}.json", said.letter.subject, said.letter.delivery);
    let text = webhook::document(&said, false).to_string();
    match write(folder, name, text.into_bytes()).await {
        // A file takes note of nothing: a person does.
        Ok(()) => Attempt {
            message_taken: true,
            ..Attempt::default()
        },
        Err(why) => message::failed(why, false),
    }
}

async fn write(folder: &Path, name: String, bytes: Vec<u8>) -> Result<(), String> {
    let folder = PathBuf::from(folder);
    tokio::task::spawn_blocking(move || put(&folder, &name, &bytes))
        .await
        .map_err(|_| "writing a file failed; this is a fault of ictus".to_owned())?
        .map_err(|error| format!("the folder cannot be written to: {}", error.kind()))
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = folder.join(format!(".ictus-{}.part", Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = std::fs::File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, folder.join(name))?;
        std::fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What could not be finished must not stay; that it could not be removed is said by nobody better than the first error.
        let _gone = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "sr_1.2.dcm", b"first").unwrap();
        put(folder.path(), "sr_1.2.dcm", b"second").unwrap();
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["sr_1.2.dcm"]);
        assert_eq!(
            std::fs::read(folder.path().join("sr_1.2.dcm")).unwrap(),
            b"second"
        );
        assert!(put(&folder.path().join("not there"), "a", b"x").is_err());
    }
}
