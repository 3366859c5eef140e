//! Who may call, and what each presentation context is answered.
//!
//! Source: PS3.8 section 7.1; PS3.4 annexes A and B.

use super::Settings;
use crate::association::{
    acceptor::{Answer, Rejection, Rules},
    requestor::is_title,
    syntax,
};
use std::{fmt, net::IpAddr, str::FromStr};

/// An application entity that may call: `TITLE`, or `TITLE@ADDRESS` for one that may call from there only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its title.
    pub title: String,
    /// The only address that it may call from.
    pub address: Option<IpAddr>,
}

/// A text that names no caller.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a caller is written TITLE or TITLE@ADDRESS, such as PACS@10.0.0.5, with a numeric address")]
pub struct CallerError;

impl FromStr for Caller {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, CallerError> {
        let (title, address) = match text.split_once('@') {
            Some((title, address)) => (title, Some(address.parse().map_err(|_| CallerError)?)),
            None => (text, None),
        };
        if !is_title(title) {
            return Err(CallerError);
        }
        Ok(Self {
            title: title.to_owned(),
            address,
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}@{address}", self.title),
            None => f.write_str(&self.title),
        }
    }
}

/// What one connection may do.
pub(super) struct Entrance<'a> {
    settings: &'a Settings,
    address: IpAddr,
    is_full: bool,
}

impl<'a> Entrance<'a> {
    pub(super) fn new(settings: &'a Settings, address: IpAddr) -> Self {
        Self {
            settings,
            // A listener on [::] sees IPv4 callers with mapped addresses.
            address: address.to_canonical(),
            is_full: false,
        }
    }

    /// There is no place.
    pub(super) fn full(settings: &'a Settings, address: IpAddr) -> Self {
        Self {
            is_full: true,
            ..Self::new(settings, address)
        }
    }
}

impl Rules for Entrance<'_> {
    fn admit(&self, calling: &str, called: &str) -> Result<(), Rejection> {
        if self.is_full {
            return Err(Rejection::LimitReached);
        }
        if called != self.settings.title {
            return Err(Rejection::CalledTitle);
        }
        let allowed = &self.settings.allowed;
        let may_call = |caller: &Caller| {
            caller.title == calling && caller.address.is_none_or(|address| address == self.address)
        };
        if calling.is_empty() || !allowed.is_empty() && !allowed.iter().any(may_call) {
            return Err(Rejection::CallingTitle);
        }
        Ok(())
    }

    fn answer<'s>(
        &self,
        abstract_syntax: &str,
        transfer_syntaxes: &'s [String],
        peer_provides: bool,
    ) -> Answer<'s> {
        let chosen = match abstract_syntax {
            syntax::VERIFICATION | syntax::STORAGE_COMMITMENT => {
                syntax::choose_for_messages(transfer_syntaxes)
            }
            class
                if [syntax::FIND, syntax::MOVE, syntax::GET]
                    .as_flattened()
                    .contains(&class) =>
            {
                syntax::choose_for_messages(transfer_syntaxes)
            }
            class if syntax::is_storage(class) && peer_provides => {
                syntax::choose_for_retrieval(transfer_syntaxes)
            }
            class if syntax::is_storage(class) => syntax::choose_for_storage(transfer_syntaxes),
            _ => return Answer::AbstractSyntax,
        };
        chosen.map_or(Answer::TransferSyntaxes, Answer::Take)
    }

    fn peer_may_provide(&self, abstract_syntax: &str) -> bool {
        // Who answers a request of ours for storage commitment is its SCP.
        syntax::is_storage(abstract_syntax) || abstract_syntax == syntax::STORAGE_COMMITMENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allowed: &[&str]) -> Settings {
        Settings {
            title: "ICTUS".to_owned(),
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            associations: 1,
            peers: Vec::new(),
            tls: None,
            timeouts: crate::association::Timeouts::default(),
        }
    }

    #[test]
    fn lets_in_whom_the_list_names_from_where_it_says() {
        let settings = settings(&["CT1", "PACS@10.0.0.5"]);
        let from = |address: &str| Entrance::new(&settings, address.parse().unwrap());
        assert_eq!(from("10.0.0.9").admit("CT1", "ICTUS"), Ok(()));
        assert_eq!(from("10.0.0.5").admit("PACS", "ICTUS"), Ok(()));
        assert_eq!(from("::ffff:10.0.0.5").admit("PACS", "ICTUS"), Ok(()));
        assert_eq!(
            from("10.0.0.9").admit("PACS", "ICTUS"),
            Err(Rejection::CallingTitle)
        );
        assert_eq!(
            from("10.0.0.9").admit("ct1", "ICTUS"),
            Err(Rejection::CallingTitle)
        );
        assert_eq!(
            from("10.0.0.9").admit("CT1", "OTHER"),
            Err(Rejection::CalledTitle)
        );
    }

    #[test]
    fn lets_in_everybody_without_a_list_but_nobody_without_a_name() {
        let settings = settings(&[]);
        let entrance = Entrance::new(&settings, [127, 0, 0, 1].into());
        assert_eq!(entrance.admit("ANY", "ICTUS"), Ok(()));
        assert_eq!(entrance.admit("", "ICTUS"), Err(Rejection::CallingTitle));
    }

    #[test]
    fn listens_beyond_loopback_only_with_a_list() {
        let anywhere = "0.0.0.0:11112".parse().unwrap();
        assert!(settings(&[]).check(anywhere).is_err());
        assert!(settings(&["CT1"]).check(anywhere).is_ok());
        assert!(settings(&[]).check("127.0.0.1:11112".parse().unwrap()).is_ok());
    }

    #[test]
    fn reads_callers_and_refuses_what_is_none() {
        assert_eq!("CT1".parse::<Caller>().unwrap().to_string(), "CT1");
        assert_eq!("CT1@::1".parse::<Caller>().unwrap().to_string(), "CT1@::1");
        for text in ["", "@10.0.0.1", "CT1@host.example", "A\\B"] {
            assert!(text.parse::<Caller>().is_err(), "{text}");
        }
    }
}
