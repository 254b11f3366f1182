//! What differs from what the cloud has: phone by phone while they are listed, and those that a whole listing has not
//! shown.

use causeway_protocol::mobile::{DeviceRecord, access};
use causeway_protocol::record::Kind;
use uuid::Uuid;

use super::{Listing, hash_of};
use crate::modules::exchange::error::MailError;
use crate::modules::exchange::limits;
use crate::modules::exchange::mapping::{self, Mailbox, Phone, Statistics};
use crate::modules::exchange::output::{delete, upsert};
use crate::modules::exchange::state::{Need, Row, Work, put_work};

impl Listing<'_> {
    /// Compares phones with what the cloud has.
    pub(super) async fn compare(
        &mut self,
        phones: Vec<(Phone, Option<Mailbox>, Option<Statistics>)>,
    ) -> Result<(), MailError> {
        let settings = &self.runner.settings;
        let in_scope = |mailbox: &Option<Mailbox>| match mailbox {
            Some(mailbox) => self.runner.holds(mailbox),
            None => settings.scope.is_all() || !settings.scope.organizational_units.is_empty(),
        };
        let mut page = Vec::with_capacity(phones.len());
        for (phone, mailbox, statistics) in phones {
            if in_scope(&mailbox) && self.seen.insert(*phone.key.as_bytes()) {
                page.push((phone.key, phone.of(mailbox.as_ref()), statistics));
            }
        }
        let keys: Vec<Uuid> = page.iter().map(|(key, ..)| *key).collect();
        let rows = self.store.rows(&keys).await?;
        for ((key, record, statistics), row) in page.into_iter().zip(rows) {
            self.look_for_approval(&record);
            match statistics {
                Some(statistics) => self.whole(key, record, statistics, row).await?,
                None => self.one(key, record, row).await?,
            }
        }
        self.flush_work(false).await
    }

    /// A phone that came with its statistics.
    async fn whole(
        &mut self,
        key: Uuid,
        mut record: DeviceRecord,
        statistics: Statistics,
        row: Option<Row>,
    ) -> Result<(), MailError> {
        let listed = hash_of(&record);
        statistics.fill(&mut record);
        let same = row.as_ref().is_some_and(|row| row.sent == hash_of(&record) && row.missing_ms == 0);
        if !same || self.is_snapshot() {
            let sent = upsert(&mut self.output, Kind::Device, key.to_string(), &record).await?;
            let row = Row { listed, sent, read_ms: self.now_ms, missing_ms: 0, statistics };
            self.rows.push((key, Some(row)));
        }
        Ok(())
    }

    async fn one(&mut self, key: Uuid, record: DeviceRecord, row: Option<Row>) -> Result<(), MailError> {
        let listed = hash_of(&record);
        let changed = row.as_ref().is_none_or(|row| row.listed != listed);
        let reads = self.runner.reads_statistics();
        let old_ms = i64::try_from(self.runner.settings.statistics_every_secs * 1_000).unwrap_or(i64::MAX);
        let stale = row.as_ref().is_some_and(|row| self.task.full || self.now_ms - row.read_ms >= old_ms);
        let may_wait =
            reads && !self.is_snapshot() && self.held < limits::CHANGES_HELD && !self.output.is_dry();
        if reads && (changed || (stale && (self.task.full || self.stale < limits::STALE_PER_LISTING))) {
            let need = if changed { Need::Changed } else { Need::Stale };
            put_work(&mut self.work, need, key, &Work { record: record.clone(), listed });
            self.stale += u64::from(!changed);
        }
        let back = row.as_ref().is_some_and(|row| row.missing_ms != 0);
        if (changed && !(may_wait && self.runner.is_reading_well())) || self.is_snapshot() {
            let statistics = row.as_ref().map(|row| row.statistics.clone()).unwrap_or_default();
            let mut record = record;
            statistics.fill(&mut record);
            let sent = upsert(&mut self.output, Kind::Device, key.to_string(), &record).await?;
            let read_ms = row.map_or(0, |row| row.read_ms);
            self.rows.push((key, Some(Row { listed, sent, read_ms, missing_ms: 0, statistics })));
        } else if changed {
            self.held += 1;
        } else if let Some(row) = row.filter(|_| back) {
            self.rows.push((key, Some(Row { missing_ms: 0, ..row })));
        }
        Ok(())
    }

    fn look_for_approval(&mut self, record: &DeviceRecord) {
        let waits = [access::QUARANTINED, access::DISCOVERY].contains(&record.access_state.as_str());
        if waits
            && self.runner.settings.auto_approve_enrolled
            && self.found.to_approve.len() < limits::APPROVALS_PER_LISTING
            && self.runner.is_enrolled(record)
        {
            self.found.to_approve.push((record.mailbox.clone(), record.clone()));
        }
    }

    pub(super) async fn flush_work(&mut self, all: bool) -> Result<(), MailError> {
        let due = self.work.len() >= limits::OPS_PER_COMMIT || all;
        let work = if due { std::mem::take(&mut self.work) } else { return Ok(()) };
        if self.task.dry { Ok(()) } else { self.store.commit(work).await }
    }

    /// Phones the cloud has that a whole listing has not shown.
    pub(super) async fn sweep(&mut self) -> Result<(), MailError> {
        let hold_ms = i64::try_from(self.runner.settings.deletion_hold_secs * 1_000).unwrap_or(i64::MAX);
        let (mut known, mut deletions, mut last) = (0, 0, None);
        loop {
            let page = self.store.rows_after(last).await?;
            let Some((key, _)) = page.last() else { break };
            last = Some(*key);
            known += page.len() as u64;
            for (key, row) in page {
                if self.seen.contains(key.as_bytes()) {
                    self.look_for_idle(key, &row);
                } else if self.is_snapshot() {
                    self.rows.push((key, None));
                } else if self.now_ms - row.missing_ms < hold_ms && row.missing_ms != 0 {
                    self.output.count("missing", 1);
                } else if hold_ms > 0 && row.missing_ms == 0 {
                    self.output.count("missing", 1);
                    self.rows.push((key, Some(Row { missing_ms: self.now_ms, ..row })));
                } else {
                    deletions += 1;
                    delete(&mut self.output, Kind::Device, key.to_string()).await?;
                    self.rows.push((key, None));
                }
            }
        }
        let guard = self.runner.settings.guard;
        let allowed = guard.deletions_max.max(known * guard.percent_max / 100);
        // A dry run is how a person looks at what is held back.
        if deletions > allowed && !self.task.confirmed && !self.task.dry {
            return Err(MailError::Held { deletions, known, allowed });
        }
        Ok(())
    }

    fn look_for_idle(&mut self, key: Uuid, row: &Row) {
        let idle = &self.runner.settings.idle_removal;
        let before_ms = self.now_ms - i64::from(idle.after_days) * 86_400_000;
        let seen_ms = row.statistics.last_seen().and_then(mapping::unix_ms);
        let old = seen_ms.is_some_and(|seen_ms| seen_ms < before_ms);
        if idle.enabled && old && self.found.idle.len() < idle.removals_max as usize {
            self.found.idle.push(key);
        }
    }
}
