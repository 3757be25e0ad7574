//! Steps that several jobs need and one of them does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::{Error, Result};

type Cell<T> = Arc<OnceCell<std::result::Result<T, Arc<Error>>>>;

/// Runs the step of each key once per pass; everybody who asks for it awaits the same outcome.
#[derive(Debug)]
pub(super) struct Shared<K, T> {
    cells: Mutex<HashMap<K, Cell<T>>>,
}

impl<K: Eq + Hash, T: Clone> Shared<K, T> {
    pub(super) fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// The outcome of the step of `key`, which `step` performs if nobody has yet.
    pub(super) async fn once(&self, key: K, step: impl Future<Output = Result<T>>) -> Result<T> {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(key).or_default())
        };
        match cell.get_or_init(|| async { step.await.map_err(Arc::new) }).await {
            Ok(value) => Ok(value.clone()),
            Err(error) => Err(error.copy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_step_runs_once_and_everybody_gets_its_outcome() {
        let shared = Shared::new();
        let runs = AtomicUsize::new(0);
        let step = || async {
            runs.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(7)
        };
        let (a, b) = tokio::join!(shared.once("store", step()), shared.once("store", step()));
        assert_eq!((a.unwrap(), b.unwrap(), runs.load(Ordering::SeqCst)), (7, 7, 1));
    }

    #[tokio::test]
    async fn its_failure_reaches_everybody_with_kind_and_cause() {
        let shared: Shared<&str, ()> = Shared::new();
        let fail = || async { Err(Error::new(ErrorKind::Denied, "refused").subject("store").source("wrong password")) };
        shared.once("store", fail()).await.unwrap_err();
        let second = shared.once("store", fail()).await.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Denied);
        assert_eq!(second.one_line(), "store: refused: wrong password");
    }
}
