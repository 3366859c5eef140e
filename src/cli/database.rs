//! Which database a command uses: `DATABASE_URL`, or the private one below `--data`.

use anyhow::Context as _;
use ictus::{
    config::{self, Secret},
    db::{Db, private::PrivatePostgres},
};
use std::path::{Path, PathBuf};

/// The flags that every command with a database has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DatabaseArgs {
    /// Folder of the archive and of the private database.
    #[arg(long, env = "ICTUS_DATA", default_value = "data", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Bucket of the archive instead of the folder: s3://BUCKET/PREFIX; region, endpoint and credentials come from the
    /// environment (AWS_REGION, AWS_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …).
    #[arg(long, env = "ICTUS_ARCHIVE", value_name = "URL")]
    pub(crate) archive: Option<String>,
}

/// Whether a command runs the private server or visits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `serve` and `demo`: the server lives and dies with them.
    Owner,
    /// Everything else: joins a living server, or starts one for as long as it needs it.
    Visitor,
}

/// A database that is ready; dropping it stops a private server that is ours.
#[derive(Debug)]
pub(crate) enum Database {
    /// Somebody else's.
    Url(Secret),
    /// Ours.
    Private(PrivatePostgres),
}

impl DatabaseArgs {
    /// Reads the environment and starts or joins the private server; to be called before the async runtime runs.
    pub(crate) fn open(&self, role: Role) -> anyhow::Result<Database> {
        if let Some(url) = config::database_url(std::env::var("DATABASE_URL").ok())? {
            return Ok(Database::Url(url));
        }
        let dir = private_dir(&self.data);
        let server = match role {
            Role::Owner => PrivatePostgres::start(&dir),
            Role::Visitor => PrivatePostgres::attach(&dir),
        };
        Ok(Database::Private(
            server.context("the private database cannot be used")?,
        ))
    }
}

impl Database {
    /// Connects; the schema may still be old.
    pub(crate) async fn connect(&self) -> anyhow::Result<Db> {
        Ok(match self {
            Self::Url(url) => Db::connect_url(url.expose()).await?,
            Self::Private(server) => Db::connect(server.options()).await?,
        })
    }
}

/// Where the private server lives below a data folder.
pub(crate) fn private_dir(data: &Path) -> PathBuf {
    data.join("postgres")
}
