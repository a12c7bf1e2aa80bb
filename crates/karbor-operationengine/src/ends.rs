//! The ends of runs, written down together: while the ends of some are written, those that end meanwhile gather, and the
//! next transaction is about all of these. One at a time, each would wait for the disk behind all that ended before it.

use std::sync::{Arc, Mutex};

use karbor_db::{DbError, RunOutcome, ScheduleStore, ScheduledRun};
use tokio::sync::oneshot;

use crate::engine::lock;

/// So many are written in one transaction at most.
const TOGETHER: usize = 500;

/// What became of an end: `false`, the run is not this engine's any more.
type Answer = Result<bool, Arc<DbError>>;

struct Waiting {
    run: ScheduledRun,
    outcome: RunOutcome,
    answer: oneshot::Sender<Answer>,
}

/// The ends of one engine's runs.
pub(crate) struct Ends {
    schedules: ScheduleStore,
    /// The engine's name.
    owner: String,
    /// How many ended runs of an operation are remembered.
    keep: u64,
    waiting: Mutex<Vec<Waiting>>,
    writing: tokio::sync::Mutex<()>,
}

impl Ends {
    pub(crate) fn new(schedules: ScheduleStore, owner: String, keep: u64) -> Self {
        Self {
            schedules,
            owner,
            keep,
            waiting: Mutex::new(Vec::new()),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    /// Writes down how a run ended; says whether it still was this engine's.
    ///
    /// # Errors
    /// [`DbError`]: it is not written, or nobody knows whether it is. It may be written again.
    pub(crate) async fn write(&self, run: &ScheduledRun, outcome: RunOutcome) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        lock(&self.waiting).push(Waiting {
            run: run.clone(),
            outcome,
            answer,
        });
        let _turn = tokio::select! {
            biased;
            answer = &mut answered => return answer.unwrap_or_else(|_| given_up()),
            turn = self.writing.lock() => turn,
        };
        loop {
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Closed) => return given_up(),
                Err(oneshot::error::TryRecvError::Empty) => self.write_some().await,
            }
        }
    }

    /// Writes those that wait longest.
    async fn write_some(&self) {
        let some: Vec<_> = {
            let mut waiting = lock(&self.waiting);
            let count = waiting.len().min(TOGETHER);
            waiting.drain(..count).collect()
        };
        let (ends, answers): (Vec<_>, Vec<_>) = some
            .into_iter()
            .map(|end| ((end.run, end.outcome), end.answer))
            .unzip();
        let mut told = self.write_together(&ends).await;
        if ends.len() > 1
            && told
                .iter()
                .any(|answer| matches!(answer, Err(error) if !error.is_retryable()))
        {
            // What keeps one from being written keeps no other.
            told.clear();
            for end in &ends {
                told.extend(self.write_together(std::slice::from_ref(end)).await);
            }
        }
        for (told, answer) in told.into_iter().zip(answers) {
            // A run that does not wait for its answer any more was stopped: another engine ends it.
            let _ = answer.send(told);
        }
    }

    async fn write_together(&self, ends: &[(ScheduledRun, RunOutcome)]) -> Vec<Answer> {
        match self.schedules.runs_end(ends, &self.owner, self.keep).await {
            Ok(ended) => {
                let was_ours = ends.iter().map(|(run, _)| Ok(ended.contains(&run.id)));
                was_ours.collect()
            }
            Err(error) => vec![Err(Arc::new(error)); ends.len()],
        }
    }
}

fn given_up() -> Answer {
    let message = "The run that wrote the ends of others was stopped.";
    Err(Arc::new(DbError::Internal(message.to_owned())))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use futures::future::join_all;
    use karbor_db::Db;
    use karbor_model::{OperationId, ScheduledOperationId};
    use tempfile::TempDir;

    use super::*;

    async fn ends() -> (TempDir, Ends) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("karbor.db")).await.unwrap();
        db.migrate().await.unwrap();
        (dir, Ends::new(db.schedules(), "host/1".to_owned(), 5))
    }

    fn run() -> ScheduledRun {
        let now = Utc::now();
        ScheduledRun {
            id: OperationId::new(),
            operation_id: ScheduledOperationId::new(),
            due_at: now,
            run_before: now,
            triggered_at: now,
            started_at: None,
            checkpoint_id: None,
        }
    }

    #[tokio::test]
    async fn each_of_many_that_end_at_once_has_its_answer() {
        let (_dir, ends) = ends().await;
        let runs: Vec<_> = (0..3 * TOGETHER).map(|_| run()).collect();
        let answers = runs.iter().map(|run| ends.write(run, RunOutcome::Success));
        for answer in join_all(answers).await {
            assert!(!answer.unwrap(), "nobody's run");
        }
        assert!(lock(&ends.waiting).is_empty());
    }

    #[tokio::test]
    async fn a_run_whose_end_another_was_writing_when_it_was_stopped_hears_of_it() {
        let (_dir, ends) = ends().await;
        let (first, second, third) = (run(), run(), run());
        let mut one = Box::pin(ends.write(&first, RunOutcome::Success));
        let mut two = Box::pin(ends.write(&second, RunOutcome::Success));
        let mut three = Box::pin(ends.write(&third, RunOutcome::Success));
        for writer in [&mut one, &mut two, &mut three] {
            assert!(futures::poll!(writer).is_pending());
        }
        drop(one);
        // Writes for both.
        assert!(futures::poll!(&mut two).is_pending());
        drop(two);
        three.await.unwrap_err();
        assert!(!ends.write(&third, RunOutcome::Success).await.unwrap());
    }
}
