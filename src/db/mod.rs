//! Postgres: every SQL statement of ictus, its queue, its audit trail and its events.
//!
//! [`Db`] is a handle on two pools of the same database.
//! The server's own statements run as `ictus_app`, which may only INSERT and SELECT on the audit trail and may not delete anything.
//! Migrations and the queue run as `ictus_owner`.
//!
//! Statements are static text with bound parameters.
//! What changes something takes a [`Tx`], so that an act and its audit row commit together; what only reads is a function on [`Db`].
//! No error of this module quotes a value (see [`error`]).

pub mod analysis;
pub mod association;
pub mod audit;
pub mod cache;
pub mod commitment;
pub mod correction;
pub mod error;
pub mod events;
pub mod export;
pub mod fetch;
pub mod figures;
pub mod filing;
pub mod identity;
pub mod index;
pub mod letter;
pub mod link;
pub mod metadata;
pub mod oidc;
pub mod outbox;
pub(crate) mod pattern;
pub mod presence;
pub mod private;
pub mod qido;
pub mod queue;
pub mod recorded;
pub mod removal;
pub mod returned;
pub mod review;
pub mod saved_view;
pub mod workitem;
pub mod worklist;

use error::DbError;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, sync::Arc, time::Duration};

/// A transaction; nothing in it is seen by others before [`commit`].
pub type Tx = sqlx::Transaction<'static, Postgres>;

/// Connections for requests and the worker's own statements.
/// A listener holds one; a STOW holds one for its short transaction.
const APP_CONNECTIONS: u32 = 16;
/// Connections for the queue: claim, heartbeat, sweep, listen.
const OWNER_CONNECTIONS: u32 = 6;
/// How long a caller waits for a connection before it is told that the database is busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);

/// A handle on the database; clones share the pools.
#[derive(Debug, Clone)]
pub struct Db {
    app: PgPool,
    owner: PgPool,
    covered: Arc<audit::Covered>,
}

impl Db {
    /// Connects, making the two roles if this is a new cluster.
    ///
    /// # Errors
    /// When the server cannot be reached, or the roles are missing and this user may not create them.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, DbError> {
        let mut connection = PgConnection::connect_with(&options).await?;
        ensure_roles(&mut connection).await?;
        connection.close().await?;
        let app = pool(options.clone(), APP_CONNECTIONS, "SET ROLE ictus_app").await?;
        let owner = pool(options, OWNER_CONNECTIONS, "SET ROLE ictus_owner").await?;
        Ok(Self {
            app,
            owner,
            covered: Arc::default(),
        })
    }

    /// Connects to a `postgres://` URL.
    ///
    /// # Errors
    /// As [`Db::connect`], and when the text is not such a URL; it is not repeated, for it may hold a password.
    pub async fn connect_url(url: &str) -> Result<Self, DbError> {
        Self::connect(PgConnectOptions::from_str(url).map_err(|_| DbError::Url)?).await
    }

    /// Brings the schema and the queue's own schema up to date; does nothing when they are.
    ///
    /// # Errors
    /// When a migration fails or was changed after it ran.
    pub async fn migrate(&self) -> Result<(), DbError> {
        let mut connection = self.owner.acquire().await?;
        // Two servers that start at once would grant at once, which Postgres refuses: one waits here.
        sqlx::raw_sql("SELECT pg_advisory_lock(7261990002)")
            .execute(&mut *connection)
            .await?;
        let done = self.migrate_locked(&mut connection).await;
        sqlx::raw_sql("SELECT pg_advisory_unlock(7261990002)")
            .execute(&mut *connection)
            .await?;
        done
    }

    async fn migrate_locked(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        sqlx::raw_sql(GRANT_OWNER).execute(&mut *connection).await?;
        sqlx::migrate!("./migrations").run(&mut *connection).await?;
        queue::migrate(&self.owner).await
    }

    /// Whether a statement comes back: what `/health/ready` asks.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<(), DbError> {
        sqlx::query("SELECT count(*) FROM audit_head")
            .execute(&self.app)
            .await?;
        Ok(())
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        Ok(self.app.begin().await?)
    }

    /// Closes both pools, waiting for statements under way.
    pub async fn close(&self) {
        tokio::join!(self.app.close(), self.owner.close());
    }
}

/// Commits: from here on the act is durable and seen.
///
/// # Errors
/// When the commit fails; the caller must then take it that nothing was stored.
pub async fn commit(tx: Tx) -> Result<(), DbError> {
    Ok(tx.commit().await?)
}

async fn pool(options: PgConnectOptions, connections: u32, role: &'static str) -> Result<PgPool, DbError> {
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(role).execute(&mut *connection).await?;
                // Statements here take milliseconds; compiling one takes longer than running it.
                sqlx::raw_sql("SET jit = off").execute(&mut *connection).await?;
                // An acknowledged instance must survive a crash, whatever the cluster's default is.
                sqlx::raw_sql("SET synchronous_commit = on")
                    .execute(&mut *connection)
                    .await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?)
}

/// Roles belong to the whole cluster; only what is missing is made, so that nobody needs rights for what is there.
async fn ensure_roles(connection: &mut PgConnection) -> Result<(), DbError> {
    let present: bool = sqlx::query_scalar(
        "SELECT count(*) = 2 FROM pg_roles \
         WHERE rolname IN ('ictus_owner', 'ictus_app') AND pg_has_role(current_user, oid, 'MEMBER')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !present {
        sqlx::raw_sql(MAKE_ROLES)
            .execute(&mut *connection)
            .await
            .map_err(DbError::roles)?;
    }
    Ok(())
}

/// The lock keeps two first starts apart; it belongs to the database, so creating twice is still caught.
const MAKE_ROLES: &str = "
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_advisory_xact_lock(7261990001);
    FOREACH name IN ARRAY ARRAY['ictus_owner', 'ictus_app'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO %I', name, current_user);
        END IF;
    END LOOP;
END $$;
";

/// The login user, not ictus_owner, owns the database and may grant on it:
/// `RESET ROLE` back to the login user for the grants on the database itself, then to the owner again.
const GRANT_OWNER: &str = "
RESET ROLE;
DO $$
BEGIN
    IF NOT has_database_privilege('ictus_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO ictus_owner', current_database());
    END IF;
    IF NOT has_schema_privilege('ictus_owner', 'public', 'CREATE') THEN
        GRANT USAGE, CREATE ON SCHEMA public TO ictus_owner;
    END IF;
    IF NOT has_schema_privilege('ictus_app', 'public', 'USAGE') THEN
        GRANT USAGE ON SCHEMA public TO ictus_app;
    END IF;
END $$;
SET ROLE ictus_owner;
";
