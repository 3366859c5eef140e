//! Who hears of workitems: of one, of all, or of those that match.
//!
//! Source: PS3.4 section CC.2.3; PS3.18 sections 11.10 to 11.12.

use super::{Desk, FILTERED_WORKLIST, NO_WORKITEM, WORKLIST, WorkitemError, report};
use crate::{
    db::{Tx, qido::Other, workitem as rows},
    domain::uid::Uid,
};
use serde_json::json;

const NO_SUBSCRIPTION: WorkitemError = WorkitemError::Unknown("there is no such subscription");

/// Who is subscribed, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// One workitem.
    Workitem(Uid),
    /// Every one.
    Worklist,
    /// Those that match keys.
    Filtered,
}

impl Watched {
    /// By the UID of a path.
    #[must_use]
    pub fn of(uid: Uid) -> Self {
        match uid.as_str() {
            WORKLIST => Self::Worklist,
            FILTERED_WORKLIST => Self::Filtered,
            _ => Self::Workitem(uid),
        }
    }

    fn uid(&self) -> &str {
        match self {
            Self::Workitem(uid) => uid.as_str(),
            Self::Worklist => WORKLIST,
            Self::Filtered => FILTERED_WORKLIST,
        }
    }
}

impl Desk<'_> {
    /// Subscribes a title; `keys` are those of a filtered worklist.
    ///
    /// # Errors
    /// When there is no such workitem, or the database fails.
    pub async fn subscribe(
        &self,
        watched: &Watched,
        title: &str,
        keys: &[Other],
        deletion_lock: bool,
    ) -> Result<(), WorkitemError> {
        let mut tx = self.db.begin().await?;
        let (mut studies, mut initial) = (Vec::new(), Vec::new());
        match watched {
            Watched::Workitem(uid) => {
                let workitem = rows::lock(&mut tx, uid.as_str()).await?.ok_or(NO_WORKITEM)?;
                rows::subscribe(&mut tx, uid.as_str(), title, deletion_lock).await?;
                initial.push(report::state(uid.as_str(), &workitem.attributes));
                studies = workitem.studies;
            }
            Watched::Worklist | Watched::Filtered => {
                let keys = (*watched == Watched::Filtered).then_some(keys);
                let added = rows::subscribe_worklist(&mut tx, title, keys, deletion_lock).await?;
                // Only who locks is told of what is there already (PS3.4 table CC.2.3-2).
                for uid in added.iter().filter(|_| deletion_lock) {
                    if let Some(workitem) = rows::lock(&mut tx, uid).await? {
                        initial.push(report::state(uid, &workitem.attributes));
                    }
                }
            }
        }
        rows::file_events(&mut tx, &[title.to_owned()], &initial).await?;
        let detail =
            json!({ "workitem": watched.uid(), "subscriber": title, "deletion_lock": deletion_lock });
        self.finish(tx, "subscribe", &studies, detail).await
    }

    /// Ends a subscription; that to the worklist takes those to every workitem with it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unsubscribe(&self, watched: &Watched, title: &str) -> Result<(), WorkitemError> {
        let mut tx = self.db.begin().await?;
        let there = match watched {
            Watched::Workitem(uid) => rows::unsubscribe(&mut tx, uid.as_str(), title).await?,
            Watched::Worklist | Watched::Filtered => {
                let there = rows::suspend(&mut tx, title, *watched == Watched::Filtered).await?;
                if there {
                    rows::unsubscribe_all(&mut tx, title).await?;
                }
                there
            }
        };
        self.unsubscribed(tx, there, "unsubscribe", watched, title).await
    }

    /// Ends the subscription to new workitems, and leaves those to single ones.
    ///
    /// # Errors
    /// When there is none.
    pub async fn suspend(&self, watched: &Watched, title: &str) -> Result<(), WorkitemError> {
        if matches!(watched, Watched::Workitem(_)) {
            return Err(WorkitemError::Invalid(format!(
                "only a subscription to {WORKLIST} or {FILTERED_WORKLIST} is suspended"
            )));
        }
        let mut tx = self.db.begin().await?;
        let there = rows::suspend(&mut tx, title, *watched == Watched::Filtered).await?;
        self.unsubscribed(tx, there, "suspend_subscription", watched, title)
            .await
    }

    async fn unsubscribed(
        &self,
        tx: Tx,
        there: bool,
        act: &'static str,
        watched: &Watched,
        title: &str,
    ) -> Result<(), WorkitemError> {
        if !there {
            return Err(NO_SUBSCRIPTION);
        }
        let detail = json!({ "workitem": watched.uid(), "subscriber": title });
        self.finish(tx, act, &[], detail).await
    }
}
