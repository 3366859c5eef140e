//! The flags of an OpenID provider.

use ictus::review::{
    account::AccountRole,
    oidc::{Hidden, Oidc, OidcError, Settings},
};
use std::net::SocketAddr;

/// Who vouches for people beside local accounts.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Signing in at an OpenID provider")]
pub(crate) struct OidcArgs {
    /// Its issuer URL; people may then sign in there, too. The secret is read from ICTUS_OIDC_CLIENT_SECRET.
    #[arg(
        long,
        env = "ICTUS_OIDC_ISSUER",
        value_name = "URL",
        requires = "oidc_client_id"
    )]
    oidc_issuer: Option<String>,
    /// As it knows this server.
    #[arg(long, env = "ICTUS_OIDC_CLIENT_ID", value_name = "ID")]
    oidc_client_id: Option<String>,
    /// Its name, as people read it.
    #[arg(long, env = "ICTUS_OIDC_NAME", value_name = "NAME", default_value = "OpenID")]
    oidc_name: String,
    /// This server's address as browsers know it; the provider sends them back to it.
    #[arg(long, env = "ICTUS_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// The claim of the ID token that says what somebody may do; dots lead into objects.
    #[arg(
        long,
        env = "ICTUS_OIDC_ROLE_CLAIM",
        value_name = "CLAIM",
        default_value = "roles"
    )]
    oidc_role_claim: String,
    /// Which of its values means radiologist, auditor or admin; may be given several times, the first that fits counts.
    #[arg(long = "oidc-role", env = "ICTUS_OIDC_ROLES", value_name = "ROLE=VALUE", value_delimiter = ',', value_parser = role)]
    oidc_roles: Vec<(AccountRole, String)>,
    /// What is asked for beside `openid`.
    #[arg(
        long,
        env = "ICTUS_OIDC_SCOPES",
        value_name = "SCOPES",
        value_delimiter = ',',
        default_value = "profile"
    )]
    oidc_scopes: Vec<String>,
}

fn role(text: &str) -> Result<(AccountRole, String), String> {
    let wrong = || {
        format!(
            "`{text}` is not ROLE=VALUE with radiologist, auditor or admin, such as radiologist=Radiology"
        )
    };
    let (role, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((role.parse().map_err(|_| wrong())?, value.to_owned()))
}

impl OidcArgs {
    /// The provider, if there is one; it is not asked yet.
    pub(crate) fn provider(&self, listen: SocketAddr) -> Result<Option<Oidc>, OidcError> {
        let Some(issuer) = self.oidc_issuer.clone() else {
            return Ok(None);
        };
        // A client cannot be made without cryptography.
        ictus::deliver::install_cryptography();
        let settings = Settings {
            issuer,
            client_id: self.oidc_client_id.clone().unwrap_or_default(),
            client_secret: std::env::var("ICTUS_OIDC_CLIENT_SECRET").ok().map(Hidden),
            name: self.oidc_name.clone(),
            public_url: self
                .public_url
                .clone()
                .unwrap_or_else(|| format!("http://{listen}")),
            scopes: self.oidc_scopes.clone(),
            role_claim: self.oidc_role_claim.clone(),
            roles: self.oidc_roles.clone(),
        };
        Oidc::new(settings).map(Some)
    }
}
